//! `phoenix report`: files in any order make one table; what is refused is named.

mod tools;

use flate2::Compression;
use flate2::read::GzEncoder;
use phoenix_report::Report;
use prost::Message;
use std::io::Read;
use tools::{Folder, bad, good, phoenix, reports, text};

fn files(folder: &Folder, reports: &[Report]) -> Vec<String> {
    let name = |at: usize| format!("{at}.report");
    reports.iter().enumerate().map(|(at, report)| folder.file(&name(at), report.encode_to_vec())).collect()
}

fn run(files: &[String], more: &[&str]) -> String {
    let files = files.iter().map(String::as_str);
    good(&["report"].into_iter().chain(files).chain(more.iter().copied()).collect::<Vec<_>>())
}

/// The cells of the line that begins with these cells.
#[track_caller]
fn line<'t>(text: &'t str, start: &str) -> Vec<&'t str> {
    let want: Vec<&str> = start.split_whitespace().collect();
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    lines.find(|cells| cells.starts_with(&want)).unwrap_or_else(|| panic!("{start:?} is not in\n{text}"))
}

#[test]
fn three_workers_are_one_fleet() {
    let folder = Folder::new();
    let files = files(&folder, &reports::all());
    let tables = run(&files, &[]);
    assert!(
        tables.starts_with("2 processes, 3 workers, 2 tenants, ")
            && tables.contains("plan 7, newest report 2026-01-01T00:00:01Z"),
        "{tables}"
    );
    // Tenants of number only: 70 + 70 + 30 are added, and say so.
    assert_eq!(line(&tables, "team-a"), ["team-a", "≤", "170", "0", "100", "10", "90", "%", "87", "3", "2"]);
    // Streams 0 to 119, once each; share and admitted of gateway a once, though two workers report them.
    let requests = line(&tables, "http.server.requests");
    assert_eq!(
        requests,
        ["http.server.requests", "team-a", "sum", "120", "50", "80", "100", "%", "77", "3", "1,800"]
    );
    // Without user.id three series of gateway a remain, and at most 30 of gateway b, which sent no labels.
    let user = line(&tables, "http.server.requests user.id point");
    assert_eq!(user[2..], ["point", "≤", "80", "≤", "33", "-72", "%"]);
    assert!(tables.contains("protected"), "{tables}");
    assert_eq!(line(&tables, "http.server.requests user.id 4711")[2..], ["4711", "16", "18"]);
    assert!(tables.contains(reports::SENTENCE) && tables.contains("2025-12-31T23:59:00Z"), "{tables}");

    // Any order, any number of times.
    let mut again = files.clone();
    again.reverse();
    again.extend(files.clone());
    assert_eq!(run(&again, &[]), tables);
}

#[test]
fn what_is_shown_can_be_chosen() {
    let folder = Folder::new();
    let files = files(&folder, &reports::all());
    let order = |more: &[&str]| -> Vec<String> {
        let json: serde_json::Value =
            serde_json::from_str(&run(&files, &[&["--json"], more].concat())).unwrap();
        let tenants = json["tenants"].as_array().unwrap().iter();
        let metrics = tenants.flat_map(|tenant| tenant["metrics"].as_array().unwrap());
        metrics.map(|metric| metric["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(order(&[]), ["http.server.requests", "http.server.duration", "db.queries"]);
    assert_eq!(order(&["--sort", "name"]), ["http.server.duration", "http.server.requests", "db.queries"]);
    assert_eq!(order(&["--limit", "1"]), ["http.server.requests"]);
    assert_eq!(order(&["--metric", "http.*.d*"]), ["http.server.duration"]);
    assert_eq!(order(&["--tenant", "team-b"]), ["db.queries"]);
    assert!(order(&["--tenant", "nobody"]).is_empty());
    let limited = run(&files, &["--limit", "1"]);
    assert!(limited.contains("1 of 3 metrics shown: --limit"), "{limited}");
    assert!(bad(&["report"]).contains("FILES"));
}

#[test]
fn json_says_what_is_known_about_a_number() {
    let folder = Folder::new();
    let json = run(&files(&folder, &reports::all()), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let requests = &json["tenants"][0]["metrics"][0];
    assert_eq!(requests["active"]["value"], 120.0);
    assert_eq!(requests["active"]["is_upper_bound"], false);
    assert_eq!(requests["labels"][0]["without"]["at_least"], 3.0);
    assert_eq!(requests["labels"][0]["without"]["is_upper_bound"], true);
    assert_eq!(requests["admitted"], 77);
    assert_eq!(json["counts"]["points"], 1_800.0);
    assert_eq!(json["processes"][0]["workers"], 2);
}

#[test]
fn a_file_that_is_refused_is_named_and_the_others_are_shown() {
    let folder = Folder::new();
    let mut files = files(&folder, &reports::all());
    let mut packed = Vec::new();
    let one = reports::all()[0].encode_to_vec();
    GzEncoder::new(one.as_slice(), Compression::fast()).read_to_end(&mut packed).unwrap();
    files[0] = folder.file("0.report.gz", packed);
    let newer = Report { schema: 2, ..reports::all()[0].clone() };
    let refused = folder.file("newer", newer.encode_to_vec());
    let large = folder.file("large", vec![0; (4 << 20) + 1]);
    let bomb = folder.file("bomb", {
        let mut packed = Vec::new();
        GzEncoder::new(&vec![0; (4 << 20) + 1][..], Compression::fast()).read_to_end(&mut packed).unwrap();
        packed
    });
    files.extend([refused, large, bomb, folder.at("missing")]);
    let arguments: Vec<&str> = ["report"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = phoenix(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("2 processes, 3 workers"), "the packed one is one of them");
    let errors = text(&output.stderr);
    for part in [
        "newer: schema: 2; allowed: 1",
        "large: report: 4194305 bytes; allowed: up to 4194304",
        "bomb: report: inflates to more than 4194304 bytes",
        "missing: cannot be opened",
    ] {
        assert!(errors.contains(part), "{part:?} is not in {errors:?}");
    }
    assert!(bad(&["report", &folder.at("missing")]).contains("no report"));
}

#[test]
fn names_of_others_cannot_steer_the_terminal() {
    let folder = Folder::new();
    let mut all = reports::all();
    for report in &mut all {
        for tenant in &mut report.tenants {
            tenant.name += "\u{1b}[31m";
            for metric in &mut tenant.metrics {
                metric.name += "\u{1b}]0;x\u{7}\n";
                for label in &mut metric.labels {
                    label.key += "\u{9b}";
                    label.examples.iter_mut().for_each(|example| example.value += "\u{1b}c");
                }
                metric.decisions.iter_mut().for_each(|decision| decision.reason += "\u{1b}c");
            }
        }
        report.process += "\u{1b}c";
    }
    let tables = run(&files(&folder, &all), &[]);
    let bad: Vec<char> = tables.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty(), "{bad:?}");
}
