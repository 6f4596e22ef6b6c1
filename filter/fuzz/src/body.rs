//! A request's body through framing, scan and edits. In: one byte that says how the rest is framed, and the rest.
//!
//! Nothing panics. Whatever is scanned: points in = passed + recorded + ended; the output scans again, holds exactly the points that
//! passed and nothing more to fold; its messages are read by an owner, whose books balance. Where prost reads the input, it reads
//! the output too, and the points of the output are those of the input, byte for byte and in order, less the cut ones.

use super::shared;
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use phoenix_filter::body::{BodyError, Framing, scan};
use phoenix_filter::flow::{Batch, Scratch};
use phoenix_filter::frame::{Encoding, Frames, put_frame};
use phoenix_filter::owner::Owner;
use phoenix_filter::record;
use phoenix_filter::units::UnixNanos;
use prost::Message;
use std::io::Write;

const S: u64 = 1_000_000_000;
/// Arrival of every body: points up to five minutes later may fold.
const ARRIVED: UnixNanos = UnixNanos(1_000 * S);

/// Run one input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let framing = match mode & 3 {
        0 => Framing::Plain,
        1 => Framing::Grpc(Encoding::Identity),
        2 => Framing::Grpc(Encoding::Gzip),
        _ => Framing::Grpc(Encoding::Unknown),
    };
    // Raw bytes as frames, or the rest framed here so that the fuzzer need not find lengths and checksums.
    let body = match mode >> 2 & 3 {
        1 if framing != Framing::Plain => frames(rest, false),
        2 if framing != Framing::Plain => frames(rest, true),
        _ => rest.to_vec(),
    };
    check(framing, &body);
}

/// Two frames: a half each, cut where a field of the request begins if that is known; the second compressed when `gzip`.
fn frames(rest: &[u8], gzip: bool) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, rest).expect("small");
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(rest).expect("memory");
        let packed = encoder.finish().expect("memory");
        out.push(1);
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn check(framing: Framing, body: &[u8]) {
    let plan = shared::compiled(shared::WALL);
    let mut scratch = Scratch::default();
    let batch = |body| Batch { body, tenant: b"t", sender: b"s", arrived: ARRIVED };
    let Ok(scanned) = scan(&plan, framing, &batch(body), &mut scratch) else { return };
    shared::check_tally(&scanned.tally);
    assert_eq!(scanned.body.is_some(), scanned.tally.recorded + scanned.tally.no_value > 0, "edited iff cut");

    let mut records = 0;
    let mut owners: Vec<Owner> =
        (0..plan.plan.shards as usize).map(|shard| Owner::new(&plan.plan, plan.key, "w", shard)).collect();
    for (shard, message) in &scanned.messages {
        let read = record::Message::read(message).expect("we read what we write");
        assert!(read.heads().all(|h| h.is_ok()) && read.records().all(|r| r.is_ok()));
        assert!(read.records().flatten().all(|r| !r.carried), "the courier marks, not the scan");
        records += read.records().flatten().filter(|r| !r.ended).count() as u64;
        owners[*shard].fold(message, ARRIVED).expect("we read what we write");
    }
    assert_eq!(records, scanned.tally.recorded, "a record for each point that was cut");
    owners.iter().for_each(|o| shared::check_owner(o, &plan.plan));

    let out = scanned.body.as_deref().unwrap_or(body);
    assert!(scanned.body.is_none() || !matches!(framing, Framing::Plain) || out.len() < body.len());
    match scan(&plan, framing, &batch(out), &mut scratch) {
        Ok(again) => {
            assert_eq!(again.tally.points, scanned.tally.passed, "the output holds what passed");
            assert_eq!((again.tally.recorded, again.tally.no_value), (0, 0), "nothing is left to fold");
        }
        // Frames that were compressed are written plain, and may outgrow the limit of a body.
        Err(e) => assert_eq!(e, BodyError::TooLarge, "the output can be read again"),
    }
    if let (Some(before), Some(after)) = (points(framing, body), points(framing, out)) {
        assert_eq!(after.len() as u64, scanned.tally.passed);
        let mut all = before.iter();
        for point in &after {
            assert!(
                all.any(|p| p == point),
                "a point of the output that the input does not hold, or not in order"
            );
        }
    } else {
        assert!(points(framing, body).is_none(), "prost reads the input, but not the output");
    }
}

/// All points as prost reads them: where they are and what they say. `None` where prost reads nothing.
fn points(framing: Framing, body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Vec::new();
    match framing {
        Framing::Plain => of_message(body, &mut list)?,
        Framing::Grpc(encoding) => {
            let (mut frames, mut inflated) = (Frames::new(body), Vec::new());
            while let Some(frame) = frames.next().ok()? {
                of_message(frame.message(body, encoding, 1 << 20, &mut inflated).ok()?, &mut list)?;
            }
        }
    }
    Some(list)
}

fn of_message(bytes: &[u8], list: &mut Vec<Vec<u8>>) -> Option<()> {
    for rm in ExportMetricsServiceRequest::decode(bytes).ok()?.resource_metrics {
        for scope in &rm.scope_metrics {
            for metric in &scope.metrics {
                let mut place = rm.resource.as_ref().map(|r| r.encode_to_vec()).unwrap_or_default();
                place.extend(scope.scope.as_ref().map(|s| s.encode_to_vec()).unwrap_or_default());
                place.extend(metric.name.bytes().chain(metric.unit.bytes()));
                let mut push = |point: Vec<u8>| list.push([place.as_slice(), &point].concat());
                match &metric.data {
                    Some(Data::Gauge(d)) => d.data_points.iter().for_each(|p| push(p.encode_to_vec())),
                    Some(Data::Sum(d)) => d.data_points.iter().for_each(|p| push(p.encode_to_vec())),
                    Some(Data::Histogram(d)) => d.data_points.iter().for_each(|p| push(p.encode_to_vec())),
                    Some(Data::ExponentialHistogram(d)) => {
                        d.data_points.iter().for_each(|p| push(p.encode_to_vec()));
                    }
                    Some(Data::Summary(d)) => d.data_points.iter().for_each(|p| push(p.encode_to_vec())),
                    None => {}
                }
            }
        }
    }
    Some(())
}
