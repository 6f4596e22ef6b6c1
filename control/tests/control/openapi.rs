//! What the server says of itself is what it serves: every route, every role, every answer.
//!
//! The document is the guide: each of its routes is asked with no credentials, with each role, with good and with wrong parameters, and every answer must be one that the document
//! names, and as its schema says. That nothing is served beside it is shown from the source: routes are added in one place.

use super::host::{Control, audit, now_ns, stage, streams};
use crate::tools::report;
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROLES: [&str; 4] = ["viewer", "approver", "admin", "embedder"];

fn with_roles(folder: &Path) -> Control {
    let lines = ROLES.map(|role| {
        let digest: String = Sha256::digest(role).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("- {{ name: the {role}, role: {role}, token_sha256: {digest} }}\n")
    });
    fs::write(folder.join("access.yaml"), format!("access:\n{}", lines.concat())).unwrap();
    Control::start(folder, &["--access", folder.join("access.yaml").to_str().unwrap()])
}

/// The document, and who asks.
struct Guide<'c> {
    control: &'c Control,
    document: Value,
}

impl Guide<'_> {
    /// Asks as a role, and checks the answer against the document.
    fn asks(&self, role: &str, method: &str, route: &str, path: &str, body: &Body) -> u16 {
        let bearer = format!("Bearer {role}");
        let mut head: Vec<(&str, &str)> = body.of_type.map(|it| ("content-type", it)).into_iter().collect();
        if !role.is_empty() {
            head.push(("authorization", &bearer));
        }
        let (status, of_type, answer) = self.control.answer(method, path, &head, &body.bytes);
        let what = format!("{method} {path} as {role:?}: {status} {}", String::from_utf8_lossy(&answer));
        let named = &self.document["paths"][route][method.to_lowercase()]["responses"][status.to_string()];
        assert!(named.is_object(), "the document does not name this answer: {what}");
        match named["content"].as_object().and_then(|it| it.iter().next()) {
            None => assert!(answer.is_empty(), "{what}"),
            Some((wanted, content)) => {
                assert_eq!(of_type.split(';').next().unwrap(), wanted, "{what}");
                if wanted == "application/json" {
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    if content["schema"].is_object() {
                        self.fits(&content["schema"], &answer, &what);
                    }
                }
            }
        }
        status
    }

    fn fits(&self, schema: &Value, answer: &Value, what: &str) {
        let mut whole = json!({"components": self.document["components"], "allOf": [schema]});
        strict(&mut whole);
        let validator = jsonschema::validator_for(&whole).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(answer).map(|it| format!("{}: {it}", it.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}\n{what}");
    }
}

/// A field that no schema names is an error here: else a document that names none would fit every answer.
fn strict(schema: &mut Value) {
    if let Value::Object(it) = schema {
        let is_whole = !["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| it.contains_key(*key));
        if it.get("properties").is_some_and(Value::is_object)
            && is_whole
            && it.get("type") == Some(&json!("object"))
        {
            it.entry("additionalProperties").or_insert(json!(false));
        }
        it.values_mut().for_each(strict);
    } else if let Value::Array(of) = schema {
        of.iter_mut().for_each(strict);
    }
}

/// A body to send.
struct Body {
    of_type: Option<&'static str>,
    bytes: Vec<u8>,
}

const PROTOBUF: Option<&str> = Some("application/x-protobuf");
const JSON: Option<&str> = Some("application/json");

fn nothing() -> Body {
    Body { of_type: None, bytes: Vec::new() }
}

/// Every operation: method, route, roles that may.
fn operations(document: &Value) -> Vec<(String, String, Vec<String>)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of = |(path, methods): (&String, &Value)| -> Vec<_> {
        let methods = methods.as_object().unwrap().iter();
        methods
            .map(|(method, it)| {
                let roles =
                    it["x-roles"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
                (method.to_uppercase(), path.clone(), roles.collect())
            })
            .collect()
    };
    paths.flat_map(of).collect()
}

/// A path that is asked for in the place of a route.
fn asked(route: &str) -> String {
    route.replace("{id}", "shop%2Fx%3Duser").replace("{name}", "requests")
}

#[test]
fn every_route_asks_for_its_right() {
    let (folder, _) = stage("observe");
    let control = with_roles(folder.path());
    let head = [("authorization", "Bearer viewer")];
    let (status, document) = control.call("GET", "/api/v1/openapi.json", &head, b"");
    assert_eq!(status, 200, "{document}");
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let guide = Guide { control: &control, document };
    let all = operations(&guide.document);
    let is_open = |method: &str, route: &str| {
        let security = &guide.document["paths"][route][method.to_lowercase()]["security"];
        security.as_array().unwrap().is_empty()
    };
    let anybody: Vec<&str> = all
        .iter()
        .filter(|(method, route, _)| is_open(method, route))
        .map(|(_, route, _)| route.as_str())
        .collect();
    assert_eq!(anybody, ["/healthz", "/readyz"], "nothing else is for anybody");
    let mut walked = 0;
    for (method, route, roles) in &all {
        let path = asked(route);
        if anybody.contains(&route.as_str()) {
            continue;
        }
        for stranger in ["", "guessed"] {
            assert_eq!(guide.asks(stranger, method, route, &path, &nothing()), 401, "{method} {route}");
        }
        for role in ROLES {
            let status = guide.asks(role, method, route, &path, &nothing());
            let may = roles.iter().any(|it| it == role);
            assert_eq!(status != 403, may, "{method} {route} as {role}: {status}");
            walked += 1;
        }
    }
    assert!(walked >= 4 * 14, "{walked}");
    let (_, log) = audit(folder.path());
    assert!(log.contains("\"subject\":\"GET /api/v1/backup\""), "{log}");

    // What is not in the document is not there.
    for (method, path, wanted) in [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/", 404),
        ("DELETE", "/api/v1/status", 405),
        ("GET", "/v1/reports", 405),
    ] {
        let (status, answer) = control.call(method, path, &head, b"");
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        assert!(answer.contains("allowed: those of /api/v1/openapi.json"), "{answer}");
    }
}

#[test]
fn every_answer_is_as_its_schema_says() {
    let (folder, policy) = stage("recommend");
    let control = with_roles(folder.path());
    let head = [("authorization", "Bearer viewer")];
    let document: Value =
        serde_json::from_str(&control.call("GET", "/api/v1/openapi.json", &head, b"").1).unwrap();
    let guide = Guide { control: &control, document };
    let good = report("gateway-a@1", 0, 1, now_ns(), &policy, &streams()).encode_to_vec();
    let protobuf = |bytes: &[u8]| Body { of_type: PROTOBUF, bytes: bytes.to_vec() };
    let sent = |text: &str| Body { of_type: JSON, bytes: text.as_bytes().to_vec() };
    let report = |body: &Body| guide.asks("embedder", "POST", "/v1/reports", "/v1/reports", body);
    let polled = |query: &str| {
        let path = format!("/v1/plan?{query}");
        guide.asks("embedder", "GET", "/v1/plan", &path, &nothing())
    };
    assert_eq!(report(&protobuf(&good)), 202);
    assert_eq!(report(&protobuf(b"\xff")), 400);
    assert_eq!(report(&protobuf(&vec![0; 5 << 20])), 413);
    assert_eq!(report(&sent("{}")), 415);
    let waiting = loop {
        let (_, status) = control.call("GET", "/api/v1/status", &head, b"");
        let status: Value = serde_json::from_str(&status).unwrap();
        let waiting = status["waiting"].as_array().unwrap();
        if let Some(id) = waiting.iter().filter_map(Value::as_str).find(|it| it.starts_with("shop/")) {
            break id.replace('/', "%2F").replace('=', "%3D");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(polled("node=gateway-a"), 200);
    assert_eq!(polled("nobody=x"), 400);
    assert_eq!(polled("node=gateway-a&wait=100"), 400);
    let mut seen: BTreeSet<(String, String)> =
        [("POST", "/v1/reports"), ("GET", "/v1/plan")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let mut is = |method: &str, route: &str, path: &str, body: Body, wanted: u16| {
        seen.insert((method.to_owned(), route.to_owned()));
        assert_eq!(guide.asks("admin", method, route, path, &body), wanted, "{method} {path}");
    };
    for (route, query, wanted) in [
        ("/api/v1/openapi.json", "", 200),
        ("/api/v1/status", "", 200),
        ("/api/v1/decisions", "?limit=10", 200),
        ("/api/v1/decisions", "?limit=0", 400),
        ("/api/v1/decisions", "?limit=x", 400),
        ("/api/v1/decisions", "?lim=1", 400),
        ("/api/v1/estimates", "", 200),
        ("/api/v1/budget", "", 200),
        ("/api/v1/budget", "?tenant=shop", 200),
        ("/api/v1/budget", "?tenant=nobody", 404),
        ("/api/v1/budget", "?x=y", 400),
        ("/api/v1/plan", "", 200),
        ("/api/v1/plan", "?node=gateway-a", 200),
        ("/api/v1/plan", "?nod=x", 400),
        ("/api/v1/plan/diff", "", 200),
        ("/api/v1/plan/diff", "?of=in_force&node=gateway-a", 200),
        ("/api/v1/plan/diff", "?of=what", 400),
        ("/api/v1/plan/diff", "?node=nobody", 404),
        ("/api/v1/backup", "", 200),
        ("/metrics", "", 200),
        ("/healthz", "", 200),
        ("/readyz", "", 200),
    ] {
        is("GET", route, &format!("{route}{query}"), nothing(), wanted);
    }
    let metric = "/api/v1/metrics/{name}";
    is("GET", metric, "/api/v1/metrics/requests", nothing(), 200);
    is("GET", metric, "/api/v1/metrics/nothing", nothing(), 404);
    let approve = "/api/v1/decisions/{id}/approve";
    is("POST", approve, "/api/v1/decisions/x/approve", nothing(), 404);
    is("POST", approve, &format!("/api/v1/decisions/{waiting}/approve"), nothing(), 202);
    let plan = |what: &str| format!("/api/v1/plan/{what}");
    is("POST", &plan("release"), &plan("release"), nothing(), 409);
    let begin = std::time::Instant::now();
    loop {
        assert!(begin.elapsed() < super::host::PATIENCE, "it is never taken back");
        // The fold that was approved is taken back, budget or not; before it is in force there is nothing to take back.
        let path = plan("rollback");
        let status = guide.asks("admin", "POST", &path, &path, &sent("{\"to\": 0, \"force\": true}"));
        if status == 202 {
            break;
        }
        assert!(status == 409 || status == 400, "{status}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    is("POST", &plan("rollback"), &plan("rollback"), sent("{}"), 409);
    is("POST", &plan("rollback"), &plan("rollback"), sent("{\"x\": 1}"), 400);
    is("GET", "/api/v1/status", "/api/v1/status", nothing(), 200);
    is("GET", "/api/v1/decisions", "/api/v1/decisions", nothing(), 200);
    is("POST", &plan("release"), &plan("release"), nothing(), 202);
    let of_document: BTreeSet<(String, String)> =
        operations(&guide.document).into_iter().map(|(method, route, _)| (method, route)).collect();
    assert_eq!(seen, of_document, "every route was asked");
}

/// Routes are added in one place, from the table that is the document.
#[test]
fn no_route_is_added_beside_the_table() {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src/control", "serve/src"] {
        let mut open = vec![root.join(folder)];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                for _ in 0..[".route(", ".route_service(", ".nest("]
                    .iter()
                    .map(|it| text.matches(it).count())
                    .sum()
                {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
    }
    assert_eq!(found, ["src/control/route.rs"]);
}
