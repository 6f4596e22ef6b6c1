//! Identities: which stream a point belongs to, which series a fold makes of it (DESIGN §3.9).
//!
//! An identity is a sum modulo 2¹²⁸ of keyed hashes, one per fact: tenant, scope, metric, kind, each resource attribute, each point
//! attribute. Order does not matter, and the identity without a label costs one subtraction. Every value of OTLP has a canonical
//! form: strings as they are, other kinds by tag and content, arrays in order, key-value lists in any order.

use crate::decode::{AnyValue, Attributes, Elements, KeyValue, Run, Scope};
use crate::hash::{Domain, Hasher, Identity};
use crate::wire::{Span, WireError};
use core::hash::Hasher as Hasher64;

/// Hashes an identity for a table by taking half of its bits: they are keyed and uniform already.
#[derive(Default)]
pub struct HalfHasher(u64);

impl Hasher64 for HalfHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = Identity(value).high();
    }
}

/// A table of identities.
pub type ById<V> = hashbrown::HashMap<Identity, V, core::hash::BuildHasherDefault<HalfHasher>>;

/// Kinds of values that are not plain strings.
#[derive(Clone, Copy)]
enum Kind {
    Empty = 0,
    Bool = 1,
    Int = 2,
    Double = 3,
    Bytes = 4,
    Array = 5,
    KvList = 6,
    Element = 7,
}

/// Identity of one attribute of a point, a resource or a scope.
pub fn attribute(h: &Hasher, domain: Domain, buf: &[u8], kv: &KeyValue) -> Result<Identity, WireError> {
    pair(h, domain, buf, kv, 1)
}

/// Identity of all attributes of a run.
pub fn attributes(h: &Hasher, domain: Domain, buf: &[u8], run: &Run) -> Result<Identity, WireError> {
    let mut sum = Identity::ZERO;
    let mut it = run.attributes(buf);
    while let Some(kv) = it.next()? {
        sum = sum.plus(attribute(h, domain, buf, &kv)?);
    }
    Ok(sum)
}

fn pair(h: &Hasher, domain: Domain, buf: &[u8], kv: &KeyValue, depth: usize) -> Result<Identity, WireError> {
    let key = kv.key.bytes(buf);
    if let AnyValue::Str(s) = kv.value {
        return Ok(h.pair(domain, key, s.bytes(buf)));
    }
    // A string that equals this digest would have to be guessed against the key.
    let value = value(h, buf, &kv.value, depth)?;
    Ok(h.pair(domain, key, &value.to_le_bytes()))
}

fn value(h: &Hasher, buf: &[u8], v: &AnyValue, depth: usize) -> Result<Identity, WireError> {
    let leaf = |kind: Kind, content: &[u8]| h.pair(Domain::Nested, &[kind as u8], content);
    Ok(match *v {
        AnyValue::Empty => leaf(Kind::Empty, &[]),
        AnyValue::Str(s) => h.pair(Domain::Nested, &[], s.bytes(buf)),
        AnyValue::Bool(b) => leaf(Kind::Bool, &[u8::from(b)]),
        AnyValue::Int(i) => leaf(Kind::Int, &i.to_le_bytes()),
        AnyValue::Double(d) => leaf(Kind::Double, &d.to_bits().to_le_bytes()),
        AnyValue::Bytes(s) => leaf(Kind::Bytes, s.bytes(buf)),
        AnyValue::Array(span) => {
            let mut chain = leaf(Kind::Array, &[]);
            let mut it = Elements::new(buf, span, depth)?;
            while let Some(element) = it.next()? {
                let element = value(h, buf, &element, depth.saturating_add(1))?;
                let mut both = [0; 32];
                let (left, right) = both.split_at_mut(16);
                left.copy_from_slice(&chain.to_le_bytes());
                right.copy_from_slice(&element.to_le_bytes());
                chain = leaf(Kind::Element, &both);
            }
            chain
        }
        AnyValue::KvList(span) => {
            let mut sum = Identity::ZERO;
            let mut it = Attributes::of_list(buf, span, depth)?;
            while let Some(kv) = it.next()? {
                sum = sum.plus(pair(h, Domain::Nested, buf, &kv, depth.saturating_add(1))?);
            }
            leaf(Kind::KvList, &sum.to_le_bytes())
        }
    })
}

/// Identity of a scope: name, version, attributes.
pub fn scope(h: &Hasher, buf: &[u8], scope: &Scope) -> Result<Identity, WireError> {
    let name = h.pair(Domain::Scope, scope.name.bytes(buf), scope.version.bytes(buf));
    Ok(name.plus(attributes(h, Domain::ScopeAttribute, buf, &scope.attributes)?))
}

/// Identity of a metric: name and unit, and the facts of its kind ([`crate::kind`]).
pub fn metric(h: &Hasher, buf: &[u8], name: Span, unit: Span, facts: &[u8]) -> Identity {
    h.pair(Domain::Metric, name.bytes(buf), unit.bytes(buf)).plus(h.pair(Domain::Kind, facts, &[]))
}

/// Does the text of this value read as UTF-8 all the way down? Emissions must not carry anything else: one broken string
/// makes a receiver refuse the whole body.
pub fn is_text(buf: &[u8], v: &AnyValue, depth: usize) -> Result<bool, WireError> {
    let text = |s: Span| core::str::from_utf8(s.bytes(buf)).is_ok();
    match *v {
        AnyValue::Str(s) => Ok(text(s)),
        AnyValue::Array(span) => {
            let mut it = Elements::new(buf, span, depth)?;
            while let Some(element) = it.next()? {
                if !is_text(buf, &element, depth.saturating_add(1))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        AnyValue::KvList(span) => {
            let mut it = Attributes::of_list(buf, span, depth)?;
            while let Some(kv) = it.next()? {
                if !text(kv.key) || !is_text(buf, &kv.value, depth.saturating_add(1))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        AnyValue::Empty | AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) | AnyValue::Bytes(_) => {
            Ok(true)
        }
    }
}

/// The string rendering of a value that matchers compare with; arrays and lists have none.
pub fn render<'b>(buf: &'b [u8], v: &AnyValue, scratch: &'b mut String) -> Option<&'b [u8]> {
    use core::fmt::Write;
    scratch.clear();
    let written = match *v {
        AnyValue::Str(s) | AnyValue::Bytes(s) => return Some(s.bytes(buf)),
        AnyValue::Empty => Ok(()),
        AnyValue::Bool(b) => write!(scratch, "{b}"),
        AnyValue::Int(i) => write!(scratch, "{i}"),
        AnyValue::Double(d) => write!(scratch, "{d}"),
        AnyValue::Array(_) | AnyValue::KvList(_) => return None,
    };
    written.ok().map(|()| scratch.as_bytes())
}
