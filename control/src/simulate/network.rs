//! The network between embedders and the control host: what is under way, and when it comes.

use std::collections::BTreeMap;

/// Messages under way, by when they arrive; of those that arrive together the one that was sent first comes first.
#[derive(Debug)]
pub struct Network<M> {
    under_way: BTreeMap<(u64, u64), M>,
    sent: u64,
}

impl<M> Default for Network<M> {
    fn default() -> Network<M> {
        Network { under_way: BTreeMap::new(), sent: 0 }
    }
}

impl<M> Network<M> {
    /// Sends a message that arrives at a time.
    pub fn send(&mut self, arrives_s: u64, message: M) {
        self.sent += 1;
        self.under_way.insert((arrives_s, self.sent), message);
    }

    /// What has arrived by now.
    pub fn arrived(&mut self, now_s: u64) -> Vec<M> {
        let later = self.under_way.split_off(&(now_s + 1, 0));
        std::mem::replace(&mut self.under_way, later).into_values().collect()
    }
}
