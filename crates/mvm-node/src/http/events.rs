//! Server-sent events: a job's changes and its output as they come.
//!
//! A stream reads this node's replica only, and looks at it again when the log was applied further. Two changes between
//! two looks are one event. A stream ends with the event `end`, or without one when the node stops: then a client goes on
//! with another node.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use mvm_queue::{Answer, FencingToken, Job, JobId, JobState, Query, Refusal};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    App,
    asking::{NamedJob, mismatch, number},
    form,
    problem::Problem,
    v1::LOG_CHUNKS_MAX,
    view::{ChunkView, JobView},
};
use crate::{
    consensus::{Barrier, Reading, Unavailable},
    store::{Deadline, Store},
};

/// Streams that one node serves at a time. Each costs a connection, and a read whenever something changes.
pub const STREAMS_MAX: usize = 256;

/// The shortest time between two looks of one stream, so that many changes do not make many reads.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a comment is sent on a stream without events, so that nobody between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const LAST_EVENT_ID_HEADER: &str = "last-event-id";

/// The streams of a node.
#[derive(Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    closed: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            closed: watch::Sender::default(),
        }
    }
}

impl Streams {
    /// Ends all streams, and lets none begin.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if *self.closed.borrow() {
            return Err(Problem::unavailable(&Unavailable::ShuttingDown));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| Problem::too_many_streams(STREAMS_MAX))
    }
}

/// `GET /api/v1/jobs/{id}/events`
pub(super) async fn job<S: Store>(
    State(app): State<Arc<App<S>>>,
    NamedJob(job): NamedJob,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let [] = form::fields(query.unwrap_or_default().as_bytes(), [])?;
    let reader = Reader::open(app, job).await?;
    Ok(reader.answer(JobFollower::default()))
}

/// `GET /api/v1/jobs/{id}/log/events`
pub(super) async fn log<S: Store>(
    State(app): State<Arc<App<S>>>,
    NamedJob(job): NamedJob,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let [attempt, from] = form::fields(query.unwrap_or_default().as_bytes(), ["attempt", "from"])?;
    let only = attempt
        .map(|text| number("attempt", &text))
        .transpose()?
        .map(FencingToken);
    let from = from.map_or(Ok(0), |text| number("from", &text))?;
    let last = headers.get(LAST_EVENT_ID_HEADER).map(|value| {
        let place = value.to_str().ok().and_then(Place::parse);
        place.ok_or_else(|| Problem::bad_request("the last-event-id is not ATTEMPT:NEXT"))
    });
    let reader = Reader::open(app, job).await?;
    let attempt = only.unwrap_or(reader.job.token);
    let place = last.transpose()?.unwrap_or(Place {
        attempt,
        next: from,
    });
    Ok(reader.answer(LogFollower {
        only: only.is_some(),
        place,
        sent: VecDeque::new(),
    }))
}

/// One stream's view of its job.
struct Reader<S> {
    app: Arc<App<S>>,
    /// As last read.
    job: Box<Job>,
    /// How far the log was applied then.
    seen: u64,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// Makes events of what a reader sees.
trait Follower: Send + 'static {
    /// The next event that can be told now.
    fn event<S: Store>(
        &mut self,
        reader: &Reader<S>,
    ) -> impl Future<Output = Result<Next, Problem>> + Send;
}

/// What a follower has to tell.
enum Next {
    Event(Event),
    /// Nothing until something changes.
    Wait,
    /// Nothing any more.
    End,
}

impl<S: Store> Reader<S> {
    async fn open(app: Arc<App<S>>, job: JobId) -> Result<Self, Problem> {
        let place = app.streams.enter()?;
        let (job, seen) = read_job(&app, &job).await?;
        Ok(Self {
            app,
            job,
            seen,
            ended: false,
            _place: place,
        })
    }

    /// Answers with the follower's events until there are no more, or the node stops.
    fn answer(self, follower: impl Follower) -> Response {
        let mut closed = self.app.streams.closed.subscribe();
        let events = stream::unfold((self, follower), |(mut reader, mut follower)| async {
            let event = reader.next(&mut follower).await?;
            Some((Ok::<_, axum::Error>(event), (reader, follower)))
        });
        let events = events.take_until(async move {
            // The node's sender lives as long as its streams.
            let _ = closed.wait_for(|closed| *closed).await;
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        Sse::new(events).keep_alive(keep_alive).into_response()
    }

    async fn next(&mut self, follower: &mut impl Follower) -> Option<Event> {
        while !self.ended {
            // A replica that cannot be read any more ends the stream without `end`; so does a job that was removed.
            match follower.event(self).await.ok()? {
                Next::Event(event) => return Some(event),
                Next::Wait => self.look_again().await.ok()?,
                Next::End => {
                    self.ended = true;
                    let end = json!({ "state": self.job.state });
                    return Event::default().event("end").json_data(end).ok();
                }
            }
        }
        None
    }

    async fn look_again(&mut self) -> Result<(), Problem> {
        tokio::time::sleep(PAUSE).await;
        self.app.store.applied(self.seen).await;
        (self.job, self.seen) = read_job(&self.app, &self.job.id).await?;
        Ok(())
    }
}

/// Tells each state and attempt.
#[derive(Default)]
struct JobFollower {
    told: Option<(JobState, FencingToken)>,
}

impl Follower for JobFollower {
    async fn event<S: Store>(&mut self, reader: &Reader<S>) -> Result<Next, Problem> {
        let job = &*reader.job;
        let stands = Some((job.state, job.token));
        if self.told != stands {
            self.told = stands;
            return event(Event::default().event("job"), &JobView::from(job));
        }
        Ok(if job.state.is_finished() {
            Next::End
        } else {
            Next::Wait
        })
    }
}

/// Tells each chunk, attempt after attempt.
struct LogFollower {
    /// Whether it ends with its attempt.
    only: bool,
    place: Place,
    /// Read, and not told yet.
    sent: VecDeque<(Place, mvm_queue::LogChunk)>,
}

impl Follower for LogFollower {
    async fn event<S: Store>(&mut self, reader: &Reader<S>) -> Result<Next, Problem> {
        loop {
            if let Some((after, chunk)) = self.sent.pop_front() {
                let named = Event::default().event("chunk").id(after.to_string());
                return event(named, &ChunkView::from(&chunk));
            }
            // Read after the job was: what an ended attempt said is all there.
            if self.read(reader).await? {
                continue;
            }
            let job = &*reader.job;
            let later = job.token > self.place.attempt;
            let over = later || (job.token == self.place.attempt && !job.state.is_held());
            if later && !self.only {
                self.place = Place {
                    attempt: FencingToken(self.place.attempt.0 + 1),
                    next: 0,
                };
            } else if job.state.is_finished() || (self.only && over) {
                return Ok(Next::End);
            } else {
                return Ok(Next::Wait);
            }
        }
    }
}

impl LogFollower {
    /// Reads on, and says whether there was something.
    async fn read<S: Store>(&mut self, reader: &Reader<S>) -> Result<bool, Problem> {
        let query = Query::Log {
            job: reader.job.id.clone(),
            token: self.place.attempt,
            from: self.place.next,
            limit: LOG_CHUNKS_MAX,
        };
        let (Answer::Log { chunks }, _) = read_local(&reader.app, query).await? else {
            return Err(mismatch(&"not a log"));
        };
        for chunk in chunks {
            self.place.next = chunk.number.saturating_add(1);
            self.sent.push_back((self.place, chunk));
        }
        Ok(!self.sent.is_empty())
    }
}

/// Where a reader of a job's output is: the id of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    attempt: FencingToken,
    next: u32,
}

impl Place {
    /// Reads what [`std::fmt::Display`] writes. There is no attempt below 0, where none was made yet.
    fn parse(text: &str) -> Option<Self> {
        let (attempt, next) = text.split_once(':')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(attempt) || !plain(next) {
            return None;
        }
        Some(Self {
            attempt: FencingToken(attempt.parse().ok()?),
            next: next.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.attempt, self.next)
    }
}

fn event(named: Event, data: &impl serde::Serialize) -> Result<Next, Problem> {
    named
        .json_data(data)
        .map(Next::Event)
        .map_err(|error| Problem::broken(error.to_string()))
}

async fn read_job<S: Store>(app: &App<S>, job: &JobId) -> Result<(Box<Job>, u64), Problem> {
    match read_local(app, Query::Job { job: job.clone() }).await? {
        (Answer::Job { job: Some(job) }, log_index) => Ok((job, log_index)),
        (Answer::Job { job: None }, _) => {
            Err(Problem::refused(&Refusal::UnknownJob { job: job.clone() }))
        }
        (other, _) => Err(mismatch(&other)),
    }
}

async fn read_local<S: Store>(app: &App<S>, query: Query) -> Result<(Answer, u64), Problem> {
    let reading = app
        .store
        .read(Barrier::Local, query, Deadline::starting_now());
    match reading.await {
        Reading::Done { answer, log_index } => Ok((answer, log_index)),
        Reading::Unavailable { cause } => Err(Problem::unavailable(&cause)),
        Reading::Broken { detail } => Err(Problem::broken(detail)),
    }
}
