//! Speaks to one engine by [`mvm_flow::api`]. A request is sent once: an engine has no keys by which a change could be repeated.

use std::{error::Error as _, time::Duration};

use mvm_client::{Options, ServerUrl, Token, http_client};
use mvm_flow::{
    api::{Cancel, Entry, LogLine, ResponseReply, Retry, SendRequest, StartRequest, StartedReply},
    id::{ExecutionId, ModuleHash},
    journal::{Module, Shown, State},
    module::Description,
};
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::TOKEN_VARIABLE;
use crate::{
    cli::EngineArgs,
    commands::{connect, output::printable},
    exit_codes::{FAILED, REFUSED, UNKNOWN, UNREACHABLE},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an engine may take for anything but a response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);
/// The largest journal there may be, with all that JSON adds to it.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
/// More executions than these are not listed at once.
pub(super) const PAGE_MAX: usize = 500;

/// Why an engine's answer is not what was hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// There was no connection, so nothing was sent.
    #[error("could not reach an engine at {server}: {why}; `mvm-ci flow up` starts one")]
    Unreachable { server: ServerUrl, why: String },
    /// A question was asked, and there is no answer.
    #[error("{server} did not answer: {why}")]
    Lost { server: ServerUrl, why: String },
    /// A change was sent, and nobody told what became of it.
    #[error("{server} did not tell whether it was done: {why}")]
    Unknown { server: ServerUrl, why: String },
    /// It changed nothing, and may later.
    #[error("{server} cannot do this now: {why}")]
    Unavailable { server: ServerUrl, why: String },
    /// It said no.
    #[error("{server} refused: {why}")]
    Refused { server: ServerUrl, why: String },
    /// The workflow ended otherwise than well.
    #[error("{why}")]
    Ended { why: String },
    /// What answered does not speak the interface.
    #[error("{server} does not answer as an engine does: {detail}")]
    Violation { server: ServerUrl, detail: String },
}

impl FlowError {
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Unavailable { .. } => UNREACHABLE,
            Self::Unknown { .. } | Self::Violation { .. } => UNKNOWN,
            Self::Refused { .. } => REFUSED,
            Self::Ended { .. } => FAILED,
        }
    }
}

/// An engine.
pub(super) struct Client {
    http: reqwest::Client,
    server: ServerUrl,
    token: Option<Token>,
}

/// What is asked.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'static str, String)],
    /// With its type.
    body: Option<(String, Vec<u8>)>,
    /// It may take any time.
    waits: bool,
}

impl Client {
    pub(super) fn new(arguments: &EngineArgs) -> anyhow::Result<Self> {
        let secret = connect::secret(arguments.token_file.as_deref(), TOKEN_VARIABLE)?;
        let ca = arguments.ca.as_deref();
        let mut options = Options::new(vec![arguments.server.clone()]);
        options.ca_pem = ca
            .map(|path| connect::file("certificates", path))
            .transpose()?;
        options.connect_timeout = CONNECT_TIMEOUT;
        Ok(Self {
            http: http_client(&options)?,
            server: arguments.server.clone(),
            token: secret.as_deref().map(Token::new).transpose()?,
        })
    }

    pub(super) async fn deploy(&self, module: &[u8]) -> Result<Description, FlowError> {
        #[derive(Deserialize)]
        struct Deployed {
            ok: Description,
        }
        let (content_type, form) = form(module);
        let deployed: Deployed = self
            .json(Call {
                body: Some((content_type, form)),
                ..Call::post(&["api", "v1", "modules"])
            })
            .await?;
        Ok(deployed.ok)
    }

    pub(super) async fn modules(&self) -> Result<Vec<Module>, FlowError> {
        self.json(Call::get(&["api", "v1", "modules"])).await
    }

    pub(super) async fn module(&self, hash: &ModuleHash) -> Result<Vec<u8>, FlowError> {
        self.bytes(Call::get(&["api", "v1", "modules", &hash.0]))
            .await
    }

    pub(super) async fn start(&self, start: &StartRequest) -> Result<ExecutionId, FlowError> {
        let started: StartedReply = self
            .json(Call::post(&["api", "v1", "workflows"]).with(start))
            .await?;
        Ok(started.id)
    }

    /// One page, the newest first.
    pub(super) async fn list(
        &self,
        state: Option<State>,
        module: Option<&str>,
        before: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Shown>, FlowError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(module.map(|module| ("module", module.to_owned())));
        query.extend(before.map(|before| ("before", before.to_string())));
        self.json(Call {
            query: &query,
            ..Call::get(&["api", "v1", "workflows"])
        })
        .await
    }

    pub(super) async fn show(&self, id: ExecutionId) -> Result<Shown, FlowError> {
        self.json(Call::get(&["api", "v1", "workflows", &id.to_string()]))
            .await
    }

    pub(super) async fn journal(&self, id: ExecutionId) -> Result<Vec<Entry>, FlowError> {
        self.json(Call::get(&of(&id.to_string(), "journal"))).await
    }

    pub(super) async fn logs(&self, id: ExecutionId) -> Result<Vec<LogLine>, FlowError> {
        self.json(Call::get(&of(&id.to_string(), "logs"))).await
    }

    /// Waits for the response, for as long as the engine lives.
    pub(super) async fn response(&self, id: ExecutionId) -> Result<Value, FlowError> {
        let reply = self
            .json(Call {
                waits: true,
                ..Call::get(&of(&id.to_string(), "response"))
            })
            .await;
        let reply: ResponseReply = reply?;
        Ok(reply.response)
    }

    pub(super) async fn send(
        &self,
        id: ExecutionId,
        kind: String,
        data: &Value,
    ) -> Result<(), FlowError> {
        let message = SendRequest {
            kind,
            data: data.to_string(),
        };
        self.json::<String>(Call::post(&of(&id.to_string(), "messages")).with(&message))
            .await?;
        Ok(())
    }

    pub(super) async fn cancel(
        &self,
        id: ExecutionId,
        reason: Option<String>,
    ) -> Result<Shown, FlowError> {
        self.json(Call::post(&of(&id.to_string(), "cancel")).with(&Cancel { reason }))
            .await
    }

    pub(super) async fn pause(&self, id: ExecutionId) -> Result<Shown, FlowError> {
        self.json(Call::post(&of(&id.to_string(), "pause"))).await
    }

    pub(super) async fn resume(&self, id: ExecutionId) -> Result<Shown, FlowError> {
        self.json(Call::post(&of(&id.to_string(), "resume"))).await
    }

    pub(super) async fn retry(
        &self,
        id: ExecutionId,
        from: Option<u64>,
    ) -> Result<Shown, FlowError> {
        self.json(Call::post(&of(&id.to_string(), "retry")).with(&Retry { from }))
            .await
    }

    async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, FlowError> {
        let body = self.bytes(call).await?;
        serde_json::from_slice(&body).map_err(|error| self.violation(error.to_string()))
    }

    async fn bytes(&self, call: Call<'_>) -> Result<Vec<u8>, FlowError> {
        let changes = call.method != Method::GET;
        let mut request = self
            .http
            .request(call.method, self.server.at(call.path, call.query));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header().clone());
        }
        if let Some((content_type, body)) = call.body {
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        if !call.waits {
            request = request.timeout(ANSWER_TIMEOUT);
        }
        let exchange = async {
            let mut response = request.send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Ok((response.status(), None));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((response.status(), Some(body)))
        };
        let (status, body) = exchange
            .await
            .map_err(|error| self.broken(error, changes))?;
        let body = body.ok_or_else(|| {
            self.violation(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"))
        })?;
        if status.is_success() {
            return Ok(body);
        }
        Err(self.denied(status, &body, call.waits))
    }

    /// What an answer means that is not a good one.
    fn denied(&self, status: StatusCode, body: &[u8], waited: bool) -> FlowError {
        #[derive(Deserialize)]
        struct Denial {
            error: String,
        }
        let Ok(Denial { error }) = serde_json::from_slice(body) else {
            return self.violation(format!("its status is {status}"));
        };
        let (server, why) = (self.server.clone(), printable(&error));
        match status {
            StatusCode::CONFLICT if waited => FlowError::Ended { why },
            StatusCode::SERVICE_UNAVAILABLE => FlowError::Unavailable { server, why },
            StatusCode::GATEWAY_TIMEOUT => FlowError::Unknown { server, why },
            _ => FlowError::Refused { server, why },
        }
    }

    /// What an error of the HTTP library means.
    fn broken(&self, error: reqwest::Error, changes: bool) -> FlowError {
        let connecting = error.is_connect();
        let error = error.without_url();
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        let server = self.server.clone();
        match (connecting, changes) {
            (true, _) => FlowError::Unreachable { server, why },
            (false, true) => FlowError::Unknown { server, why },
            (false, false) => FlowError::Lost { server, why },
        }
    }

    fn violation(&self, detail: String) -> FlowError {
        FlowError::Violation {
            server: self.server.clone(),
            detail,
        }
    }
}

impl<'a> Call<'a> {
    fn get(path: &'a [&'a str]) -> Self {
        Self {
            method: Method::GET,
            path,
            query: &[],
            body: None,
            waits: false,
        }
    }

    fn post(path: &'a [&'a str]) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path)
        }
    }

    fn with(self, body: &impl Serialize) -> Self {
        // The bodies are texts, numbers and JSON values, all of which have a JSON form.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self {
            body: Some(("application/json".into(), body)),
            ..self
        }
    }
}

/// The path of something that an execution has.
const fn of<'a>(id: &'a str, what: &'a str) -> [&'a str; 5] {
    ["api", "v1", "workflows", id, what]
}

/// A multipart form with a module, and its type.
fn form(module: &[u8]) -> (String, Vec<u8>) {
    // Named by what it divides, so that it does not occur in it.
    let boundary = ModuleHash::of(module).0;
    let mut form = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"module\"; filename=\"module.wasm\"\r\n\
         Content-Type: application/wasm\r\n\r\n"
    )
    .into_bytes();
    form.extend_from_slice(module);
    form.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), form)
}
