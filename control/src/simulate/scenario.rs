//! Scenarios: what happens to the fleet, when.
//!
//! Enters: a name. Leaves: questions of time answered: how many pods run, does a label explode, who is cut off, is the control host there. Everything is a
//! function of virtual time and of the run's own random numbers, so that a scenario and a seed make one run.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Seconds between two exports of a pod.
pub const EXPORT_S: u64 = 15;
/// Seconds between two decisions, and two reports of a worker.
pub const INTERVAL_S: u64 = 30;
/// A run, in seconds.
pub const RUN_S: u64 = 45 * 60;
/// When the story begins: everything has been measured by then.
pub const BEGINS_S: u64 = 8 * 60;
/// When what explodes has stopped.
pub const ENDS_S: u64 = 18 * 60;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Nothing.
    Steady,
    /// All pods are replaced within two minutes.
    DeployWave,
    /// A deployment adds a user's id to the labels of a metric, and is taken back ten minutes later.
    Explosion,
    /// Pods come and go with the load of a day, a day being half an hour.
    Diurnal,
    /// An explosion, while reports are lost, delayed, repeated and overtake each other.
    LostReports,
    /// An explosion, while a third of the embedders reaches nobody for five minutes.
    Partition,
    /// An explosion, and the control host dies in it and is gone for two minutes.
    ControlRestart,
    /// An explosion, while embedders join and leave, and connections follow.
    JoinAndLeave,
}

/// All of them.
pub const ALL: [Scenario; 8] = [
    Scenario::Steady,
    Scenario::DeployWave,
    Scenario::Explosion,
    Scenario::Diurnal,
    Scenario::LostReports,
    Scenario::Partition,
    Scenario::ControlRestart,
    Scenario::JoinAndLeave,
];

impl Scenario {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Steady => "steady",
            Scenario::DeployWave => "deploy-wave",
            Scenario::Explosion => "explosion",
            Scenario::Diurnal => "diurnal",
            Scenario::LostReports => "lost-reports",
            Scenario::Partition => "partition",
            Scenario::ControlRestart => "control-restart",
            Scenario::JoinAndLeave => "join-and-leave",
        }
    }

    /// Does a label explode in it?
    pub fn explodes(self) -> bool {
        !matches!(self, Scenario::Steady | Scenario::DeployWave | Scenario::Diurnal)
    }

    /// Does a label explode now?
    pub fn is_exploding(self, at_s: u64) -> bool {
        self.explodes() && (BEGINS_S..ENDS_S).contains(&at_s)
    }

    /// Which life a pod is in: of each life its streams are others.
    pub fn life(self, pod: usize, pods: usize, at_s: u64) -> u64 {
        let turn_s = BEGINS_S + 120 * pod as u64 / pods.max(1) as u64;
        u64::from(self == Scenario::DeployWave && at_s >= turn_s)
    }

    /// Does a pod run now?
    pub fn runs(self, pod: usize, pods: usize, at_s: u64) -> bool {
        if self != Scenario::Diurnal {
            return true;
        }
        // Half of them always; the others with the sun.
        let phase = (at_s as f64 / (30.0 * 60.0)) * std::f64::consts::TAU;
        let part = 0.75 + 0.25 * phase.sin();
        (pod as f64) < part * pods as f64
    }

    /// Is an embedder cut off from the control host now?
    pub fn is_cut_off(self, embedder: usize, at_s: u64) -> bool {
        self == Scenario::Partition
            && embedder.is_multiple_of(3)
            && (BEGINS_S + 60..BEGINS_S + 360).contains(&at_s)
    }

    /// Is the control host there?
    pub fn has_control(self, at_s: u64) -> bool {
        self != Scenario::ControlRestart || !(BEGINS_S + 90..BEGINS_S + 210).contains(&at_s)
    }

    /// Does the control host begin anew now, with what it stored, and without the reports that it had?
    pub fn restarts_control(self, at_s: u64) -> bool {
        self == Scenario::ControlRestart && at_s == BEGINS_S + 210
    }

    /// Embedders that are there, of so many in the beginning.
    pub fn embedders(self, first: usize, at_s: u64) -> std::ops::Range<usize> {
        if self != Scenario::JoinAndLeave {
            return 0..first;
        }
        let more = (first / 4).max(1);
        match at_s {
            s if s < BEGINS_S + 120 => 0..first,
            s if s < ENDS_S + 120 => 0..first + more,
            _ => more..first + more,
        }
    }

    /// Seconds that a report is under way; none: it is lost.
    pub fn report_takes_s(self, rng: &mut ChaCha8Rng) -> Vec<u64> {
        if self != Scenario::LostReports {
            return vec![1];
        }
        match rng.random_range(0..10) {
            0..3 => Vec::new(),
            3..5 => vec![rng.random_range(1..70), rng.random_range(1..70)],
            _ => vec![rng.random_range(1..50)],
        }
    }
}
