//! A client that starts a workflow and waits for its response, again and again.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    asked::Asked,
    http::Http,
    load::{Client, Steps},
};

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../guests/built/compat.wasm"
);
pub(crate) const STEPS: u64 = 10;

/// What is called, and what tells that all went well.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) path: &'static str,
    pub(crate) body: Value,
    pub(crate) is_good: fn(&Value) -> bool,
}

impl Caller {
    /// Calls each port once.
    pub(crate) async fn warm_up(&self, ports: &[u16]) {
        for client in &mut self.connected(ports, ports.len()).await {
            client.live(&mut Steps::default()).await;
        }
    }

    /// So many clients, spread over the ports.
    pub(crate) async fn connected(&self, ports: &[u16], clients: usize) -> Vec<Connected> {
        let mut connected = Vec::new();
        for number in 0..clients {
            connected.push(Connected {
                http: Http::connect(ports[number % ports.len()]).await.unwrap(),
                caller: self.clone(),
            });
        }
        connected
    }
}

pub(crate) struct Connected {
    http: Http,
    caller: Caller,
}

impl Client for Connected {
    async fn live(&mut self, steps: &mut Steps) {
        let call = self.http.post(self.caller.path, &self.caller.body);
        let answer = steps.time("workflow", call).await;
        assert!((self.caller.is_good)(&answer), "{answer}");
    }
}

/// Deploys the module of the workflows.
pub(crate) async fn deploy(port: u16) {
    let deployed = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args(["flow", "deploy", MODULE, "--server"])
        .arg(format!("http://127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .status();
    assert!(deployed.await.unwrap().success());
}

/// The workflow of ten requests.
pub(crate) fn steps_of_engine(asked: &Asked) -> Caller {
    engines(
        "steps",
        &json!({ "url": asked.url(), "steps": STEPS }),
        |answer| response(answer)["succeeded"] == STEPS,
    )
}

/// The workflow that answers with its input.
pub(crate) fn echo_of_engine() -> Caller {
    engines("echo", &json!(17), |answer| response(answer) == 17)
}

fn engines(workflow: &str, input: &Value, is_good: fn(&Value) -> bool) -> Caller {
    Caller {
        path: "/api/workflow/start",
        body: json!({
            "module": "compat", "version": "1.0.0", "workflow": workflow, "input": input.to_string(),
        }),
        is_good,
    }
}

fn response(answer: &Value) -> Value {
    let text = answer["ok"]["response"].as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap()
}
