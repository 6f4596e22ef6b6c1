//! The whole loop in virtual time: every property holds in every scenario, the same seed is the same run, and the judge can say no.

use phoenix_control::simulate::{ALL, Options, Scenario, run};

fn seeds() -> std::ops::Range<u64> {
    // Hundreds are a matter of `phoenix simulate --seeds`; a few are one of seconds.
    1..4
}

#[test]
fn every_property_holds_in_every_scenario() {
    std::thread::scope(|scope| {
        for half in ALL.chunks(4) {
            scope.spawn(move || {
                for scenario in half {
                    for seed in seeds() {
                        let it = run(Options { scenario: *scenario, seed, embedders: 4 }).unwrap();
                        assert!(
                            it.verdict.failures.is_empty(),
                            "{} seed {seed}: {:#?}",
                            scenario.name(),
                            it.verdict
                        );
                        assert!(
                            !scenario.explodes() || it.verdict.changes >= 2,
                            "{}: nothing was decided",
                            scenario.name()
                        );
                    }
                }
            });
        }
    });
}

#[test]
fn a_fleet_of_another_size_is_no_other_matter() {
    for (embedders, scenario) in [(1, Scenario::Explosion), (12, Scenario::JoinAndLeave)] {
        let it = run(Options { scenario, seed: 1, embedders }).unwrap();
        assert!(it.verdict.failures.is_empty(), "{embedders} embedders: {:#?}", it.verdict);
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_its_chart_shows_it() {
    let options = Options { scenario: Scenario::LostReports, seed: 7, embedders: 3 };
    let (one, other) = (run(options).unwrap(), run(options).unwrap());
    let text = |it: &phoenix_control::simulate::Run| {
        serde_json::to_string(&(&it.intervals, &it.decisions, &it.verdict, it.plans, it.reports)).unwrap()
    };
    assert_eq!(text(&one), text(&other));
    let svg = phoenix_control::simulate::svg(&one);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("user.id is folded away"), "the sentences stand under the picture");
    assert!(run(Options { embedders: 0, ..options }).unwrap_err().to_string().contains("allowed: 1 to 1000"));
}
