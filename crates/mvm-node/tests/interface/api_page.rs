//! The examples of `docs/api.md` are run, in order, against a fresh node with its store in memory.
//!
//! A reply must have exactly the fields that the page shows. Values must be equal, except of fields that
//! no two nodes share ([`VARYING`]); ids that the page shows stand for the real ones in later requests.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use mvm_node::{
    consensus::Unavailable,
    http::{App, routes},
    store::{MemoryStore, Outage},
};
use serde_json::Value;

use crate::{
    paths,
    support::{exchange, request},
};

const PAGE: &str = include_str!("../../../../docs/api.md");

/// Fields whose values differ from run to run.
const VARYING: [&str; 14] = [
    "id",
    "idempotency_key",
    "claimed_at_ms",
    "started_at_ms",
    "ended_at_ms",
    "created_at_ms",
    "updated_at_ms",
    "log_index",
    "last_log_index",
    "applied_index",
    "request_id",
    "next",
    "next_ms",
    "revision",
];

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

#[test]
fn the_examples_tell_the_truth() {
    let store = Arc::new(MemoryStore::new());
    let (_runtime, address) = serve(&store);
    let mut real = HashMap::new();
    let mut blocks = blocks(&store);
    let mut shown = Vec::new();
    while let Some((line, block)) = blocks.next() {
        let request = parse_request(block);
        shown.push((
            request.method,
            request.path.split('?').next().unwrap().to_owned(),
        ));
        let (_, reply) = blocks
            .next()
            .unwrap_or_else(|| panic!("line {line}: a request without a reply"));
        run(address, line, &request, reply, &mut real);
    }
    for route in routes() {
        let found = shown
            .iter()
            .any(|(method, path)| *method == route.method && paths::fits(route.path, path));
        assert!(
            found,
            "docs/api.md has no example of {} {}",
            route.method, route.path
        );
    }
}

fn serve(store: &Arc<MemoryStore>) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let router = App::new(Arc::clone(store), 1, "0123456789abcdef").router();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    (runtime, address)
}

/// The page's `http` blocks with their lines. Comments `<!-- store: ... -->` break the store on the way.
fn blocks(store: &MemoryStore) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = PAGE.split_inclusive('\n').enumerate();
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            match line.trim() {
                "<!-- store: no quorum -->" => {
                    store.set_outage(Some(Outage::Unavailable(Unavailable::NoQuorum {
                        since_ms: 2150,
                    })))
                }
                "<!-- store: answers lost -->" => store.set_outage(Some(Outage::AnswersLost)),
                "<!-- store: sound -->" => store.set_outage(None),
                "```http" => {
                    let bytes: usize = PAGE
                        .split_inclusive('\n')
                        .take(number + 1)
                        .map(str::len)
                        .sum();
                    let block = PAGE[bytes..].split("```").next()?;
                    return Some((number + 2, block.trim_end()));
                }
                _ => {}
            }
        }
    })
}

fn parse_request(block: &str) -> Request<'_> {
    let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).collect();
    Request {
        method,
        path,
        headers,
        body,
    }
}

#[track_caller]
fn run(
    address: SocketAddr,
    line: usize,
    example: &Request<'_>,
    reply: &str,
    real: &mut HashMap<String, String>,
) {
    let translate = |text: &str| {
        let mut text = text.to_owned();
        for (shown, actual) in &*real {
            text = text.replace(shown, actual);
        }
        text
    };
    let (path, body) = (translate(example.path), translate(example.body));
    let headers: Vec<(&str, String)> = example
        .headers
        .iter()
        .map(|(name, value)| (*name, translate(value)))
        .collect();
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let answer = exchange(
        address,
        &request(example.method, &path, &headers, body.as_bytes()),
    )
    .unwrap();
    let place = format!("docs/api.md, line {line}: {} {path}", example.method);

    let (head, shown) = reply.split_once("\n\n").unwrap_or((reply, ""));
    let mut head = head.lines();
    let status = head.next().unwrap().split(' ').nth(1).unwrap();
    assert_eq!(
        answer.status.to_string(),
        status,
        "{place}: {}",
        answer.text()
    );
    for header in head {
        let (name, value) = header.split_once(": ").unwrap();
        let found = answer.header(name).unwrap_or_default();
        // Ids first seen in a header are not known yet.
        if name != "Location" {
            assert_eq!(found, value, "{place}: header {name}");
        }
    }
    if shown.trim_start().starts_with(['{', '[']) {
        let shown = serde_json::from_str(shown).unwrap_or_else(|error| panic!("{place}: {error}"));
        let actual = answer.json();
        compare(&shown, &actual, "", real).unwrap_or_else(|difference| {
            panic!("{place}: {difference}; the whole reply is {actual:#}")
        });
    } else {
        assert!(
            answer.text().contains(shown.trim()),
            "{place}: {}",
            answer.text()
        );
    }
}

fn compare(
    shown: &Value,
    actual: &Value,
    field: &str,
    real: &mut HashMap<String, String>,
) -> Result<(), String> {
    match (shown, actual) {
        (Value::Object(shown), Value::Object(actual)) => {
            let names = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            if names(shown) != names(actual) {
                return Err(format!("{field} has the fields {:?}", names(actual)));
            }
            shown
                .iter()
                .try_for_each(|(name, value)| compare(value, &actual[name], name, real))
        }
        (Value::Array(shown), Value::Array(actual)) if shown.len() == actual.len() => shown
            .iter()
            .zip(actual)
            .try_for_each(|(shown, actual)| compare(shown, actual, field, real)),
        (Value::String(shown), Value::String(actual)) if VARYING.contains(&field) => {
            match real.insert(shown.clone(), actual.clone()) {
                Some(known) if known != *actual => Err(format!(
                    "{field} {shown} stands for {known} and for {actual}"
                )),
                _ => Ok(()),
            }
        }
        (Value::Number(_), Value::Number(_)) if VARYING.contains(&field) => Ok(()),
        // Ids also stand in texts.
        (Value::String(shown), Value::String(actual)) => {
            let translated = real.iter().fold(shown.clone(), |text, (shown, actual)| {
                text.replace(shown, actual)
            });
            if translated == *actual {
                Ok(())
            } else {
                Err(format!("{field} is {actual:?}"))
            }
        }
        _ if shown == actual => Ok(()),
        _ => Err(format!("{field} is {actual}")),
    }
}
