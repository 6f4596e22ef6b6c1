//! Counters of many streams over many connections, and what became of each of their points.
//!
//! In: streams, a few at a time, told to a [`Crowd`] whose tasks send them over a connection a request, so that every stream comes through every worker.
//! Out: each stream with all that was acknowledged of it ([`Stream`]), and beside the sink's books what became of each point ([`Fates`]): it arrived raw,
//! or it is in the fold. A point that was not acknowledged fails at once: nothing here breaks on purpose.

use super::call::{Call, Wire};
use super::otlp::SECOND_NS;
use super::plan::TENANT;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use phoenix_host_test::shop::otlp::{CUMULATIVE, DELTA, metric, number, sum, text};
use phoenix_host_test::shop::run::unix_ns;
use phoenix_host_test::sink::books::{Books, MetricBook};
use phoenix_host_test::sink::series::Value;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Labels of a stream, as the sink's books have them: with their values in quotation marks.
pub type Labels = BTreeMap<String, String>;

/// A point that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When, in event time.
    pub time_ns: u64,
    /// What it adds.
    pub amount: i64,
}

/// A stream and what was acknowledged of it.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its metric.
    pub metric: &'static str,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Deltas, or a total.
    pub is_delta: bool,
    /// Its points.
    pub sent: Vec<Sent>,
    start_ns: u64,
    total: i64,
}

impl Stream {
    /// A stream that begins when it is first sent.
    pub fn new(metric: &'static str, is_delta: bool, labels: &[(&str, &str)]) -> Stream {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Stream { metric, labels, is_delta, sent: Vec::new(), start_ns: 0, total: 0 }
    }

    /// One of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// What all of its points add.
    pub fn amount(&self) -> i128 {
        self.sent.iter().map(|sent| i128::from(sent.amount)).sum()
    }

    fn stored(&self) -> Labels {
        self.labels.iter().map(|(key, value)| (key.clone(), format!("{value:?}"))).collect()
    }

    fn point(&mut self, amount: i64) -> (NumberDataPoint, Sent) {
        let time_ns = unix_ns();
        if self.start_ns == 0 {
            self.start_ns = time_ns - SECOND_NS / 100;
        }
        self.total += amount;
        let start_ns = if self.is_delta {
            self.sent.last().map_or(self.start_ns, |it| it.time_ns)
        } else {
            self.start_ns
        };
        let value = if self.is_delta { amount } else { self.total };
        let labels = self.labels.iter().map(|(key, value)| text(key, value)).collect();
        (number(labels, start_ns, time_ns, Number::AsInt(value)), Sent { time_ns, amount })
    }
}

/// Tasks that send.
pub struct Crowd {
    tasks: Vec<(UnboundedSender<Stream>, JoinHandle<Vec<Stream>>)>,
    is_over: Arc<AtomicBool>,
    next: usize,
}

impl Crowd {
    /// So many tasks that send for a tenant, each of its streams some six times a second.
    pub fn open(address: SocketAddr, tasks: usize, tenant: &str) -> Crowd {
        let is_over = Arc::new(AtomicBool::new(false));
        let task = |seed: usize| {
            let (sender, receiver) = unbounded_channel();
            let speaker = Speaker {
                address,
                tenant: tenant.to_owned(),
                random: ChaCha8Rng::seed_from_u64(seed as u64),
                is_over: is_over.clone(),
            };
            (sender, tokio::spawn(speaker.speak(receiver)))
        };
        Crowd { tasks: (0..tasks).map(task).collect(), is_over, next: 0 }
    }

    /// More streams, dealt out to the tasks in turn.
    pub fn add(&mut self, streams: impl IntoIterator<Item = Stream>) {
        for stream in streams {
            let (sender, _) = &self.tasks[self.next % self.tasks.len()];
            sender.send(stream).expect("a task that sends");
            self.next += 1;
        }
    }

    /// All that was acknowledged.
    pub async fn close(self) -> Vec<Stream> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut streams = Vec::new();
        for (_, task) in self.tasks {
            streams.extend(task.await.expect("every request is answered well"));
        }
        streams
    }
}

struct Speaker {
    address: SocketAddr,
    tenant: String,
    random: ChaCha8Rng,
    is_over: Arc<AtomicBool>,
}

impl Speaker {
    async fn speak(mut self, mut receiver: UnboundedReceiver<Stream>) -> Vec<Stream> {
        let mut streams = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            while let Ok(stream) = receiver.try_recv() {
                streams.push(stream);
            }
            if !streams.is_empty() {
                self.export(&mut streams).await;
            }
            sleep(Duration::from_millis(self.random.random_range(100..200))).await;
        }
        streams
    }

    async fn export(&mut self, streams: &mut [Stream]) {
        let mut metrics: BTreeMap<(&'static str, bool), Vec<NumberDataPoint>> = BTreeMap::new();
        let mut sent = Vec::with_capacity(streams.len());
        for stream in streams.iter_mut() {
            let (point, it) = stream.point(self.random.random_range(1..100));
            metrics.entry((stream.metric, stream.is_delta)).or_default().push(point);
            sent.push(it);
        }
        let of = |((name, is_delta), points)| -> Metric {
            metric(name, "1", sum(points, if is_delta { DELTA } else { CUMULATIVE }, true))
        };
        let body = super::otlp::request("crowd", metrics.into_iter().map(of).collect());
        let wire = Wire::ALL[self.random.random_range(0..Wire::ALL.len())];
        let reply = Call::http(wire, body).with(TENANT, &self.tenant).send(self.address).await;
        assert_eq!(reply.as_ref().map(|it| it.status), Some(200), "{reply:?}");
        streams.iter_mut().zip(sent).for_each(|(stream, it)| stream.sent.push(it));
    }
}

/// What became of the points of one metric: for each stream, and each of its points, whether it arrived raw.
pub struct Fates<'a> {
    /// By stream.
    pub all: Vec<(&'a Stream, Vec<bool>)>,
    folded: i128,
    book: Option<&'a MetricBook>,
}

impl<'a> Fates<'a> {
    /// Those of a metric.
    pub fn of(metric: &str, streams: &'a [Stream], books: &'a Books) -> Fates<'a> {
        let book = books.metrics.iter().find(|((_, name), _)| name == metric).map(|(_, book)| book);
        let mut raw: BTreeMap<&Labels, BTreeMap<u64, Value>> = BTreeMap::new();
        for series in book.iter().flat_map(|book| book.raw.series.values()) {
            let times = raw.entry(&series.point).or_default();
            for sample in &series.samples {
                let before = times.insert(sample.time_ns, sample.value);
                assert!(before.is_none(), "{metric}: a raw point came twice: {:?} {sample:?}", series.point);
            }
        }
        let of = |stream: &'a Stream| {
            let times = raw.get(&stream.stored());
            let is_raw = |it: &Sent| times.is_some_and(|times| times.contains_key(&it.time_ns));
            (stream, stream.sent.iter().map(is_raw).collect())
        };
        let all = streams.iter().filter(|it| it.metric == metric).map(of).collect();
        let folded = book.map_or(0, |book| book.folded.total(books.config.run_start_ns).ints);
        Fates { all, folded, book }
    }

    /// What arrived, raw and folded. A raw series whose beginning folded counts from its first sample on, as `increase` has it: what it had counted until
    /// then is in the fold.
    pub fn arrived(&self) -> i128 {
        self.folded + self.all.iter().map(|(stream, fates)| raw_amount(stream, fates)).sum::<i128>()
    }

    /// What arrived folded.
    pub fn arrived_folded(&self) -> i128 {
        self.folded
    }

    /// What was acknowledged.
    pub fn acknowledged(&self) -> i128 {
        self.all.iter().map(|(stream, _)| stream.amount()).sum()
    }

    /// The streams that were raw at some time in a span of event time.
    pub fn raw_within(&self, span: std::ops::Range<u64>) -> usize {
        let is_raw = |(stream, fates): &&(&Stream, Vec<bool>)| {
            stream.sent.iter().zip(fates).any(|(sent, is_raw)| *is_raw && span.contains(&sent.time_ns))
        };
        self.all.iter().filter(is_raw).count()
    }

    /// Points, raw and folded, by stream.
    pub fn points(&self, is_wanted: impl Fn(&Stream, &Sent) -> bool) -> (usize, usize) {
        let (mut raw, mut folded) = (0, 0);
        for (stream, fates) in &self.all {
            for (sent, is_raw) in stream.sent.iter().zip(fates).filter(|(sent, _)| is_wanted(stream, sent)) {
                *if *is_raw { &mut raw } else { &mut folded } += 1;
                let _ = sent;
            }
        }
        (raw, folded)
    }

    /// Folded series, as the sink tells them apart.
    pub fn folded_series(&self) -> BTreeSet<&Labels> {
        self.book.iter().flat_map(|book| book.folded.series.values()).map(|series| &series.point).collect()
    }

    /// Streams that were raw and folded in one window of event time, but for windows that touch one of these spans.
    pub fn mixed(&self, window_ns: u64, but: &[std::ops::Range<u64>]) -> Vec<String> {
        let mut out = Vec::new();
        for (stream, fates) in &self.all {
            let mut by_window: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
            for (sent, is_raw) in stream.sent.iter().zip(fates) {
                // A point belongs to the window that ends with it.
                by_window.entry((sent.time_ns - 1) / window_ns).or_default().insert(*is_raw);
            }
            let is_excused = |window: u64| {
                let (start, end) = (window * window_ns, (window + 1) * window_ns);
                but.iter().any(|span| span.start < end && start < span.end)
            };
            let mixed =
                by_window.into_iter().filter(|(window, kinds)| kinds.len() > 1 && !is_excused(*window));
            out.extend(mixed.map(|(window, _)| format!("{:?} in window {window}", stream.labels)));
        }
        out
    }

    /// The changes of streams, by direction: points after which a stream was raw and the next one folded; and the other way round.
    pub fn changes(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut to_fold, mut to_raw) = (Vec::new(), Vec::new());
        for (stream, fates) in &self.all {
            for at in 1..fates.len() {
                match (fates[at - 1], fates[at]) {
                    (true, false) => to_fold.push(stream.sent[at].time_ns),
                    (false, true) => to_raw.push(stream.sent[at].time_ns),
                    _ => {}
                }
            }
        }
        (to_fold, to_raw)
    }
}

fn raw_amount(stream: &Stream, fates: &[bool]) -> i128 {
    let points = stream.sent.iter().zip(fates);
    if stream.is_delta {
        return points.filter(|(_, is_raw)| **is_raw).map(|(sent, _)| i128::from(sent.amount)).sum();
    }
    let Some(first) = fates.iter().position(|is_raw| *is_raw) else { return 0 };
    let until = fates.iter().rposition(|is_raw| *is_raw).unwrap_or(first);
    let from = if first == 0 { 0 } else { first + 1 };
    stream.sent[from..=until].iter().map(|sent| i128::from(sent.amount)).sum()
}
