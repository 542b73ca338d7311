//! Workflows as scenarios use them: by a node's interface for them, from the host.

use std::time::Duration;

use mvm_lab::{
    ensure,
    node::Node,
    scenario::{Failure, Outcome},
    wait::{self, Seen},
};
use serde_json::{Value, json};

use super::api;
use crate::exchange::Content;

/// The module `compat` of this repository, whose workflow `crash` asks for a, b and c, one after the other.
const MODULE: &[u8] = include_bytes!("../../../../guests/built/compat.wasm");

/// A translated guest compiles a module for tens of seconds.
pub(super) const RUNS_ALLOWED: Duration = Duration::from_secs(180);

fn broken(error: api::CallError) -> Failure {
    Failure::broken(error.to_string())
}

/// Deploys the module on a node.
pub(super) async fn deploy(node: &Node) -> Outcome {
    let deployed = wait::until("the module is deployed", RUNS_ALLOWED, || async {
        let form = Content::form("module", MODULE);
        match api::flow(node, "POST", "/api/module/deploy", Some(form)).await {
            Ok(answer) if answer.status == 200 => Seen::Done(()),
            // It may be compiled for longer than an answer is waited for; then it is there the next time.
            Ok(answer) => Seen::NotYet(format!("{} {}", answer.status, answer.body)),
            Err(error) => Seen::NotYet(error.to_string()),
        }
    });
    Ok(deployed.await?)
}

/// Starts a workflow, and returns its id.
pub(super) async fn start(node: &Node, workflow: &str, input: Value) -> Outcome<String> {
    let start = json!({ "module": "compat", "workflow": workflow, "input": input });
    let answer = api::flow(node, "POST", "/api/v1/workflows", Some(start.into()))
        .await
        .map_err(broken)?;
    let id = answer.body["id"].as_str().map(str::to_owned);
    ensure!(
        answer.status == 201 && id.is_some(),
        "{} answered {} to the start of {workflow}: {}",
        node.name(),
        answer.status,
        answer.body
    );
    Ok(id.unwrap_or_default())
}

/// How a workflow stands, as a node says.
pub(super) async fn shown(node: &Node, id: &str) -> Result<Value, String> {
    let answer = api::flow(node, "GET", &format!("/api/v1/workflows/{id}"), None).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("{status}: {}", answer.body)),
    }
}

/// Waits until all of these have completed, as a node says.
pub(super) async fn all_complete(node: &Node, ids: &[String]) -> Outcome {
    let condition = format!("all {} workflows complete", ids.len());
    let complete = wait::until(&condition, RUNS_ALLOWED, || async {
        for (place, id) in ids.iter().enumerate() {
            match shown(node, id).await {
                Ok(shown) if shown["state"] == "completed" => {}
                Ok(shown) => return Seen::NotYet(format!("{place} did; then {shown}")),
                Err(seen) => return Seen::NotYet(format!("{id}: {seen}")),
            }
        }
        Seen::Done(())
    });
    Ok(complete.await?)
}

/// The node that has a workflow, or had it last; nothing before the first.
pub(super) async fn owner(node: &Node, id: &str) -> Outcome<Option<u64>> {
    let path = format!("/api/v1/jobs/{id}?consistency=local");
    let answer = api::get(node, &path).await.map_err(broken)?;
    Ok(answer.body["job"]["claimed_on"].as_u64())
}

/// The response of a workflow that has one.
pub(super) async fn response(node: &Node, id: &str) -> Outcome<Value> {
    let path = format!("/api/v1/workflows/{id}/response");
    let answer = api::flow(node, "GET", &path, None).await.map_err(broken)?;
    Ok(answer.body["response"].clone())
}
