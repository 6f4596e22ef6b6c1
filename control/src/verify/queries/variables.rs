//! Variables of dashboards, put in as Grafana puts them in for Prometheus.
//!
//! Enters: what a dashboard declares, values from the command line, the span. Leaves: text without variables. A value is found in this
//! order: `--var`, the dashboard's current value, All if the variable offers it, the first option, and for `label_values(…)` the first
//! value on the full side; a query that finds nothing leaves the empty string, as in Grafana. All is the variable's own `allValue`, else
//! `.*`: on folded data the label is gone, Grafana finds no values there and its All matches everything.
//! Refused, in words: variables that nobody declares, formats that are not known.

use crate::verify::arguments::Span;
use promql_parser::util::display_duration;
use regex::{Captures, Regex};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

/// `$name`, `[[name:format]]`, `${name.field:format}`: the three spellings that Grafana knows.
static SPELLINGS: LazyLock<Regex> = LazyLock::new(|| {
    let text = r"\$(?<bare>\w+)|\[\[(?<old>\w+)(?::(?<oldformat>\w+))?\]\]|\$\{(?<name>\w+)(?:\.[^:}]+)?(?::(?<format>[^}]+))?\}";
    Regex::new(text).expect("a constant that the tests compile")
});
/// `label_values(selector, label)`, `label_values(label)`.
static LABEL_VALUES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?s)^\s*label_values\(\s*(?:(?<selector>.+)\s*,\s*)?(?<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*\)\s*$",
    )
    .expect("a constant that the tests compile")
});
/// What All means without a value of its own.
const ALL: &str = ".*";

/// Asks a side for the values of a label.
pub type LookUp<'a> = dyn Fn(Option<&str>, &str) -> Result<Vec<String>, String> + 'a;

/// The variables that Grafana has by itself.
pub struct BuiltIn(BTreeMap<&'static str, String>);

impl BuiltIn {
    /// For a span: the interval is its step, the rate interval at least four scrapes.
    pub fn new(span: &Span, scrape: Duration) -> BuiltIn {
        let step = Duration::from_millis(span.step_ms.unsigned_abs());
        let rate = (step + scrape).max(scrape * 4);
        let range_ms = span.end_ms - span.start_ms;
        let range = Duration::from_millis(range_ms.unsigned_abs());
        BuiltIn(BTreeMap::from([
            ("__interval", display_duration(&step)),
            ("__interval_ms", step.as_millis().to_string()),
            ("__rate_interval", display_duration(&rate)),
            ("__rate_interval_ms", rate.as_millis().to_string()),
            ("__range", display_duration(&range)),
            ("__range_s", range.as_secs().to_string()),
            ("__range_ms", range_ms.to_string()),
            ("__from", span.start_ms.to_string()),
            ("__to", span.end_ms.to_string()),
        ]))
    }
}

/// One variable as a dashboard declares it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Variable {
    name: String,
    kind: String,
    query: String,
    current: Vec<String>,
    options: Vec<String>,
    all_value: Option<String>,
    offers_all: bool,
    multi: bool,
}

/// The variables that a dashboard declares, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared(Vec<Variable>);

impl Declared {
    /// Reads `templating.list`, or `variables` of the schema with `elements`.
    pub fn read(board: &Value) -> Declared {
        let old = board["templating"]["list"].as_array().into_iter().flatten();
        let new = board["variables"].as_array().into_iter().flatten();
        Declared(old.chain(new).filter_map(Variable::read).collect())
    }

    /// Finds a value for each.
    pub fn resolve(&self, built_in: &BuiltIn, given: &[(String, String)], look_up: &LookUp) -> Filled {
        let mut filled = Filled(
            built_in.0.iter().map(|(name, value)| ((*name).to_owned(), Filling::one(value))).collect(),
        );
        for variable in &self.0 {
            let value = variable.value(&filled, look_up);
            filled.0.insert(variable.name.clone(), value);
        }
        for (name, value) in given {
            filled.0.insert(name.clone(), Filling::one(value));
        }
        filled
    }
}

impl Variable {
    fn read(value: &Value) -> Option<Variable> {
        let is_new = value["spec"].is_object();
        let spec = if is_new { &value["spec"] } else { value };
        let kind = if is_new { &value["kind"] } else { &value["type"] };
        let kind = kind.as_str().unwrap_or("query").trim_end_matches("Variable").to_lowercase();
        let query =
            first_text(&spec["query"]).or_else(|| spec["definition"].as_str()).unwrap_or_default().to_owned();
        let options = spec["options"].as_array().into_iter().flatten();
        Some(Variable {
            name: spec["name"].as_str()?.to_owned(),
            kind,
            query,
            current: texts(&spec["current"]["value"]),
            options: options
                .flat_map(|option| texts(&option["value"]))
                .filter(|value| value != "$__all")
                .collect(),
            all_value: spec["allValue"].as_str().filter(|value| !value.is_empty()).map(str::to_owned),
            offers_all: spec["includeAll"].as_bool().unwrap_or(false),
            multi: spec["multi"].as_bool().unwrap_or(false),
        })
    }

    fn value(&self, known: &Filled, look_up: &LookUp) -> Filling {
        let escape = self.multi || self.offers_all;
        let filling = |values: Vec<String>| Filling { values, escape, ..Filling::default() };
        let is_all = |value: &String| value == "$__all" || (value == "All" && self.offers_all);
        let is_auto = |value: &str| value == "auto" || value.starts_with("$__auto");
        let all = || Filling::verbatim(self.all_value.as_deref().unwrap_or(ALL));
        if self.current.iter().any(is_all) {
            return all();
        }
        if self.kind == "interval" {
            let listed = self.query.split(',').map(|value| value.trim().to_owned());
            let chosen = self.current.iter().cloned().chain(listed).find(|value| !value.is_empty());
            return match chosen {
                Some(value) if !is_auto(&value) => Filling::one(&value),
                _ => known.0.get("__interval").cloned().unwrap_or_default(),
            };
        }
        if self.current.iter().any(|value| !value.is_empty()) {
            return filling(self.current.clone());
        }
        if self.offers_all {
            return all();
        }
        if let Some(first) = self.options.first() {
            return filling(vec![first.clone()]);
        }
        match self.kind.as_str() {
            "custom" => {
                let first = self.query.split(',').next().unwrap_or_default();
                let value = first.split_once(" : ").map_or(first, |(_, value)| value);
                filling(vec![value.trim().to_owned()])
            }
            "query" => self.looked_up(known, look_up, filling),
            _ => filling(vec![self.query.clone()]),
        }
    }

    /// The first value that the full side has, as Grafana chooses when a dashboard is opened.
    fn looked_up(
        &self,
        known: &Filled,
        look_up: &LookUp,
        filling: impl Fn(Vec<String>) -> Filling,
    ) -> Filling {
        let query = known.fill(&self.query, &mut Vec::new());
        let found = query.and_then(|query| match LABEL_VALUES.captures(&query) {
            Some(parts) => {
                let selector = parts.name("selector").map(|part| part.as_str().trim());
                look_up(selector, &parts["label"])
            }
            None => Err(format!("its query {:?} is not label_values(…)", self.query)),
        });
        match found {
            Ok(values) => match values.into_iter().find(|value| !value.is_empty()) {
                Some(value) => Filling {
                    note: Some(format!("${} is {value:?}, the first on the full side", self.name)),
                    ..filling(vec![value])
                },
                None => Filling {
                    note: Some(format!("${} is empty: the full side has no value for it", self.name)),
                    ..filling(vec![String::new()])
                },
            },
            Err(why) => Filling {
                problem: Some(format!(
                    "variable ${} has no value: {why}; give one by --var {}=…",
                    self.name, self.name
                )),
                ..Filling::default()
            },
        }
    }
}

/// What is put in for a variable.
#[derive(Clone, Debug, Default, PartialEq)]
struct Filling {
    values: Vec<String>,
    /// Regular expression characters are escaped, because several values can be chosen.
    escape: bool,
    /// Put in as it is: a regular expression that somebody wrote.
    verbatim: bool,
    note: Option<String>,
    problem: Option<String>,
}

impl Filling {
    fn one(value: &str) -> Filling {
        Filling { values: vec![value.to_owned()], ..Filling::default() }
    }

    fn verbatim(value: &str) -> Filling {
        Filling { verbatim: true, ..Filling::one(value) }
    }

    /// The text, in a format.
    fn written(&self, name: &str, format: Option<&str>) -> Result<String, String> {
        let values = || self.values.iter().map(String::as_str);
        let joined = |separator: &str| values().collect::<Vec<_>>().join(separator);
        let wrapped = |open: &str, separator: &str, close: &str| {
            if self.values.len() == 1 { joined("") } else { format!("{open}{}{close}", joined(separator)) }
        };
        let each = |write: &dyn Fn(&str) -> String, separator: &str| {
            values().map(write).collect::<Vec<_>>().join(separator)
        };
        Ok(match format {
            _ if self.verbatim => joined("|"),
            None if self.escape => {
                let escaped = each(&|value| escape_special(value, "\\\\"), "|");
                if self.values.len() == 1 { escaped } else { format!("({escaped})") }
            }
            None => each(&|value| value.replace('\\', "\\\\").replace('"', "\\\""), ","),
            Some("regex") => {
                let escaped = each(&|value| escape_special(value, "\\"), "|");
                if self.values.len() == 1 { escaped } else { format!("({escaped})") }
            }
            Some("pipe") => joined("|"),
            Some("raw" | "csv" | "text") => joined(","),
            Some("glob") => wrapped("{", ",", "}"),
            Some("json") => serde_json::to_string(&self.values).unwrap_or_default(),
            Some("doublequote") => each(&|value| format!("\"{}\"", value.replace('"', "\\\"")), ","),
            Some("singlequote") => each(&|value| format!("'{}'", value.replace('\'', "\\'")), ","),
            Some("queryparam") => each(&|value| format!("var-{name}={value}"), "&"),
            Some(other) => return Err(format!("format {other:?} of variable ${name} is not known")),
        })
    }
}

/// Variables with their values.
pub struct Filled(BTreeMap<String, Filling>);

impl Filled {
    /// Text with every variable put in; notes say what was looked up. `$1` and the like belong to `label_replace`.
    pub fn fill(&self, text: &str, notes: &mut Vec<String>) -> Result<String, String> {
        let mut problem = None;
        let filled = SPELLINGS.replace_all(text, |parts: &Captures| {
            let part = |name: &str| parts.name(name).map(|part| part.as_str());
            let name = part("bare").or(part("old")).or(part("name")).unwrap_or_default();
            let format = part("oldformat").or(part("format"));
            let whole = parts[0].to_owned();
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                return whole;
            }
            let Some(filling) = self.0.get(name) else {
                problem.get_or_insert(format!("unknown variable ${name}"));
                return whole;
            };
            if let Some(why) = &filling.problem {
                problem.get_or_insert(why.clone());
            }
            notes.extend(
                filling.note.iter().filter(|note| !notes.contains(note)).cloned().collect::<Vec<_>>(),
            );
            filling.written(name, format).unwrap_or_else(|why| {
                problem.get_or_insert(why);
                whole
            })
        });
        match problem {
            Some(problem) => Err(problem),
            None => Ok(filled.into_owned()),
        }
    }
}

/// Characters that mean something in a regular expression, each behind `escape`.
fn escape_special(text: &str, escape: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str(&format!("{escape}{escape}")),
            '^' | '$' | '*' | '{' | '}' | '[' | ']' | '\'' | '+' | '?' | '.' | '(' | ')' | '|' => {
                escaped.push_str(escape);
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A string, or the strings of a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Number(number) => vec![number.to_string()],
        _ => Vec::new(),
    }
}

/// A query as text, or the text inside the object that newer versions write.
fn first_text(query: &Value) -> Option<&str> {
    match query {
        Value::String(text) => Some(text),
        Value::Object(_) => first_text(&query["query"])
            .or_else(|| first_text(&query["spec"]))
            .or(query["__legacyStringValue"].as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
