//! The command line over TLS: who is let in, and what a person is told who is not.

use super::host::{Control, audit, stage, text};
use phoenix_serve::certs::{self, Wish};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A set of certificates under a folder, good for so many days.
fn set(folder: &Path, name: &str, days: u32) -> std::path::PathBuf {
    let people = ["admin", "on-call", "reader", "stranger"].map(str::to_owned).to_vec();
    certs::make(&folder.join(name), &Wish { people, days, ..Wish::default() }).unwrap();
    folder.join(name)
}

fn secured(folder: &Path, certs: &Path) -> Control {
    let access = "access:\n\
        - { name: an admin, role: admin, certificate: admin }\n\
        - { name: on call, role: approver, certificate: on-call }\n\
        - { name: a reader, role: viewer, certificate: reader }\n";
    fs::write(folder.join("access.yaml"), access).unwrap();
    let at = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let access = folder.join("access.yaml");
    Control::start(
        folder,
        &[
            "--certificate",
            &at("control.pem"),
            "--key",
            &at("control.key"),
            "--client-ca",
            &at("ca.pem"),
            "--access",
            access.to_str().unwrap(),
        ],
    )
}

/// Who asks: the authority that is trusted, and whose certificate is shown.
struct Asker<'a> {
    url: &'a str,
    ca: &'a Path,
    shows: Option<(&'a Path, &'a str)>,
}

impl Asker<'_> {
    fn asks(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phoenix"));
        command.args(arguments).args(["--server", self.url, "--ca"]).arg(self.ca.join("ca.pem"));
        if let Some((set, name)) = self.shows {
            command.arg("--certificate").arg(set.join(format!("{name}.pem")));
            command.arg("--key").arg(set.join(format!("{name}.key")));
        }
        command.output().unwrap()
    }

    fn is_told(&self, arguments: &[&str], wanted: &[&str]) {
        let said = self.asks(arguments);
        assert!(!said.status.success(), "{}", text(&said));
        for wanted in wanted {
            assert!(text(&said).contains(wanted), "{wanted:?} is not in {}", text(&said));
        }
    }
}

#[test]
fn a_certificate_is_a_role_on_the_command_line() {
    let (folder, _) = stage("recommend");
    let set = set(folder.path(), "certs", 30);
    let control = secured(folder.path(), &set);
    let as_ = |name| Asker { url: &control.url, ca: &set, shows: Some((&set, name)) };
    for name in ["admin", "on-call", "reader"] {
        let said = as_(name).asks(&["status"]);
        assert!(said.status.success() && text(&said).contains("mode recommend"), "{name}: {}", text(&said));
    }
    let copy = folder.path().join("copy.redb");
    let said = as_("admin").asks(&["backup", copy.to_str().unwrap()]);
    assert!(said.status.success(), "{}", text(&said));
    assert!(copy.metadata().unwrap().len() > 4_096, "a whole state");

    as_("reader")
        .is_told(&["approve", "x"], &["403", "role: viewer of \"a reader\"; allowed: approver, admin"]);
    as_("on-call").is_told(&["plan", "show"], &["403", "allowed: admin"]);
    as_("stranger").is_told(&["status"], &["401", "\"stranger\" is nobody that access names"]);
    let (_, log) = audit(folder.path());
    assert!(log.matches("\"action\":\"denied\"").count() >= 3, "{log}");

    // The same by the environment.
    let said = Command::new(env!("CARGO_BIN_EXE_phoenix"))
        .args(["status", "--json"])
        .env("PHOENIX_SERVER", &control.url)
        .env("PHOENIX_CA", set.join("ca.pem"))
        .env("PHOENIX_CERTIFICATE", set.join("reader.pem"))
        .env("PHOENIX_KEY", set.join("reader.key"))
        .output()
        .unwrap();
    assert!(said.status.success() && text(&said).contains("\"mode\": \"recommend\""), "{}", text(&said));
}

#[test]
fn what_is_wrong_with_tls_is_said_in_words() {
    let (folder, _) = stage("observe");
    let good = set(folder.path(), "certs", 30);
    let other = set(folder.path(), "other", 30);
    let over = set(folder.path(), "over", 0);
    let control = secured(folder.path(), &good);
    let url = control.url.as_str();
    let ca = "other/ca.pem";
    Asker { url, ca: &other, shows: None }.is_told(&["status"], &["is of no authority in --ca", ca]);
    Asker { url, ca: &good, shows: Some((&over, "admin")) }.is_told(
        &["status"],
        &["--certificate: ", "over/admin.pem", "it expired on ", "allowed: one that is good now"],
    );
    Asker { url, ca: &good, shows: Some((&other, "admin")) }
        .is_told(&["status"], &["certificate in ", "other/admin.pem"]);
    Asker { url, ca: &good, shows: None }
        .is_told(&["status"], &["401", "neither a client certificate nor a bearer token"]);
    Asker { url, ca: Path::new("/nowhere"), shows: None }.is_told(&["status"], &["--ca: /nowhere/ca.pem"]);
    let mixed = folder.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    fs::copy(good.join("admin.pem"), mixed.join("admin.pem")).unwrap();
    fs::copy(good.join("reader.key"), mixed.join("admin.key")).unwrap();
    Asker { url, ca: &good, shows: Some((&mixed, "admin")) }
        .is_told(&["status"], &["mixed/admin.key is not the key of "]);

    let phoenix = |arguments: &[&str]| {
        let said = Command::new(env!("CARGO_BIN_EXE_phoenix")).args(arguments).output().unwrap();
        assert!(!said.status.success(), "{}", text(&said));
        text(&said)
    };
    let plain = url.replace("https://", "http://");
    let said = phoenix(&["status", "--server", &plain]);
    assert!(said.contains("400") && said.contains("plain text; allowed: TLS: ask https://"), "{said}");
    let said = phoenix(&["status", "--server", url]);
    assert!(said.contains("--ca: missing for https://"), "{said}");
    let said = phoenix(&["status", "--server", "ftp://localhost"]);
    assert!(said.contains("scheme Some(\"ftp\"); allowed: https, http"), "{said}");
    let by_address = url.replace("127.0.0.1", "127.0.0.2");
    let said = phoenix(&["status", "--server", &by_address, "--ca", good.join("ca.pem").to_str().unwrap()]);
    assert!(said.contains("nobody listens there"), "{said}");

    // TLS to a port that speaks plain text.
    let (folder, _) = stage("observe");
    let open = Control::start(folder.path(), &[]);
    let tls = open.url.replace("http://", "https://");
    let said = phoenix(&["status", "--server", &tls, "--ca", good.join("ca.pem").to_str().unwrap()]);
    assert!(said.contains("no TLS is spoken there"), "{said}");
}

#[test]
fn a_control_host_whose_certificate_has_expired_is_not_believed() {
    let (folder, _) = stage("observe");
    let over = set(folder.path(), "over", 0);
    let control = secured(folder.path(), &over);
    Asker { url: &control.url, ca: &over, shows: None }
        .is_told(&["status"], &["the control host's certificate has expired"]);
}

#[test]
fn a_token_goes_over_plain_text_to_this_machine_only() {
    for url in ["http://127.0.0.1.example:1", "http://192.0.2.1:1"] {
        let said = Command::new(env!("CARGO_BIN_EXE_phoenix"))
            .args(["status", "--server", url])
            .env("PHOENIX_TOKEN", "secret")
            .output()
            .unwrap();
        assert!(
            text(&said).contains("PHOENIX_TOKEN goes over plain text to loopback only"),
            "{}",
            text(&said)
        );
    }
}
