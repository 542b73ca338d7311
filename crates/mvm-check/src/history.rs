//! The history of a run: what was asked and told, what was done to the cluster, and what each node told in the end, in the
//! order in which it happened, on one clock. Append only; as a file it is one JSON object per line.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::action::{Action, At, AttemptSeen, Class, JobId, JobSeen, NodeId, Told};

/// The version of the file format, in the first line of each file.
pub const FORMAT_VERSION: u32 = 1;

/// An operation's number, in order of invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

/// What was done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// A node cannot reach a majority from now on, or cannot hear one. Noted when it is so already.
    CutOff {
        /// Which.
        node: NodeId,
    },
    /// The end of that. Noted before it is undone.
    Healing {
        /// Which.
        node: NodeId,
    },
    /// Something that the checker need not know.
    Other {
        /// For people.
        what: String,
    },
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first.
    Began {
        /// [`FORMAT_VERSION`].
        version: u32,
        /// The workload's seed.
        seed: u64,
    },
    /// A client asks.
    Invoked {
        /// When, before anything was sent.
        at: At,
        /// The operation.
        operation: OperationId,
        /// Who asks. A process asks one thing at a time.
        process: String,
        /// Whom.
        node: NodeId,
        /// The request's id. Operations with the same id are one request, repeated.
        request: String,
        /// What.
        action: Action,
    },
    /// A client is told.
    Returned {
        /// When, after everything was received.
        at: At,
        /// The operation.
        operation: OperationId,
        /// What.
        told: Told,
    },
    /// Something is done to the cluster.
    Nemesis {
        /// When.
        at: At,
        /// What.
        fault: Fault,
    },
    /// What a node tells when all is over.
    Final {
        /// Which.
        node: NodeId,
        /// What it lists.
        state: FinalState,
    },
}

/// What a node tells when all is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// The jobs it lists, linearizably.
    pub jobs: Vec<JobSeen>,
    /// The attempts of those that were claimed.
    pub attempts: BTreeMap<JobId, Vec<AttemptSeen>>,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// Who asked.
    pub process: String,
    /// Whom.
    pub node: NodeId,
    /// The request's id.
    pub request: String,
    /// What.
    pub action: Action,
    /// When it was asked.
    pub invoked: At,
    /// When it was answered, and what; nothing if it never was.
    pub returned: Option<(At, Told)>,
}

impl Operation {
    /// What its answer promises; without one the outcome is unknown.
    pub fn class(&self) -> Class {
        let returned = self.returned.as_ref();
        returned.map_or(Class::Unknown, |(_, told)| told.class())
    }

    /// Whether it was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.class() == Class::Acknowledged
    }

    /// Whether it may have been applied.
    pub fn may_have_happened(&self) -> bool {
        match self.class() {
            Class::Acknowledged | Class::Unknown => true,
            Class::Refused | Class::Rejected => false,
        }
    }

    /// When it was answered; later than everything if it never was.
    pub fn returned_at(&self) -> At {
        let returned = self.returned.as_ref();
        returned.map_or(At(u64::MAX), |(at, _)| *at)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation {
            id,
            process,
            node,
            action,
            invoked,
            ..
        } = self;
        write!(formatter, "[{} {process} on {node}, {invoked}", id.0)?;
        match &self.returned {
            Some((at, told)) => write!(formatter, " to {at} s: {action}: {told}]"),
            None => write!(formatter, " s: {action}: never answered]"),
        }
    }
}

/// Why a history's file is none.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line is no event.
    #[error("could not read line {line} of the history: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The first line says something else.
    #[error(
        "could not read the history: its first line does not say that it is of version {FORMAT_VERSION}"
    )]
    Version,
}

/// A run as it was seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// A history in which nothing has happened yet.
    pub fn new(seed: u64) -> History {
        History {
            events: vec![Event::Began {
                version: FORMAT_VERSION,
                seed,
            }],
        }
    }

    /// Appends what happened. Moments must not go back.
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Returns all that happened, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns the operations, in order of invocation.
    pub fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        let mut places = HashMap::new();
        for event in &self.events {
            match event {
                Event::Invoked {
                    at,
                    operation,
                    process,
                    node,
                    request,
                    action,
                } => {
                    places.insert(*operation, operations.len());
                    operations.push(Operation {
                        id: *operation,
                        process: process.clone(),
                        node: *node,
                        request: request.clone(),
                        action: action.clone(),
                        invoked: *at,
                        returned: None,
                    });
                }
                Event::Returned {
                    at,
                    operation,
                    told,
                } => {
                    // A file is untrusted: an answer to nothing is left out.
                    if let Some(place) = places.get(operation) {
                        operations[*place].returned = Some((*at, told.clone()));
                    }
                }
                Event::Began { .. } | Event::Nemesis { .. } | Event::Final { .. } => {}
            }
        }
        operations
    }

    /// Returns the times in which a node was cut off; the last may not have ended.
    pub fn cut_off(&self, node: NodeId) -> impl Iterator<Item = (At, At)> {
        let mut times: Vec<(At, At)> = Vec::new();
        for event in &self.events {
            match event {
                Event::Nemesis {
                    at,
                    fault: Fault::CutOff { node: of },
                } if *of == node => times.push((*at, At(u64::MAX))),
                Event::Nemesis {
                    at,
                    fault: Fault::Healing { node: of },
                } if *of == node => {
                    if let Some((_, to)) = times.last_mut() {
                        *to = (*to).min(*at);
                    }
                }
                _ => {}
            }
        }
        times.into_iter()
    }

    /// Reads the lines of a file.
    pub fn parse(text: &str) -> Result<History, HistoryError> {
        let mut events = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let event = serde_json::from_str(line).map_err(|source| HistoryError::Line {
                line: index + 1,
                source,
            })?;
            events.push(event);
        }
        match events.first() {
            Some(Event::Began {
                version: FORMAT_VERSION,
                ..
            }) => Ok(History { events }),
            _ => Err(HistoryError::Version),
        }
    }

    /// Writes one line per event.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut *to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

/// A history that several clients write at once.
#[derive(Debug)]
pub struct Recorder {
    history: Mutex<(History, u64)>,
}

impl Recorder {
    /// Begins a history.
    pub fn new(seed: u64) -> Recorder {
        Recorder {
            history: Mutex::new((History::new(seed), 0)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (History, u64)> {
        // An event is appended whole or not at all.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question, before it is sent. `now` is read while nobody else writes, so that the order of lines is that of
    /// moments.
    pub fn invoke(
        &self,
        now: impl FnOnce() -> At,
        process: &str,
        ask: &crate::workload::Ask,
    ) -> OperationId {
        let mut lock = self.lock();
        let (history, count) = &mut *lock;
        *count += 1;
        let operation = OperationId(*count);
        history.push(Event::Invoked {
            at: now(),
            operation,
            process: process.to_owned(),
            node: ask.node,
            request: ask.request.clone(),
            action: ask.action.clone(),
        });
        operation
    }

    /// Notes an answer, after it has come.
    pub fn told(&self, now: impl FnOnce() -> At, operation: OperationId, told: Told) {
        let mut lock = self.lock();
        let at = now();
        lock.0.push(Event::Returned {
            at,
            operation,
            told,
        });
    }

    /// Notes what is done to the cluster.
    pub fn fault(&self, now: impl FnOnce() -> At, fault: Fault) {
        let mut lock = self.lock();
        let at = now();
        lock.0.push(Event::Nemesis { at, fault });
    }

    /// Notes what a node tells in the end.
    pub fn finally(&self, node: NodeId, state: FinalState) {
        self.lock().0.push(Event::Final { node, state });
    }

    /// Returns the history so far.
    pub fn history(&self) -> History {
        self.lock().0.clone()
    }
}
