//! Jobs of kind `process`: a command on the node's own host.
//!
//! How it runs, and that nothing of it survives, is [`mvm_exec`]'s.

use std::{collections::BTreeMap, time::Duration};

use mvm_exec::{Outcome, OutputLimits, Spec};
use mvm_queue::{JobSpec, Report};
use serde::Deserialize;
use serde_json::{Value, json};

use super::outputs::STREAM_BYTES_MAX;
use crate::config::Secret;

/// The kind of job that a node's own worker does.
pub(crate) const PROCESS_KIND: &str = "process";

/// The end of an output that is longer than the disk keeps.
const LAST_BYTES: usize = 32 * 1024;

/// What the payload of such a job says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    /// A program with its arguments.
    command: Option<Vec<String>>,
    /// Or a script for the shell.
    script: Option<String>,
    /// Variables added to a clean environment.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// More of them, whose values only workers are told.
    #[serde(default)]
    secret_environment: BTreeMap<String, Secret>,
    /// How much memory it may use.
    memory_limit_bytes: Option<u64>,
}

impl Process {
    /// Reads a payload; the error is for people.
    pub(crate) fn parse(payload: &Value) -> Result<Self, String> {
        let process = Self::deserialize(payload)
            .map_err(|error| format!("the payload of a process job is not understood: {error}"))?;
        let both = |name: &&String| process.environment.contains_key(*name);
        if let Some(name) = process.secret_environment.keys().find(both) {
            return Err(format!(
                "{name} is both in environment and in secret_environment"
            ));
        }
        match (&process.command, &process.script) {
            (Some(command), None) if command.first().is_some_and(|program| !program.is_empty()) => {
                Ok(process)
            }
            (None, Some(_)) => Ok(process),
            _ => Err(
                "a process job has either a command, [\"program\", \"argument\", ...], or a script"
                    .into(),
            ),
        }
    }

    /// What is to be run for a job.
    pub(super) fn spec(&self, job: &JobSpec) -> Spec {
        let mut spec = match (&self.command, &self.script) {
            (Some(command), _) => {
                let program = command.first().cloned().unwrap_or_default();
                Spec::program(program).arguments(command.iter().skip(1))
            }
            (None, script) => Spec::script(script.clone().unwrap_or_default()),
        };
        for (name, value) in &self.environment {
            spec = spec.env(name, value);
        }
        for (name, value) in &self.secret_environment {
            spec = spec.env(name, value.expose()).secret(value.expose());
        }
        if let Some(bytes) = self.memory_limit_bytes {
            spec = spec.memory_limit(bytes);
        }
        if let Some(timeout_ms) = job.timeout_ms {
            spec = spec.time_limit(Duration::from_millis(timeout_ms));
        }
        spec.output(OutputLimits {
            first_bytes: STREAM_BYTES_MAX - LAST_BYTES,
            last_bytes: LAST_BYTES,
        })
    }
}

/// What is said of a job that ended so.
pub(super) fn report(outcome: Outcome) -> Report {
    match outcome {
        Outcome::Exited(0) => Report::Succeeded {
            result: json!({ "exit_code": 0 }),
        },
        Outcome::TimedOut => Report::TimedOut,
        Outcome::Cancelled => Report::Cancelled,
        Outcome::Lost { .. } => Report::Lost,
        Outcome::CouldNotStart { reason } => Report::failed(&reason, true),
        other @ (Outcome::Exited(_) | Outcome::Signalled(_) | Outcome::OutOfMemory) => {
            Report::failed(&other.to_string(), false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_say_one_thing() {
        let check = |payload: Value, expected: &str| match Process::parse(&payload) {
            Ok(_) => assert_eq!(expected, "", "{payload}"),
            Err(error) => assert!(error.contains(expected) && !expected.is_empty(), "{error}"),
        };
        check(json!({"command": ["true"]}), "");
        check(json!({"script": "true", "environment": {"A": "b"}}), "");
        check(
            json!({"script": "true", "secret_environment": {"A": "hush-hush"}}),
            "",
        );
        check(
            json!({"script": "true", "environment": {"A": "b"}, "secret_environment": {"A": "c"}}),
            "A is both in environment and in secret_environment",
        );
        check(
            json!({"script": "true", "secret_environment": {"A": 4711}}),
            "a secret is text in quotes",
        );
        check(json!({"command": []}), "either a command");
        check(
            json!({"command": ["true"], "script": "true"}),
            "either a command",
        );
        check(json!({}), "either a command");
        check(json!({"cmd": "true"}), "unknown field `cmd`");
        check(json!("true"), "not understood");
    }
}
