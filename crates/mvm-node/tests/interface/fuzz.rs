//! Ten thousand malformed requests, made from the document of the interface: each is answered 4xx, and nothing that comes,
//! malformed or not, is answered 5xx or in a way that the document does not tell.
//!
//! `MVM_FUZZ_SEED` runs another ten thousand; a failure names the seed.

use std::collections::BTreeMap;

use super::{
    document::{Node, Operation},
    draw::Draw,
    schema,
};
use axum::{
    body::Body,
    http::{HeaderValue, Request},
};
use mvm_node::http::BODY_BYTES_MAX;
use serde_json::{Value, json};

const MALFORMED: usize = 10_000;

const REQUESTS_PER_NODE: usize = 500;

/// A request, and whether the document forbids it.
struct Case {
    request: Request<Body>,
    malformed: bool,
    told: String,
}

#[tokio::test]
async fn malformed_requests_are_refused_and_nothing_breaks_the_node() {
    let seed = std::env::var("MVM_FUZZ_SEED").map_or(20_261_124, |seed| seed.parse().unwrap());
    let mut draw = Draw::new(seed);
    let mut node = Node::start().await;
    let operations = node.operations();
    let mut malformed = 0;
    let mut sent = 0;
    let mut statuses = BTreeMap::<(bool, u16), usize>::new();
    while malformed < MALFORMED {
        // The store in memory looks at all its jobs, so that many make it slow.
        if sent % REQUESTS_PER_NODE == 0 {
            node = Node::start().await;
        }
        sent += 1;
        let operation = draw.one(&operations).clone();
        let Some(case) = case(&node, &operation, &mut draw) else {
            continue;
        };
        let reply = node.send(case.request).await;
        let place = || format!("seed {seed}, request {malformed}: {}: {reply:?}", case.told);
        if let Err(problem) = node.judge(&operation, &reply) {
            panic!("{problem}: {}", place());
        }
        assert!(reply.status < 500, "{}", place());
        assert!(
            !case.malformed || (400..500).contains(&reply.status),
            "malformed and taken: {}",
            place()
        );
        *statuses.entry((case.malformed, reply.status)).or_default() += 1;
        malformed += usize::from(case.malformed);
    }
    // The generator reaches what it is for.
    for seen in [
        (false, 200),
        (false, 201),
        (false, 409),
        (true, 400),
        (true, 413),
        (true, 415),
    ] {
        assert!(
            statuses.get(&seen).is_some_and(|count| *count >= 20),
            "{seen:?} in {statuses:?}"
        );
    }
}

/// Draws a request to an operation; nothing if HTTP itself cannot carry it.
fn case(node: &Node, operation: &Operation, draw: &mut Draw) -> Option<Case> {
    let mut malformed = false;
    let mut path = operation.path.clone();
    let mut query = Vec::new();
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    for parameter in operation.told["parameters"].as_array()? {
        let name = parameter["name"].as_str()?;
        let required = parameter["required"] == true;
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), &escape(&id(node, draw)));
            continue;
        }
        if !draw.often(if required { 95 } else { 25 }) {
            malformed |= required;
            continue;
        }
        let value = draw.parameter(&parameter["schema"]);
        malformed |= !fits(node, &parameter["schema"], &value);
        if parameter["in"] == "query" {
            query.push(format!("{name}={}", escape(&value)));
        } else {
            headers.push((name.to_lowercase(), value));
        }
    }
    let takes_query = query.len() + usize::from(operation.path.ends_with("/log"));
    if takes_query > 0 && draw.often(10) {
        query.push(
            draw.one(&["x=1", "%zz=1", "limit=%f", "%ff=1", "limit=1&limit=1"])
                .to_string(),
        );
        malformed = true;
    }
    let body = match operation.told["requestBody"]["content"].as_object() {
        Some(content) => {
            let (body, content_type, bad) = body(node, content, draw);
            if let Some(content_type) = content_type {
                headers.push(("content-type".into(), content_type));
            }
            malformed |= bad;
            body
        }
        None => draw.bytes(40),
    };
    let uri = match query.is_empty() {
        true => path,
        false => format!("{path}?{}", query.join("&")),
    };
    let told = format!(
        "{} {uri} {headers:?} {:?}",
        operation.method,
        String::from_utf8_lossy(&body[..body.len().min(300)])
    );
    let mut request = Request::builder().method(&*operation.method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, HeaderValue::from_bytes(&value).ok()?);
    }
    let request = request.body(Body::from(body)).ok()?;
    Some(Case {
        request,
        malformed,
        told,
    })
}

/// The id of a job that there is, or something else.
fn id(node: &Node, draw: &mut Draw) -> Vec<u8> {
    if draw.often(60) {
        let query = mvm_queue::Query::List {
            after: None,
            limit: 20,
            order: mvm_queue::Order::OldestFirst,
            filter: mvm_queue::Filter::default(),
        };
        if let mvm_queue::Answer::Jobs { jobs, .. } = node.store.answer(&query)
            && !jobs.is_empty()
        {
            return draw.one(&jobs).id.0.clone().into_bytes();
        }
    }
    draw.bytes(150)
}

/// A parameter's text has the type that its schema says, if it can be read so.
fn fits(node: &Node, schema: &Value, value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let value = match schema["type"].as_str() {
        Some("integer") => text
            .parse::<i128>()
            .ok()
            .and_then(|number| serde_json::from_str(&number.to_string()).ok()),
        _ => Some(json!(text)),
    };
    value.is_some_and(|value| schema::validate(&node.document, schema, &value).is_ok())
}

/// A body, its content type, and whether the document forbids it.
fn body(
    node: &Node,
    content: &serde_json::Map<String, Value>,
    draw: &mut Draw,
) -> (Vec<u8>, Option<Vec<u8>>, bool) {
    let content: Vec<_> = content.iter().collect();
    let (content_type, told) = *draw.one(&content);
    let mut malformed = false;
    let mut header = Some(content_type.clone().into_bytes());
    if draw.often(5) {
        header = draw
            .one(&[
                None,
                Some("text/plain"),
                Some("application/jsonx"),
                Some("\u{1}"),
                Some(""),
            ])
            .map(Into::into);
        malformed = true;
    }
    let mut value = told["example"].clone();
    for _ in 0..draw.below(4) {
        draw.mutate(&mut value, 0);
    }
    if content_type.ends_with("urlencoded") {
        let text = value["url"]
            .as_str()
            .map(|url| format!("url={}", escape(url.as_bytes())))
            .unwrap_or_default();
        let mut bytes = text.into_bytes();
        if draw.often(30) {
            draw.damage(&mut bytes);
        }
        // What a damaged form still means is the form's reader's to say.
        return (bytes, header, malformed);
    }
    let mut bytes = value.to_string().into_bytes();
    if draw.often(3) {
        bytes.extend(std::iter::repeat_n(b' ', BODY_BYTES_MAX));
    }
    if draw.often(25) {
        draw.damage(&mut bytes);
    }
    malformed |= bytes.len() > BODY_BYTES_MAX;
    malformed |= match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => schema::validate(&node.document, &told["schema"], &value).is_err(),
        Err(_) => true,
    };
    (bytes, header, malformed)
}

fn escape(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect()
}
