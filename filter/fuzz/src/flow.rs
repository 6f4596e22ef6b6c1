//! The whole engine under a script: batches, answers of the upstream to requests and to emissions, ticks, plans, a clock that
//! jumps both ways. In: decisions. Nothing panics, and after every step: conservation, every record and point accounted for, tables
//! and outbox within their limits. Among the emissions that the upstream took: between two starts of a cumulative series its times
//! rise and its values never fall, unless the clock was set back by more than an owner waits out, or a plan named another clock.

use super::choices::Choices;
use super::shared;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1 as pm;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value as V};
use opentelemetry_proto::tonic::resource::v1::Resource;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::frame::{Encoding, put_frame};
use phoenix_filter::limits::CLOCK_SET_BACK_NS;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

const S: u64 = 1_000_000_000;
/// When the script begins, in seconds: room for starts before it.
const BEGIN_S: u64 = 100_000;
/// Steps of a script: enough for several windows of several series, few enough for thousands of scripts a second.
const STEPS_MAX: usize = 256;
/// Requests that wait for their answer: the embedder bounds them, so the script does.
const PENDING_MAX: usize = 16;
/// Fillings of the outbox that a script can need to drain.
const ROUNDS_MAX: usize = 10_000;

/// Run one input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut script = Script::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_done() {
            break;
        }
        script.step(&mut choices);
        script.check();
    }
    script.end();
}

/// An emission on its way.
struct Flight {
    shard: usize,
    sequence: u64,
    tenant: Vec<u8>,
    body: Vec<u8>,
}

struct Script {
    engine: Local,
    plan: Plan,
    version: u64,
    now_s: u64,
    /// The clock was never set back by more than what an owner waits out.
    steady: bool,
    newest_s: u64,
    pending: VecDeque<u64>,
    /// Emissions that were sent and have no answer yet, with their bytes.
    flying: Vec<Flight>,
    /// Last accepted (start, time, value) of each cumulative series of the upstream.
    taken: BTreeMap<Vec<u8>, (u64, u64, f64)>,
}

impl Script {
    fn new(c: &mut Choices<'_>) -> Script {
        let clock = if c.below(4) == 0 { "event" } else { "wall" };
        let json = plan(c, 1, clock);
        let engine = Local::new(json.as_bytes(), "me", UnixNanos(BEGIN_S * S))
            .expect("the script's own plan is valid");
        Script {
            engine,
            plan: Plan::parse(json.as_bytes()).expect("parsed before"),
            version: 1,
            now_s: BEGIN_S,
            steady: true,
            newest_s: BEGIN_S,
            pending: VecDeque::new(),
            flying: Vec::new(),
            taken: BTreeMap::new(),
        }
    }

    fn now(&self) -> UnixNanos {
        UnixNanos(self.now_s * S)
    }

    fn step(&mut self, c: &mut Choices<'_>) {
        match c.below(16) {
            0..=5 => self.batch(c),
            6 | 7 => self.settle(c),
            8 | 9 => {
                self.now_s += c.below(32);
                self.engine.tick(self.now());
            }
            10 => {
                let jump = [1, 8, 60, 900][c.below(4) as usize];
                self.now_s =
                    if c.below(2) == 0 { self.now_s + jump } else { self.now_s.saturating_sub(jump) };
                // The script stays around its beginning: every window that is open costs time, and a script should take little.
                self.now_s = self.now_s.clamp(BEGIN_S - 50_000, BEGIN_S + 50_000);
                self.engine.tick(self.now());
            }
            11 | 12 => self.send(),
            13 => {
                let answer = [Answer::Accepted, Answer::Accepted, Answer::Refused, Answer::Unknown]
                    [c.below(4) as usize];
                let at = c.byte() as usize;
                self.answer(at, answer);
            }
            14 => {
                self.version += 1;
                let clock = if c.below(8) == 0 { "event" } else { "wall" };
                let json = plan(c, self.version, clock);
                let now = self.now();
                match self.engine.configure(json.as_bytes(), now) {
                    Ok(version) => {
                        assert_eq!(version, self.version);
                        let plan = Plan::parse(json.as_bytes()).expect("parsed before");
                        // The points' clock and the wall's tell different times.
                        self.steady &= plan.clock == self.plan.clock;
                        self.plan = plan;
                    }
                    Err(e) => assert!(!e.to_string().is_empty()),
                }
            }
            _ => {
                // Not a batch at all, and not a plan.
                let junk = [c.byte(), c.byte(), c.byte()];
                let batch = Batch { body: &junk, tenant: b"", sender: b"", arrived: self.now() };
                if let Ok(done) = self.engine.process(Framing::Plain, &batch) {
                    assert!(done.body.is_none() || done.tally.points > 0);
                }
                let now = self.now();
                self.engine.configure(&junk, now).expect_err("three bytes are no plan");
            }
        }
    }

    fn batch(&mut self, c: &mut Choices<'_>) {
        if self.pending.len() >= PENDING_MAX {
            self.settle(c);
        }
        let shape = c.byte();
        let mut body = request(c, self.now_s).encode_to_vec();
        let framing = if shape & 1 == 0 {
            Framing::Plain
        } else {
            let mut framed = Vec::new();
            put_frame(&mut framed, &body).expect("small");
            if shape & 2 != 0 {
                put_frame(&mut framed, &request(c, self.now_s).encode_to_vec()).expect("small");
            }
            body = framed;
            Framing::Grpc(Encoding::Identity)
        };
        let tenant: &[u8] = if shape & 4 == 0 { b"t" } else { b"u" };
        let sender: &[u8] = if shape & 8 == 0 { b"" } else { b"10.0.0.1" };
        let batch = Batch { body: &body, tenant, sender, arrived: self.now() };
        let done = self.engine.process(framing, &batch).expect("a batch of prost can be read");
        shared::check_tally(&done.tally);
        self.pending.push_back(done.token);
    }

    fn settle(&mut self, c: &mut Choices<'_>) {
        let how = [Settled::Accepted, Settled::Accepted, Settled::Refused, Settled::Unanswered]
            [c.below(4) as usize];
        let newest = c.below(4) == 0;
        let token = if newest { self.pending.pop_back() } else { self.pending.pop_front() };
        let Some(token) = token else { return };
        self.engine.settle(token, how, self.now());
        // Answered twice is answered once.
        self.engine.settle(token, Settled::Accepted, self.now());
    }

    fn send(&mut self) {
        let now = self.now();
        while let Some((shard, emission)) = self.engine.next_emission(now) {
            let sequence = emission.sequence;
            let (tenant, body) = (emission.tenant.to_vec(), emission.body.to_vec());
            assert!(
                !self.flying.iter().any(|f| (f.shard, f.sequence) == (shard, sequence)),
                "in flight twice"
            );
            self.flying.push(Flight { shard, sequence, tenant, body });
        }
    }

    fn answer(&mut self, at: usize, answer: Answer) {
        if self.flying.is_empty() {
            return;
        }
        let flight = self.flying.remove(at % self.flying.len());
        if answer == Answer::Accepted {
            self.take(&flight);
        }
        self.engine.answer(flight.shard, flight.sequence, answer, self.now());
    }

    /// The upstream takes an emission.
    fn take(&mut self, flight: &Flight) {
        let request = ExportMetricsServiceRequest::decode(&flight.body[..]).expect("an emission is OTLP");
        for rm in &request.resource_metrics {
            for metric in rm.scope_metrics.iter().flat_map(|s| &s.metrics) {
                let Some(Data::Sum(sum)) = &metric.data else { panic!("only sums are folded") };
                assert!(sum.is_monotonic);
                for point in &sum.data_points {
                    let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                    assert!(start <= time || !self.steady, "a point starts before it ends");
                    let value = match point.value {
                        Some(V::AsInt(v)) => v as f64,
                        Some(V::AsDouble(v)) => v,
                        None => {
                            assert_eq!(point.flags, 1, "a point without a value that is no stale marker");
                            continue;
                        }
                    };
                    assert!(value >= 0.0, "an increment below zero");
                    if sum.aggregation_temporality != 2 {
                        continue;
                    }
                    let mut series = flight.tenant.clone();
                    series.extend(rm.resource.as_ref().map(|r| r.encode_to_vec()).unwrap_or_default());
                    series.extend_from_slice(metric.name.as_bytes());
                    point.attributes.iter().for_each(|kv| series.extend(kv.encode_to_vec()));
                    if let Some((s, t, v)) = self.taken.insert(series, (start, time, value))
                        && self.steady
                        && s == start
                    {
                        assert!(t < time, "one emission per series per window, in order: {t} {time}");
                        assert!(v <= value, "a total fell: {v} at {t}, {value} at {time}");
                    }
                }
            }
        }
    }

    fn check(&mut self) {
        self.newest_s = self.newest_s.max(self.now_s);
        self.steady &= (self.newest_s - self.now_s) * S <= CLOCK_SET_BACK_NS;
        for owner in self.engine.owners() {
            shared::check_owner(owner, &self.engine_plan());
            let most = self.plan.limits.backlog_bytes_max as usize;
            // A closing may overshoot by what was due at one instant: all series at most.
            assert!(owner.outbox().bytes() <= most + (1 << 20), "the outbox is bounded");
        }
        shared::check_tally(self.engine.tally());
    }

    /// Limits only stop growth: what a wider plan let in may stay.
    fn engine_plan(&self) -> Plan {
        let mut widest = self.plan.clone();
        widest.limits.streams_max = STREAMS[1];
        widest.limits.delta_streams_max = STREAMS[1];
        widest.limits.series_max = STREAMS[1];
        widest
    }

    /// Everything is answered and every window closes: then all that came in has gone out.
    fn end(&mut self) {
        while let Some(token) = self.pending.pop_front() {
            self.engine.settle(token, Settled::Accepted, self.now());
        }
        self.now_s = self.now_s.max(BEGIN_S) + 100_000;
        // A full outbox holds windows open, so it takes as many rounds as the outbox has fillings.
        for _ in 0..ROUNDS_MAX {
            self.engine.tick(self.now());
            self.send();
            while !self.flying.is_empty() {
                self.answer(0, Answer::Accepted);
                self.send();
            }
            if self.engine.owners().iter().all(|o| o.is_drained()) {
                break;
            }
            // Beyond the longest wait after an answer that was none.
            self.now_s += 60;
        }
        self.check();
        if self.plan.clock == phoenix_plan::Clock::Wall {
            for owner in self.engine.owners() {
                assert!(owner.is_drained(), "a graceful end leaves nothing behind: {:?}", owner.balance());
            }
        }
    }
}

/// Bounds of the tables under the narrow plans and under the wide ones.
const STREAMS: [u32; 2] = [3, 64];

fn plan(c: &mut Choices<'_>, version: u64, clock: &str) -> String {
    let bits = c.byte();
    let pick = |bit: u8, a: &'static str, b: &'static str| if bits >> bit & 1 == 0 { a } else { b };
    let window = pick(0, "10s", "3s");
    let delay = pick(1, "10s", "1s");
    let output = ["unchanged", "cumulative", "delta"][usize::from(bits >> 2 & 3) % 3];
    let labels = pick(4, r#"{"drop":{"resource":["pod"]}}"#, r#"{"keep":{"attributes":["a"]}}"#);
    let most = STREAMS[usize::from(bits >> 5 & 1 == 0)];
    let writer = pick(6, "w", "v");
    // Rarely another key, or another number of shards, which is refused.
    let more = c.below(16);
    let (key, shards) = (if more == 1 { "ff" } else { "00" }, if more == 2 { 2 } else { 1 });
    let fold = |labels: &str| {
        format!(
            r#""pipeline":"optimized","fold":{{"labels":{labels},"window":"{window}","delay":"{delay}","output_temporality":"{output}"}}"#
        )
    };
    let pass = r#""pipeline":"full_fidelity""#.to_owned();
    let other = pick(4, r#"{"keep":{"attributes":["a"]}}"#, r#"{"keep":{"attributes":[]}}"#);
    // Sometimes a switch: raw to fold, fold to raw, fold to fold.
    let (to, from) = match more {
        3..=5 => (fold(labels), Some(pass)),
        6..=8 => (pass, Some(fold(labels))),
        9..=11 => (fold(labels), Some(fold(other))),
        _ => (fold(labels), None),
    };
    let at = phoenix_plan::InstantMs((BEGIN_S + 20 * more) * 1_000);
    let switch = from.map_or(String::new(), |from| format!(r#","switch":{{"at":"{at}","from":{{{from}}}}}"#));
    format!(
        r#"{{"schema":1,"version":{version},"clock":"{clock}","writer":"{writer}","shards":{shards},
        "hash_key":"{key}0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "first_sample_margin":"0s","stream_expiry":"90s",
        "limits":{{"streams_max":{most},"delta_streams_max":{most},"series_max":{most},
          "emission_bytes_max":65536,"backlog_bytes_max":65536}},
        "rules":[{{"name":"raw","metric":{{"exact":"int"}},"attributes":[{{"key":"a","equals":"raw"}}],
            "pipeline":"full_fidelity"}},
          {{"name":"fold","metric":{{"glob":"*"}},{to}{switch}}}]}}"#
    )
}

/// Up to four resources with up to four points each.
fn request(c: &mut Choices<'_>, now_s: u64) -> ExportMetricsServiceRequest {
    let resource_metrics = (0..c.below(4)).map(|_| resource(c, now_s)).collect();
    ExportMetricsServiceRequest { resource_metrics }
}

fn resource(c: &mut Choices<'_>, now_s: u64) -> pm::ResourceMetrics {
    let pod = ["a", "b", "c", "d", "e"][c.below(5) as usize];
    let (kind, many) = (c.byte(), c.below(5));
    let data_points = (0..many).map(|_| point(c, kind & 1 != 0, now_s)).collect();
    let temporality = [2, 1, 2, 0][usize::from(kind >> 1 & 3)];
    let monotonic = kind >> 3 & 7 != 7;
    let sum = pm::Sum { data_points, aggregation_temporality: temporality, is_monotonic: monotonic };
    let name = if kind & 1 == 0 { "int" } else { "double" };
    let metric = pm::Metric { name: name.into(), data: Some(Data::Sum(sum)), ..Default::default() };
    pm::ResourceMetrics {
        resource: Some(Resource { attributes: vec![pair("pod", pod)], ..Default::default() }),
        scope_metrics: vec![pm::ScopeMetrics { metrics: vec![metric], ..Default::default() }],
        ..Default::default()
    }
}

fn point(c: &mut Choices<'_>, double: bool, now_s: u64) -> pm::NumberDataPoint {
    let a = ["x", "y", "raw", "z"][c.below(4) as usize];
    // Mostly the last half minute; at times a quarter of an hour ago, ahead, or never.
    let time_s = match c.below(256) {
        n @ 0..=199 => now_s.saturating_sub(n % 32),
        n @ 200..=219 => now_s.saturating_sub(n * 4),
        n @ 220..=249 => now_s + (n - 219) * 15,
        _ => 0,
    };
    let start_s = match c.below(256) {
        0..=99 => BEGIN_S.saturating_sub(10),
        n @ 100..=179 => time_s.saturating_sub(n - 99),
        n @ 180..=229 => BEGIN_S + n - 180,
        n @ 230..=239 => time_s + n,
        _ => 0,
    };
    let small = c.below(256);
    let large = small == 255;
    let value = match (double, large) {
        (false, false) => V::AsInt(small.cast_signed() - 3),
        (false, true) => V::AsInt(c.u64().cast_signed()),
        (true, false) => V::AsDouble(small as f64 * 0.1),
        (true, true) => V::AsDouble(f64::from_bits(c.u64())),
    };
    pm::NumberDataPoint {
        attributes: vec![pair("a", a)],
        start_time_unix_nano: start_s * S,
        time_unix_nano: time_s * S,
        flags: u32::from(small == 254),
        value: Some(value),
        ..Default::default()
    }
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}
