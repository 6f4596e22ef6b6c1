//! What the shop consists of.
//!
//! Constants only: services, routes, browsers and metrics. The metrics cover every OTLP kind; all but one are made to be
//! folded (their bill is pods, once also times browsers).

/// A service of the shop.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// `service.name`.
    pub name: &'static str,
    /// `telemetry.sdk.language`.
    pub language: &'static str,
    /// Routes it serves, with their method.
    pub routes: &'static [(&'static str, &'static str)],
    /// How busy it is: requests per second and pod.
    pub requests_per_second: f64,
}

/// The eight services.
pub const SERVICES: [Service; 8] = [
    Service {
        name: "frontend",
        language: "nodejs",
        routes: &[
            ("GET", "/"),
            ("GET", "/product/{id}"),
            ("GET", "/search"),
            ("GET", "/cart"),
            ("POST", "/login"),
        ],
        requests_per_second: 90.0,
    },
    Service {
        name: "cart",
        language: "dotnet",
        routes: &[
            ("GET", "/cart/{user}"),
            ("POST", "/cart/{user}/items"),
            ("DELETE", "/cart/{user}/items/{id}"),
        ],
        requests_per_second: 40.0,
    },
    Service {
        name: "checkout",
        language: "go",
        routes: &[("POST", "/checkout"), ("GET", "/checkout/{order}")],
        requests_per_second: 12.0,
    },
    Service { name: "payment", language: "java", routes: &[("POST", "/charge")], requests_per_second: 10.0 },
    Service {
        name: "catalog",
        language: "go",
        routes: &[("GET", "/products"), ("GET", "/products/{id}"), ("GET", "/products/{id}/reviews")],
        requests_per_second: 70.0,
    },
    Service {
        name: "recommendation",
        language: "python",
        routes: &[("GET", "/recommendations/{user}")],
        requests_per_second: 30.0,
    },
    Service {
        name: "shipping",
        language: "rust",
        routes: &[("POST", "/quote"), ("GET", "/track/{parcel}")],
        requests_per_second: 8.0,
    },
    Service { name: "ads", language: "java", routes: &[("GET", "/ads")], requests_per_second: 35.0 },
];

/// Status codes by falling frequency.
pub const STATUSES: [i64; 5] = [200, 304, 404, 500, 503];

/// The label nobody queries: browsers by falling frequency.
pub const USER_AGENTS: [&str; 16] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/138.0.0.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5) Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15) Chrome/138.0.0.0 Mobile",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Edg/138.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Firefox/140.0",
    "Mozilla/5.0 (iPad; CPU OS 18_5) Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; SM-S928B) SamsungBrowser/28.0",
    "ShopApp/7.12.1 (iOS 18.5)",
    "ShopApp/7.12.0 (Android 15)",
    "Mozilla/5.0 (compatible; Googlebot/2.1)",
    "Mozilla/5.0 (compatible; bingbot/2.0)",
    "curl/8.14.1",
    "okhttp/4.12.0",
    "Größenprüfer/1.0 (ümläut ✓)",
];

/// Product categories.
pub const CATEGORIES: [&str; 8] = ["books", "garden", "games", "kitchen", "music", "sport", "tools", "toys"];
/// Currencies.
pub const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "JPY"];
/// Ways to pay.
pub const PAYMENTS: [&str; 3] = ["card", "invoice", "wallet"];

/// The kind of a metric of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Cumulative monotonic sum of integers.
    CumulativeInt,
    /// Cumulative monotonic sum of doubles.
    CumulativeDouble,
    /// Delta sum of integers.
    DeltaInt,
    /// Delta sum of doubles.
    DeltaDouble,
    /// Cumulative sum that may fall.
    UpDown,
    /// Gauge.
    Gauge,
    /// Explicit histogram, cumulative.
    Histogram,
    /// Explicit histogram, delta.
    HistogramDelta,
    /// Exponential histogram, cumulative.
    ExponentialHistogram,
    /// Summary, cumulative.
    Summary,
}

impl Shape {
    /// Whether a stream stands at what it has counted since it began; else each export stands for itself.
    pub fn is_cumulative(self) -> bool {
        use Shape::{CumulativeDouble, CumulativeInt, ExponentialHistogram, Histogram, Summary};
        matches!(self, CumulativeInt | CumulativeDouble | Histogram | ExponentialHistogram | Summary)
    }
}

/// A metric of the shop.
#[derive(Clone, Copy, Debug)]
pub struct MetricSpec {
    /// Name.
    pub name: &'static str,
    /// Unit (UCUM).
    pub unit: &'static str,
    /// Kind.
    pub shape: Shape,
}

const fn metric(name: &'static str, unit: &'static str, shape: Shape) -> MetricSpec {
    MetricSpec { name, unit, shape }
}

/// All metrics, in the order of every table.
pub const METRICS: [MetricSpec; 12] = [
    metric("http_requests", "{request}", Shape::CumulativeInt),
    metric("http_response_bytes", "By", Shape::CumulativeInt),
    metric("process_cpu_seconds", "s", Shape::CumulativeDouble),
    metric("cart_items", "{item}", Shape::DeltaInt),
    metric("order_revenue", "{currency}", Shape::DeltaDouble),
    metric("audit_events", "{event}", Shape::CumulativeInt),
    metric("http_active_requests", "{request}", Shape::UpDown),
    metric("process_memory", "By", Shape::Gauge),
    metric("http_request_duration", "s", Shape::Histogram),
    metric("db_query_duration", "s", Shape::HistogramDelta),
    metric("rpc_latency", "s", Shape::ExponentialHistogram),
    metric("gc_pause", "s", Shape::Summary),
];

/// Resource attributes that the shop's backend stores with each series.
pub const PROMOTED: [&str; 6] = [
    "service.name",
    "service.namespace",
    "service.version",
    "service.instance.id",
    "deployment.environment.name",
    "k8s.pod.name",
];
