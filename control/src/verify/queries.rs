//! Files to queries, each ready to run or with a complaint in words.
//!
//! Enters: Prometheus rule files, Grafana dashboards, Kubernetes objects around either, lists with a query a line. Leaves: [`Loaded`]:
//! queries in the order of the files, with variables put in and recorded metrics expanded. Refused is one query or one file at a time,
//! never the run: a complaint is a row of the report like any other.

// A file to JSON values; what kind each is.
mod documents;
// Recorded metrics replaced by what they record.
mod expand;
// Dashboards of every schema.
mod grafana;
// A query a line.
mod list;
// Groups of recording and alerting rules.
mod rules;
// `$cluster`, `${pod:regex}`, `$__rate_interval`.
mod variables;

use super::arguments::{Arguments, Span};
use super::prometheus::Side;
pub use expand::{is_scalar, metric};
use promql_parser::parser::Expr;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a query comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A recording rule.
    Record,
    /// An alerting rule.
    Alert,
    /// A panel or an annotation of a dashboard.
    Panel,
    /// A line of a list.
    Line,
}

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// The file's name.
    pub file: String,
    /// Where in the file: dashboard › panel › target, group › rule, line.
    pub place: String,
    /// What it is.
    pub kind: Kind,
    /// As written.
    pub source: String,
    /// As it runs: variables put in, recorded metrics expanded.
    pub text: String,
    /// The syntax tree of [`Query::text`], or why there is none.
    pub tree: Result<Expr, String>,
    /// What was done to it, in words.
    pub notes: Vec<String>,
    /// Index of the dashboard whose variables it uses.
    dashboard: Option<usize>,
}

impl Query {
    /// A query as written, not parsed yet.
    fn new(file: &str, place: String, kind: Kind, source: &str) -> Query {
        let source = source.trim().to_owned();
        let tree = Err("not parsed".to_owned());
        Query {
            file: file.to_owned(),
            place,
            kind,
            text: source.clone(),
            source,
            tree,
            notes: Vec::new(),
            dashboard: None,
        }
    }
}

/// Something in a file that is no query and should have been one.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Complaint {
    /// The file's name.
    pub file: String,
    /// Where in the file; empty: all of it.
    pub place: String,
    /// What is wrong, in words.
    pub text: String,
}

/// What the files hold.
#[derive(Default)]
pub struct Loaded {
    /// The queries.
    pub queries: Vec<Query>,
    /// What could not be read.
    pub complaints: Vec<Complaint>,
    /// Targets of other data sources: left alone, counted.
    pub foreign: usize,
    dashboards: Vec<variables::Declared>,
    recorded: Vec<rules::Recorded>,
}

impl Loaded {
    fn complain(&mut self, file: &str, place: &str, text: impl Into<String>) {
        self.complaints.push(Complaint { file: file.to_owned(), place: place.to_owned(), text: text.into() });
    }
}

/// Reads every file.
pub fn read_files(files: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let mut documents = Vec::new();
    for path in files {
        let name = path.display().to_string();
        match documents::read(path) {
            Ok(documents::Content::List(text)) => list::read(&name, &text, &mut loaded),
            Ok(documents::Content::Documents(all)) => {
                documents.extend(all.into_iter().map(|one| (name.clone(), one)))
            }
            Err(error) => loaded.complain(&name, "", error),
        }
    }
    documents::sort(documents, &mut loaded);
    loaded
}

/// The same where no Prometheus is asked: values that one would be asked for are a word in their place, and every recorded metric is expanded. For what
/// queries need of labels, which no value changes.
pub fn expand_alone(loaded: &mut Loaded) {
    let span = Span { start_ms: 0, end_ms: 3_600_000, step_ms: 60_000, edge_ms: 0 };
    let built_in = variables::BuiltIn::new(&span, std::time::Duration::from_secs(15));
    let look_up = |_: Option<&str>, _: &str| Ok(vec!["any".to_owned()]);
    fill_and_expand(loaded, &built_in, &[], &look_up, &|_| expand::Stored::default());
}

/// Puts variables in, parses, and expands recorded metrics that not both sides have stored.
pub fn expand(loaded: &mut Loaded, arguments: &Arguments, span: &Span, full: &Side, folded: &Side) {
    let built_in = variables::BuiltIn::new(span, arguments.scrape_interval);
    let look_up = |selector: Option<&str>, label: &str| full.label_values(selector, label, span);
    let stored = RefCell::new(BTreeMap::new());
    let is_stored = |name: &str| -> expand::Stored {
        let mut stored = stored.borrow_mut();
        let ask = || expand::Stored {
            full: full.has(name, span) == Ok(true),
            folded: folded.has(name, span) == Ok(true),
        };
        *stored.entry(name.to_owned()).or_insert_with(ask)
    };
    fill_and_expand(loaded, &built_in, &arguments.variables, &look_up, &is_stored);
}

fn fill_and_expand(
    loaded: &mut Loaded,
    built_in: &variables::BuiltIn,
    given: &[(String, String)],
    look_up: &variables::LookUp<'_>,
    is_stored: &dyn Fn(&str) -> expand::Stored,
) {
    let mut dashboards = Vec::new();
    for declared in &loaded.dashboards {
        dashboards.push(declared.resolve(built_in, given, look_up));
    }
    let lists = variables::Declared::default().resolve(built_in, given, look_up);
    let book = expand::Book::new(&loaded.recorded, is_stored);
    for query in &mut loaded.queries {
        let filled = match (query.kind, query.dashboard) {
            (Kind::Panel, Some(index)) => dashboards[index].fill(&query.source, &mut query.notes),
            (Kind::Line, _) => lists.fill(&query.source, &mut query.notes),
            _ => Ok(query.source.clone()),
        };
        query.tree = filled.and_then(|text| {
            query.text = text;
            parse(&query.text)
        });
        let Ok(tree) = &query.tree else { continue };
        match book.expand(tree, &mut query.notes) {
            Ok(None) => {}
            Ok(Some(expanded)) => {
                query.text = expanded.to_string();
                query.tree = Ok(expanded);
            }
            Err(error) => query.tree = Err(error),
        }
    }
}

/// Parses PromQL; an error is one line.
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.trim().is_empty() {
        return Err("the query is empty".to_owned());
    }
    promql_parser::parser::parse(text)
        .map_err(|error| format!("syntax error: {}", error.split_whitespace().collect::<Vec<_>>().join(" ")))
}
