//! How many streams each pod has of each metric.
//!
//! Enters: a scenario. Leaves: a number for every pod and metric, which add up to the scenario's streams exactly: dealt in proportion to the metrics' shares, no more to any than
//! its labels can tell apart. Refused: more streams than all labels together can tell apart, with the most that is possible.

use super::scenario::{Metric, Scenario};
use super::shapes::Shape;
use anyhow::{Result, anyhow};

/// Streams of one metric in one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// Index of the metric.
    pub metric: usize,
    /// Streams at the beginning.
    pub streams: u64,
}

/// Of every pod, in the order of services and pods: its slots. `shapes` are those of the metrics.
pub fn deal(scenario: &Scenario, shapes: &[Shape]) -> Result<Vec<Vec<Slot>>> {
    let mut pods: Vec<Vec<Slot>> = Vec::new();
    for service in &scenario.services {
        let exports = |metric: &Metric| metric.services.is_empty() || metric.services.contains(&service.name);
        let slots: Vec<Slot> = scenario
            .metrics
            .iter()
            .enumerate()
            .filter(|(_, metric)| exports(metric))
            .map(|(metric, _)| Slot { metric, streams: 0 })
            .collect();
        pods.extend((0..service.pods).map(|_| slots.clone()));
    }
    let capacity: u64 = pods.iter().flatten().map(|slot| shapes[slot.metric].capacity()).sum();
    if scenario.streams > capacity {
        return Err(anyhow!(
            "streams: value {} is not allowed; allowed: 1 to {capacity}, which is what the labels of the metrics tell apart in all pods (more pods, or more `values`, allow more)",
            scenario.streams
        ));
    }
    let mut left = scenario.streams;
    while left > 0 {
        let room = |slot: &Slot| shapes[slot.metric].capacity() - slot.streams;
        let share = |slot: &Slot| scenario.metrics[slot.metric].share;
        let open: f64 = pods.iter().flatten().filter(|slot| room(slot) > 0).map(share).sum();
        let round = left;
        for slot in pods.iter_mut().flatten().filter(|slot| room(slot) > 0) {
            let part = (round as f64 * share(slot) / open) as u64;
            let given = part.min(room(slot)).min(left);
            slot.streams += given;
            left -= given;
        }
        if left == round {
            // Less than one for each: one each, in turn through the pods.
            for slot in pods.iter_mut().flatten().filter(|slot| room(slot) > 0) {
                let given = left.min(1);
                slot.streams += given;
                left -= given;
            }
        }
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::scenario::read;

    fn dealt(text: &str) -> Result<Vec<Vec<Slot>>> {
        let scenario = read(text, "test")?;
        scenario.check()?;
        let shapes: Vec<Shape> = scenario.metrics.iter().map(Shape::new).collect();
        deal(&scenario, &shapes)
    }

    const TWO: &str = "
services: [{ name: a, pods: 2 }, { name: b }]
metrics:
- { name: wide, type: sum, share: 9, labels: [{ name: l, values: 100 }] }
- { name: bare, type: gauge }
- { name: of_b, type: sum, services: [b], labels: [{ name: l, values: 3 }] }
";

    #[test]
    fn they_add_up_and_keep_to_what_labels_allow() {
        for streams in [1, 2, 7, 100, 250, 306] {
            let pods = dealt(&format!("streams: {streams}\n{TWO}")).unwrap();
            assert_eq!(pods.iter().flatten().map(|slot| slot.streams).sum::<u64>(), streams);
            assert!(pods.iter().flatten().all(|slot| slot.metric != 1 || slot.streams <= 1));
            assert_eq!(pods.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 3]);
        }
    }

    #[test]
    fn more_than_labels_allow_is_refused() {
        let error = dealt(&format!("streams: 307\n{TWO}")).unwrap_err().to_string();
        assert!(error.starts_with("streams: value 307 is not allowed; allowed: 1 to 306"), "{error}");
    }
}
