//! `phoenix status`, `explain`, `plan show`, `approve`: questions to a control host, as tables or as JSON.
//!
//! Enters: where the control host is, and who asks ([`client`]). Leaves: a table, or with `--json` the answer as it came.

mod client;
mod plans;

pub use plans::{approve, budget, diff, plan, release, roll_back};

use crate::show::{clean, count, table};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::process::ExitCode;

/// Where the control host is, and how it is to be shown.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: client::Server,
    /// The answer as it came.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn ask(&self, method: &str, path: &str) -> Result<Value> {
        self.server.ask(method, path, None)
    }

    fn show(&self, body: &Value, table: impl FnOnce(&Value)) -> ExitCode {
        if self.json {
            say!("{body:#}");
        } else {
            table(body);
        }
        ExitCode::SUCCESS
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or("")
}

/// A number of series.
fn series(value: &Value) -> String {
    count(value["value"].as_f64().or(value.as_f64()).unwrap_or(0.0).round() as u64)
}

/// How is the loop?
pub fn status(arguments: &Arguments) -> Result<ExitCode> {
    let body = arguments.ask("GET", "/api/v1/status")?;
    Ok(arguments.show(&body, |body| {
        say!("mode {}, plan {}, turn {}", text(body, "mode"), body["plan_version"], body["turns"]);
        for (name, what) in [("policy_trouble", "policy refused"), ("turns_failed", "turns failed")] {
            if !matches!(&body[name], Value::Null) && body[name] != 0 {
                say!("{what}: {}", body[name].as_str().map_or_else(|| body[name].to_string(), str::to_owned));
            }
        }
        let tenants = body["tenants"].as_object().into_iter().flatten().map(|(name, it)| {
            let budget = it["budget"].as_u64().map_or_else(|| "-".to_owned(), count);
            vec![clean(name), series(&it["active"]), budget, series(&it["growth"])]
        });
        say!("\n{}", table(&["tenant", "active", "budget", "growth"], &[0], tenants.collect(), Vec::new()));
        let nodes = body["nodes"].as_array().into_iter().flatten().map(|it| {
            let said = &it["said"];
            let refused = match said["refused"].as_array() {
                Some(of) => format!("{}: {}", of[0].as_str().unwrap_or(""), of[2].as_str().unwrap_or("")),
                None => "-".to_owned(),
            };
            let connected = if said["is_connected"] == true { "yes" } else { "no" };
            let has = said["taken"][0].as_str().unwrap_or("-");
            [text(it, "id"), text(said, "by"), connected, has, &refused].map(clean).to_vec()
        });
        let head = ["node", "by", "connected", "has", "refused"];
        say!("\n{}", table(&head, &[0, 1, 2, 3, 4], nodes.collect(), Vec::new()));
        let hold = &body["hold"];
        if hold.is_object() {
            say!(
                "\nheld until {}: {} rolled back to version {}; phoenix plan release",
                instant(&hold["until_ns"]),
                clean(text(hold, "by")),
                hold["to"]
            );
        }
        for id in body["waiting"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            say!("\nwaits for approval: phoenix plan approve {id}");
        }
    }))
}

/// What was decided?
pub fn decisions(arguments: &Arguments, limit: usize) -> Result<ExitCode> {
    let body = arguments.ask("GET", &format!("/api/v1/decisions?limit={limit}"))?;
    Ok(arguments.show(&body, |body| {
        for it in body.as_array().into_iter().flatten() {
            sentence(&it["decision"]);
        }
    }))
}

/// A time in nanoseconds, for a person.
fn instant(ns: &Value) -> String {
    let at = chrono::DateTime::from_timestamp_nanos(ns.as_u64().unwrap_or(0).cast_signed());
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn sentence(decision: &Value) {
    let outcome = decision["outcome"]["outcome"].as_str().unwrap_or("").replace('_', " ");
    say!(
        "{}  {}  {outcome}\n  {}",
        instant(&decision["at_ns"]),
        text(decision, "id"),
        text(decision, "sentence")
    );
}

/// Why is a metric treated as it is?
pub fn explain(arguments: &Arguments, metric: &str) -> Result<ExitCode> {
    let body = arguments.ask("GET", &format!("/api/v1/metrics/{}", encoded(metric)))?;
    Ok(arguments.show(&body, |body| {
        for tenant in body["tenants"].as_array().into_iter().flatten() {
            say!("{} of {:?}", metric, text(tenant, "tenant"));
            let mut labels = Vec::new();
            for it in tenant["types"].as_array().into_iter().flatten() {
                say!("  {}: {} active series", text(it, "kind"), series(&it["active"]));
                for label in it["labels"].as_array().into_iter().flatten() {
                    let of = if label["resource"] == true { "resource" } else { "point" };
                    let key = clean(text(label, "key"));
                    labels.push(vec![
                        key,
                        of.to_owned(),
                        series(&label["values"]),
                        series(&label["without"]),
                    ]);
                }
            }
            say!("{}", table(&["label", "of", "values", "series without it"], &[0, 1], labels, Vec::new()));
        }
        for it in body["decisions"].as_array().into_iter().flatten() {
            sentence(it);
        }
    }))
}

/// A copy of the state, into a new file.
pub fn backup(arguments: &Arguments, out: &std::path::Path) -> Result<ExitCode> {
    let name = || out.display().to_string();
    let body = arguments.server.body("GET", "/api/v1/backup", None)?;
    let expected = body.content_length();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(out).with_context(name)?;
    let written = std::io::copy(&mut body.into_reader(), &mut file).and_then(|n| file.sync_all().map(|()| n));
    let written = written.with_context(name)?;
    ensure!(
        expected.is_none_or(|expected| expected == written),
        "{}: {written} of {} bytes came",
        out.display(),
        expected.unwrap_or(0)
    );
    say!(
        "{}: {written} bytes; to restore it, stop phoenix control and give it this file as --state",
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Percent-encoded (RFC 3986): all but what is unreserved.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
