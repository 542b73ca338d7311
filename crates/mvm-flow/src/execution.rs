//! The core of the engine: from the journal and the guest's next command to what is to be done. No clock, no I/O.
//!
//! ```text
//!   guest ── command ──▶ Execution::submit ─┬─▶ Step::Answer     it is in the journal, or needs nothing from outside
//!                                           ├─▶ Step::Perform    the rim does it ──▶ Execution::performed ──▶ answer
//!                                           └─▶ Step::Stop       the guest cannot go on
//!                              └── fresh records ──▶ the rim appends them
//! ```
//!
//! An execution that runs again gets from the journal what it was told before, until the journal ends; what it asks for
//! then is new. A guest that asks for something else than it did before has *diverged*, which is told, never guessed away.
//!
//! Before the rim performs a [`Effect::Http`] or [`Effect::Start`], and before it tells anybody of an [`Effect::Respond`], it
//! makes all fresh records durable: what is outside may have been seen by then. Records of what nobody outside saw may be
//! lost; the guest is then told anew.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use crate::{
    abi::{
        Answer, Command, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpTransportError,
        Number,
    },
    id::{ExecutionId, UnixMillis},
    record::{Digest, Record, SecretReference, What},
};

/// What the core is given with each command.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The wall clock.
    pub now: SystemTime,
    /// Bits that nobody can foretell.
    pub entropy: u64,
    /// Whether whoever started the workflow has gone away.
    pub caller_gone: bool,
}

/// What is to be done about a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Tell the guest.
    Answer(Answer),
    /// Do this, and say how it went.
    Perform(Effect),
    /// The guest cannot go on.
    Stop(Halt),
}

/// What the rim does for a guest.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Emit a line that is in the journal already. Secrets in it are masked.
    Log {
        /// Its level, in lower case.
        level: String,
        /// The line.
        text: String,
    },
    /// Look up a secret. If it was given out before it must still be the same.
    Secret {
        /// Its name.
        name: String,
        /// What it was.
        expected: Option<SecretReference>,
    },
    /// Send a request.
    Http(HttpRequest),
    /// Make the response, the last of the fresh records, known.
    Respond {
        /// The response; JSON text.
        text: String,
        /// Whether anybody is there to take it.
        heard: bool,
    },
    /// Start another workflow of the module, unless it has been started.
    Start {
        /// The id it has.
        child: ExecutionId,
        /// Its name.
        workflow: String,
        /// Its input; JSON text.
        input: String,
    },
    /// Wait for a time.
    Sleep {
        /// Until when.
        until: UnixMillis,
    },
    /// Wait for a message.
    Receive {
        /// Of one of these types.
        types: Vec<String>,
        /// No longer than this.
        until: Option<UnixMillis>,
    },
    /// Show a line to whoever watches the replay.
    Print(String),
}

/// How an effect went.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "one for each effect")]
pub enum Performed {
    Logged,
    Secret(Option<String>),
    Http(Box<Result<HttpResponse, HttpError>>),
    Responded {
        heard: bool,
    },
    Started,
    Slept,
    Received {
        number: u64,
        kind: String,
        data: String,
    },
    TimedOut,
    Printed,
}

/// Why a guest cannot go on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Halt {
    /// It does something else than it did before.
    #[error(
        "the module diverged from its journal at step {step}: it asked for `{asked}`, the journal has `{recorded}`"
    )]
    Diverged {
        /// The number of the command, from 0, not counting the input.
        step: u64,
        /// What it asked for.
        asked: String,
        /// What it had asked for.
        recorded: String,
    },
    /// A replay has come to the end of the journal.
    #[error("the journal ends before step {step}: `{asked}`")]
    JournalEnded {
        /// The number of the command.
        step: u64,
        /// What it asks for.
        asked: String,
    },
    /// A secret is not what it was.
    #[error("the secret {name:?} is not the one that was given out before")]
    SecretChanged {
        /// Its name.
        name: String,
    },
}

/// Whether effects happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Beyond the journal, the execution goes on.
    Live,
    /// Beyond the journal there is nothing.
    Replay,
}

/// One execution, as far as it has come in this run.
#[derive(Debug)]
pub struct Execution {
    id: ExecutionId,
    input: String,
    mode: Mode,
    /// What is in the journal and the guest has not come to.
    past: VecDeque<Record>,
    /// The number of the next command.
    step: u64,
    /// The command that is being performed.
    open: Option<Open>,
    responded: bool,
    /// Secrets that the guest has, for masking.
    secrets: Vec<(String, String)>,
    fresh: Vec<Record>,
}

/// A command under way.
#[derive(Debug)]
struct Open {
    digest: Digest,
    /// In short, unless the journal has it.
    what: Option<What>,
    /// The answer, where the journal has it but for a secret.
    recorded: bool,
    secret: Option<String>,
    child: Option<ExecutionId>,
    at: UnixMillis,
}

/// Values shorter than this are not masked: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 4;

impl Execution {
    /// An execution that starts again at its beginning, with its journal.
    pub fn new(id: ExecutionId, input: String, past: Vec<Record>, mode: Mode) -> Self {
        Self {
            id,
            input,
            mode,
            past: past.into(),
            step: 0,
            open: None,
            responded: false,
            secrets: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Decides what to do about the guest's next command.
    pub fn submit(&mut self, command: Command, given: Given) -> Step {
        let digest = Digest::of(&command, &self.secrets);
        match &command {
            Command::GetInput => return Step::Answer(Answer::String(self.input.clone())),
            Command::ReplayDebug(text) => {
                return match self.mode {
                    Mode::Live => Step::Answer(Answer::Unit),
                    Mode::Replay => Step::Perform(Effect::Print(text.clone())),
                };
            }
            _ => {}
        }
        let step = self.replay(command, digest, given);
        if !matches!(step, Step::Stop(_)) {
            self.step += 1;
        }
        step
    }

    /// Looks for the command in the journal.
    fn replay(&mut self, command: Command, digest: Digest, given: Given) -> Step {
        let at = UnixMillis::of(given.now);
        self.skip_owners();
        let Some(recorded) = self.past.front() else {
            return self.begin(command, digest, given);
        };
        if digest_of(recorded) != Some(&digest) {
            return Step::Stop(Halt::Diverged {
                step: self.step,
                asked: self.short(&command).to_string(),
                recorded: summary(recorded),
            });
        }
        let mut deadline = None;
        let mut asked = false;
        while let Some(Record::Asked { .. } | Record::Waiting { .. }) = self.past.front() {
            match self.past.pop_front() {
                Some(Record::Waiting { until, .. }) => deadline = Some(until),
                Some(_) => asked = true,
                None => {}
            }
            self.skip_owners();
        }
        if let Some(Record::Answered { answer, secret, .. }) = self.past.pop_front_if(
            |record| matches!(record, Record::Answered { digest: found, .. } if *found == digest),
        ) {
            self.responded |= matches!(answer, Answer::ResponseSent(_));
            let Some(reference) = secret else {
                return Step::Answer(answer);
            };
            let name = reference.name.clone();
            self.open = Some(Open {
                digest,
                what: None,
                recorded: true,
                secret: Some(name.clone()),
                child: None,
                at,
            });
            return Step::Perform(Effect::Secret {
                name,
                expected: Some(reference),
            });
        }
        // The journal ends within this command.
        if self.mode == Mode::Replay {
            return Step::Stop(Halt::JournalEnded {
                step: self.step,
                asked: self.short(&command).to_string(),
            });
        }
        let open = Open {
            digest,
            what: None,
            recorded: false,
            secret: None,
            child: None,
            at,
        };
        match command {
            Command::HttpRequest(request) if asked && !request.config.idempotent => {
                self.open = Some(open);
                let interrupted = HttpError::Transport(HttpTransportError {
                    kind: HttpErrorKind::RequestInterrupted,
                    message: Some(
                        "the engine stopped while the request was under way; it may or may not have arrived".into(),
                    ),
                    url: Some(request.url),
                });
                Step::Answer(self.close(Answer::HttpResponse(Err(interrupted)), None, None, at))
            }
            Command::HttpRequest(request) => {
                let what = self.short(&Command::HttpRequest(request.clone()));
                let digest = open.digest.clone();
                self.open = Some(open);
                self.fresh.push(Record::Asked { digest, what, at });
                Step::Perform(Effect::Http(request))
            }
            Command::RecvMessage(_, types) => {
                self.open = Some(open);
                Step::Perform(Effect::Receive {
                    types,
                    until: deadline,
                })
            }
            // Only these have records before their answer.
            _ => {
                self.open = Some(open);
                Step::Perform(Effect::Sleep {
                    until: deadline.unwrap_or(at),
                })
            }
        }
    }

    /// Begins a command that the journal does not know.
    fn begin(&mut self, command: Command, digest: Digest, given: Given) -> Step {
        let at = UnixMillis::of(given.now);
        let what = self.short(&command);
        if self.mode == Mode::Replay {
            return Step::Stop(Halt::JournalEnded {
                step: self.step,
                asked: what.to_string(),
            });
        }
        let open = Open {
            digest: digest.clone(),
            what: Some(what.clone()),
            recorded: false,
            secret: None,
            child: None,
            at,
        };
        let mut waits = |until| {
            self.fresh.push(Record::Waiting {
                digest: digest.clone(),
                what: what.clone(),
                until,
                at,
            });
        };
        let effect = match command {
            Command::Log(_) => {
                self.open = Some(open);
                self.close(Answer::Unit, None, None, at);
                match what {
                    What::Log { level, text } => Effect::Log { level, text },
                    _ => unreachable!("a line of the log in short is one"),
                }
            }
            Command::Random(kind) => {
                self.open = Some(open);
                return Step::Answer(self.close(
                    Answer::Value(random(kind, given.entropy)),
                    None,
                    None,
                    at,
                ));
            }
            Command::TimeNow => {
                self.open = Some(open);
                return Step::Answer(self.close(Answer::Time(given.now), None, None, at));
            }
            Command::SendResponse(text) => {
                let heard = !self.responded && !given.caller_gone;
                let first = !self.responded;
                self.responded = true;
                self.open = Some(open);
                let answer = self.close(Answer::ResponseSent(heard), None, None, at);
                return if first {
                    Step::Perform(Effect::Respond { text, heard })
                } else {
                    Step::Answer(answer)
                };
            }
            Command::Sleep(duration) => {
                let until = after(at, duration);
                waits(until);
                self.open = Some(Open { what: None, ..open });
                return Step::Perform(Effect::Sleep { until });
            }
            Command::RecvMessage(timeout, types) => {
                let until = timeout.map(|timeout| after(at, timeout));
                let mut open = open;
                if let Some(until) = until {
                    waits(until);
                    open.what = None;
                }
                self.open = Some(open);
                return Step::Perform(Effect::Receive { types, until });
            }
            Command::HttpRequest(request) => {
                self.fresh.push(Record::Asked { digest, what, at });
                self.open = Some(Open { what: None, ..open });
                return Step::Perform(Effect::Http(request));
            }
            Command::GetSecret(name) => {
                self.open = Some(Open {
                    secret: Some(name.clone()),
                    ..open
                });
                Effect::Secret {
                    name,
                    expected: None,
                }
            }
            Command::StartWorkflow(workflow, input) => {
                let child = ExecutionId::of_child(self.id, self.step);
                self.open = Some(Open {
                    child: Some(child),
                    ..open
                });
                Effect::Start {
                    child,
                    workflow,
                    input,
                }
            }
            Command::GetInput | Command::ReplayDebug(_) => {
                unreachable!("answered without the journal")
            }
        };
        Step::Perform(effect)
    }

    /// Takes how an effect went, and says what to tell the guest.
    pub fn performed(&mut self, performed: Performed, now: SystemTime) -> Result<Answer, Halt> {
        let at = UnixMillis::of(now);
        let answer = match performed {
            Performed::Logged | Performed::Printed => return Ok(Answer::Unit),
            // Its record was written before.
            Performed::Responded { heard } => return Ok(Answer::ResponseSent(heard)),
            Performed::Secret(value) => return self.tell_secret(value, at),
            Performed::Started => {
                let child = self.open.as_ref().and_then(|open| open.child);
                Answer::Value(Number::I64(child.map_or(0, ExecutionId::number)))
            }
            Performed::Http(result) => Answer::HttpResponse(*result),
            Performed::Slept => Answer::Unit,
            Performed::TimedOut => Answer::Timeout,
            Performed::Received { number, kind, data } => {
                return Ok(self.close(Answer::Message(kind, data), None, Some(number), at));
            }
        };
        Ok(self.close(answer, None, None, at))
    }

    fn tell_secret(&mut self, value: Option<String>, at: UnixMillis) -> Result<Answer, Halt> {
        let open = self.open.as_ref();
        let name = open
            .and_then(|open| open.secret.clone())
            .unwrap_or_default();
        let recorded = open.is_some_and(|open| open.recorded);
        let reference = value
            .as_deref()
            .map(|value| SecretReference::to(self.id, &name, value));
        if let Some(value) = value
            .as_ref()
            .filter(|value| value.len() >= SECRET_BYTES_MIN)
        {
            self.secrets.push((name, value.clone()));
        }
        if recorded {
            self.open = None;
        } else {
            self.close(Answer::Secret(None), reference, None, at);
        }
        Ok(Answer::Secret(value))
    }

    /// Records the answer to the open command.
    fn close(
        &mut self,
        answer: Answer,
        secret: Option<SecretReference>,
        message: Option<u64>,
        at: UnixMillis,
    ) -> Answer {
        if let Some(open) = self.open.take() {
            self.fresh.push(Record::Answered {
                digest: open.digest,
                what: open.what,
                answer: answer.clone(),
                secret,
                message,
                at: at.max(open.at),
            });
        }
        answer
    }

    /// Takes what is to be appended to the journal, in order.
    pub fn take_fresh(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.fresh)
    }

    /// Takes that the guest has ended. It must not, if it went on before.
    pub fn ended(&mut self) -> Result<(), Halt> {
        self.skip_owners();
        match self.past.front() {
            None => Ok(()),
            Some(record) => Err(Halt::Diverged {
                step: self.step,
                asked: "its end".into(),
                recorded: summary(record),
            }),
        }
    }

    /// How many records the guest has not come to.
    pub fn ahead(&self) -> usize {
        self.past.len()
    }

    fn skip_owners(&mut self) {
        while self
            .past
            .pop_front_if(|record| matches!(record, Record::Began { .. } | Record::Taken { .. }))
            .is_some()
        {}
    }

    fn short(&self, command: &Command) -> What {
        What::of(command).masked(&self.secrets)
    }
}

/// The command that a record belongs to.
const fn digest_of(record: &Record) -> Option<&Digest> {
    match record {
        Record::Asked { digest, .. }
        | Record::Waiting { digest, .. }
        | Record::Answered { digest, .. } => Some(digest),
        Record::Began { .. } | Record::Taken { .. } => None,
    }
}

/// The command that a record belongs to, for people.
fn summary(record: &Record) -> String {
    match record {
        Record::Asked { what, .. }
        | Record::Waiting { what, .. }
        | Record::Answered {
            what: Some(what), ..
        } => what.to_string(),
        Record::Answered { what: None, .. } => "an answer".into(),
        Record::Began { .. } | Record::Taken { .. } => "a new owner".into(),
    }
}

fn after(at: UnixMillis, duration: Duration) -> UnixMillis {
    // Rounded up: a sleep takes at least as long as asked for.
    let ms = duration.as_nanos().div_ceil(1_000_000);
    UnixMillis(at.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
}

/// A random value of the same type; a float is at least 0 and less than 1, as with the vendor's library for guests.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "bits are what is wanted"
)]
fn random(kind: Number, entropy: u64) -> Number {
    match kind {
        Number::Bool(_) => Number::Bool(entropy & 1 == 1),
        Number::I32(_) => Number::I32(entropy as i32),
        Number::I64(_) => Number::I64(entropy as i64),
        // As many bits as the mantissa has, so that all values are equally far apart.
        Number::F32(_) => Number::F32((entropy >> 40) as f32 / (1_u64 << 24) as f32),
        Number::F64(_) => Number::F64((entropy >> 11) as f64 / (1_u64 << 53) as f64),
    }
}

#[cfg(test)]
mod tests;
