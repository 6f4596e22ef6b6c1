//! Bounds of the port, and files that change under a server that runs.

use super::host::{Control, PATIENCE, audit, stage};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Waits until the other side ends a connection; how long that took.
fn ends(mut stream: TcpStream) -> Duration {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let begin = Instant::now();
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Ok(_) => return ends(stream),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    begin.elapsed()
}

#[test]
fn connections_have_a_maximum_and_a_time() {
    let (folder, _) = stage("observe");
    let control = Control::start(folder.path(), &["--connections-max", "4"]);
    let address = control.url.strip_prefix("http://").unwrap().to_owned();
    let open = || TcpStream::connect(&address).unwrap();
    // One says nothing, one half a word, one half a head.
    let silent = open();
    // What anybody may ask keeps no connection.
    let mut idle = open();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (mut half_a_word, mut half_a_head) = (open(), open());
    half_a_word.write_all(b"P").unwrap();
    half_a_head.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(ends(open()) < Duration::from_secs(5), "there is no room for a fifth");
    for slow in [silent, idle, half_a_word, half_a_head] {
        assert!(ends(slow) < Duration::from_secs(30), "it is let go");
    }
    let begin = Instant::now();
    let metrics = loop {
        let mut stream = open();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        // The one that asks; those that were let go are counted a moment later.
        if text.contains("phoenix_control_connections 1\n") {
            break text;
        }
        assert!(begin.elapsed() < PATIENCE, "there is room again");
    };
    assert!(!metrics.contains("phoenix_control_connections_refused_total 0"), "{metrics}");
}

#[test]
fn access_is_read_again_and_what_is_refused_leaves_the_one_before() {
    let (folder, _) = stage("observe");
    let path = folder.path().join("access.yaml");
    let line = |role: &str, token: &str| {
        let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("access:\n- {{ name: the {role}, role: {role}, token_sha256: {digest} }}\n")
    };
    fs::write(&path, line("viewer", "first")).unwrap();
    let control = Control::start(folder.path(), &["--access", path.to_str().unwrap()]);
    let status = |token: &str| {
        control.call("GET", "/api/v1/status", &[("authorization", &format!("Bearer {token}"))], b"").0
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!((status("first"), status("second")), (200, 401));
    fs::write(&path, line("admin", "second")).unwrap();
    until("the second", &|| status("second") == 200);
    assert_eq!(status("first"), 401, "it is named no more");

    for (broken, wanted) in [
        ("access: []\n".to_owned(), "access: empty; allowed: a grant at least"),
        (line("king", "third"), "king"),
        (line("admin", "third").replace("token_sha256: ", "token_sha256: x"), "allowed: 64 hex digits"),
        (line("admin", "third").replace("token_sha256: ", "token: hunter2, token_sha256: "), "token"),
    ] {
        fs::write(&path, &broken).unwrap();
        until("the refusal", &|| {
            let said = control.call("GET", "/readyz", &[], b"");
            let why = control.call("GET", "/api/v1/status", &[("authorization", "Bearer second")], b"");
            assert!(!said.1.contains("hunter2") && !why.1.contains("hunter2"), "{} {}", said.1, why.1);
            said.0 == 200 && said.1.contains("access: what") && why.0 == 200 && why.1.contains(wanted)
        });
    }
    fs::remove_file(&path).unwrap();
    until("the refusal", &|| control.call("GET", "/readyz", &[], b"").1.contains("access: "));
    assert_eq!((status("second"), status("third")), (200, 401), "nobody is locked out, nobody let in");
    until("the audit log", &|| {
        let (_, log) = audit(folder.path());
        log.contains("\"action\":\"refused\",\"subject\":\"access\"")
            && log.contains("\"action\":\"read\",\"subject\":\"access\"")
    });
}

/// Who waits for a plan when its grant is narrowed is given none.
#[test]
fn a_grant_that_is_narrowed_is_felt_by_who_waits() {
    let (folder, _) = stage("auto");
    let path = folder.path().join("access.yaml");
    let digest: String = Sha256::digest("token").iter().map(|byte| format!("{byte:02x}")).collect();
    let grant = |nodes: &str| {
        format!("access:\n- {{ name: gateways, role: embedder, token_sha256: {digest}, nodes: [{nodes}] }}\n")
    };
    fs::write(&path, grant("gateway-*, edge-*")).unwrap();
    let control = Control::start(folder.path(), &["--access", path.to_str().unwrap()]);
    let bearer = [("authorization", "Bearer token")];
    let poll = |node: &str, wait: u64, headers: &[(&str, &str)]| {
        control.call(
            "GET",
            &format!("/v1/plan?node={node}&wait={wait}"),
            &[&bearer[..], headers].concat(),
            b"",
        )
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("a plan", &|| poll("gateway-1", 0, &[]).0 == 200);
    let url = format!("{}/v1/plan?node=gateway-1", control.url);
    let newest = ureq::get(url).header("authorization", "Bearer token").call().unwrap();
    let has = &[("if-none-match", newest.headers()["etag"].to_str().unwrap())];
    let [narrowed, named] = std::thread::scope(|scope| {
        let waiting = ["gateway-1", "edge-1"].map(|node| scope.spawn(move || poll(node, 30, has)));
        std::thread::sleep(Duration::from_millis(500));
        fs::write(&path, grant("edge-*")).unwrap();
        until("the grant", &|| poll("gateway-2", 0, &[]).0 == 403);
        let policy = folder.path().join("policy.yaml");
        let fold = "folds:\n- { name: f, metric: { exact: nobody.has.this }, labels: { drop: { attributes: [user] } } }\n";
        fs::write(&policy, fs::read_to_string(&policy).unwrap() + fold).unwrap();
        waiting.map(|it| it.join().unwrap())
    });
    assert_eq!((narrowed.0, named.0), (403, 200), "{narrowed:?} {named:?}");
    assert!(narrowed.1.contains("is not of"), "{}", narrowed.1);
}

#[test]
fn who_is_not_ready_says_why() {
    let (folder, _) = stage("observe");
    let control = Control::start(folder.path(), &[]);
    let ready = || control.call("GET", "/readyz", &[], b"");
    let begin = Instant::now();
    while ready().0 != 200 {
        assert!(ready().1.contains("turn: none yet") || ready().0 == 200, "{:?}", ready());
        assert!(begin.elapsed() < PATIENCE);
    }
    assert_eq!(ready().1, "{\"ready\":true,\"notes\":[]}");
    let policy = folder.path().join("policy.yaml");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("active_series: 500", "active_series: 0")).unwrap();
    let begin = Instant::now();
    while !ready().1.contains("policy: ") {
        assert!(begin.elapsed() < PATIENCE, "{:?}", ready());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ready().0, 200, "the one before is in force");
}
