//! What each embedder said of what it was given.
//!
//! In: subscriptions, versions sent, ACKs and NACKs. Out: for each node, what is in force there and why something is not. As many nodes as [`NODES_MAX`]: of more, those that have
//! said nothing for the longest go.

use super::board::Node;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Nodes that are remembered.
pub const NODES_MAX: usize = 10_000;
/// Who polls and has been silent for so long is gone: two of the longest waits.
const POLL_SILENT_NS: u64 = 2 * super::poll::WAIT_MAX * 1_000_000_000;
/// Longest reason that is kept, bytes.
const REASON_MAX: usize = 4_096;

/// What a node has said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Said {
    /// How it is given plans: `xds` or `poll`.
    pub by: &'static str,
    /// A stream of it stands, or it has polled lately.
    pub is_connected: bool,
    /// Streams of it that stand: a new one may come before the old one is known to be broken.
    #[serde(skip)]
    streams: u32,
    /// The version that it was last given, and when (Unix nanoseconds).
    pub sent: Option<(String, u64)>,
    /// The version that it last took, and when.
    pub taken: Option<(String, u64)>,
    /// The version that it refused since, when, and why.
    pub refused: Option<(String, u64, String)>,
    /// When something was last heard of it, Unix nanoseconds.
    pub heard_ns: u64,
    /// From the last version that was sent to its being taken, nanoseconds.
    pub took_ns: Option<u64>,
}

/// Of all nodes.
#[derive(Debug, Default)]
pub struct Answers {
    of: Mutex<BTreeMap<Node, Said>>,
}

impl Answers {
    fn with<R>(&self, node: &Node, at_ns: u64, note: impl FnOnce(&mut Said) -> R) -> R {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if !of.contains_key(node) && of.len() >= NODES_MAX {
            let quietest = of.iter().min_by_key(|(_, said)| (said.is_connected, said.heard_ns));
            if let Some(quietest) = quietest.map(|(node, _)| node.clone()) {
                of.remove(&quietest);
            }
        }
        let said = of.entry(node.clone()).or_default();
        said.heard_ns = at_ns;
        note(said)
    }

    /// A stream of it begins, or ends.
    pub fn connected(&self, node: &Node, is_new: bool, at_ns: u64) {
        self.with(node, at_ns, |said| {
            said.by = "xds";
            said.streams =
                if is_new { said.streams.saturating_add(1) } else { said.streams.saturating_sub(1) };
            said.is_connected = said.streams > 0;
        });
    }

    /// It asks by a long poll.
    pub fn polled(&self, node: &Node, at_ns: u64) {
        self.with(node, at_ns, |said| (said.by, said.is_connected) = ("poll", true));
    }

    /// The version that a node has taken last.
    pub fn version_of(&self, node: &Node) -> Option<String> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.get(node)?.taken.as_ref().map(|(version, _)| version.clone())
    }

    /// It was given a version.
    pub fn sent(&self, node: &Node, version: &str, at_ns: u64) {
        self.with(node, at_ns, |said| {
            said.sent = Some((version.to_owned(), at_ns));
            said.took_ns = None;
        });
    }

    /// It has taken a version.
    pub fn taken(&self, node: &Node, version: &str, at_ns: u64) {
        self.with(node, at_ns, |said| {
            said.took_ns = match &said.sent {
                Some((sent, since)) if sent == version => Some(at_ns.saturating_sub(*since)),
                _ => None,
            };
            (said.taken, said.refused) = (Some((version.to_owned(), at_ns)), None);
        });
    }

    /// It has refused a version; what it had before is in force.
    pub fn refused(&self, node: &Node, version: &str, reason: &str, at_ns: u64) {
        let end = reason.floor_char_boundary(REASON_MAX);
        let reason = reason[..end].to_owned();
        self.with(node, at_ns, |said| said.refused = Some((version.to_owned(), at_ns, reason)));
    }

    /// All of them, as of now.
    pub fn all(&self, now_ns: u64) -> Vec<(Node, Said)> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let as_of_now = |(node, said): (&Node, &Said)| {
            let is_silent = said.by == "poll" && now_ns.saturating_sub(said.heard_ns) > POLL_SILENT_NS;
            let is_connected = said.is_connected && !is_silent;
            (node.clone(), Said { is_connected, ..said.clone() })
        };
        of.iter().map(as_of_now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.to_owned(), ..Node::default() }
    }

    #[test]
    fn a_refusal_stands_until_something_is_taken() {
        let answers = Answers::default();
        let a = node("a");
        answers.connected(&a, true, 1);
        answers.sent(&a, "v1", 10);
        answers.taken(&a, "v1", 14);
        answers.sent(&a, "v2", 20);
        answers.refused(&a, "v2", "rules[0].fold: …", 25);
        let [(_, said)] = &answers.all(40)[..] else { panic!() };
        assert_eq!(said.taken, Some(("v1".to_owned(), 14)), "the one before is in force");
        assert_eq!(said.refused, Some(("v2".to_owned(), 25, "rules[0].fold: …".to_owned())));
        answers.sent(&a, "v3", 30);
        answers.taken(&a, "v3", 37);
        let [(_, said)] = &answers.all(40)[..] else { panic!() };
        assert_eq!((said.refused.clone(), said.took_ns, said.heard_ns), (None, Some(7), 37));
    }

    #[test]
    fn a_stream_that_ends_late_takes_nothing_from_the_next() {
        let answers = Answers::default();
        let a = node("a");
        answers.connected(&a, true, 1);
        answers.connected(&a, true, 2);
        answers.connected(&a, false, 3);
        assert!(answers.all(4)[0].1.is_connected, "the new one stands");
        answers.connected(&a, false, 5);
        assert!(!answers.all(6)[0].1.is_connected);
        answers.polled(&a, 7);
        assert!(answers.all(8)[0].1.is_connected);
        assert!(!answers.all(8 + POLL_SILENT_NS).first().unwrap().1.is_connected, "it has not come back");
    }

    #[test]
    fn of_too_many_the_quietest_goes() {
        let answers = Answers::default();
        for n in 0..NODES_MAX {
            answers.connected(&node(&n.to_string()), n == 0, n as u64);
        }
        answers.polled(&node("one more"), 99_999);
        let all = answers.all(99_999);
        assert_eq!(all.len(), NODES_MAX);
        assert!(all.iter().any(|(node, _)| node.id == "0"), "it is connected");
        assert!(all.iter().all(|(node, _)| node.id != "1"));
    }
}
