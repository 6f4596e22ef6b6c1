//! `phoenix replay` on real files: what it writes is what the engine does, the same each time; bad input is named.

mod tools;

use flate2::Compression;
use flate2::write::GzEncoder;
use phoenix_filter::body::Framing;
use phoenix_filter::emit::Answer;
use phoenix_filter::flow::Batch;
use phoenix_filter::local::{Local, Settled};
use phoenix_filter::units::UnixNanos;
use std::collections::BTreeMap;
use std::io::Write;
use tools::{Folder, PLAN, S, T0, bad, counter, files, good, json, phoenix, text};

/// Two pods of one series, their first points births; the second request of each is what a fold makes of ten and three.
fn two_pods(folder: &Folder, with_times: bool) -> String {
    let bodies = [
        counter("a", T0 + 5 * S, T0 + 10 * S, 20),
        counter("b", T0 + 5 * S, T0 + 11 * S, 7),
        counter("a", T0 + 5 * S, T0 + 20 * S, 30),
        counter("b", T0 + 5 * S, T0 + 21 * S, 10),
    ];
    for (number, body) in (1..).zip(&bodies) {
        folder.file(&format!("in/{number:04}.otlp"), body);
        if with_times {
            let at = T0 + [10, 11, 20, 21][number - 1] * S;
            folder.file(&format!("in/{number:04}.time"), format!("{at}\n"));
        }
    }
    folder.at("in")
}

#[test]
fn a_replay_reads_as_the_book_says() {
    let folder = Folder::new();
    let (plan, input, out) = (folder.file("plan.json", PLAN), two_pods(&folder, true), folder.at("out"));
    let shown = good(&["replay", "--plan", &plan, "--in", &input, "--out", &out, "--began-before", "1m"]);
    let expected = "\
────────────────────────────────────────────────────────────────────────────────────────────────────────
 metric    streams  series  points in    out  bytes in     out  increments in  increments out  verdict
────────────────────────────────────────────────────────────────────────────────────────────────────────
 requests        2       1          4      3     252 B   505 B             40              40  conserved
 all             2       1          4      3     252 B   505 B
                     -50 %             -25 %            +100 %
────────────────────────────────────────────────────────────────────────────────────────────────────────
4 requests of 368 B in, 0 B forwarded, 2 emissions of 531 B out.
Books: OUT/ledger.json
";
    assert_eq!(shown.replace(&out, "OUT"), expected, "\n{shown}");
    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(
        names,
        [
            "0001.otlp",
            "0002.otlp",
            "0003.otlp",
            "0004.emit-1.otlp",
            "0004.emit-2.otlp",
            "0004.otlp",
            "ledger.json"
        ]
    );
    assert!(files(&out)["0001.otlp"].is_empty(), "nothing of a request that folded whole is left");
    let books = json(&format!("{out}/ledger.json"));
    assert_eq!(books["conserved"], true);
    assert_eq!(books["drained"], true);
    assert_eq!(books["plan"]["version"], 7);
    assert_eq!(books["writer"], "replay");
    assert_eq!(books["streams"], 2);
    assert_eq!(books["tally"]["recorded"], 4);
    let page = &books["metrics"][0]["page"];
    assert_eq!((&page["folded"], &page["increments_in"]["int"]), (&4.into(), &"40".into()));
    assert_eq!(books["metrics"][0]["written"]["int"], "40");
    assert_eq!(books["balance"]["open"]["int"], "0");
}

#[test]
fn older_streams_begin_with_a_baseline_and_that_is_said() {
    let folder = Folder::new();
    let (plan, input, out) = (folder.file("plan.json", PLAN), two_pods(&folder, true), folder.at("out"));
    let shown = good(&["replay", "--plan", &plan, "--in", &input, "--out", &out]);
    assert!(shown.contains("2 streams are older than the replay"), "{shown}");
    assert_eq!(json(&format!("{out}/ledger.json"))["metrics"][0]["page"]["increments_in"]["int"], "13");
}

#[test]
fn without_times_a_request_arrives_at_its_newest_point_and_never_earlier_than_the_one_before() {
    let folder = Folder::new();
    let plan = folder.file("plan.json", PLAN);
    let (input, with) = (two_pods(&folder, true), folder.at("with"));
    let arguments = ["replay", "--plan", &plan, "--in", &input, "--began-before", "1m", "--out"];
    let run = |out: &str| good(&[&arguments[..], &[out]].concat());
    run(&with);
    for number in 1..=4 {
        std::fs::remove_file(folder.at(&format!("in/{number:04}.time"))).unwrap();
    }
    let without = folder.at("without");
    let shown = run(&without);
    assert!(shown.contains("4 of 4 requests had no .time file"), "{shown}");
    let bodies = |folder: &str| -> BTreeMap<String, Vec<u8>> {
        files(folder).into_iter().filter(|(name, _)| name.ends_with(".otlp")).collect()
    };
    assert_eq!(bodies(&with), bodies(&without), "the newest points are where the times said");
    // An old point behind a new one: held back.
    folder.file("in/0005.otlp", counter("c", T0, T0 + 2 * S, 1));
    let shown = run(&folder.at("held"));
    assert!(shown.contains("1 request would have arrived before the one in front"), "{shown}");
}

/// The engine, driven by hand: a tick every 200 ms of the whole time, whatever is open.
fn by_hand(bodies: &[(u64, Vec<u8>)], writer: &str, drain_s: u64) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut now = bodies[0].0;
    let mut engine = Local::new(PLAN.as_bytes(), writer, UnixNanos(now)).unwrap();
    let emit = |engine: &mut Local, now: u64, number: usize, out: &mut BTreeMap<String, Vec<u8>>| {
        while let Some((shard, emission)) = engine.next_emission(UnixNanos(now)) {
            let sequence = emission.sequence;
            let body = emission.body.to_vec();
            let count = out.keys().filter(|name| name.starts_with(&format!("{number:04}.emit-"))).count();
            out.insert(format!("{number:04}.emit-{}.otlp", count + 1), body);
            engine.answer(shard, sequence, Answer::Accepted, UnixNanos(now));
        }
    };
    for (index, (arrived, body)) in bodies.iter().enumerate() {
        while now < *arrived {
            now = (now + S / 5).min(*arrived);
            engine.tick(UnixNanos(now));
            emit(&mut engine, now, index, &mut out);
        }
        let batch = Batch { body, tenant: b"", sender: b"", arrived: UnixNanos(*arrived) };
        let processed = engine.process(Framing::Plain, &batch).unwrap();
        engine.settle(processed.token, Settled::Accepted, UnixNanos(now));
        out.insert(format!("{:04}.otlp", index + 1), processed.body.unwrap_or_else(|| body.clone()));
        emit(&mut engine, now, index + 1, &mut out);
    }
    for _ in 0..drain_s * 5 {
        now += S / 5;
        engine.tick(UnixNanos(now));
        emit(&mut engine, now, bodies.len(), &mut out);
    }
    out
}

#[test]
fn it_is_what_the_engine_does_by_hand_even_over_hours_of_silence() {
    let folder = Folder::new();
    let (plan, out) = (folder.file("plan.json", PLAN), folder.at("out"));
    let made = folder.at("made");
    good(&["generate", "--preset", "complex", "--streams", "600", "--duration", "1m", "--to", &made]);
    let written = files(&made);
    let mut bodies: Vec<(u64, Vec<u8>)> = Vec::new();
    for (name, body) in written.iter().filter(|(name, _)| name.ends_with(".otlp")) {
        let time = text(&written[&name.replace(".otlp", ".time")]);
        bodies.push((time.trim().parse().unwrap(), body.clone()));
    }
    // A stream that comes back after less than the expiry of ten minutes and counts on; after more, and begins anew; after two hours, in which
    // everything is forgotten; and one that is born then.
    let last = bodies.last().unwrap().0;
    let of = |pod: &str, start: u64, after_s: u64, value: i64| {
        let at = last + after_s * S;
        (at, counter(pod, start, at, value))
    };
    for (at, body) in [
        of("a", T0, 1, 10),
        of("a", T0, 596, 27),
        of("a", T0, 596 + 621, 41),
        of("a", T0, 596 + 621 + 30, 46),
        of("a", T0, 9_000, 90),
        of("b", last + 9_005 * S, 9_030, 9),
    ] {
        bodies.push((at, body.clone()));
        let number = bodies.len();
        folder.file(&format!("made/{number:04}.otlp"), &body);
        folder.file(&format!("made/{number:04}.time"), at.to_string());
    }
    good(&["replay", "--plan", &plan, "--in", &made, "--out", &out, "--writer", "by hand"]);
    let mut replayed = files(&out);
    let books: serde_json::Value = serde_json::from_slice(&replayed.remove("ledger.json").unwrap()).unwrap();
    let expected = by_hand(&bodies, "by hand", 60);
    assert_eq!(
        replayed.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "the same files, so the same emissions between the same requests"
    );
    for (name, body) in &expected {
        assert!(replayed[name] == *body, "{name} differs");
    }
    assert!(expected.len() > bodies.len() + 5, "there were emissions to compare");
    assert_eq!(books["conserved"], true);
    let metrics = books["metrics"].as_array().unwrap();
    let page = &metrics.iter().find(|metric| metric["metric"] == "requests").unwrap()["page"];
    assert_eq!(
        (&page["baselines"], &page["increments_in"]["int"]),
        (&3.into(), &(17 + 5 + 9).to_string().into()),
        "forgotten twice, remembered twice, born once"
    );
}

#[test]
fn the_same_input_gives_the_same_bytes_and_gzip_is_the_same_input() {
    let folder = Folder::new();
    let plan = folder.file("plan.json", PLAN);
    for (made, more) in [("plain", None), ("packed", Some("--gzip"))] {
        let to = folder.at(made);
        let mut arguments = vec!["generate", "--preset", "complex", "--duration", "30s", "--to", &to];
        arguments.extend(more);
        good(&arguments);
    }
    let run = |input: &str, out: &str| {
        let (input, out) = (folder.at(input), folder.at(out));
        good(&["replay", "--plan", &plan, "--in", &input, "--out", &out]);
        files(&out)
    };
    let (first, again, packed) = (run("plain", "1"), run("plain", "2"), run("packed", "3"));
    assert!(first == again, "the same input twice");
    let bodies = |files: BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        files.into_iter().filter(|(name, _)| name.ends_with(".otlp")).collect()
    };
    assert!(bodies(first) == bodies(packed), "bodies that were gzip");
}

#[test]
fn a_body_that_cannot_be_read_passes_and_is_named() {
    let folder = Folder::new();
    let (plan, input, out) = (folder.file("plan.json", PLAN), two_pods(&folder, true), folder.at("out"));
    let whole = counter("a", T0, T0 + 22 * S, 1);
    let cut = &whole[..whole.len() - 3];
    folder.file("in/0005.otlp", cut);
    let framed = [&[0, 0, 0, 0, whole.len() as u8][..], &whole].concat();
    folder.file("in/0006.otlp", &framed);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    folder.file("in/0007.otlp", &gzip[..gzip.len() / 2]);
    let output = phoenix(&["replay", "--plan", &plan, "--in", &input, "--out", &out, "--began-before", "1m"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "what could be read is conserved: {shown}");
    for said in [
        "0005: passed as it came: not an ExportMetricsServiceRequest: ",
        "0006: passed as it came: not an ExportMetricsServiceRequest; it may be one in a gRPC frame",
        "0007: passed as it came: gzip that cannot be inflated",
    ] {
        assert!(shown.contains(said), "{said}\n{shown}");
    }
    let written = files(&out);
    assert_eq!((&written["0005.otlp"][..], &written["0006.otlp"]), (cut, &framed));
    assert_eq!(written["0007.otlp"], gzip[..gzip.len() / 2]);
    let errors = &json(&format!("{out}/ledger.json"))["errors"];
    assert_eq!((errors.as_array().unwrap().len(), &errors[0]["request"]), (3, &"0005".into()));
}

#[test]
fn what_is_refused_says_file_field_value_and_what_is_allowed() {
    let folder = Folder::new();
    let (plan, input) = (folder.file("plan.json", PLAN), two_pods(&folder, true));
    let wrong = folder.file("wrong.json", PLAN.replace("15s", "15ms"));
    let out = folder.at("out");
    let run =
        |plan: &str, input: &str, out: &str| bad(&["replay", "--plan", plan, "--in", input, "--out", out]);
    let says = |error: String, parts: &[&str]| {
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    };
    says(run(&folder.at("none.json"), &input, &out), &["none.json", "No such file"]);
    says(run(&wrong, &input, &out), &["wrong.json", "fold.window", "15ms", "1s to 1h"]);
    says(run(&plan, &folder.at("none"), &out), &["none", "No such file"]);
    std::fs::create_dir(folder.at("empty")).unwrap();
    says(run(&plan, &folder.at("empty"), &out), &["--in", "empty", "no request"]);
    folder.file("named/first.otlp", b"");
    says(run(&plan, &folder.at("named"), &out), &["first.otlp", "\"first\"", "allowed: digits"]);
    folder.file("twice/01.otlp", b"");
    folder.file("twice/1.otlp", b"");
    says(run(&plan, &folder.at("twice"), &out), &["01.otlp", "1.otlp", "the same number"]);
    folder.file("late/0001.otlp", b"");
    folder.file("late/0001.time", "yesterday");
    says(run(&plan, &folder.at("late"), &out), &["0001.time", "\"yesterday\"", "Unix nanoseconds"]);
    says(run(&plan, &input, &input), &["--out", "the folder of --in"]);
    folder.file("full/notes.txt", "mine");
    says(run(&plan, &input, &folder.at("full")), &["--out", "full", "1 file", "--force"]);
    assert!(!std::path::Path::new(&out).join("ledger.json").exists(), "nothing was written on the way");
}

#[test]
fn force_replaces_an_earlier_replay_and_nothing_else() {
    let folder = Folder::new();
    let (plan, input) = (folder.file("plan.json", PLAN), two_pods(&folder, true));
    folder.file("out/notes.txt", "mine");
    folder.file("out/0099.emit-3.otlp", "old");
    folder.file("out/ledger.json", "old");
    let out = folder.at("out");
    good(&["replay", "--plan", &plan, "--in", &input, "--out", &out, "--force"]);
    let written = files(&out);
    assert_eq!(text(&written["notes.txt"]), "mine");
    assert!(!written.contains_key("0099.emit-3.otlp"), "of an earlier replay nothing may stay");
}
