//! A `phoenix control` under a test: started, asked, killed; and the fleet that reports to it.

use crate::tools::{KEY, Streams, stream};
use phoenix_control::policy::Policy;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for something that must come on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

pub fn policy_text(mode: &str) -> String {
    format!(
        "schema: 1\nmode: {mode}\ninterval: 1s\nplan:\n  hash_key: {KEY}\n  measure: {{ period: 10m }}\n  stream_expiry: 4m\n\
         change: {{ dwell: 6m, switch_lead: 2m }}\ntenants: [{{ name: shop, active_series: 500 }}]\n"
    )
}

/// A thousand streams of a metric that has five hundred: users.
pub fn streams() -> Streams {
    let users = (0..1_000).map(|n| stream(&[("route", format!("r{}", n % 10)), ("user", format!("u{n}"))]));
    let metrics = [(("requests".to_owned(), "counter".to_owned()), users.collect())];
    Streams::from([("shop".to_owned(), metrics.into())])
}

pub struct Control {
    child: Child,
    pub url: String,
}

impl Control {
    pub fn start(folder: &Path, more: &[&str]) -> Control {
        let mut child = Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(["control", "--listen", "127.0.0.1:0", "--policy"])
            .arg(folder.join("policy.yaml"))
            .arg("--state")
            .arg(folder.join("state.redb"))
            .args(more)
            // Tests read the audit log, which says more.
            .env("PHOENIX_LOG_LEVEL", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.trim().strip_prefix("phoenix control: ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Control { child, url }
    }

    /// One that was started otherwise.
    pub fn of(child: Child, url: String) -> Control {
        Control { child, url }
    }

    /// As the kernel kills when memory is short.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn call(&self, method: &str, path: &str, head: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let (status, _, body) = self.answer(method, path, head, body);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Status, content type and body.
    pub fn answer(
        &self,
        method: &str,
        path: &str,
        head: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let mut answer = agent.run(request.body(body).unwrap()).unwrap();
        let mut bytes = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut bytes).unwrap();
        let of_type = answer.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
        (answer.status().as_u16(), of_type.unwrap_or_default(), bytes)
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, text) = self.call("GET", path, &[], b"");
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub fn report(&self, body: &[u8]) -> (u16, String) {
        self.call("POST", "/v1/reports", &[("content-type", "application/x-protobuf")], body)
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.get("/api/v1/status");
            if is_so(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "{what}: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn phoenix(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(arguments)
            .args(["--control", &self.url])
            .output()
            .unwrap()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn stage(mode: &str) -> (tempfile::TempDir, Policy) {
    let folder = tempfile::tempdir().unwrap();
    let text = policy_text(mode);
    fs::write(folder.path().join("policy.yaml"), &text).unwrap();
    (folder, Policy::parse(&text).unwrap())
}

pub fn audit(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("state.redb.audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
