//! Reports in, decisions, approval, kills, refusals.

use super::host::{Control, PATIENCE, audit, now_ns, policy_text, stage, streams, text};
use crate::tools::{S, report};
use prost::Message as _;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn what_was_approved_survives_a_kill() {
    let (folder, policy) = stage("recommend");
    let mut control = Control::start(folder.path(), &[]);
    let body = report("gateway-a@1", 0, 1, now_ns(), &policy, &streams()).encode_to_vec();
    assert_eq!(control.report(&body).0, 202);
    assert_eq!(control.report(&body).0, 202, "twice is what networks do");
    let status = control.until("a proposal", |it| it["waiting"].as_array().is_some_and(|it| !it.is_empty()));
    assert_eq!(status["tenants"]["shop"]["budget"], 500);
    let waiting: Vec<String> =
        status["waiting"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let shown = text(&control.phoenix(&["status"]));
    assert!(shown.contains(&format!("phoenix plan approve {}", waiting[0])), "{shown}");
    let before = control.get("/api/v1/plan?node=gateway-a");
    assert_eq!(before["plan"]["rules"], Value::Array(Vec::new()), "nothing is done without approval");

    for id in &waiting {
        let said = control.phoenix(&["approve", id]);
        assert!(said.status.success(), "{}", text(&said));
    }
    control.kill();
    let control = Control::start(folder.path(), &[]);
    // The embedder speaks again, as it does every ten seconds.
    let body = report("gateway-a@1", 0, 2, now_ns(), &policy, &streams()).encode_to_vec();
    assert_eq!(control.report(&body).0, 202);
    control.until("the plan", |it| it["plan_version"].as_u64() > before["plan"]["version"].as_u64());
    let begin = Instant::now();
    let after = loop {
        let plan = control.get("/api/v1/plan?node=gateway-a");
        if plan["plan"]["rules"] != Value::Array(Vec::new()) {
            break plan;
        }
        assert!(begin.elapsed() < PATIENCE, "{plan:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let rule = &after["plan"]["rules"][0];
    assert_eq!(rule["fold"]["labels"]["drop"]["attributes"], serde_json::json!(["user"]), "{rule:#}");
    assert!(rule["switch"].is_object(), "seamless: {rule:#}");
    // The plan goes on from what is on disk; numbers come with the first turn behind a report.
    control.until("numbers", |it| it["embedders"].as_array().is_some_and(|it| !it.is_empty()));
    let explained = text(&control.phoenix(&["explain", "requests"]));
    assert!(explained.contains("user") && explained.contains("requests of \"shop\""), "{explained}");
    let decisions = text(&control.phoenix(&["decisions"]));
    assert!(decisions.contains("in force"), "{decisions}");

    // A new embedder and a node that is back after the kill: each has its plan.
    let others = control.get("/api/v1/plan");
    assert_eq!(others["plan"]["rules"], after["plan"]["rules"]);
    let (path, text_of) = audit(folder.path());
    for action in [
        "\"action\":\"approved\"",
        "\"action\":\"proposed\"",
        "\"action\":\"decided\"",
        "\"action\":\"published\"",
    ] {
        assert!(text_of.contains(action), "{action}\n{text_of}");
    }
    let said =
        Command::new(env!("CARGO_BIN_EXE_phoenix")).args(["audit", "verify"]).arg(&path).output().unwrap();
    assert!(said.status.success(), "{}", text(&said));
    fs::write(&path, text_of.replacen("approved", "denied", 1)).unwrap();
    let said =
        Command::new(env!("CARGO_BIN_EXE_phoenix")).args(["audit", "verify"]).arg(&path).output().unwrap();
    assert!(
        !said.status.success() && text(&said).contains("it is not what its hash is of"),
        "{}",
        text(&said)
    );
}

#[test]
fn kills_at_any_moment_lose_nothing_that_was_acknowledged() {
    let (folder, policy) = stage("auto");
    let mut sequence = 0;
    let (mut version, mut plan, mut decisions) = (0, Value::Null, 0);
    for round in 0..12_u64 {
        let mut control = Control::start(folder.path(), &[]);
        // Before anything was heard: what was published is published.
        if round > 0 {
            assert_eq!(control.get("/api/v1/plan?node=gateway-a"), plan, "round {round}");
        }
        let begin = Instant::now();
        let wait = Duration::from_millis(150 + 331 * (round % 5));
        while begin.elapsed() < wait {
            sequence += 1;
            let body = report("gateway-a@1", 0, sequence, now_ns(), &policy, &streams()).encode_to_vec();
            assert_eq!(control.report(&body).0, 202);
            let status = control.get("/api/v1/status");
            let now = status["plan_version"].as_u64().unwrap_or(0);
            assert!(now >= version || status["turns"] == 0, "round {round}: {version}, then {now}");
            version = version.max(now);
            let all = control.get("/api/v1/decisions?limit=1000").as_array().unwrap().len();
            assert!(all >= decisions, "round {round}: {decisions} decisions, then {all}");
            decisions = all;
        }
        // What is out when it is killed, or what came out just before.
        plan = control.get("/api/v1/plan?node=gateway-a");
        control.kill();
        let mut last = Control::start(folder.path(), &[]);
        let now = last.get("/api/v1/plan?node=gateway-a");
        let versions = [&plan, &now].map(|it| it["plan"]["version"].as_u64().unwrap());
        assert!(versions[1] >= versions[0], "round {round}: {versions:?}");
        plan = now;
        last.kill();
    }
    assert!(decisions > 0 && version > 1, "it decided something: {decisions}, {version}");
    let (path, _) = audit(folder.path());
    phoenix_serve::audit::verify(&path, None).unwrap();
}

#[test]
fn what_is_refused_is_named_and_noted_and_changes_nothing() {
    let (folder, policy) = stage("auto");
    let control = Control::start(folder.path(), &[]);
    let good = report("gateway-a@1", 0, 5, now_ns(), &policy, &streams());
    let refused = |body: &[u8], wanted: &[&str]| {
        let (status, text) = control.report(body);
        assert_eq!(status, 400, "{text}");
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    };
    refused(b"\xff\xff\xff", &["report"]);
    let mut wrong = good.clone();
    wrong.schema = 9;
    refused(&wrong.encode_to_vec(), &["schema", "9", "allowed"]);
    let mut foreign = good.clone();
    foreign.key ^= 1;
    refused(&foreign.encode_to_vec(), &["key", "allowed"]);
    let mut future = good.clone();
    future.time_unix_nano += 3_600 * S;
    refused(&future.encode_to_vec(), &["time_unix_nano", "allowed"]);
    let (status, text) = control.report(&vec![0; 5 << 20]);
    assert_eq!(status, 413, "{text}");
    let json = [("content-type", "application/json")];
    assert_eq!(control.call("POST", "/v1/reports", &json, b"{}").0, 415);
    let brotli = [("content-type", "application/x-protobuf"), ("content-encoding", "br")];
    let (status, text) = control.call("POST", "/v1/reports", &brotli, b"");
    assert!(status == 415 && text.contains("allowed: gzip, zstd, identity"), "{status} {text}");
    assert_eq!(control.get("/api/v1/status")["embedders"], Value::Array(Vec::new()));

    // The same, packed in each way that is allowed.
    let packed = zstd::encode_all(&good.encode_to_vec()[..], 3).unwrap();
    let head = [("content-type", "application/x-protobuf"), ("content-encoding", "zstd")];
    assert_eq!(control.call("POST", "/v1/reports", &head, &packed).0, 202);
    let bomb = zstd::encode_all(&vec![0_u8; 64 << 20][..], 3).unwrap();
    assert_eq!(control.call("POST", "/v1/reports", &head, &bomb).0, 413);

    // A policy that is refused leaves the one before in force.
    let path = folder.path().join("policy.yaml");
    fs::write(&path, policy_text("auto").replace("active_series: 500", "active_series: 0")).unwrap();
    let status = control.until("the policy's trouble", |it| !it["policy_trouble"].is_null());
    let why = status["policy_trouble"].as_str().unwrap();
    assert!(why.contains("active_series") && why.contains("allowed"), "{why}");
    fs::write(&path, policy_text("observe")).unwrap();
    control.until("the next policy", |it| it["policy_trouble"].is_null() && it["mode"] == "observe");
    for (path, wanted) in [
        ("/api/v1/decisions?limit=0", "limit: 0; allowed: 1 to 1000"),
        ("/api/v1/metrics/nothing", "is in no report"),
    ] {
        let (status, text) = control.call("GET", path, &[], b"");
        assert!(status >= 400 && text.contains(wanted), "{path}: {status} {text}");
    }
    let (_, log) = audit(folder.path());
    assert!(log.matches("\"action\":\"refused\"").count() >= 5, "{log}");
    let (status, metrics) = control.call("GET", "/metrics", &[], b"");
    assert!(
        status == 200 && metrics.contains("phoenix_control_reports_total{outcome=\"taken\"} 1"),
        "{metrics}"
    );
}

#[test]
fn who_is_not_named_is_not_let_in() {
    let (folder, policy) = stage("auto");
    let digest = |token: &str| {
        let out = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = out.unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), token.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
    };
    let tokens: Vec<String> =
        ["viewer", "approver", "embedder"].map(|role| format!("{role}-{}", now_ns())).into();
    let access: String = tokens
        .iter()
        .map(|token| {
            format!(
                "- {{ name: the {0}, role: {0}, token_sha256: {1} }}\n",
                token.split('-').next().unwrap(),
                digest(token)
            )
        })
        .collect();
    fs::write(folder.path().join("access.yaml"), format!("access:\n{access}")).unwrap();
    let file = folder.path().join("access.yaml");
    let control = Control::start(folder.path(), &["--access", file.to_str().unwrap()]);
    let as_ = |token: &str, method: &str, path: &str, body: &[u8]| {
        let bearer = format!("Bearer {token}");
        let mut head = vec![("content-type", "application/x-protobuf")];
        if !token.is_empty() {
            head.push(("authorization", bearer.as_str()));
        }
        control.call(method, path, &head, body).0
    };
    let body = report("gateway-a@1", 0, 1, now_ns(), &policy, &streams()).encode_to_vec();
    let [viewer, approver, embedder] = &tokens[..] else { panic!() };
    assert_eq!(as_("", "GET", "/healthz", b""), 200);
    for (token, wanted) in [("", 401), ("guessed", 401), (viewer, 403), (approver, 403), (embedder, 202)] {
        assert_eq!(as_(token, "POST", "/v1/reports", &body), wanted, "{token}");
    }
    for (token, wanted) in [("", 401), (viewer, 200), (approver, 200), (embedder, 403)] {
        assert_eq!(as_(token, "GET", "/api/v1/status", b""), wanted, "{token}");
    }
    for (token, wanted) in [("", 401), (viewer, 403), (embedder, 403), (approver, 404)] {
        assert_eq!(as_(token, "POST", "/api/v1/decisions/x/approve", b""), wanted, "{token}");
    }
    assert_eq!(as_(approver, "GET", "/api/v1/plan", b""), 403, "it has the key");
    assert_eq!(as_(embedder, "GET", "/v1/plan?node=gateway-a", b""), 200);
    let (_, log) = audit(folder.path());
    assert!(log.matches("\"action\":\"denied\"").count() >= 8, "{log}");
    assert!(tokens.iter().all(|token| !log.contains(token)), "no token is written down");
    let host = [("host", "evil.example")];
    for path in ["/api/v1/status", "/v1/plan?node=gateway-a"] {
        assert_eq!(control.call("GET", path, &host, b"").0, 403, "a page under another name");
    }

    // Plain text stays on loopback.
    let said = Command::new(env!("CARGO_BIN_EXE_phoenix"))
        .args(["control", "--listen", "0.0.0.0:0", "--policy"])
        .arg(folder.path().join("policy.yaml"))
        .arg("--state")
        .arg(folder.path().join("other.redb"))
        .output()
        .unwrap();
    assert!(
        !said.status.success() && text(&said).contains("listen: 0.0.0.0:0 without tls"),
        "{}",
        text(&said)
    );
}
