//! The component shell: `wit/phoenix.wit` in, engine calls out. State is one [`Local`] per instance.
//!
//! The same build is the core module with the canonical ABI (for hosts without components) and, wrapped, the component.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[allow(missing_docs, clippy::all, clippy::arithmetic_side_effects, reason = "generated from the contract")]
mod contract {
    wit_bindgen::generate!({ path: "../../wit", world: "phoenix" });
}

use contract::exports::phoenix::filter::engine::{
    self as wit, Amount, Answer, Emission, Framing, Guest, Page, Processed, Settled,
};
use phoenix_filter::amount::Amount as Sum;
use phoenix_filter::body::Framing as EngineFraming;
use phoenix_filter::emit::Answer as EngineAnswer;
use phoenix_filter::flow::Batch;
use phoenix_filter::frame::Encoding;
use phoenix_filter::local::{Local, Settled as EngineSettled};
use phoenix_filter::units::UnixNanos;
use std::cell::RefCell;

thread_local! {
    static ENGINE: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// Do something with the engine; `None` before the first plan.
fn with<R>(f: impl FnOnce(&mut Local) -> R) -> Option<R> {
    ENGINE.with(|e| e.try_borrow_mut().ok()?.as_mut().map(f))
}

struct Phoenix;

impl Guest for Phoenix {
    fn configure(plan: Vec<u8>, writer: String, now_ns: u64) -> Result<u64, String> {
        if let Some(result) = with(|engine| engine.configure(&plan, UnixNanos(now_ns))) {
            return result.map_err(|e| e.to_string());
        }
        let engine = Local::new(&plan, &writer, UnixNanos(now_ns)).map_err(|e| e.to_string())?;
        let version = engine.version();
        ENGINE.with(|e| {
            if let Ok(mut slot) = e.try_borrow_mut() {
                *slot = Some(engine);
            }
        });
        Ok(version)
    }

    fn process(
        framing: Framing,
        tenant: Vec<u8>,
        sender: Vec<u8>,
        body: Vec<u8>,
        now_ns: u64,
    ) -> Result<Processed, String> {
        let framing = match framing {
            Framing::Plain => EngineFraming::Plain,
            Framing::Grpc => EngineFraming::Grpc(Encoding::Identity),
            Framing::GrpcGzip => EngineFraming::Grpc(Encoding::Gzip),
        };
        let batch = Batch { body: &body, tenant: &tenant, sender: &sender, arrived: UnixNanos(now_ns) };
        let done = with(|engine| engine.process(framing, &batch))
            .ok_or_else(|| "no plan yet: call configure first".to_owned())?
            .map_err(|e| format!("body not read: {e:?}"))?;
        Ok(Processed {
            token: done.token,
            body: done.body,
            points: done.tally.points,
            passed: done.tally.passed,
            recorded: done.tally.recorded,
        })
    }

    fn settle(token: u64, how: Settled, now_ns: u64) {
        let how = match how {
            Settled::Accepted => EngineSettled::Accepted,
            Settled::Refused => EngineSettled::Refused,
            Settled::Unanswered => EngineSettled::Unanswered,
        };
        with(|engine| engine.settle(token, how, UnixNanos(now_ns)));
    }

    fn tick(now_ns: u64) {
        with(|engine| engine.tick(UnixNanos(now_ns)));
    }

    fn next_emission(now_ns: u64) -> Option<Emission> {
        with(|engine| {
            let (shard, e) = engine.next_emission(UnixNanos(now_ns))?;
            Some(Emission {
                shard: u32::try_from(shard).ok()?,
                sequence: e.sequence,
                tenant: e.tenant.to_vec(),
                body: e.body.to_vec(),
            })
        })
        .flatten()
    }

    fn answer_emission(shard: u32, sequence: u64, answer: Answer, now_ns: u64) {
        let answer = match answer {
            Answer::Accepted => EngineAnswer::Accepted,
            Answer::Refused => EngineAnswer::Refused,
            Answer::Unknown => EngineAnswer::Unknown,
        };
        let shard = usize::try_from(shard).unwrap_or(usize::MAX);
        with(|engine| engine.answer(shard, sequence, answer, UnixNanos(now_ns)));
    }

    fn ledger() -> Vec<wit::Page> {
        with(|engine| {
            let pages = engine.owners().iter().flat_map(|o| o.ledger().pages());
            pages.map(|(metric, page)| read_page(metric, page)).collect()
        })
        .unwrap_or_default()
    }
}

fn read_page(metric: &[u8], p: &phoenix_filter::ledger::Page) -> Page {
    Page {
        metric: metric.to_vec(),
        records: p.records,
        folded: p.folded,
        late: p.late,
        resets: p.resets,
        baselines: p.baselines,
        out_of_order: p.out_of_order,
        duplicates: p.duplicates,
        overlaps: p.overlaps,
        carried: p.carried,
        refused: p.refused,
        emitted: p.emitted,
        abandoned: p.abandoned,
        overflowed: p.overflowed,
        unremembered: p.unremembered,
        late_values: p.late_values,
        increments_in: read_amount(&p.increments_in),
        increments_out: read_amount(&p.increments_out),
    }
}

fn read_amount(a: &Sum) -> Amount {
    let bound = if a.int() < 0 { i64::MIN } else { i64::MAX };
    Amount { int: i64::try_from(a.int()).unwrap_or(bound), double: a.to_f64() }
}

contract::export!(Phoenix with_types_in contract);
