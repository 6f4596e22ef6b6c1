//! The command line on real files, and the documents that go with it: schema and examples cannot drift from the code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn phoenix(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_phoenix")).args(arguments).output().unwrap()
}

/// `phoenix … | head`: who is not read any more says nothing about it, and is no success either.
#[test]
fn a_reader_that_has_left_ends_a_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_phoenix"));
    let output = command.args(["policy", "schema"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn document(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let content = std::fs::read_to_string(&path).unwrap();
    (path, content)
}

/// The fenced blocks of a language in a Markdown document.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    markdown.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn file(folder: &tempfile::TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let output = phoenix(&["plan", "schema"]);
    assert!(output.status.success());
    let (path, committed) = document("plan.schema.json");
    assert!(
        text(&output.stdout) == committed,
        "{} is old: cargo run -p phoenix-control -- plan schema > docs/plan.schema.json",
        path.display()
    );
}

#[test]
fn the_schema_knows_the_same_fields_and_limits_as_the_reader() {
    // The reader's own list of fields, from its refusal of an unknown one.
    let (_, committed) = document("plan.schema.json");
    let schema: serde_json::Value = serde_json::from_str(&committed).unwrap();
    let error = phoenix_plan::Plan::parse(b"{\"?\": 1}").unwrap_err();
    let known: std::collections::BTreeSet<&str> =
        error.allowed.split("known here: ").nth(1).unwrap().split(", ").collect();
    let written = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(known, written);
    assert_eq!(schema["required"], serde_json::json!(["schema", "version", "hash_key"]));
    assert_eq!(schema["additionalProperties"], false);

    use phoenix_plan::bounds;
    let limits = &schema["$defs"]["Limits"]["properties"];
    for (field, range) in [
        ("streams_max", &bounds::STREAMS),
        ("delta_streams_max", &bounds::DELTA_STREAMS),
        ("series_max", &bounds::SERIES),
        ("pending_bytes_max", &bounds::PENDING_BYTES),
        ("queue_bytes_max", &bounds::QUEUE_BYTES),
        ("emission_bytes_max", &bounds::EMISSION_BYTES),
        ("backlog_bytes_max", &bounds::BACKLOG_BYTES),
        ("body_bytes_max", &bounds::BODY_BYTES),
    ] {
        assert_eq!(limits[field]["minimum"], *range.start(), "{field}");
        assert_eq!(limits[field]["maximum"], *range.end(), "{field}");
        let row = format!("| `limits.{field}` |");
        let (_, book) = document("plan.md");
        let row =
            book.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row of {field}"));
        assert!(row.contains(&format!("| {} to {}", range.start(), range.end())), "{row}");
        assert!(
            row.contains(&format!("| {} |", limits[field]["default"])) || limits[field]["default"].is_null(),
            "{row}"
        );
    }
    assert_eq!(schema["properties"]["rules"]["maxItems"], bounds::RULES);
    assert_eq!(schema["properties"]["shards"]["maximum"], *bounds::SHARDS.end());
    assert_eq!(schema["$defs"]["Rule"]["properties"]["resource"]["maxItems"], bounds::MATCHERS);
}

/// The plan that a block of the book stands for: itself, or the worked example with the rule of the same name replaced by it.
fn plan_of(block: &str, example: &str) -> String {
    let read = |json: &str| {
        serde_json::from_str::<serde_json::Value>(json).unwrap_or_else(|e| panic!("{e}\n{json}"))
    };
    let (value, mut plan) = (read(block), read(example));
    if value.get("schema").is_some() {
        return block.to_owned();
    }
    let rules = plan["rules"].as_array_mut().unwrap();
    let replaced = rules.iter_mut().find(|rule| rule["name"] == value["name"]);
    *replaced.unwrap_or_else(|| panic!("the worked example has no such rule: {block}")) = value;
    plan.to_string()
}

#[test]
fn the_examples_of_the_book_are_good_plans() {
    let (_, book) = document("plan.md");
    let plans = blocks(&book, "json");
    assert_eq!(plans.len(), 5);
    for block in &plans {
        let plan = plan_of(block, &plans[0]);
        phoenix_plan::Plan::parse(plan.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{plan}"));
    }
}

#[test]
fn the_worked_switches_follow_each_other() {
    let (_, book) = document("plan.md");
    let plans = blocks(&book, "json");
    let rules = plans.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, block)| {
        let plan = phoenix_plan::Plan::parse(plan_of(block, &plans[0]).as_bytes()).unwrap();
        plan.rules[1].clone()
    });
    let rules: Vec<_> = rules.collect();
    let [unswitched, on, other, off] = rules.as_slice() else { panic!("{} rules", rules.len()) };
    assert_eq!(on.fold, unswitched.fold);
    for (before, after) in [(on, other), (other, off)] {
        let switch = after.switch.as_ref().unwrap();
        assert_eq!((before.pipeline, &before.fold), (switch.from.pipeline, &switch.from.fold));
        assert!(before.switch.as_ref().unwrap().at < switch.at);
    }
}

#[test]
fn the_example_with_every_optional_field_has_them_all() {
    let (_, committed) = document("plan.schema.json");
    let schema: serde_json::Value = serde_json::from_str(&committed).unwrap();
    let (_, book) = document("plan.md");
    let plan: serde_json::Value = serde_json::from_str(&blocks(&book, "json")[1]).unwrap();
    // A rule keeps the heaviest streams, or it switches: two rules hold all fields.
    let rule = &plan["rules"][0];
    let ranks = plan["rules"].as_array().unwrap().iter().find(|rule| !rule["topk"].is_null()).unwrap();
    let mut both = rule.clone();
    both["topk"] = ranks["topk"].clone();
    for (kind, object) in [
        ("Tenant", &plan["tenant"]),
        ("Limits", &plan["limits"]),
        ("Rule", &both),
        ("TopK", &ranks["topk"]),
        ("Fold", &rule["fold"]),
        ("Switch", &rule["switch"]),
        ("Treatment", &rule["switch"]["from"]),
    ] {
        holds_all(kind, &schema["$defs"][kind], object);
    }
    holds_all("Plan", &schema, &plan);
}

/// Does an object hold every field that its schema knows, and none with its default?
fn holds_all(kind: &str, schema: &serde_json::Value, object: &serde_json::Value) {
    for (field, known) in schema["properties"].as_object().unwrap_or_else(|| panic!("no schema of {kind}")) {
        let value = object.get(field).unwrap_or_else(|| panic!("the example has no {kind}.{field}"));
        assert!(known.get("default").is_none_or(|default| default != value), "{kind}.{field} is the default");
    }
}

#[test]
fn the_explanations_in_the_book_are_what_the_command_prints() {
    let (_, book) = document("plan.md");
    let folder = tempfile::tempdir().unwrap();
    let plans = blocks(&book, "json");
    let shown: Vec<String> =
        blocks(&book, "text").into_iter().filter(|block| block.starts_with("$ phoenix ")).collect();
    assert_eq!(shown.len(), 2, "one of the worked example, one of its switch");
    for (block, shown) in [&plans[0], &plans[2]].into_iter().zip(shown) {
        let plan = file(&folder, "plan.json", &plan_of(block, &plans[0]));
        let (command, expected) = shown.split_once("\nrule 1").unwrap();
        let command =
            command.strip_prefix("$ phoenix ").unwrap().replace("\\\n", " ").replace("plan.json", &plan);
        let output = phoenix(&command.split_whitespace().collect::<Vec<_>>());
        assert_eq!(text(&output.stdout), format!("rule 1{expected}"));
    }
}

#[test]
fn check_takes_bare_and_wrapped_plans_and_refuses_with_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let (_, book) = document("plan.md");
    let plan = &blocks(&book, "json")[0];
    let bare = file(&folder, "bare.json", plan);
    let wrapped =
        file(&folder, "wrapped.json", &format!("{{\"plan\": {plan}, \"envoy\": {{\"cluster\": \"sink\"}}}}"));
    let bad = file(&folder, "bad.json", &plan.replace("\"version\": 42", "\"version\": 0"));
    let bad_wrapped = file(
        &folder,
        "bad_wrapped.json",
        &format!("{{\"plan\": {}}}", plan.replace("\"optimized\"", "\"folded\"")),
    );
    let stranger = file(&folder, "stranger.json", &format!("{{\"plan\": {plan}, \"nginx\": {{}}}}"));

    let good = phoenix(&["plan", "check", &bare, &wrapped]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let shown = text(&good.stdout);
    assert!(shown.contains(&format!("{bare}: good: version 42, 2 rules\n")), "{shown}");
    assert!(shown.contains(&format!("{wrapped}: good: version 42, 2 rules\n")), "{shown}");
    assert!(shown.contains("client.address,k8s.pod.name,service.instance.id"), "{shown}");

    let mixed = phoenix(&["plan", "check", &bad, &bad_wrapped, &stranger, &bare]);
    assert_eq!(mixed.status.code(), Some(1));
    let errors = text(&mixed.stderr);
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(
        lines[0],
        format!("{bad}: plan refused: field version: value 0 is not allowed; allowed: 1 or more")
    );
    assert!(lines[1].starts_with(&format!("{bad_wrapped}: plan refused: line ")), "{}", lines[1]);
    assert!(
        lines[1].contains("rule 2 \"web requests\": field pipeline: value \"folded\" is not allowed"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].contains("field nginx: allowed: no such field; known here: plan, envoy"),
        "{}",
        lines[2]
    );
    assert_eq!(lines[3..], ["3 of 4 plans refused"]);
    assert!(text(&mixed.stdout).contains("bare.json: good"), "the good one is checked all the same");

    let missing = phoenix(&["plan", "check", "no/such/file.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).starts_with("no/such/file.json: "));
}

/// The notes on a plan that is good.
fn notes(plan: &str) -> Vec<String> {
    let output = phoenix(&["plan", "check", plan]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    shown.lines().filter_map(|line| line.split_once("note: ")).map(|(_, note)| note.to_owned()).collect()
}

/// A time so many seconds from now, as a plan writes it.
fn in_seconds(after_s: i64) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let at = i64::try_from(now).unwrap() + after_s * 1_000;
    phoenix_plan::InstantMs(u64::try_from(at).unwrap()).to_string()
}

/// A plan of rules that fold, each with a switch from raw at its time; `more` are further fields of the plan.
fn switching(times: &[&str], more: &str) -> String {
    let rule = |(n, at): (usize, &&str)| {
        format!(
            r#"{{"name":"r{n}","metric":{{"exact":"m{n}"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"attributes":["a"]}}}},"delay":"1m"}},
            "switch":{{"at":"{at}","from":{{"pipeline":"full_fidelity"}}}}}}"#
        )
    };
    let rules: Vec<String> = times.iter().enumerate().map(rule).collect();
    format!(r#"{{"schema":1,"version":1,"hash_key":"{KEY}"{more},"rules":[{}]}}"#, rules.join(","))
}

#[test]
fn notes_on_the_time_of_a_switch() {
    let folder = tempfile::tempdir().unwrap();
    let times = [-3_600, -300, 90, 300].map(in_seconds);
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let plan = file(&folder, "plan.json", &switching(&times, ""));
    let expected = [
        format!(
            "rule 1 \"r0\": switch.at {} is past by more than stream_expiry, 10m: the switch is over and may be taken out",
            times[0]
        ),
        format!(
            "rule 2 \"r1\": switch.at {} is past: where it is not in force yet, it may lose up to one export interval of each stream",
            times[1]
        ),
        format!(
            "rule 3 \"r2\": switch.at {} is less than 2m ahead, twice the delay: a stream that is not seen before it may lose up to one export interval",
            times[2]
        ),
    ];
    assert_eq!(notes(&plan), expected);
    // Under a clock that follows the points nobody knows what is past.
    let plan = file(&folder, "event.json", &switching(&times, r#","clock":"event""#));
    assert_eq!(notes(&plan), [""; 0]);
}

#[test]
fn notes_on_the_sides_of_a_switch() {
    let folder = tempfile::tempdir().unwrap();
    let at = in_seconds(86_400);
    let plan = |from: &str, to: &str| {
        format!(
            r#"{{"schema":1,"version":1,"hash_key":"{KEY}","promoted_resource_attributes":["zone"],"rules":[
            {{"name":"a","metric":{{"exact":"m"}},"pipeline":"optimized","fold":{{"labels":{to}}},
            "switch":{{"at":"{at}","from":{{"pipeline":"optimized","fold":{{"labels":{from}}}}}}}}}]}}"#
        )
    };
    let unlisted =
        "rule 1 \"a\" names resource attribute \"host\", which promoted_resource_attributes does not list";
    for (from, to, expected) in [
        // The side before is looked at too, and what both say is said once.
        (
            r#"{"drop":{"resource":["host"]}}"#.to_owned(),
            r#"{"drop":{"resource":["zone"]}}"#.to_owned(),
            vec![unlisted],
        ),
        (
            r#"{"drop":{"resource":["host"]}}"#.to_owned(),
            r#"{"drop":{"resource":["host"],"attributes":["x"]}}"#.to_owned(),
            vec![unlisted],
        ),
        // A label of the resource is not one of the point.
        (
            r#"{"drop":{"resource":["zone"]}}"#.to_owned(),
            r#"{"drop":{"attributes":["zone"]}}"#.to_owned(),
            vec![],
        ),
    ] {
        let plan = file(&folder, "plan.json", &plan(&from, &to));
        assert_eq!(notes(&plan), expected, "{from} {to}");
    }
}

#[test]
fn check_shows_switches_in_a_column_where_there_are_any() {
    let folder = tempfile::tempdir().unwrap();
    let (_, book) = document("plan.md");
    let plans = blocks(&book, "json");
    let table = |block: &str| {
        let plan = file(&folder, "plan.json", &plan_of(block, &plans[0]));
        text(&phoenix(&["plan", "check", &plan]).stdout)
    };
    let plain = table(&plans[0]);
    assert!(!plain.contains("switch"), "{plain}");
    assert!(plain.contains(" 7500ms "), "{plain}");
    let on = table(&plans[2]);
    assert!(on.contains(" 2026-11-24T10:00:00Z from full_fidelity"), "{on}");
    let other = table(&plans[3]);
    assert!(
        other
            .contains(" 2026-12-01T10:00:00Z from optimized client.address,k8s.pod.name,service.instance.id"),
        "{other}"
    );
    let off = table(&plans[4]);
    assert!(
        off.contains(" 2026-12-08T10:00:00Z from optimized client.address,http.route,k8s.pod.name"),
        "{off}"
    );
}

#[test]
fn notes_say_what_is_valid_and_useless() {
    let folder = tempfile::tempdir().unwrap();
    let plan = file(
        &folder,
        "plan.json",
        &format!(
            r#"{{"schema":1,"version":1,"hash_key":"{KEY}","promoted_resource_attributes":["zone"],"rules":[
            {{"name":"a","metric":{{"prefix":"http."}},"pipeline":"full_fidelity"}},
            {{"name":"b","metric":{{"exact":"http.x"}},"attributes":[{{"key":"k","exists":true}}],"pipeline":"full_fidelity"}},
            {{"name":"c","metric":{{"prefix":"http"}},"pipeline":"optimized","fold":{{"labels":{{"drop":{{"resource":["host","zone"]}}}}}}}}]}}"#
        ),
    );
    let notes = notes(&plan);
    assert_eq!(
        notes,
        [
            "rule 2 \"b\" never decides: rule 1 \"a\" comes first",
            "rule 3 \"c\" names resource attribute \"host\", which promoted_resource_attributes does not list",
        ]
    );
}

#[test]
fn new_keys_are_good_and_differ() {
    let [first, second] = [(); 2].map(|()| text(&phoenix(&["plan", "new-key"]).stdout).trim_end().to_owned());
    assert!(phoenix_plan::HashKey::from_hex(&first).is_some(), "{first}");
    assert_ne!(first, second);
}

#[test]
fn explain_says_that_nothing_matches_and_what_was_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, book) = document("plan.md");
    let plan = file(&folder, "plan.json", &blocks(&book, "json")[0]);
    let output = phoenix(&[
        "plan",
        "explain",
        &plan,
        "http.server.requests",
        "--resource",
        "deployment.environment=test",
    ]);
    assert_eq!(
        text(&output.stdout),
        "rule 1 \"objectives\": no: the metric is not prefix \"slo.\"\n\
         rule 2 \"web requests\": no: it wants resource deployment.environment equals \"production\"\n\
         no rule matches: the point passes untouched\n"
    );
    let wrong = phoenix(&["plan", "explain", &plan, "x", "--attribute", "novalue"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(text(&phoenix(&["--version"]).stdout), format!("phoenix {}\n", env!("CARGO_PKG_VERSION")));
}
