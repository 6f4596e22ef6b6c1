//! What is to be in force where.
//!
//! In: for nodes, clusters, tenants, and all others, the configuration of the module (`{"plan": …, "envoy": …}`). Out: for a node, the one that is the most its own. A version is a
//! hash of the text: equal texts are one version, whoever publishes them and whenever.

use crate::role::hex;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Whose a configuration is; the first that fits is a node's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A node, by its id.
    Node(String),
    /// A cluster's nodes: `node.cluster`.
    Cluster(String),
    /// A tenant's nodes: `tenant` in `node.metadata`.
    Tenant(String),
    /// Everybody else's.
    Others,
}

/// A node, as it names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.metadata["tenant"]`.
    pub tenant: String,
}

/// A configuration of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Names the text: 16 hex digits.
    pub version: Arc<str>,
    /// JSON.
    pub config: Arc<str>,
}

impl Published {
    /// A text, with its version.
    pub fn new(config: &str) -> Published {
        let digest = Sha256::digest(config.as_bytes());
        Published { version: hex(&digest[..8]).into(), config: config.into() }
    }
}

/// All that is to be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By whose it is.
    pub of: BTreeMap<Whose, Published>,
}

impl Snapshot {
    /// What a node gets.
    pub fn of(&self, node: &Node) -> Option<&Published> {
        let whose = [
            Whose::Node(node.id.clone()),
            Whose::Cluster(node.cluster.clone()),
            Whose::Tenant(node.tenant.clone()),
            Whose::Others,
        ];
        whose.iter().find_map(|whose| self.of.get(whose))
    }
}

/// The newest snapshot, and whoever waits for the next.
#[derive(Clone)]
pub struct Board {
    newest: watch::Sender<Arc<Snapshot>>,
}

impl Default for Board {
    fn default() -> Board {
        Board { newest: watch::Sender::new(Arc::default()) }
    }
}

impl Board {
    /// Puts a snapshot in the place of the one before, as a whole. False: it says the same.
    pub fn publish(&self, snapshot: Snapshot) -> bool {
        self.newest.send_if_modified(|now| {
            let is_new = **now != snapshot;
            if is_new {
                *now = Arc::new(snapshot);
            }
            is_new
        })
    }

    /// What is to be in force.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.newest.borrow().clone()
    }

    /// Waits for the next.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_what_is_the_most_its_own() {
        let mut snapshot = Snapshot::default();
        let node =
            Node { id: "gateway-a".to_owned(), cluster: "gateways".to_owned(), tenant: "shop".to_owned() };
        assert_eq!(snapshot.of(&node), None);
        let own = |text: &str| text.to_owned();
        for (whose, text) in [
            (Whose::Others, "others"),
            (Whose::Tenant(own("shop")), "tenant"),
            (Whose::Cluster(own("gateways")), "cluster"),
            (Whose::Node(own("gateway-a")), "node"),
        ] {
            snapshot.of.insert(whose, Published::new(text));
            assert_eq!(&*snapshot.of(&node).unwrap().config, text);
        }
        assert_eq!(&*snapshot.of(&Node::default()).unwrap().config, "others");
    }

    #[test]
    fn the_same_again_wakes_nobody() {
        let board = Board::default();
        let mut waiting = board.watch();
        let snapshot = Snapshot { of: [(Whose::Others, Published::new("{}"))].into() };
        assert!(board.publish(snapshot.clone()));
        assert!(waiting.has_changed().unwrap());
        waiting.mark_unchanged();
        assert!(!board.publish(snapshot));
        assert!(!waiting.has_changed().unwrap());
    }
}
