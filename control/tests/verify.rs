//! `phoenix verify` as a person runs it. Two real Prometheus are asked elsewhere; here a small server plays one, for what a real one does
//! seldom: being down, slow, wrong, or refusing every second request.

#[path = "verify/server.rs"]
mod server;

use server::{Does, EMPTY, GREETING, MATRIX, TOKEN, serve};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

struct Run {
    output: Output,
    report: serde_json::Value,
    page: String,
}

impl Run {
    fn status(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
            + &String::from_utf8_lossy(&self.output.stderr)
    }

    /// (place, verdict, reasons) of every query.
    fn queries(&self) -> Vec<(String, String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let all = self.report["queries"].as_array().unwrap();
        all.iter()
            .map(|query| {
                let reasons: Vec<String> = query["reasons"].as_array().unwrap().iter().map(text).collect();
                (text(&query["place"]), text(&query["verdict"]), reasons.join("; "))
            })
            .collect()
    }
}

/// Runs `phoenix verify` over two minutes with files of these names and contents.
fn verify(full: &str, folded: &str, files: &[(&str, &str)], more: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        paths.push(path);
    }
    run(full, folded, &paths, more, folder.path())
}

fn run(full: &str, folded: &str, files: &[PathBuf], more: &[&str], folder: &Path) -> Run {
    let (json, html) = (folder.join("report.json"), folder.join("report.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_phoenix"))
        .args([
            "verify",
            "--full",
            full,
            "--folded",
            folded,
            "--range",
            "2m",
            "--step",
            "60s",
            "--end",
            "1700000100",
        ])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .args(more)
        .arg("--queries")
        .args(files)
        .output()
        .unwrap();
    let report =
        std::fs::read(&json).map_or(serde_json::Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    Run { output, report, page: std::fs::read_to_string(&html).unwrap_or_default() }
}

const LIST: &[(&str, &str)] = &[("list.txt", "# two queries\nsum(x)\n\nsum(y)\n")];

#[test]
fn what_a_side_does_and_what_is_said() {
    let good = Does::Say(200, MATRIX);
    for (full, folded, verdict, words, status) in [
        (good, good, "equal", "2 of 2 queries give the same answer (100 %): passed", 0),
        (Does::Say(200, EMPTY), Does::Say(200, EMPTY), "no_data", "nothing to count", 1),
        (good, Does::Say(200, EMPTY), "differs", "only the full side has data", 1),
        (good, Does::Say(500, "out of memory"), "cannot_be_run", "folded side: HTTP 500: out of memory", 1),
        (
            good,
            Does::Say(422, r#"{"status":"error","error":"too many samples"}"#),
            "cannot_be_run",
            "folded side: HTTP 422: too many samples",
            1,
        ),
        (
            good,
            Does::Say(200, "{\"status\":"),
            "cannot_be_run",
            "folded side: HTTP 200 with an answer that cannot be read",
            1,
        ),
        (
            good,
            Does::Say(200, "<html>proxy</html>"),
            "cannot_be_run",
            "folded side: HTTP 200 with an answer that cannot be read",
            1,
        ),
        (
            good,
            Does::Say(200, GREETING),
            "cannot_be_run",
            "folded side: HTTP 200 with an answer that cannot be read",
            1,
        ),
        (Does::Wait(Duration::from_secs(20)), good, "cannot_be_run", "no answer within 500ms", 1),
        (good, Does::HangUp, "cannot_be_run", "folded side http://", 1),
        (Does::Down, good, "cannot_be_run", "nothing could be compared: full side http://", 2),
        (good, Does::Down, "cannot_be_run", "Connection refused", 2),
        (
            good,
            Does::Ill,
            "cannot_be_run",
            "nothing could be compared: folded side: HTTP 500: the disk is full",
            2,
        ),
    ] {
        let run = verify(&serve(full), &serve(folded), LIST, &["--timeout", "500ms"]);
        let case = format!("{full:?} {folded:?}: {}", run.text());
        assert_eq!(run.status(), status, "{case}");
        // Text in a table is wrapped, so reasons are looked for in the report too.
        assert!(
            run.text().contains(words) || run.queries()[0].2.contains(words),
            "{case} {:?}",
            run.queries()
        );
        assert!(run.queries().iter().all(|query| query.1 == verdict), "{case}");
    }
}

#[test]
fn half_of_the_requests_refused_and_the_rest_runs() {
    let list: String = (0..20).map(|n| format!("sum(x{n})\n")).collect();
    let run = verify(
        &serve(Does::Say(200, MATRIX)),
        &serve(Does::Half),
        &[("list.txt", &list)],
        &["--parallel", "1", "--fail-below", "40%"],
    );
    let (good, refused): (Vec<_>, Vec<_>) = run.queries().into_iter().partition(|query| query.1 == "equal");
    assert!(refused.iter().all(|query| query.2 == "folded side: HTTP 503: too many queries"), "{refused:?}");
    assert_eq!((good.len() + refused.len(), run.status()), (20, 0), "{}", run.text());
    assert!((9..=11).contains(&good.len()), "{}", run.text());
}

#[test]
fn a_side_that_only_fails_is_left_alone() {
    let list: String = (0..30).map(|n| format!("sum(x{n})\n")).collect();
    let run = verify(
        &serve(Does::Say(200, MATRIX)),
        &serve(Does::Say(500, "no")),
        &[("list.txt", &list)],
        &["--parallel", "1"],
    );
    let asked = run.queries().iter().filter(|query| query.2.contains("HTTP 500")).count();
    assert_eq!((asked, run.status()), (8, 1), "{}", run.text());
}

#[test]
fn each_bad_file_is_a_line_and_the_rest_runs() {
    let url = serve(Does::Say(200, MATRIX));
    let run = verify(
        &url,
        &url,
        &[
            ("list.txt", "sum(x)\nsum by (\nrate(x[$__rate_interval])\nrate(x[$mine])\n"),
            ("broken.json", "{\"panels\": ["),
            ("broken.yaml", "groups:\n- name: a\n rules: ["),
            ("other.yaml", "kind: Deployment\n"),
            (
                "group.yaml",
                "groups: [{name: g, rules: [{alert: A}, {expr: up}, {record: r, expr: 1}]}, {name: h}]",
            ),
            (
                "board.json",
                r#"{"title": "B", "panels": [{"title": "P", "libraryPanel": {"uid": "u", "name": "L"}}]}"#,
            ),
            ("map.yaml", "kind: ConfigMap\ndata:\n  a.json: '{'\n  b.yaml: 'groups: []'\n"),
        ],
        &[],
    );
    for words in [
        "broken.json: no JSON: EOF",
        "broken.yaml: no YAML: ",
        "other.yaml: no rules, no dashboard and no Kubernetes object with either",
        "group.yaml › g › A: the rule has no expr",
        "group.yaml › g › rule 2: a rule needs either record or alert",
        "group.yaml › h: the group has no list of rules",
        "board.json › B › P: library panel \"L\" (u) is in none of the files",
        "map.yaml: a.json: no JSON: EOF",
    ] {
        assert!(run.text().contains(words), "{words}\n{}", run.text());
    }
    let queries = run.queries();
    let said: Vec<_> = queries.iter().map(|(place, verdict, _)| (place.as_str(), verdict.as_str())).collect();
    let expected = [
        ("line 1", "equal"),
        ("line 2", "cannot_be_read"),
        ("line 3", "equal"),
        ("line 4", "cannot_be_read"),
        ("g › r", "equal"),
    ];
    assert_eq!(said, expected);
    assert_eq!(queries[3].2, "unknown variable $mine");
    assert!(queries[1].2.starts_with("syntax error: "), "{queries:?}");
    assert_eq!(run.status(), 1);
}

#[test]
fn a_token_comes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong, empty) =
        (file("right", &format!("{TOKEN}\n")), file("wrong", "guess"), file("empty", "\n"));
    let two_lines = file("two", &format!("{TOKEN}\nX-Scope-OrgID: other"));
    for (token, status, words) in [
        (Some(&right), 0, "passed"),
        (Some(&wrong), 2, "full side: HTTP 401: who are you?"),
        (None, 2, "full side: HTTP 401: who are you?"),
        (Some(&empty), 2, "no token"),
        (Some(&two_lines), 2, "more than one line"),
        (Some(&"/nonexistent".to_owned()), 2, "/nonexistent: No such file"),
    ] {
        let more: Vec<&str> = token.iter().flat_map(|file| ["--token-file", file.as_str()]).collect();
        let run = verify(&serve(Does::Guarded), &serve(Does::Guarded), LIST, &more);
        assert_eq!(run.status(), status, "{token:?}: {}", run.text());
        assert!(run.text().contains(words), "{token:?}: {}", run.text());
        let told = [run.text(), run.report.to_string(), run.page];
        assert!(told.iter().all(|text| !text.contains(TOKEN)), "the token is told: {told:?}");
    }
}

#[test]
fn recording_rules_that_refer_to_each_other() {
    // Nothing is stored on either side, so that every recorded metric has to be replaced by what it records.
    let url = serve(Does::Say(200, EMPTY));
    let rules = "groups:
- name: g
  rules:
  - {record: 'a:x', expr: 'sum(rate(x_total[5m]))'}
  - {record: 'b:x', expr: 'a:x * 2'}
  - {record: 'c:x', expr: 'b:x + a:x'}
  - {record: 'chicken', expr: 'egg'}
  - {record: 'egg', expr: 'chicken'}
  - {record: 'itself', expr: 'itself + 1'}
";
    let run = verify(&url, &url, &[("rules.yml", rules)], &[]);
    let queries = run.report["queries"].as_array().unwrap();
    let text = |index: usize| queries[index]["query"].as_str().unwrap().replace(['(', ')', ' '], "");
    assert_eq!(text(2), "sumratex_total[5m]*2+sumratex_total[5m]", "{}", run.text());
    assert!(run.queries()[..3].iter().all(|query| query.1 == "no_data"), "{}", run.text());
    for (place, verdict, why) in &run.queries()[3..] {
        assert_eq!(verdict, "cannot_be_read", "{place}");
        assert!(why.starts_with("recording rules refer to each other in a circle"), "{place}: {why}");
    }
    assert_eq!((run.queries().len(), run.status()), (6, 1), "{}", run.text());
}

/// A plan that folds `pod` away.
const PLAN: &str = r#"{"schema": 1, "version": 9,
    "hash_key": "8f2c1e5d90ab374466e1f0827bb3c95a17d4e86f2390bc51ae7d60f4895b12cd",
    "rules": [{"name": "r", "metric": {"exact": "http.requests"}, "pipeline": "optimized",
        "fold": {"labels": {"drop": {"resource": [], "attributes": ["pod"]}}}}]}"#;

#[test]
fn the_plan_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, list) = (folder.path().join("plan.json"), folder.path().join("list.txt"));
    std::fs::write(&plan, PLAN).unwrap();
    std::fs::write(
        &list,
        "sum by (pod) (rate(http_requests_total[5m]))\nsum(rate(http_requests_total[5m]))\n",
    )
    .unwrap();
    let (full, folded) = (serve(Does::Say(200, MATRIX)), serve(Does::Say(200, EMPTY)));
    let more = ["--plan", plan.to_str().unwrap()];
    let differing = run(&full, &folded, std::slice::from_ref(&list), &more, folder.path());
    let verdicts: Vec<_> = differing.queries().into_iter().map(|query| (query.1, query.2)).collect();
    let why = "groups by pod, which was folded in http_requests_total";
    assert_eq!(verdicts[0], ("cannot_be_answered".to_owned(), why.to_owned()));
    assert_eq!(verdicts[1].0, "differs");
    assert_eq!(differing.status(), 1);
    // The answers decide: where they agree, the plan's reason is only told.
    let agreeing = run(&full, &full, &[list], &more, folder.path());
    assert_eq!(agreeing.queries()[0].2, format!("by the plan it {why}; here the answers agree"));
    assert_eq!(agreeing.status(), 0);
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let url = serve(Does::Say(200, MATRIX));
    for (more, words) in [
        (&["--step", "0s"][..], "expected a duration such as 15s"),
        (&["--step", "1ms"], "Prometheus answers at most 11000"),
        (&["--tolerance", "200%"], "expected a share such as 0.005 or 0.5%"),
        (&["--range", "soon"], "expected a duration such as 15s"),
        (&["--plan", "/nonexistent"], "/nonexistent: No such file"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        std::fs::write(&list, "up\n").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(["verify", "--full", &url, "--folded", &url, "--queries"])
            .arg(&list)
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(words) && output.status.code() == Some(2), "{more:?}: {text}");
    }
    let run = verify("https://prometheus", &url, LIST, &[]);
    assert!(run.text().contains("--full https://prometheus: this build speaks plain HTTP"), "{}", run.text());
    assert_eq!(run.status(), 2);
}

#[test]
fn dashboards_of_every_schema() {
    let url = serve(Does::Say(200, MATRIX));
    let target = |expr: &str| format!(r#"{{"refId": "A", "expr": "{expr}"}}"#);
    for (board, expected) in [
        (format!(r#"{{"title": "Old", "rows": [{{"panels": [{{"title": "P", "targets": [{}]}}]}}]}}"#, target("a")), vec![("Old › P › A", "a")]),
        (format!(r#"{{"title": "New", "panels": [{{"id": 7, "targets": [{}]}}]}}"#, target("a")), vec![("New › panel 7 › A", "a")]),
        (
            format!(r#"{{"title": "Nested", "panels": [{{"type": "row", "title": "R", "panels": [{{"title": "P", "targets": [{}]}}]}}]}}"#, target("a")),
            vec![("Nested › R › P › A", "a")],
        ),
        (format!(r#"{{"dashboard": {{"title": "API", "panels": [{{"title": "P", "targets": [{}]}}]}}, "meta": {{}}}}"#, target("a")), vec![("API › P › A", "a")]),
        (
            format!(
                r#"{{"title": "Library", "__elements": {{"u": {{"uid": "u", "model": {{"targets": [{}]}}}}}}, "panels": [{{"title": "P", "libraryPanel": {{"uid": "u"}}}}]}}"#,
                target("a")
            ),
            vec![("Library › P › A", "a")],
        ),
        (
            r#"{"spec": {"title": "V2", "elements": {"p": {"kind": "Panel", "spec": {"title": "P", "data": {"spec": {"queries": [
                {"spec": {"refId": "A", "query": {"kind": "prometheus", "spec": {"expr": "a"}}}},
                {"spec": {"refId": "B", "query": {"kind": "DataQuery", "group": "loki", "spec": {"expr": "b"}}}}]}}}}}}}"#
                .to_owned(),
            vec![("V2 › P › A", "a")],
        ),
        (
            r#"{"title": "Sources", "panels": [{"title": "P", "datasource": {"type": "loki"}, "targets": [
                {"refId": "A", "expr": "a"}, {"refId": "B", "datasource": {"type": "prometheus", "uid": "$d"}, "expr": "b"},
                {"refId": "C", "expr": " "}]}]}"#
                .to_owned(),
            vec![("Sources › P › B", "b")],
        ),
        (
            r#"{"title": "Notes", "panels": [], "annotations": {"list": [{"name": "N", "expr": "a"}, {"name": "builtin"}]}}"#.to_owned(),
            vec![("Notes › annotation N", "a")],
        ),
        (
            r#"{"title": "Vars", "templating": {"list": [{"name": "pod", "type": "query", "includeAll": true, "query": "label_values(pod)"}]},
                "panels": [{"title": "P", "targets": [{"refId": "A", "expr": "rate(a{pod=~\"$pod\"}[$__rate_interval])"}]}]}"#
                .to_owned(),
            vec![("Vars › P › A", "rate(a{pod=~\".*\"}[4m])")],
        ),
    ] {
        let run = verify(&url, &url, &[("board.json", &board)], &["--scrape-interval", "60s"]);
        let found: Vec<_> = run.report["queries"].as_array().unwrap_or_else(|| panic!("{board}: {}", run.text())).clone();
        let found: Vec<_> = found.iter().map(|query| (query["place"].as_str().unwrap(), query["query"].as_str().unwrap())).collect();
        assert_eq!(found, expected, "{board}");
    }
    // A library panel in a file of its own.
    let run = verify(
        &url,
        &url,
        &[
            (
                "board.json",
                r#"{"title": "B", "panels": [{"title": "P", "libraryPanel": {"uid": "u", "name": "L"}}]}"#,
            ),
            (
                "panel.json",
                r#"{"result": {"uid": "u", "model": {"targets": [{"refId": "A", "expr": "a"}]}}}"#,
            ),
        ],
        &[],
    );
    assert_eq!(run.queries(), [("B › P › A".to_owned(), "equal".to_owned(), String::new())]);
}

#[test]
fn the_page_needs_nothing_else_and_shows_text_as_text() {
    let run = verify(
        &serve(Does::Say(200, MATRIX)),
        &serve(Does::Say(200, MATRIX)),
        &[("list.txt", "sum(x{a=\"</code><script>alert(1)</script>\"})\n")],
        &[],
    );
    assert!(run.page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_eq!(run.page.matches("<script").count(), 1);
    for outside in ["src=", "<link", "@import", "url(", "fetch(", "XMLHttp"] {
        assert!(!run.page.contains(outside), "{outside}");
    }
}

#[test]
fn every_query_of_kube_prometheus_is_understood() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("PHOENIX_SHARED").map_or(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(shared.join("data/kube-prometheus")) else {
        eprintln!("skipped: no kube-prometheus in {}; PHOENIX_SHARED names the folder", shared.display());
        return;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let url = serve(Does::Say(200, EMPTY));
    let folder = tempfile::tempdir().unwrap();
    let run = run(&url, &url, &files, &[], folder.path());
    let queries = run.queries();
    let bad: Vec<_> = queries.iter().filter(|query| query.1 != "no_data").collect();
    eprintln!("{} of {} queries understood", queries.len() - bad.len(), queries.len());
    assert!(
        bad.is_empty() && run.report["complaints"] == serde_json::json!([]),
        "{bad:#?} {}",
        run.report["complaints"]
    );
    assert!(queries.len() > 700, "{}", queries.len());
}

/// The fenced blocks of a language in the book's page.
fn blocks(language: &str) -> Vec<String> {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.md")).unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_worked_example_of_the_book_is_what_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, language: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, &blocks(language)[0]).unwrap();
        path
    };
    let (list, rules, plan) =
        (file("list.txt", "promql"), file("rules.yaml", "yaml"), file("plan.json", "json"));
    let (full, folded) = (serve(Does::Say(200, MATRIX)), serve(Does::Say(200, EMPTY)));
    let run = run(&full, &folded, &[list, rules], &["--plan", plan.to_str().unwrap()], folder.path());
    let lines: Vec<String> = run.report["queries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|query| query["verdict"] == "cannot_be_answered")
        .map(|query| {
            format!(
                "list.txt › {}: {}",
                query["place"].as_str().unwrap(),
                query["reasons"][0].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(blocks("text")[1].lines().collect::<Vec<_>>(), lines, "{}", run.text());
    let note = "route:requests:rate5m: expanded, only the full side has it stored";
    assert_eq!(run.report["queries"][5]["notes"][0], note);
}

/// The report of a process with these streams.
fn embedder(key: u64, process: &str, streams: std::ops::Range<u64>) -> String {
    use phoenix_filter::affinity::{Report, Sample};
    let ids = streams.map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let report = Report { key, process: process.to_owned(), sample: Sample::of(ids) };
    serve(Does::Bytes(report.encode().leak()))
}

#[test]
fn embedders_that_share_streams_fail_the_run() {
    let [full, folded] = [serve(Does::Say(200, MATRIX)), serve(Does::Say(200, MATRIX))];
    let run = |urls: &[&str]| {
        let more: Vec<&str> = urls.iter().flat_map(|url| ["--embedder", url]).collect();
        verify(&full, &folded, LIST, &more)
    };
    let (a, b) = (embedder(7, "a@1", 0..5_000), embedder(7, "b@1", 5_000..9_000));
    let apart = run(&[&a, &b]);
    assert_eq!(apart.status(), 0, "{}", apart.text());
    assert!(apart.text().contains("share none: cumulative folds are right"), "{}", apart.text());
    assert_eq!(apart.report["affinity"]["holds"], true);
    assert_eq!(apart.report["affinity"]["pairs"][0]["shared"], 0.0);

    let c = embedder(7, "c@1", 2_500..9_000);
    let shared = run(&[&a, &c]);
    assert_eq!(shared.status(), 1, "{}", shared.text());
    assert!(
        shared.text().contains("cumulative folds inflate; give them stream affinity"),
        "{}",
        shared.text()
    );
    assert!(shared.page.contains("cumulative folds inflate"));
    let about = shared.report["affinity"]["pairs"][0]["shared"].as_f64().unwrap();
    assert!((about - 2_500.0).abs() < 500.0, "{about}");

    // What cannot be compared is a line, and no success.
    let (down, other) = (serve(Does::Down), embedder(8, "d@1", 0..10));
    let junk = serve(Does::Bytes(b"<html>"));
    for (urls, why) in [
        ([&a, &down], "not known: embedder"),
        ([&a, &other], "different hash keys"),
        ([&a, &a], "one process, a@1"),
        ([&a, &junk], "the answer is no report of this version"),
        ([&a, &"ftp://x".to_owned()], "expected http://HOST:PORT"),
    ] {
        let run = run(&[urls[0], urls[1]]);
        assert_eq!(run.status(), 1, "{}", run.text());
        assert!(run.text().contains(why), "{why}: {}", run.text());
        assert!(run.text().contains("1 of 1 queries") || run.text().contains("queries give the same answer"));
    }
    assert_eq!(run(&[]).report["affinity"], serde_json::Value::Null);
}
