//! The server's HTTP API, as far as players need it.

use flawless::idempotent::Idempotence;
use flawless::message::Message;
use flawless::secrets::get_secret;
use flawless_http::{Error, Response, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) struct Server {
    api: String,
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Started {
    Ok { id: String },
    Error(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sent {
    Ok,
    Error(String),
}

impl Server {
    /// Panics where the secret is missing, as everything here does when the server cannot be asked: the execution fails
    /// then, and its last log line says why.
    pub(crate) fn new(api: &str, token_secret: Option<&str>) -> Self {
        let token = token_secret
            .map(|name| get_secret(name).unwrap_or_else(|| panic!("there is no secret {name:?}")));
        Self {
            api: api.trim_end_matches('/').to_owned(),
            token,
        }
    }

    /// Starts a workflow of this module that has no response; its id.
    pub(crate) fn start(&self, workflow: &str, input: &impl Serialize) -> String {
        let input = serde_json::to_string(input).expect("input serializes");
        let body = json!({ "module": "ping-pong", "version": "1.0.0", "workflow": workflow, "input": input });
        // Not idempotent: a second player of the same name would wait for a ball for ever.
        let mut request = post(format!("{}/api/workflow/start", self.api)).body(body);
        if let Some(token) = &self.token {
            request = request.set_header("Authorization", format!("Bearer {token}"));
        }
        match read(&format!("start {workflow}"), request.send()) {
            Started::Ok { id } => id,
            Started::Error(error) => panic!("could not start {workflow}: {error}"),
        }
    }

    /// Sends a message that may come twice; why the server did not take it.
    pub(crate) fn send<M: Message>(&self, id: &str, message: &M) -> Result<(), String> {
        let data = serde_json::to_string(message).expect("messages serialize");
        let body = json!({ "type": M::TYPE, "data": data });
        let mut request = post(format!("{}/api/workflow/send-msg/{id}", self.api))
            .body(body)
            .idempotent();
        if let Some(token) = &self.token {
            request = request.set_header("Authorization", format!("Bearer {token}"));
        }
        match read(&format!("send to {id}"), request.send()) {
            Sent::Ok => Ok(()),
            Sent::Error(error) => Err(format!("could not send to {id}: {error}")),
        }
    }
}

/// The API's answers are in the body, whatever the status.
fn read<T: for<'a> Deserialize<'a>>(what: &str, result: Result<Response, Error>) -> T {
    let answer = match result {
        Ok(response) | Err(Error::Status(_, response)) => response,
        Err(Error::Transport(error)) => panic!(
            "could not {what}: {:?}, {:?}",
            error.kind(),
            error.message()
        ),
    };
    let answer: Value = answer
        .json()
        .unwrap_or_else(|error| panic!("could not {what}: no JSON came back: {error}"));
    serde_json::from_value(answer.clone())
        .unwrap_or_else(|_| panic!("could not {what}: {answer} came back"))
}
