//! Routes, each with its right and its schemas: what the server serves and what it says of itself are one table.
//!
//! Enters: a list of [`Route`]s. Leaves: a router in which no route can forget who may use it, and the OpenAPI document (3.1, whose schemas are those of JSON Schema 2020-12, as
//! `schemars` writes them). This is the only place that adds routes for people and embedders; xDS is gRPC, described by Envoy's own files.

use super::Shared;
use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use phoenix_serve::guard::Guard;
use phoenix_serve::role::{Right, Role};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An answer that is none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Field, value and what is allowed.
    pub error: String,
}

/// What may be asked.
pub struct Route {
    method: Method,
    path: &'static str,
    right: Option<Right>,
    summary: &'static str,
    query: Option<SchemaOf>,
    body: Option<(&'static str, Option<SchemaOf>)>,
    answer: (u16, &'static str, Option<SchemaOf>),
    refusals: &'static [u16],
    handler: MethodRouter<Arc<Shared>>,
}

impl Route {
    /// A route for those with a right; none: for anybody. It answers 200 with plain text until something else is said.
    pub fn new(
        method: Method,
        path: &'static str,
        right: Option<Right>,
        summary: &'static str,
        handler: MethodRouter<Arc<Shared>>,
    ) -> Route {
        let answer = (200, "text/plain", None);
        Route { method, path, right, summary, query: None, body: None, answer, refusals: &[], handler }
    }

    /// It answers JSON.
    pub fn json<T: JsonSchema>(self, status: u16) -> Route {
        Route { answer: (status, "application/json", Some(schema_of::<T>)), ..self }
    }

    /// It answers something else; an empty type: nothing.
    pub fn other(self, status: u16, of_type: &'static str) -> Route {
        Route { answer: (status, of_type, None), ..self }
    }

    /// Its query.
    pub fn query<T: JsonSchema>(self) -> Route {
        Route { query: Some(schema_of::<T>), ..self }
    }

    /// It takes JSON.
    pub fn takes<T: JsonSchema>(self) -> Route {
        Route { body: Some(("application/json", Some(schema_of::<T>))), ..self }
    }

    /// It takes something else.
    pub fn takes_other(self, of_type: &'static str) -> Route {
        Route { body: Some((of_type, None)), ..self }
    }

    /// It refuses with these, beside 401 and 403; and 500, when the state cannot be read or written.
    pub fn refuses(self, refusals: &'static [u16]) -> Route {
        Route { refusals, ..self }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The router of a table.
pub fn router(table: Vec<Route>, guard: &Guard) -> Router<Arc<Shared>> {
    table
        .into_iter()
        .fold(Router::new(), |router, it| router.route(it.path, guard.over(it.handler, it.right)))
}

/// The table as an OpenAPI document.
pub fn document(table: &[Route]) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in table {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Phoenix control host",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Errors are JSON and name field, value and allowed range. xDS (ECDS, also within ADS) is served on the same port over gRPC.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Known by its SHA-256 in access."},
                "certificate": {"type": "mutualTLS", "description": "Known by a name in it."},
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let content = |of_type: &str, schema: Option<Value>| match schema {
        Some(schema) => json!({of_type: {"schema": schema}}),
        None => json!({of_type: {}}),
    };
    let (status, of_type, schema) = route.answer;
    let schema = schema.map(|of| of(generator).to_value());
    let mut responses = Map::new();
    let mut good = json!({"description": "What was asked for."});
    if !of_type.is_empty() {
        good["content"] = content(of_type, schema);
    }
    responses.insert(status.to_string(), good);
    let always: &[u16] = if route.right.is_some() { &[401, 403, 500] } else { &[] };
    let refusal = schema_of::<Refusal>(generator).to_value();
    for status in always.iter().chain(route.refusals) {
        let refused = match status {
            304 => json!({"description": "Nothing new."}),
            _ => json!({
                "description": "Refused, and why.",
                "content": content("application/json", Some(refusal.clone())),
            }),
        };
        responses.insert(status.to_string(), refused);
    }
    let mut operation = json!({
        "operationId": format!("{} {}", route.method.as_str().to_lowercase(), route.path)
            .replace(['/', '{', '}', ' ', '.'], "_"),
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses,
        "security": if route.right.is_some() { json!([{"token": []}, {"certificate": []}]) } else { json!([]) },
        "x-roles": roles(route.right),
    });
    if let Some((of_type, schema)) = route.body {
        let schema = schema.map(|of| of(generator).to_value());
        operation["requestBody"] = json!({"required": true, "content": content(of_type, schema)});
    }
    operation
}

/// Those who may use it.
fn roles(right: Option<Right>) -> Vec<&'static str> {
    let all = [Role::Viewer, Role::Approver, Role::Admin, Role::Embedder];
    let may = |role: &Role| right.is_none_or(|right| role.may(right));
    all.into_iter().filter(may).map(Role::name).collect()
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    // A query's fields are parameters of their own; its type has no name in the document.
    let Some(query) = route.query else { return all };
    let mut own = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true).into_generator();
    let schema = query(&mut own).to_value();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        all.push(json!({
            "name": name,
            "in": "query",
            "required": required.contains(&name.as_str()),
            "description": schema["description"],
            "schema": schema,
        }));
    }
    all
}
