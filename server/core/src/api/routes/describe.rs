//! The OpenAPI description, made from the routes.

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::cookie;
use super::schema::{kind_of, shapes};
use super::{Gives, Paged, ROUTES, Route, Takes, has_body, is_parameter};
use crate::domain::limits::PER_PAGE;
use crate::domain::people::permissions::{Object, need};

/// Errors of every route.
const COMMON: [u16; 5] = [400, 408, 429, 500, 503];

/// What a path is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Anybody,
    Login,
    Link,
    Device,
    Person,
}

impl Side {
    fn of(pieces: &[&str]) -> Side {
        match pieces {
            ["api", "devices", _, "authentication", ..] => Side::Anybody,
            ["api", "devices", ..] => Side::Device,
            ["api", "management", _, "useradm", "auth", "login"] => Side::Login,
            ["api", "management", _, "useradm", "auth", "session" | "state" | "first-user"] => Side::Anybody,
            ["api", "management", ..] => Side::Person,
            ["download" | "upload", ..] => Side::Link,
            _ => Side::Anybody,
        }
    }
}

/// The description, as it is served and printed.
pub(crate) fn description() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for entry in ROUTES.iter() {
        let pieces: Vec<&str> = entry.pieces().collect();
        let described = operation(&mut generator, &pieces, entry.route);
        paths.entry(&entry.path).or_default().insert(entry.route.method.to_ascii_lowercase(), described);
    }
    let mut schemas = shapes();
    schemas.extend(generator.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "rust-ota fleet server",
            "version": "1",
            "description": "What devices and people ask the server. The words around it are in docs/server-api.md.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": errors(),
            "securitySchemes": {
                "device": {
                    "type": "http", "scheme": "bearer",
                    "description": "The token that auth_requests gives to a device.",
                },
                "person": {
                    "type": "http", "scheme": "bearer",
                    "description": "The token of a login, a personal token, or the management token.",
                },
                "page": {
                    "type": "apiKey", "in": "cookie", "name": cookie::NAME,
                    "description": "The cookie of auth/session; what changes something also has X-Requested-With: rust-ota.",
                },
                "password": { "type": "http", "scheme": "basic" },
            },
        },
    })
}

fn operation(generator: &mut SchemaGenerator, pieces: &[&str], route: &Route) -> Value {
    let side = Side::of(pieces);
    let mut parameters: Vec<Value> = Vec::new();
    for piece in pieces.iter().filter(|piece| is_parameter(piece)) {
        let name = piece.trim_start_matches('{').split('}').next().unwrap_or_default();
        let schema = match name {
            "artifact" | "deployment" | "upload" => json!({ "type": "string", "format": "uuid" }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    let paging = ["page#", "per_page#"];
    let queries = route.queries.iter().chain(paging.iter().filter(|_| route.paged == Paged::ByQuery));
    parameters.extend(queries.map(|name| query(name)));
    let mut described = json!({
        "operationId": name(pieces, route),
        "summary": route.summary,
        "tags": [tag(pieces)],
        "responses": responses(generator, side, route),
    });
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if let Some(body) = body(generator, route) {
        described["requestBody"] = body;
    }
    match side {
        Side::Device => described["security"] = json!([{ "device": [] }]),
        Side::Login => described["security"] = json!([{ "password": [] }]),
        Side::Person => {
            described["security"] = json!([{ "person": [] }, { "page": [] }]);
            let need = need(route.method, pieces.get(3..).unwrap_or_default());
            if need.object != Object::Own {
                described["x-permission-sets"] = json!(need.sets);
            }
        }
        Side::Anybody | Side::Link => {}
    }
    described
}

fn query(name: &str) -> Value {
    if let Some(name) = name.strip_suffix('#') {
        let number = match name {
            "per_page" => json!({ "type": "integer", "minimum": 1, "maximum": PER_PAGE }),
            _ => json!({ "type": "integer", "minimum": 1 }),
        };
        return json!({ "name": name, "in": "query", "schema": number });
    }
    match name.strip_suffix('*') {
        Some(name) => {
            json!({ "name": name, "in": "query", "schema": { "type": "array", "items": { "type": "string" } } })
        }
        None => json!({ "name": name, "in": "query", "schema": { "type": "string" } }),
    }
}

/// Unique: the method, and the path without its slashes.
fn name(pieces: &[&str], route: &Route) -> String {
    let words = pieces.iter().filter(|piece| **piece != "api").map(|piece| {
        let word = piece.trim_matches(|c| c == '{' || c == '}');
        word.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    });
    let words: Vec<String> = words.collect();
    format!("{}_{}", route.method.to_ascii_lowercase(), words.join("_"))
}

fn tag(pieces: &[&str]) -> String {
    match pieces {
        ["api", "devices", _, part, ..] => format!("device: {part}"),
        ["api", "management", _, part, ..] => (*part).to_owned(),
        ["api" | "health", ..] => "server".to_owned(),
        [first, ..] => (*first).to_owned(),
        [] => "server".to_owned(),
    }
}

fn body(generator: &mut SchemaGenerator, route: &Route) -> Option<Value> {
    let content = |kind: &str, schema: Value| json!({ kind: { "schema": schema } });
    let json_of = |generator: &mut SchemaGenerator, made: super::Maker| {
        content("application/json", made(generator).to_value())
    };
    Some(match route.takes {
        Takes::Nothing => return None,
        Takes::Json(made) => json!({ "required": true, "content": json_of(generator, made) }),
        Takes::Optional(made) => json!({ "content": json_of(generator, made) }),
        Takes::Form(fields) => {
            let (mut properties, mut required) = (Map::new(), Vec::new());
            for (at, field) in fields.iter().enumerate() {
                let name = field.trim_end_matches('?');
                if name == *field {
                    required.push(name);
                }
                let schema = match at + 1 == fields.len() {
                    true => json!({ "type": "string", "contentMediaType": "application/octet-stream" }),
                    false => json!({ "type": "string" }),
                };
                properties.insert(name.to_owned(), schema);
            }
            let schema = json!({ "type": "object", "properties": properties, "required": required });
            json!({ "required": true, "content": content("multipart/form-data", schema) })
        }
        Takes::Bytes => json!({ "required": true, "content": { "application/octet-stream": {} } }),
    })
}

fn responses(generator: &mut SchemaGenerator, side: Side, route: &Route) -> Value {
    let mut all = Map::new();
    let mut good = json!({ "description": text_of(route.status) });
    match route.gives {
        Gives::Nothing => {}
        Gives::Json(shape) => {
            good["content"] = json!({ "application/json": { "schema": kind_of(shape) } });
        }
        Gives::Made(made) => {
            good["content"] = json!({ "application/json": { "schema": made(generator).to_value() } });
        }
        Gives::Text(kind) => good["content"] = json!({ kind: { "schema": { "type": "string" } } }),
    }
    if route.paged != Paged::No {
        good["headers"] = json!({
            "X-Total-Count": { "schema": { "type": "integer" } },
            "Link": { "schema": { "type": "string" } },
        });
    }
    if route.status == 201 {
        good["headers"] = json!({ "Location": { "schema": { "type": "string" } } });
    }
    all.insert(route.status.to_string(), good);
    for status in route.also {
        let mut other = json!({ "description": text_of(*status) });
        if let (206, Gives::Text(kind)) = (*status, route.gives) {
            other["content"] = json!({ kind: { "schema": { "type": "string" } } });
        }
        all.insert(status.to_string(), other);
    }
    let mut errors: Vec<u16> = COMMON.to_vec();
    match side {
        Side::Anybody => {}
        Side::Login | Side::Device => errors.push(401),
        Side::Person => errors.extend([401, 403]),
        Side::Link => errors.extend([403, 404]),
    }
    if has_body(route) {
        errors.push(413);
    }
    errors.extend(route.fails);
    for status in errors {
        let error = match route.method {
            "HEAD" => json!({ "description": text_of(status) }),
            _ => json!({ "$ref": format!("#/components/responses/{}", error_name(status)) }),
        };
        all.entry(status.to_string()).or_insert(error);
    }
    Value::Object(all)
}

/// What an error of a status is called among the answers.
fn error_name(status: u16) -> String {
    text_of(status).replace(|c: char| !c.is_ascii_alphabetic(), "")
}

/// The answers that are errors.
fn errors() -> Map<String, Value> {
    let of = |status: u16| {
        let described = json!({
            "description": text_of(status),
            "content": { "application/json": { "schema": kind_of("Error") } },
        });
        (error_name(status), described)
    };
    let every = ROUTES.iter().flat_map(|entry| entry.route.fails.iter().copied());
    every.chain(COMMON).chain([401, 403, 404, 413]).map(of).collect()
}

fn text_of(status: u16) -> String {
    let status = hyper::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Answer").to_owned()
}
