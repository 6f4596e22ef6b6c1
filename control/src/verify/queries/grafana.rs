//! Dashboards of Grafana, of every schema: `rows` of the old ones, `panels` with rows inside, and the `elements` of the new.
//!
//! Enters: a dashboard, bare or in the envelope of Grafana's API. Leaves: a query per target with an `expr`, and the variables that the
//! dashboard declares. A panel that refers to the library takes its targets from there: from the dashboard's own `__elements`, or from
//! a library panel in any of the files. Targets of other data sources are counted and left alone.

use super::variables::Declared;
use super::{Kind, Loaded, Query};
use serde_json::Value;
use std::collections::BTreeMap;

/// How deep panels may stand in rows.
const DEPTH_MAX: usize = 8;

/// Whether a document is a dashboard, or a library panel.
pub fn is_one(document: &Value) -> bool {
    let board = bare(document);
    board["panels"].is_array()
        || board["rows"].is_array()
        || board["elements"].is_object()
        || library_panel(document).is_some()
}

/// Library panels by uid.
pub struct Library<'a>(BTreeMap<&'a str, &'a Value>);

impl<'a> Library<'a> {
    /// Gathers them from every dashboard.
    pub fn new(documents: impl Iterator<Item = &'a Value>) -> Library<'a> {
        let mut panels = BTreeMap::new();
        for document in documents {
            for elements in [&document["__elements"], &bare(document)["__elements"]] {
                for element in values(elements) {
                    if let (Some(uid), model @ Value::Object(_)) =
                        (element["uid"].as_str(), &element["model"])
                    {
                        panels.insert(uid, model);
                    }
                }
            }
            panels.extend(library_panel(document));
        }
        Library(panels)
    }
}

/// Reads one dashboard.
pub fn read(file: &str, document: &Value, library: &Library, loaded: &mut Loaded) {
    if library_panel(document).is_some() {
        return;
    }
    let board = bare(document);
    let title = board["title"].as_str().unwrap_or("dashboard");
    let index = loaded.dashboards.len();
    loaded.dashboards.push(Declared::read(board));
    let mut reader = Reader { file, library, loaded, dashboard: index };
    for row in board["rows"].as_array().into_iter().flatten() {
        reader.panels(&row["panels"], title, 0);
    }
    reader.panels(&board["panels"], title, 0);
    for element in values(&board["elements"]) {
        reader.element(element, title);
    }
    for annotation in board["annotations"]["list"].as_array().into_iter().flatten() {
        let name = annotation["name"].as_str().unwrap_or("without name");
        reader.target(annotation, &format!("{title} › annotation {name}"));
    }
}

struct Reader<'a, 'l> {
    file: &'a str,
    library: &'a Library<'a>,
    loaded: &'l mut Loaded,
    dashboard: usize,
}

impl Reader<'_, '_> {
    fn panels(&mut self, panels: &Value, place: &str, depth: usize) {
        for panel in panels.as_array().into_iter().flatten() {
            let name = panel["title"].as_str().filter(|title| !title.is_empty());
            let name = name.map_or_else(|| format!("panel {}", panel["id"]), str::to_owned);
            let place = format!("{place} › {name}");
            if depth > DEPTH_MAX {
                return self.loaded.complain(self.file, &place, "rows stand in rows too deep");
            }
            self.panels(&panel["panels"], &place, depth + 1);
            match panel["libraryPanel"]["uid"].as_str() {
                Some(uid) => self.take_from_library(uid, &panel["libraryPanel"], panel, &place),
                None => self.targets(panel, &place),
            }
        }
    }

    /// A panel of the library; old exports carry the targets in the dashboard as well.
    fn take_from_library(&mut self, uid: &str, reference: &Value, panel: &Value, place: &str) {
        let own = [&reference["model"], panel].into_iter().find(|panel| panel["targets"].is_array());
        match own.or(self.library.0.get(uid).copied()) {
            Some(panel) => self.targets(panel, place),
            None => {
                let name = reference["name"].as_str().unwrap_or("without name");
                let text = format!("library panel {name:?} ({uid}) is in none of the files");
                self.loaded.complain(self.file, place, text);
            }
        }
    }

    fn targets(&mut self, panel: &Value, place: &str) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // A target says its data source, or the panel does for all.
            let foreign =
                [&target["datasource"], &panel["datasource"]].into_iter().find(|source| !source.is_null());
            if foreign.is_some_and(is_foreign) {
                self.loaded.foreign += 1;
                continue;
            }
            let name = target["refId"].as_str().unwrap_or_default();
            self.target(target, &format!("{place} › {name}"));
        }
    }

    /// Whatever has an `expr`.
    fn target(&mut self, target: &Value, place: &str) {
        if let Some(expression) = target["expr"].as_str().filter(|text| !text.trim().is_empty()) {
            let mut query = Query::new(self.file, place.to_owned(), Kind::Panel, expression);
            query.dashboard = Some(self.dashboard);
            self.loaded.queries.push(query);
        }
    }

    /// A panel of the schema with `elements`.
    fn element(&mut self, element: &Value, place: &str) {
        let spec = &element["spec"];
        let place = format!("{place} › {}", spec["title"].as_str().unwrap_or("panel"));
        if let Some(uid) = spec["libraryPanel"]["uid"].as_str() {
            return self.take_from_library(uid, &spec["libraryPanel"], spec, &place);
        }
        for query in spec["data"]["spec"]["queries"].as_array().into_iter().flatten() {
            let name = query["spec"]["refId"].as_str().unwrap_or_default();
            let source = &query["spec"]["query"];
            // The data source's type stood in `kind` at first, in `group` since.
            let kind = source["group"].as_str().or(source["kind"].as_str()).unwrap_or("prometheus");
            if kind != "prometheus" && kind != "DataQuery" {
                self.loaded.foreign += 1;
                continue;
            }
            self.target(&source["spec"], &format!("{place} › {name}"));
        }
    }
}

/// A data source that surely is no Prometheus. Names, variables and uids alone say nothing.
fn is_foreign(source: &Value) -> bool {
    let known = ["prometheus", "grafana", "datasource", "mixed", ""];
    source["type"]
        .as_str()
        .is_some_and(|kind| !kind.contains("prometheus") && !known.contains(&kind) && !kind.starts_with('$'))
}

/// The dashboard inside the envelopes of the API.
fn bare(document: &Value) -> &Value {
    [&document["dashboard"], &document["spec"]]
        .into_iter()
        .find(|inner| inner.is_object())
        .unwrap_or(document)
}

/// A library panel in a file of its own, bare or as the API answers it.
fn library_panel(document: &Value) -> Option<(&str, &Value)> {
    let element = if document["result"].is_object() { &document["result"] } else { document };
    match (element["uid"].as_str(), &element["model"]) {
        (Some(uid), model @ Value::Object(_)) => Some((uid, model)),
        _ => None,
    }
}

/// The values of an object or an array.
fn values(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(entries) => entries.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}
