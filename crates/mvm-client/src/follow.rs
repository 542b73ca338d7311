//! Follows a job or its output until the job has ended, whatever becomes of connections and servers meanwhile.

use std::fmt;

use mvm_queue::{FencingToken, JobId, JobState};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    calls::Client,
    error::ClientError,
    source::EventSource,
    sse::Event,
    view::{Chunk, JobView},
};

/// A place in a job's output.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LogPlace {
    /// Which attempt.
    pub attempt: FencingToken,
    /// The number of the next chunk.
    pub next: u32,
}

impl fmt::Display for LogPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.attempt, self.next)
    }
}

impl LogPlace {
    /// Where an attempt's output begins.
    pub const fn beginning_of(attempt: FencingToken) -> Self {
        Self { attempt, next: 0 }
    }

    /// Reads `ATTEMPT:NEXT`.
    fn parse(id: &str) -> Option<Self> {
        let (attempt, next) = id.split_once(':')?;
        Some(Self {
            attempt: FencingToken(attempt.parse().ok()?),
            next: next.parse().ok()?,
        })
    }
}

/// What comes of following output.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEvent {
    /// A piece of output; the pieces of an attempt come each once and in order.
    Chunk {
        /// Of which attempt.
        attempt: FencingToken,
        /// The piece.
        chunk: Chunk,
    },
    /// There will be no more.
    End {
        /// Where the job stood, as far as the asked server knew.
        state: JobState,
    },
}

/// What comes of following a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// The job, when it has changed.
    Job(Box<JobView>),
    /// It has ended.
    End {
        /// How.
        state: JobState,
    },
}

#[derive(Deserialize)]
struct End {
    state: JobState,
}

impl Client {
    /// Follows the output of a job from a place on, over all later attempts, until the job has ended.
    pub fn follow_log(&self, job: &JobId, from: LogPlace) -> FollowLog {
        let mut source = EventSource::new(self, job, &["log", "events"]);
        source.last_id = Some(from.to_string());
        FollowLog {
            client: self.clone(),
            source,
            place: from,
            gaps: 0,
        }
    }

    /// Follows a job until it has ended.
    pub fn follow_job(&self, job: &JobId) -> FollowJob {
        FollowJob {
            client: self.clone(),
            source: EventSource::new(self, job, &["events"]),
        }
    }
}

/// Follows output; see [`Client::follow_log`].
#[derive(Debug)]
pub struct FollowLog {
    client: Client,
    source: EventSource,
    place: LogPlace,
    /// Pieces that were missing since the last one that was not.
    gaps: usize,
}

impl FollowLog {
    /// Where the next piece will come from.
    pub const fn place(&self) -> LogPlace {
        self.place
    }

    /// The next event. To be called until it is [`LogEvent::End`]; nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]: if no server goes on with the stream within the deadline.
    pub async fn next(&mut self) -> Result<LogEvent, ClientError> {
        loop {
            let event = self.source.next().await?;
            match event.name.as_str() {
                "chunk" => {
                    if let Some(event) = self.chunk(&event)? {
                        return Ok(event);
                    }
                }
                "end" => {
                    let End { state } = parse(&self.client, &event)?;
                    return Ok(LogEvent::End { state });
                }
                // A newer node may have more to say.
                _ => {}
            }
        }
    }

    /// A piece that was not seen before.
    fn chunk(&mut self, event: &Event) -> Result<Option<LogEvent>, ClientError> {
        let chunk: Chunk = parse(&self.client, event)?;
        let after = event.id.as_deref().and_then(LogPlace::parse);
        let after = after.filter(|after| after.next.checked_sub(1) == Some(chunk.number));
        let Some(after) = after else {
            let detail = format!("chunk {} has the id {:?}", chunk.number, event.id);
            return Err(violation(&self.client, detail));
        };
        if after <= self.place {
            return Ok(None);
        }
        let expected = match after.attempt == self.place.attempt {
            true => self.place.next,
            false => 0,
        };
        if chunk.number != expected {
            self.gaps += 1;
            if self.gaps > self.client.servers().len() {
                let detail = format!("chunk {expected} is missing before {}", chunk.number);
                return Err(violation(&self.client, detail));
            }
            // Another server may have it.
            self.source.distrust()?;
            return Ok(None);
        }
        self.place = after;
        self.source.last_id = Some(after.to_string());
        self.gaps = 0;
        Ok(Some(LogEvent::Chunk {
            attempt: after.attempt,
            chunk,
        }))
    }
}

/// Follows a job; see [`Client::follow_job`].
#[derive(Debug)]
pub struct FollowJob {
    client: Client,
    source: EventSource,
}

impl FollowJob {
    /// The next event. To be called until it is [`JobEvent::End`]; nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]: if no server goes on with the stream within the deadline.
    pub async fn next(&mut self) -> Result<JobEvent, ClientError> {
        loop {
            let event = self.source.next().await?;
            match event.name.as_str() {
                "job" => return Ok(JobEvent::Job(Box::new(parse(&self.client, &event)?))),
                "end" => {
                    let End { state } = parse(&self.client, &event)?;
                    return Ok(JobEvent::End { state });
                }
                // A newer node may have more to say.
                _ => {}
            }
        }
    }
}

fn parse<T: DeserializeOwned>(client: &Client, event: &Event) -> Result<T, ClientError> {
    serde_json::from_str(&event.data).map_err(|error| {
        violation(
            client,
            format!("could not read its event {:?}: {error}", event.name),
        )
    })
}

fn violation(client: &Client, detail: String) -> ClientError {
    ClientError::Violation {
        server: client.options.servers[client.preferred()].clone(),
        detail,
    }
}
