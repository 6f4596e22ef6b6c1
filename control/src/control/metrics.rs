//! `/metrics`: what Prometheus is told of the control host itself, in its text format.

use super::Shared;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// All of it.
pub fn text(shared: &Shared) -> String {
    let mut out = String::new();
    let mut add = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(out, "# HELP phoenix_control_{name} {help}\n# TYPE phoenix_control_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "phoenix_control_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let count = |it: &std::sync::atomic::AtomicU64| one(it.load(Ordering::Relaxed) as f64);
    let answers = shared.answers.all(super::now_ns());
    let audit = shared.audit.lock().map_or(0, |audit| audit.head().lines);
    let core = shared.core();
    let (embedders, bytes) = shared.intake.held();
    add("embedders", "gauge", "Embedder processes that reported.", &one(embedders as f64));
    add("report_bytes", "gauge", "Bytes of reports that are held.", &one(bytes as f64));
    let reports: Vec<_> = shared
        .intake
        .outcomes()
        .iter()
        .map(|(what, count)| (format!("{{outcome=\"{what}\"}}"), *count as f64))
        .collect();
    add("reports_total", "counter", "Reports by what became of them.", &reports);
    add("turns_total", "counter", "Turns of the loop.", &one(core.turns as f64));
    add("turns_failed_total", "counter", "Turns that failed.", &one(core.turns_failed as f64));
    add("turn_seconds", "gauge", "What the last turn took.", &one(core.turn_ns as f64 / 1e9));
    let active: Vec<_> = core
        .estimates
        .tenants
        .iter()
        .take(1_000)
        .map(|(name, it)| (format!("{{tenant={name:?}}}"), it.active.value))
        .collect();
    add("active_series", "gauge", "Distinct active streams of a tenant, of all embedders.", &active);
    let version = core.decided.as_ref().map_or(0, |it| it.next.version);
    add("plan_version", "gauge", "Version of the newest plan.", &one(version as f64));
    let is_held = core.hold(super::now_ns()).is_some();
    add(
        "held",
        "gauge",
        "1: a rollback is held, nothing is decided by itself.",
        &one(f64::from(u8::from(is_held))),
    );
    add(
        "policy_trouble",
        "gauge",
        "1: the policy's file is refused, the one before is in force.",
        &one(f64::from(u8::from(core.policy_trouble.is_some()))),
    );
    add("audit_lines", "gauge", "Lines of the audit log.", &one(audit as f64));
    add(
        "audit_failed_total",
        "counter",
        "Lines that could not be written to it.",
        &count(&shared.audit_failed),
    );
    add(
        "refusals_unwritten_total",
        "counter",
        "Refusals beyond those that the audit log takes in a minute.",
        &count(&shared.unwritten),
    );
    drop(core);
    let connected = answers.iter().filter(|(_, said)| said.is_connected).count();
    let refused = answers.iter().filter(|(_, said)| said.refused.is_some()).count();
    add("nodes_connected", "gauge", "Embedders that a plan can be pushed to.", &one(connected as f64));
    add("nodes_refusing", "gauge", "Embedders that have refused their newest plan.", &one(refused as f64));
    add("connections_total", "counter", "Connections taken.", &count(&shared.counted.connections));
    add("connections", "gauge", "Connections that stand.", &count(&shared.counted.standing));
    add(
        "connections_refused_total",
        "counter",
        "Connections beyond --connections-max.",
        &count(&shared.counted.refused),
    );
    add(
        "access_trouble",
        "gauge",
        "1: the file of who may do what is refused, the one before is in force.",
        &one(f64::from(u8::from(shared.grants.trouble().is_some()))),
    );
    add(
        "handshakes_failed_total",
        "counter",
        "TLS handshakes that failed.",
        &count(&shared.counted.handshakes_failed),
    );
    let trouble = shared.tls.as_ref().is_some_and(|tls| tls.trouble().is_some());
    add(
        "tls_trouble",
        "gauge",
        "1: certificates in the files are refused, those before are in force.",
        &one(f64::from(u8::from(trouble))),
    );
    out
}
