//! A job's stream of server-sent events, which outlives connections and servers.

use std::time::{Duration, Instant};

use mvm_queue::JobId;
use reqwest::Response;

use crate::{
    calls::{Attempts, Client},
    error::{Cause, ClientError},
    exchange::{self, Call, Tried},
    sse::{Event, Parser},
    view::Consistency,
};

const MEDIA_TYPE: &str = "text/event-stream";

const NOT_FOUND: u16 = 404;
const TOO_MANY: u16 = 429;

/// A server whose stream held so long did its work; to find the next one there is the whole deadline again.
const SOUND_AFTER: Duration = Duration::from_secs(1);

/// Reads events, from another server if one goes away.
#[derive(Debug)]
pub(crate) struct EventSource {
    client: Client,
    job: JobId,
    /// The path under the job's.
    tail: &'static [&'static str],
    /// Where another server is to go on.
    pub(crate) last_id: Option<String>,
    attempts: Option<Attempts>,
    open: Option<Open>,
    /// Read and not taken, the last one first.
    events: Vec<Event>,
}

#[derive(Debug)]
struct Open {
    server: usize,
    since: Instant,
    response: Response,
    parser: Parser,
}

impl EventSource {
    /// The events at a path under that of a job.
    pub(crate) fn new(client: &Client, job: &JobId, tail: &'static [&'static str]) -> Self {
        Self {
            client: client.clone(),
            job: job.clone(),
            tail,
            last_id: None,
            attempts: None,
            open: None,
            events: Vec::new(),
        }
    }

    /// Treats the server of the latest event as one that went away.
    pub(crate) fn distrust(&mut self) -> Result<(), ClientError> {
        self.events.clear();
        match &self.open {
            Some(open) => {
                let server = open.server;
                self.lost(server, Cause::StreamEnded)
            }
            None => Ok(()),
        }
    }

    /// The next event, of any name. Nothing is lost if this is dropped before it is done.
    ///
    /// # Errors
    ///
    /// If no server gives the stream within the deadline, or one refuses it.
    pub(crate) async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.events.pop() {
                self.attempts = None;
                return Ok(event);
            }
            match &mut self.open {
                Some(open) => {
                    let server = open.server;
                    let idle = self.client.options.idle_timeout;
                    match more(open, idle, &mut self.events).await {
                        Tried::Answered(()) => {}
                        Tried::GoOn { cause, .. } => self.lost(server, cause)?,
                        other => {
                            self.attempts(server).judge(server, other)?;
                        }
                    }
                }
                None => self.connect().await?,
            }
        }
    }

    fn lost(&mut self, server: usize, cause: Cause) -> Result<(), ClientError> {
        let open = self.open.take();
        if open.is_some_and(|open| open.since.elapsed() >= SOUND_AFTER) {
            self.attempts = None;
        }
        let tried = Tried::<()>::go_on(cause);
        self.attempts(server).judge(server, tried)?;
        Ok(())
    }

    fn attempts(&mut self, first: usize) -> &mut Attempts {
        let client = &self.client;
        self.attempts
            .get_or_insert_with(|| Attempts::new(client, first))
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let preferred = self.client.preferred();
        let (server, left) = self.attempts(preferred).next(None).await?;
        let path = ["api", "v1", "jobs", &self.job.0];
        let mut call = Call::get([&path, self.tail].concat());
        call.last_event.clone_from(&self.last_id);
        let options = &self.client.options;
        let allowed = left.min(options.answer_timeout);
        let (url, token) = (&options.servers[server], options.token.as_ref());
        let opening = exchange::open(&self.client.http, url, token, &call);
        let tried = match tokio::time::timeout(allowed, opening).await {
            Ok(Tried::Answered(response)) if !is_event_stream(&response) => {
                Tried::Violation(format!("what it sends is no {MEDIA_TYPE}"))
            }
            Ok(Tried::Refused(problem)) if problem.status == NOT_FOUND => {
                // Streams are read from a server's own replica. If there is such a job, that one is behind.
                self.client
                    .job(&self.job, Consistency::Linearizable)
                    .await?;
                Tried::go_on(Cause::Unavailable(Box::new(problem)))
            }
            // It serves as many streams as it can.
            Ok(Tried::Refused(problem)) if problem.status == TOO_MANY => {
                Tried::go_on(Cause::Unavailable(Box::new(problem)))
            }
            Ok(tried) => tried,
            Err(_) => Tried::go_on(Cause::Slow { after: allowed }),
        };
        if let Some(response) = self.attempts(server).judge(server, tried)? {
            self.open = Some(Open {
                server,
                since: Instant::now(),
                response,
                parser: Parser::default(),
            });
        }
        Ok(())
    }
}

fn is_event_stream(response: &Response) -> bool {
    let media_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    media_type.is_some_and(|value| value.split(';').next().unwrap_or_default().trim() == MEDIA_TYPE)
}

/// Reads what comes next; it may complete no event.
async fn more(open: &mut Open, idle: Duration, events: &mut Vec<Event>) -> Tried<()> {
    match tokio::time::timeout(idle, open.response.chunk()).await {
        Ok(Ok(Some(bytes))) => {
            let fed = open.parser.feed(&bytes, events);
            events.reverse();
            match fed {
                Ok(()) => Tried::Answered(()),
                Err(too_large) => Tried::Violation(too_large.to_string()),
            }
        }
        Ok(Ok(None)) => Tried::go_on(Cause::StreamEnded),
        Ok(Err(error)) => Tried::go_on(exchange::cause(error)),
        Err(_) => Tried::go_on(Cause::Slow { after: idle }),
    }
}
