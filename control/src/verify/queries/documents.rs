//! A file to documents, and each document to its kind.
//!
//! Enters: a path. Leaves: for `.json`, `.yaml`, `.yml` and `.rules` JSON values (YAML is read into the same type, several documents in
//! one file too), for anything else a list. Lists of Kubernetes objects are opened; a ConfigMap is opened entry by entry, because
//! dashboards and rules are shipped as text inside. What is no known kind is a complaint that names what was looked for.

use super::{Loaded, grafana, rules};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Largest file: far over any dashboard collection, far below memory.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How deep objects may stand in objects as text or items.
const DEPTH_MAX: usize = 8;

/// What a file holds.
pub enum Content {
    /// A query a line.
    List(String),
    /// Structured documents.
    Documents(Vec<Value>),
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Content, String> {
    let mut text = String::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| error.to_string())?)
    };
    source.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 == FILE_BYTES_MAX {
        return Err(format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "yaml" | "yml" | "rules") => structured(&text).map(Content::Documents),
        _ => Ok(Content::List(text)),
    }
}

/// JSON or YAML. JSON is tried first: it is stricter, and its errors say the line.
fn structured(text: &str) -> Result<Vec<Value>, String> {
    let json = match serde_json::from_str(text) {
        Ok(value) => return Ok(vec![value]),
        Err(error) => error,
    };
    if text.trim_start().starts_with('{') {
        return Err(format!("no JSON: {json}"));
    }
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let error = error.to_string();
        format!("no YAML: {}", error.lines().next().unwrap_or_default())
    })
}

/// Sends each document to its reader. Library panels may stand in another file than the dashboards that use them, so they come first.
pub fn sort(documents: Vec<(String, Value)>, loaded: &mut Loaded) {
    let mut dashboards = Vec::new();
    for (file, document) in documents {
        open(&file, document, 0, &mut dashboards, loaded);
    }
    let library = grafana::Library::new(dashboards.iter().map(|(_, document)| document));
    for (file, dashboard) in &dashboards {
        grafana::read(file, dashboard, &library, loaded);
    }
}

fn open(
    file: &str,
    mut document: Value,
    depth: usize,
    dashboards: &mut Vec<(String, Value)>,
    loaded: &mut Loaded,
) {
    if depth > DEPTH_MAX {
        return loaded.complain(file, "", "objects stand in objects too deep");
    }
    if let Some(groups) = document["groups"].as_array().or_else(|| document["spec"]["groups"].as_array()) {
        return rules::read(file, groups, loaded);
    }
    if grafana::is_one(&document) {
        dashboards.push((file.to_owned(), document));
        return;
    }
    if let Some(Value::Array(items)) = document.get_mut("items").map(Value::take) {
        for item in items {
            open(file, item, depth + 1, dashboards, loaded);
        }
        return;
    }
    let data = document.get_mut("data").map(Value::take);
    let json = document.pointer_mut("/spec/json").map(Value::take);
    let inside = match (data, json) {
        (Some(Value::Object(entries)), _) => entries,
        (_, Some(json @ Value::String(_))) => [("json".to_owned(), json)].into_iter().collect(),
        _ => return loaded.complain(file, "", "no rules, no dashboard and no Kubernetes object with either"),
    };
    for (entry, text) in inside {
        let file = format!("{file}: {entry}");
        match text.as_str().map(structured) {
            Some(Ok(documents)) => {
                documents.into_iter().for_each(|one| open(&file, one, depth + 1, dashboards, loaded));
            }
            Some(Err(error)) => loaded.complain(&file, "", error),
            None => loaded.complain(&file, "", "the entry is no text"),
        }
    }
}
