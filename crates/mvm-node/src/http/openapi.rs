//! `GET /api/openapi.json`: the interface as an OpenAPI 3.1 document, made from [`super::routes`] and [`super::schema`].

use axum::Json;
use serde_json::{Map, Value, json};

use super::{
    problem::REQUEST_ID_HEADER,
    routes::{Content, Endpoint, Operation, Parameter, Reply, Route, endpoints},
    schema,
};
use crate::{auth::Scope, store::Store};

/// `GET /api/openapi.json`
pub(super) async fn openapi<S: Store>() -> Json<Value> {
    Json(document(&endpoints::<S>()))
}

fn document<S>(endpoints: &[Endpoint<S>]) -> Value {
    let mut paths = Map::new();
    for Endpoint {
        route,
        operation: told,
        ..
    } in endpoints
    {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route, told);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mvm-ci node",
            "version": "1",
            "description": "A replicated job queue. docs/api.md tells what it promises.",
        },
        // Of the node that was asked.
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schema::named(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, operation: &Operation) -> Value {
    let name = format!("{}{}", route.method.to_ascii_lowercase(), route.path);
    let successes = operation
        .answers
        .iter()
        .map(|reply| (reply.status, success(reply)));
    let problems = operation
        .problems
        .iter()
        .map(|status| (*status, problem(*status)));
    let responses: Map<String, Value> = successes
        .chain(problems)
        .map(|(status, response)| (status.to_string(), response))
        .collect();
    let mut told = json!({
        "operationId": name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"),
        "summary": route.summary,
        "parameters": operation.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
        "security": security(route.scope),
    });
    if !operation.takes.is_empty() {
        let content: Map<String, Value> = operation
            .takes
            .iter()
            .map(|(content_type, name, example)| {
                let content = json!({"schema": schema::reference(name), "example": example});
                ((*content_type).to_owned(), content)
            })
            .collect();
        told["requestBody"] = json!({"required": true, "content": content});
    }
    told
}

/// A node may be open to all; the scope is told as the role that a token must have.
fn security(scope: Option<Scope>) -> Value {
    match scope {
        None => json!([]),
        Some(scope) => json!([{}, {"bearer": [scope.as_str()]}]),
    }
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "in": parameter.place,
        "name": parameter.name,
        "required": parameter.required,
        "description": parameter.about,
        "schema": parameter.schema,
    })
}

fn success(reply: &Reply) -> Value {
    let text = json!({"type": "string"});
    let content = match reply.content {
        Content::Nothing => json!({}),
        Content::Html => json!({"text/html": {"schema": text}}),
        Content::Metrics => json!({
            "text/plain": {"schema": text},
            "application/openmetrics-text": {"schema": text},
        }),
        Content::Database => json!({"application/vnd.sqlite3": {}}),
        Content::Bytes => json!({"application/octet-stream": {}}),
        Content::Json(name) => json!({"application/json": {"schema": schema::reference(name)}}),
        Content::Events(events) => {
            // OpenAPI 3.1 has no words for the events of a stream.
            let events: Map<String, Value> = events
                .iter()
                .map(|(event, data)| ((*event).to_owned(), schema::reference(data)))
                .collect();
            json!({"text/event-stream": {"schema": text, "x-events": events}})
        }
    };
    let mut headers = headers();
    if matches!(reply.status, 200 | 201) && matches!(reply.content, Content::Json("Submitted")) {
        headers["Location"] = header("where the job is");
    }
    if matches!(reply.content, Content::Json("Backup")) {
        headers["Location"] = header("where the backup of this node is");
    }
    if reply.status == 307 {
        headers["Location"] = header("where it is");
    }
    json!({"description": reply.about, "headers": headers, "content": content})
}

fn problem(status: u16) -> Value {
    let about = match status {
        400 => "the request is not understood",
        401 => "the node asks for a token, and there is none that it knows",
        403 => "the token does not have the scope",
        404 => "there is no such thing",
        408 => "the body came too slowly",
        409 => "the job, or the worker's claim of it, does not allow it; nothing was changed",
        413 => "the body is too large",
        415 => "the content type is not taken here",
        422 => "the idempotency key belongs to another request, or a dependency does not exist",
        429 => "too many at once",
        503 => "not applied, and never will be; worth repeating",
        504 => {
            "the outcome is not known; repeating it with the request's id as key cannot apply it twice"
        }
        507 => "the leader's disk did not take it; older backups are as they were",
        _ => "a problem",
    };
    let mut headers = headers();
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = header("seconds after which it is worth repeating");
    }
    if matches!(status, 401 | 403) {
        headers["WWW-Authenticate"] = header("what the token must be (RFC 6750)");
    }
    json!({
        "description": about,
        "headers": headers,
        "content": {"application/problem+json": {"schema": schema::reference("Problem")}},
    })
}

fn headers() -> Value {
    json!({
        "X-Mvm-Node": header("the node that answered"),
        REQUEST_ID_HEADER.as_str(): header("the request's id"),
    })
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": {"type": "string"}})
}
