//! The client, and how a call goes around the servers until one answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Certificate, Method, Response, StatusCode, redirect};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Cause, ClientError, ServerCause},
    exchange::{Call, Reply, Tried, exchange, open},
    keys::KeyMaker,
    options::{Options, OptionsError, ServerUrl, Token},
    rotation::{Rotation, Step},
};

/// Speaks to a cluster. Clones share connections, and know which server answered last.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) options: Arc<Options>,
    preferred: Arc<AtomicUsize>,
    keys: Arc<KeyMaker>,
}

impl Client {
    /// Prepares to speak; nobody is asked yet.
    ///
    /// # Errors
    ///
    /// If there is no server, or the certificates are none.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        if options.servers.is_empty() {
            return Err(OptionsError::NoServer);
        }
        let setup = |error: &dyn std::fmt::Display| OptionsError::Setup {
            why: error.to_string(),
        };
        let keys = KeyMaker::new().map_err(|error| setup(&error))?;
        Ok(Self {
            http: http_client(&options)?,
            options: Arc::new(options),
            preferred: Arc::new(AtomicUsize::new(0)),
            keys: Arc::new(keys),
        })
    }

    /// The same client for one server alone, with so much time for each call.
    pub fn only(&self, server: ServerUrl, deadline: Duration) -> Self {
        let mut options = Options::clone(&self.options);
        options.servers = vec![server];
        options.deadline = deadline;
        Self {
            options: Arc::new(options),
            preferred: Arc::new(AtomicUsize::new(0)),
            ..self.clone()
        }
    }

    /// The same client, which gives one server so long to answer.
    pub(crate) fn patient(&self, answer_timeout: Duration) -> Self {
        let mut options = Options::clone(&self.options);
        options.answer_timeout = answer_timeout;
        Self {
            options: Arc::new(options),
            ..self.clone()
        }
    }

    /// How long a call may take altogether.
    pub fn deadline(&self) -> Duration {
        self.options.deadline
    }

    /// The servers it asks.
    pub fn servers(&self) -> &[ServerUrl] {
        &self.options.servers
    }

    /// The server that answered last; the first one before that.
    pub fn answered_last(&self) -> &ServerUrl {
        &self.options.servers[self.preferred()]
    }

    /// The server that answered last.
    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(crate) fn answered(&self, server: usize) {
        self.preferred.store(server, Ordering::Relaxed);
    }

    /// Asks for something.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let (server, reply) = self.call(&call).await?;
        self.parse(server, &reply)
    }

    /// Asks for a change.
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<(StatusCode, T), ClientError> {
        self.send(Method::POST, segments, body).await
    }

    /// Puts something in its place.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        Ok(self.send(Method::PUT, segments, Some(body)).await?.1)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<(StatusCode, T), ClientError> {
        // What is sent are our own types, whose keys are all text: that has a JSON form.
        let body = body.map(|body| serde_json::to_vec(body).unwrap_or_default());
        let call = Call::change(method, segments, body, self.keys.next());
        let (server, reply) = self.call(&call).await?;
        Ok((reply.status, self.parse(server, &reply)?))
    }

    /// Takes something away.
    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<(), ClientError> {
        let call = Call::change(Method::DELETE, segments, None, self.keys.next());
        self.call(&call).await.map(drop)
    }

    fn parse<T: DeserializeOwned>(&self, server: usize, reply: &Reply) -> Result<T, ClientError> {
        serde_json::from_slice(&reply.body).map_err(|error| ClientError::Violation {
            server: self.options.servers[server].clone(),
            detail: format!("could not read its answer: {error}"),
        })
    }

    async fn call(&self, call: &Call<'_>) -> Result<(usize, Reply), ClientError> {
        self.around(call, async |url, token, allowed| {
            exchange(&self.http, url, token, call, allowed).await
        })
        .await
    }

    /// Asks for something that is read piece by piece.
    pub(crate) async fn open(&self, call: &Call<'_>) -> Result<(usize, Response), ClientError> {
        self.around(call, async |url, token, allowed| {
            let opening = open(&self.http, url, token, call);
            let opened = tokio::time::timeout(allowed, opening).await;
            opened.unwrap_or_else(|_| Tried::go_on(Cause::Slow { after: allowed }))
        })
        .await
    }

    /// Tries one server after the other.
    async fn around<T>(
        &self,
        call: &Call<'_>,
        ask: impl AsyncFn(&ServerUrl, Option<&Token>, Duration) -> Tried<T>,
    ) -> Result<(usize, T), ClientError> {
        let mut attempt = Attempts::new(self, self.preferred());
        loop {
            let (server, left) = attempt.next(call.key.as_deref()).await?;
            let allowed = left.min(self.options.answer_timeout);
            let token = self.options.token.as_ref();
            let tried = ask(&self.options.servers[server], token, allowed).await;
            if let Some(answer) = attempt.judge(server, tried)? {
                return Ok((server, answer));
            }
        }
    }
}

/// One call's attempts.
#[derive(Debug)]
pub(crate) struct Attempts {
    client: Client,
    began: Instant,
    rotation: Rotation,
    causes: Vec<Option<Cause>>,
    may_have_applied: bool,
}

impl Attempts {
    /// Starts with server `first`.
    pub(crate) fn new(client: &Client, first: usize) -> Self {
        let servers = client.options.servers.len();
        Self {
            client: client.clone(),
            began: Instant::now(),
            rotation: Rotation::new(servers, first, client.options.deadline),
            causes: std::iter::repeat_with(|| None).take(servers).collect(),
            may_have_applied: false,
        }
    }

    /// Waits until a server is to be asked; answers with it and with the time that is left.
    ///
    /// # Errors
    ///
    /// If the time is over. `key` is that of a change.
    pub(crate) async fn next(
        &mut self,
        key: Option<&str>,
    ) -> Result<(usize, Duration), ClientError> {
        loop {
            match self.rotation.step(self.began.elapsed(), fastrand::f64()) {
                Step::Ask(server) => {
                    let deadline = self.client.options.deadline;
                    return Ok((server, deadline.saturating_sub(self.began.elapsed())));
                }
                Step::Pause(pause) => tokio::time::sleep(pause).await,
                Step::GiveUp => return Err(self.given_up(key)),
            }
        }
    }

    /// Returns a success, nothing if the call goes on.
    ///
    /// # Errors
    ///
    /// If the answer is final and no success.
    pub(crate) fn judge<T>(
        &mut self,
        server: usize,
        tried: Tried<T>,
    ) -> Result<Option<T>, ClientError> {
        let url = || self.client.options.servers[server].clone();
        match tried {
            Tried::Answered(reply) => {
                self.client.answered(server);
                Ok(Some(reply))
            }
            Tried::Refused(problem) => {
                self.client.answered(server);
                Err(ClientError::Refused {
                    server: url(),
                    problem: Box::new(problem),
                })
            }
            Tried::Violation(detail) => Err(ClientError::Violation {
                server: url(),
                detail,
            }),
            Tried::GoOn { cause, retry_after } => {
                tracing::debug!(server = %url(), %cause, "going on to the next server");
                self.may_have_applied |= cause.may_have_applied();
                self.causes[server] = Some(cause);
                self.rotation
                    .failed(server, self.began.elapsed(), retry_after);
                Ok(None)
            }
        }
    }

    fn given_up(&mut self, key: Option<&str>) -> ClientError {
        let servers = self.client.options.servers.iter().cloned();
        let causes = std::mem::take(&mut self.causes);
        let causes = servers.zip(causes).map(|(server, cause)| ServerCause {
            server,
            cause: cause.unwrap_or(Cause::NotAsked),
        });
        let (causes, elapsed) = (causes.collect(), self.began.elapsed());
        match key {
            Some(key) if self.may_have_applied => ClientError::OutcomeUnknown {
                key: key.to_owned(),
                elapsed,
                causes,
            },
            _ => ClientError::Unreachable { elapsed, causes },
        }
    }
}

/// What connects as these options say.
///
/// # Errors
///
/// If the authorities are none, or the TLS library does not start.
pub fn http_client(options: &Options) -> Result<reqwest::Client, OptionsError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("mvm-client/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .redirect(redirect::Policy::none())
        .no_proxy()
        // Nodes speak nothing else, and a crate beside us may switch the other on.
        .http1_only();
    let bad_ca = |error: reqwest::Error| OptionsError::Ca {
        why: error.to_string(),
    };
    let authorities = match &options.ca_pem {
        None => Vec::new(),
        Some(pem) => match Certificate::from_pem_bundle(pem).map_err(bad_ca)? {
            empty if empty.is_empty() => {
                return Err(OptionsError::Ca {
                    why: "there is none in PEM form".into(),
                });
            }
            some => some,
        },
    };
    let encrypted = options.servers.iter().any(ServerUrl::is_https);
    builder = match encrypted {
        true => builder.tls_certs_merge(authorities),
        // Hosts without any authority installed are no trouble then, and none are read for nothing.
        false => builder.tls_certs_only(authorities),
    };
    builder.build().map_err(|error| match options.ca_pem {
        Some(_) => bad_ca(error),
        None => OptionsError::Setup {
            why: error.to_string(),
        },
    })
}
