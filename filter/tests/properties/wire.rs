//! OTLP written and taken apart by hand, so that tests decide about the order of fields and see raw bytes.

use crate::oracle::{Kind, Point};
use prost::encoding::{decode_varint, encode_varint};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// In what order fields stand: as an SDK writes them, or shuffled.
pub enum Order {
    Plain,
    Shuffled(Box<ChaCha8Rng>),
}

type Chunk = (u32, Vec<u8>);

pub fn bytes_field(number: u32, bytes: &[u8]) -> Chunk {
    let mut out = Vec::new();
    encode_varint(u64::from(number << 3 | 2), &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    (number, out)
}

fn fixed_field(number: u32, bits: u64) -> Chunk {
    let mut out = vec![(number << 3 | 1) as u8];
    out.extend_from_slice(&bits.to_le_bytes());
    (number, out)
}

fn varint_field(number: u32, value: u64) -> Chunk {
    let mut out = Vec::new();
    encode_varint(u64::from(number << 3), &mut out);
    encode_varint(value, &mut out);
    (number, out)
}

impl Order {
    /// One message. Fields of `kept` keep their order among themselves.
    fn message(&mut self, mut chunks: Vec<Chunk>, kept: u32) -> Vec<u8> {
        if let Order::Shuffled(rng) = self {
            let mut in_order: Vec<Chunk> = chunks.iter().filter(|c| c.0 == kept).cloned().collect();
            chunks.shuffle(rng);
            in_order.reverse();
            for chunk in chunks.iter_mut().filter(|c| c.0 == kept) {
                *chunk = in_order.pop().unwrap();
            }
            if rng.random_bool(0.3) {
                chunks.push(varint_field(100, 7)); // a field that no schema knows
            }
        }
        chunks.into_iter().flat_map(|c| c.1).collect()
    }

    pub fn attribute(&mut self, number: u32, key: &str, value: &str) -> Chunk {
        let any = bytes_field(1, value.as_bytes()).1;
        let pair = self.message(vec![bytes_field(1, key.as_bytes()), bytes_field(2, &any)], 0);
        bytes_field(number, &pair)
    }

    pub fn point(&mut self, p: &Point) -> Vec<u8> {
        let route = format!("/r{}", p.stream.1);
        let value = match p.double {
            false => fixed_field(6, i64::try_from(p.value).unwrap().cast_unsigned()),
            true => fixed_field(4, (p.value as f64 / UNIT).to_bits()),
        };
        let mut chunks = vec![self.attribute(7, "route", &route), self.attribute(7, "zone", "z")];
        chunks.extend([fixed_field(3, p.time), value]);
        if p.start != 0 {
            chunks.push(fixed_field(2, p.start));
        }
        self.message(chunks, 0)
    }

    /// A request with all of the points, each in a resource of its own pod.
    pub fn request(&mut self, points: &[Point]) -> Vec<u8> {
        let mut out = Vec::new();
        for p in points {
            let point = self.point(p);
            let metric = self.sum(name(p.kind, p.double), p.kind, &[point]);
            let rm = self.resource(&format!("pod-{}", p.stream.0), &[metric]);
            out.extend(bytes_field(1, &rm).1);
        }
        out
    }

    pub fn sum(&mut self, name: &str, kind: Kind, points: &[Vec<u8>]) -> Vec<u8> {
        let temporality = if kind == Kind::Delta { 1 } else { 2 };
        let mut chunks: Vec<Chunk> = points.iter().map(|p| bytes_field(1, p)).collect();
        chunks.extend([varint_field(2, temporality), varint_field(3, 1)]);
        let sum = self.message(chunks, 1);
        self.message(vec![bytes_field(1, name.as_bytes()), bytes_field(3, b"1"), bytes_field(7, &sum)], 0)
    }

    pub fn gauge(&mut self, name: &str, points: &[Vec<u8>]) -> Vec<u8> {
        let chunks = points.iter().map(|p| bytes_field(1, p)).collect();
        let gauge = self.message(chunks, 1);
        self.message(vec![bytes_field(1, name.as_bytes()), bytes_field(5, &gauge)], 0)
    }

    pub fn resource(&mut self, pod: &str, metrics: &[Vec<u8>]) -> Vec<u8> {
        let attributes = vec![
            self.attribute(1, "pod", pod),
            self.attribute(1, "service.name", "shop"),
            self.attribute(1, "cloud", "c"),
        ];
        let resource = self.message(attributes, 0);
        let scope = self.message(vec![bytes_field(1, b"lib"), bytes_field(2, b"1")], 0);
        let mut chunks = vec![bytes_field(1, &scope)];
        chunks.extend(metrics.iter().map(|m| bytes_field(2, m)));
        let scope_metrics = self.message(chunks, 2);
        self.message(vec![bytes_field(1, &resource), bytes_field(2, &scope_metrics)], 2)
    }
}

/// Doubles of the tests count in units of 2^-20: sums of them are exact as long as they stay below 2^33.
pub const UNIT: f64 = 1_048_576.0;

/// A metric's name says what its points are.
pub fn name(kind: Kind, double: bool) -> &'static str {
    match (kind, double) {
        (Kind::Cumulative, false) => "ci",
        (Kind::Cumulative, true) => "cd",
        (Kind::Delta, false) => "di",
        (Kind::Delta, true) => "dd",
    }
}

/// Contents of all fields at a path of field numbers, in order. Plain recursion; panics on anything that is no message.
pub fn at_path(mut bytes: &[u8], path: &[u32], out: &mut Vec<Vec<u8>>) {
    let Some((number, rest)) = path.split_first() else {
        out.push(bytes.to_vec());
        return;
    };
    while !bytes.is_empty() {
        let tag = decode_varint(&mut bytes).unwrap();
        let len = match tag & 7 {
            0 => {
                decode_varint(&mut bytes).unwrap();
                continue;
            }
            1 => 8,
            2 => decode_varint(&mut bytes).unwrap() as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (content, after) = bytes.split_at(len);
        if tag == u64::from(*number) << 3 | 2 {
            at_path(content, rest, out);
        }
        bytes = after;
    }
}
