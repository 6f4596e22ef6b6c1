//! `bench containment`: rows and figures.
//!
//! In: options. Out: a table for each share, a row for each scenario and process; figures with targets for the engine, without for the models beside it; and which seeds miss
//! what. One run is one scenario with one seed through one process.

use super::baseline::{FirstCome, Growth};
use super::native::Native;
use super::plan::plan;
use super::process::Process;
use super::run::run_all;
use super::scenario::{EPOCH_NS, Kind, Scenario, Size};
use super::verdict::{FirstFold, INNOCENT_MAX, OVER_MAX, Verdict};
use super::wasmtime::Wasmtime;
use crate::figures::{Figures, Target, row, table};
use comfy_table::Table;

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The model of a limit on growth.
    Growth,
    /// The model of a limit on active series.
    FirstCome,
    /// The engine in this process.
    Native,
    /// The built module under the test host.
    Wasmtime,
}

impl Subject {
    /// All of them, in the order of rows.
    pub const ALL: [Subject; 4] = [Subject::Growth, Subject::FirstCome, Subject::Native, Subject::Wasmtime];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Growth => "growth_limit",
            Subject::FirstCome => "series_limit",
            Subject::Native => "native",
            Subject::Wasmtime => "wasmtime",
        }
    }

    /// Others', modelled.
    pub fn is_baseline(self) -> bool {
        matches!(self, Subject::Growth | Subject::FirstCome)
    }

    /// A process under the plan of a scenario.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self, scenario: &Scenario) -> anyhow::Result<Box<dyn Process>> {
        let alive_ns = scenario.times().period_s * 2 / 3 * 1_000_000_000;
        Ok(match self {
            Subject::Growth => Box::new(Growth::limits(&scenario.shares(), EPOCH_NS)),
            Subject::FirstCome => Box::new(FirstCome::limits(&scenario.shares(), alive_ns)),
            Subject::Native => Box::new(Native::start(&plan(scenario))?),
            Subject::Wasmtime => Box::new(Wasmtime::start(&plan(scenario))?),
        })
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seeds of the reduced size at a share of 100, natively; everything else is a part of it.
    pub seeds: u64,
    /// The first seed.
    pub first: u64,
    /// Kinds.
    pub kinds: Vec<Kind>,
    /// Shares.
    pub shares: Vec<usize>,
    /// Who.
    pub subjects: Vec<Subject>,
    /// Whether the full size is run as well.
    pub has_full: bool,
}

impl Options {
    /// How many seeds of a size a subject runs: as many as fit into some minutes. The full size takes hundreds of times the points, a share of 10,000 some twenty
    /// times, the test host some ten times the time.
    pub fn seeds_of(&self, subject: Subject, share: usize, size: Size) -> u64 {
        let by_share = if share > 1_000 { 20 } else { 1 };
        let by_subject = if subject == Subject::Wasmtime { 10 } else { 1 };
        match size {
            Size::Reduced => self.seeds.div_ceil(by_share * by_subject),
            Size::Full if !self.has_full => 0,
            Size::Full if subject == Subject::Wasmtime => 1,
            Size::Full => 3,
        }
    }
}

/// What was found.
pub struct Outcome {
    /// All figures.
    pub figures: Figures,
    /// A table for each share.
    pub tables: Vec<(usize, Table)>,
    /// What the engine missed: subject, scenario, what.
    pub missed: Vec<String>,
}

/// The worst and the sums of many runs.
#[derive(Default)]
struct Summary {
    runs: u64,
    held: u64,
    over: f64,
    in_most: usize,
    out_most: usize,
    first_fold: FirstFold,
    innocent: u64,
    innocent_cut: u64,
    flaps: u64,
    splits: u64,
    turned: u64,
    foreign: u64,
    touched: u64,
    error_part: f64,
    errors: u64,
}

impl Summary {
    fn add(&mut self, verdict: &Verdict) {
        self.runs += 1;
        self.held += u64::from(verdict.missed().is_empty());
        self.over = self.over.max(verdict.over);
        self.in_most = self.in_most.max(verdict.in_most);
        self.out_most = self.out_most.max(verdict.out_most);
        self.first_fold = self.first_fold.max(verdict.first_fold);
        self.innocent += verdict.innocent;
        self.innocent_cut += verdict.innocent_cut;
        self.flaps += verdict.flaps;
        self.splits += verdict.splits;
        self.turned += verdict.turned;
        self.foreign += verdict.foreign;
        self.touched += verdict.touched;
        self.error_part = self.error_part.max(verdict.error_part());
        self.errors += u64::from(!verdict.errors.is_empty());
    }

    fn innocent_part(&self) -> f64 {
        if self.innocent == 0 { 0.0 } else { self.innocent_cut as f64 / self.innocent as f64 }
    }

    fn figures(&self, prefix: &str, is_bound: bool, figures: &mut Figures) {
        let first_fold = self.first_fold.batches() as f64;
        let all = [
            ("over", self.over, "part of the share", OVER_MAX),
            ("first_fold", first_fold, "batches", 0.0),
            ("innocent", self.innocent_part(), "part of the innocent", INNOCENT_MAX),
            ("flaps", self.flaps as f64, "changes", 0.0),
            ("total_error", self.error_part, "part of the total", 0.0),
            ("total_errors", self.errors as f64, "runs", 0.0),
            ("splits", self.splits as f64, "streams", 0.0),
            ("foreign", self.foreign as f64, "points", 0.0),
            ("others_touched", self.touched as f64, "bodies", 0.0),
        ];
        for (name, value, unit, most) in all {
            let figure = format!("{prefix}.{name}");
            match is_bound {
                true => figures.bound(figure, value, unit, Target::AtMost(most)),
                false => figures.add(figure, value, unit),
            }
        }
        figures.add(format!("{prefix}.runs"), self.runs as f64, "runs");
        figures.add(format!("{prefix}.held"), self.held as f64, "runs");
        figures.add(format!("{prefix}.turned"), self.turned as f64, "streams");
        figures.add(format!("{prefix}.in_most"), self.in_most as f64, "streams");
        figures.add(format!("{prefix}.out_most"), self.out_most as f64, "series");
    }

    fn cells(&self) -> Vec<String> {
        let percent = |part: f64| match part {
            0.0 => "0".to_owned(),
            part if part < 0.01 => format!("{:.3} %", part * 100.0),
            part => format!("{:.1} %", part * 100.0),
        };
        let first_fold = match self.first_fold {
            FirstFold::NotNeeded => "-".to_owned(),
            FirstFold::After(0) => "same batch".to_owned(),
            FirstFold::After(batches) => format!("+{batches}"),
            FirstFold::Never(_) => "never".to_owned(),
        };
        vec![
            self.runs.to_string(),
            self.in_most.to_string(),
            self.out_most.to_string(),
            percent(self.over),
            first_fold,
            percent(self.innocent_part()),
            self.flaps.to_string(),
            percent(self.error_part),
            self.splits.to_string(),
            self.touched.to_string(),
            format!("{}/{}", self.held, self.runs),
        ]
    }
}

const HEADER: [&str; 12] = [
    "scenario, process",
    "runs",
    "streams",
    "series",
    "over share",
    "first fold",
    "innocent cut",
    "flaps",
    "total error",
    "split",
    "others",
    "held",
];

/// Runs everything; `say` hears what is being done.
///
/// # Errors
/// A process failed.
pub fn run(options: &Options, say: impl Fn(&str)) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome { figures: Figures::default(), tables: Vec::new(), missed: Vec::new() };
    for share in &options.shares {
        let mut table = table(&HEADER);
        for kind in &options.kinds {
            for size in [Size::Reduced, Size::Full] {
                for subject in &options.subjects {
                    let scenarios: Vec<Scenario> = (options.first..)
                        .map(|seed| Scenario { kind: *kind, seed, share: *share, size })
                        .take(usize::try_from(options.seeds_of(*subject, *share, size))?)
                        .collect();
                    if scenarios.is_empty() {
                        continue;
                    }
                    let name = format!("{} {} {}", kind.name(), size.name(), subject.name());
                    say(&format!("share {share}: {name}, {} runs", scenarios.len()));
                    let verdicts = run_all(&scenarios, |scenario| subject.start(scenario), |_| {})?;
                    let mut summary = Summary::default();
                    for (scenario, verdict) in scenarios.iter().zip(&verdicts) {
                        summary.add(verdict);
                        let missed = verdict.missed();
                        if !subject.is_baseline() && !missed.is_empty() {
                            outcome.missed.push(format!(
                                "share {share} {name} seed {} ({:?}): {}",
                                scenario.seed,
                                scenario.form(),
                                missed.join("; ")
                            ));
                        }
                    }
                    let prefix = format!("share{share}.{}.{}.{}", kind.name(), size.name(), subject.name());
                    summary.figures(&prefix, !subject.is_baseline(), &mut outcome.figures);
                    table.add_row(row(&name, &summary.cells()));
                }
            }
        }
        outcome.tables.push((*share, table));
    }
    Ok(outcome)
}
