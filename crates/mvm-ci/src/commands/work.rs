//! From flags to what a job is to do, as jobs and schedules have it.

use mvm_queue::JobSpec;
use serde_json::{Map, Value, json};

use super::{
    connect::{self, InputError, value},
    output,
};
use crate::cli::WorkArgs;

/// The kind of job that nodes run themselves.
const PROCESS_KIND: &str = "process";

/// A job that waits for nothing. Whether it is accepted is the node's to say.
pub(super) fn spec(arguments: WorkArgs) -> Result<JobSpec, InputError> {
    let mut spec = match &arguments.kind {
        Some(kind) => JobSpec::new(kind, connect::json("the payload", &arguments.payload)?),
        None => JobSpec::new(PROCESS_KIND, process(&arguments)?),
    };
    spec.labels = arguments.labels.into_iter().collect();
    spec.priority = arguments.priority;
    spec.attempts_max = arguments.attempts;
    spec.timeout_ms = arguments
        .time_limit
        .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    spec.concurrency = arguments.concurrency;
    Ok(spec)
}

fn process(arguments: &WorkArgs) -> Result<Value, InputError> {
    let mut payload = Map::new();
    match &arguments.script {
        Some(script) => payload.insert("script".into(), value("the script", script)?.into()),
        None => payload.insert("command".into(), json!(arguments.command)),
    };
    if !arguments.env.is_empty() {
        let variables = arguments.env.iter().cloned();
        let variables: Map<_, _> = variables
            .map(|(name, value)| (name, value.into()))
            .collect();
        payload.insert("environment".into(), variables.into());
    }
    if let Some(bytes) = arguments.memory_limit {
        payload.insert("memory_limit_bytes".into(), bytes.into());
    }
    Ok(payload.into())
}

/// What is told of it to people: what differs from what is usual.
pub(super) fn facts(spec: &JobSpec) -> Vec<(&'static str, String)> {
    let words = |words: Vec<&str>| (!words.is_empty()).then(|| words.join(", "));
    let facts = [
        ("kind", Some(spec.kind.clone())),
        ("payload", Some(spec.payload.to_string())),
        (
            "labels",
            words(spec.labels.iter().map(|label| &**label).collect()),
        ),
        (
            "priority",
            (spec.priority != 0).then(|| spec.priority.to_string()),
        ),
        ("run after", spec.run_after_ms.map(output::time)),
        (
            "attempts allowed",
            (spec.attempts_max != 1).then(|| spec.attempts_max.to_string()),
        ),
        (
            "time limit",
            spec.timeout_ms.map(|limit| format!("{limit} ms")),
        ),
        (
            "concurrency",
            spec.concurrency
                .as_ref()
                .map(|of| format!("{} of {}", of.limit, of.key)),
        ),
        (
            "after",
            words(spec.dependencies.iter().map(|id| &*id.0).collect()),
        ),
    ];
    let told = facts.into_iter();
    told.filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
}
