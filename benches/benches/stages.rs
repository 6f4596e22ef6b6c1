//! One stage at a time, for whoever changes that stage: `cargo bench -p phoenix-benches`.
//!
//! In: one body of the traffic of `bench engine`. Out: criterion's own reports, per point. These are for comparing a stage with itself before
//! and after a change; what a point costs as a whole says `cargo xtask bench engine`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phoenix_benches::native::{Case, Native, Subject as _};
use phoenix_benches::traffic::{Order, POINTS, Traffic, WINDOW, plan};
use phoenix_filter::flow::{Batch, Scratch, flow};
use phoenix_filter::hash::{Domain, Hasher, Identity};
use phoenix_filter::route::Compiled;
use phoenix_filter::stream::Cumulative;
use phoenix_filter::table::StreamTable;
use phoenix_filter::units::UnixNanos;
use phoenix_plan::Plan;
use std::hint::black_box;
use std::rc::Rc;

/// Streams of the table: far more than the caches hold.
const STREAMS: u64 = 1_000_000;
/// Look-ups in one go.
const LOOKUPS: u64 = 1_000;

fn body() -> (UnixNanos, Vec<u8>) {
    let mut traffic = Traffic::new(POINTS, Order::Repeating, 1);
    let (now, mut body) = (traffic.now(), Vec::new());
    traffic.body(now, &mut body);
    (now, body)
}

/// Scan alone, and scan with identities and records.
fn scan(c: &mut Criterion) {
    let (now, body) = body();
    let mut group = c.benchmark_group("flow");
    group.throughput(Throughput::Elements(POINTS as u64));
    for case in [Case::Pass, Case::Identify, Case::Fold70] {
        let plan = Plan::parse(plan(case.treatment(), WINDOW).to_string().as_bytes()).expect("a valid plan");
        let (plan, mut scratch) = (Rc::new(Compiled::new(plan)), Scratch::default());
        let batch = Batch { body: &body, tenant: b"", sender: b"", arrived: now };
        group.bench_function(case.name(), |b| b.iter(|| flow(&plan, black_box(&batch), &mut scratch)));
    }
    group.finish();
}

/// The seven attributes of a point.
fn hash(c: &mut Criterion) {
    let hasher = Hasher::new(&[7; 32]);
    let attributes: [(&[u8], &[u8]); 7] = [
        (b"http.request.method", b"GET"),
        (b"http.route", b"/product/{id}"),
        (b"http.response.status_code", b"200"),
        (b"cloud.region", b"eu-west-1"),
        (b"url.scheme", b"https"),
        (b"browser.name", b"firefox"),
        (b"user.id", b"000000000002f3"),
    ];
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Elements(1));
    group.bench_function("seven attributes", |b| {
        b.iter(|| {
            let pairs = black_box(&attributes).iter();
            let hashed = pairs.map(|(key, value)| hasher.pair(Domain::Attribute, key, value));
            hashed.fold(Identity::ZERO, Identity::plus)
        });
    });
    group.finish();
}

/// Streams that are known, in an order that no cache foresees.
fn table(c: &mut Criterion) {
    let hasher = Hasher::new(&[7; 32]);
    let name = |n: u64| hasher.pair(Domain::Attribute, &n.to_le_bytes(), b"");
    let mut table = StreamTable::new(STREAMS as u32);
    let known: Vec<Identity> = (0..STREAMS).map(name).collect();
    for id in &known {
        table.insert(*id, Cumulative::default()).expect("room for all");
    }
    let mut next = 0;
    let mut group = c.benchmark_group("table");
    group.throughput(Throughput::Elements(LOOKUPS));
    group.bench_function("look up and change", |b| {
        b.iter(|| {
            for _ in 0..LOOKUPS {
                // A step that is prime to the number of streams meets them all.
                next = (next + 618_033_989) % STREAMS;
                let slot = known.get(next as usize).and_then(|id| table.get(black_box(id)));
                if let Some(state) = slot.and_then(|slot| table.state_mut(slot)) {
                    state.touched_s = state.touched_s.wrapping_add(1);
                }
            }
        });
    });
    group.finish();
}

/// A body all the way, into windows and emissions.
fn fold(c: &mut Criterion) {
    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(POINTS as u64));
    let mut traffic = Traffic::new(25 * POINTS, Order::Shuffled, 1);
    let mut native = Native::new(Case::FoldAll, traffic.now()).expect("a valid plan");
    let mut body = Vec::new();
    group.bench_function("known streams", |b| {
        b.iter_custom(|rounds| {
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..rounds {
                let now = traffic.now();
                body.clear();
                traffic.body(now, &mut body);
                let begin = std::time::Instant::now();
                native.take(black_box(&body), now).expect("OTLP");
                spent += begin.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(stages, scan, hash, table, fold);
criterion_main!(stages);
