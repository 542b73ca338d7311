//! One run of an execution by its owner: from its claim to its end, or to where it waits.
//!
//! ```text
//!   claim ──▶ journal read, module compiled ──▶ guest ⇄ Live (core + effects + tail) ──▶ finish | park
//!                 meanwhile: orders (cancel: at once; pause: at the next command)
//! ```

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use crate::{
    abi::{Answer, Command, Line},
    callers::Callers,
    entropy::entropy,
    execution::{Effect, Execution, Given, Mode, Performed, Step},
    guest::{CannotRun, End, Guests, Host, Runnable, Stopped},
    http::Http,
    id::{ExecutionId, UnixMillis},
    journal::{
        Claim, INPUT_BYTES_MAX, Journal, Message, Order, Outcome, REASON_BYTES_MAX, Refused, Start,
        Wait,
    },
    limits::Room,
    metrics::{Ended, Metrics},
    record::{FORMAT, Record, SecretReference, read},
    secrets::Secrets,
    tail::Tail,
};

/// How often is looked at the wall clock.
const WALL_CHECK: Duration = Duration::from_secs(1);
/// How soon an execution that lacks a secret is looked at again.
const LACK_PAUSE: Duration = Duration::from_secs(30);

/// What all runs of an engine share.
#[derive(Debug)]
pub(crate) struct Rim<J: Journal> {
    pub(crate) journal: Arc<J>,
    pub(crate) guests: Guests<Live<J>>,
    pub(crate) http: Http,
    pub(crate) secrets: Secrets,
    /// The name of this engine, for journals.
    pub(crate) name: String,
    pub(crate) room: Arc<Room>,
    /// How long a guest that waits stays in memory.
    pub(crate) patience: Duration,
    pub(crate) callers: Callers,
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs an execution. `stop` asks it to give the execution back at its next command.
pub(crate) async fn run<J: Journal>(rim: &Arc<Rim<J>>, claim: Claim, stop: watch::Receiver<bool>) {
    let claim = Arc::new(claim);
    let id = claim.id;
    rim.metrics.run_begins();
    let (pause, paused) = watch::channel(false);
    let running = AssertUnwindSafe(attempt(rim, &claim, stop, paused)).catch_unwind();
    let ended = tokio::select! {
        ended = running => match ended {
            Ok(ended) => ended,
            // A defect of ours, which the next run would meet again.
            Err(_panic) => fail(&*rim.journal, &claim, "the engine panicked".into()).await,
        },
        order = orders(&*rim.journal, &claim, &pause) => order.map(|()| Ended::Cancelled),
    };
    let ended = ended.unwrap_or_else(|error| match error {
        Refused::Lost { .. } => {
            tracing::info!(workflow = %id, "another engine has it now");
            Ended::Lost
        }
        error => {
            tracing::warn!(workflow = %id, %error, "the run ended without a result");
            Ended::Broken
        }
    });
    if matches!(ended, Ended::Completed | Ended::Failed | Ended::Cancelled) {
        rim.callers.forget(id);
    }
    rim.metrics.run_ended(ended);
}

/// Waits for the order to end it, which is obeyed, and passes on the one to pause.
async fn orders<J: Journal>(
    journal: &J,
    claim: &Claim,
    pause: &watch::Sender<bool>,
) -> Result<(), Refused> {
    let mut news = journal.watch(claim.id);
    loop {
        match journal.order(claim).await? {
            Order::GoOn => {}
            Order::Pause => {
                pause.send_replace(true);
            }
            Order::Cancel(reason) => {
                tracing::info!(workflow = %claim.id, reason, "cancelled");
                return journal
                    .finish(claim, None, Outcome::Cancelled { reason })
                    .await;
            }
        }
        news.changed().await;
    }
}

async fn attempt<J: Journal>(
    rim: &Arc<Rim<J>>,
    claim: &Arc<Claim>,
    stop: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
) -> Result<Ended, Refused> {
    let journal = &*rim.journal;
    let mut frames = Vec::new();
    while (frames.len() as u64) < claim.frames {
        let more = journal.frames(claim.id, frames.len() as u64).await?;
        if more.is_empty() {
            break;
        }
        frames.extend(more);
    }
    let had = frames.len() as u64;
    let had_bytes: usize = frames.iter().map(Vec::len).sum();
    let past: Vec<_> = match read(&frames) {
        Ok(records) => records.into_iter().map(|(_, record)| record).collect(),
        Err(error) => return fail(journal, claim, error.to_string()).await,
    };
    drop(frames);
    let bytes = async { Ok::<_, NotRun>(journal.module_bytes(&claim.hash).await?) };
    let module = match rim.guests.module(&claim.hash, bytes).await {
        Ok(module) => module,
        Err(NotRun::Refused(refused)) => return Err(refused),
        Err(NotRun::Cannot(error)) => return fail(journal, claim, error.to_string()).await,
    };
    if !module.has(&claim.workflow) {
        let reason = format!(
            "module {} {} has no workflow {:?}",
            claim.module, claim.version, claim.workflow
        );
        return fail(journal, claim, reason).await;
    }
    let limits = rim.room.limits().of(&claim.module);
    let began = past.iter().find_map(|record| match record {
        Record::Taken { at, .. } => Some(*at),
        _ => None,
    });
    let began = began.unwrap_or_else(|| UnixMillis::of(SystemTime::now()));
    let past = Past {
        frames: had,
        bytes: had_bytes as u64,
        records: past,
        began,
    };
    let live = Live::new(rim, claim, module.clone(), past, stop, paused);
    let running = async {
        let (end, live) = module.run(&claim.workflow, live, limits.guest).await;
        live.ended(end).await
    };
    let Some(run_time) = limits.run_time else {
        return running.await;
    };
    tokio::select! {
        ended = running => ended,
        () = until(after(began, run_time)) => {
            let reason = format!(
                "it has not ended within {} s; module {} is given no more",
                run_time.as_secs(),
                claim.module
            );
            fail(journal, claim, reason).await
        }
    }
}

/// What an execution did before this run.
struct Past {
    /// Of its journal.
    frames: u64,
    bytes: u64,
    records: Vec<Record>,
    /// When its first run began.
    began: UnixMillis,
}

fn after(time: UnixMillis, duration: Duration) -> UnixMillis {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(time.0.saturating_add(millis))
}

/// Waits for a time by the wall clock, which may be set meanwhile.
async fn until(time: UnixMillis) {
    while let Some(left) = left(time) {
        tokio::time::sleep(left.min(WALL_CHECK)).await;
    }
}

/// Ends an execution whose journal cannot be added to.
async fn fail<J: Journal>(journal: &J, claim: &Claim, reason: String) -> Result<Ended, Refused> {
    tracing::warn!(workflow = %claim.id, reason, "failed");
    let reason = cut(reason);
    journal
        .finish(claim, None, Outcome::Failed { reason })
        .await?;
    Ok(Ended::Failed)
}

/// Why a module is not run.
enum NotRun {
    Refused(Refused),
    Cannot(CannotRun),
}

impl From<Refused> for NotRun {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<CannotRun> for NotRun {
    fn from(error: CannotRun) -> Self {
        Self::Cannot(error)
    }
}

/// What a guest's commands come to while its execution lives.
pub(crate) struct Live<J: Journal> {
    rim: Arc<Rim<J>>,
    claim: Arc<Claim>,
    module: Runnable<Self>,
    execution: Execution,
    tail: Tail<J>,
    /// Of the journal.
    bytes: u64,
    bytes_max: u64,
    /// When the execution must have ended.
    deadline: Option<UnixMillis>,
    /// Messages that wait, as far as they have been looked at.
    inbox: VecDeque<Message>,
    /// The last of them, or of those that came before.
    inbox_seen: u64,
    stop: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
    /// The text of the latest command, if that was the logging of an error: what a panic says before its trap.
    last_error: Option<String>,
}

impl<J: Journal> Live<J> {
    fn new(
        rim: &Arc<Rim<J>>,
        claim: &Arc<Claim>,
        module: Runnable<Self>,
        past: Past,
        stop: watch::Receiver<bool>,
        paused: watch::Receiver<bool>,
    ) -> Self {
        let begins = past.records.is_empty();
        let callers = rim.callers.clone();
        let (journal, frames) = (Arc::clone(&rim.journal), past.frames);
        let tail = Tail::new(journal, Arc::clone(claim), callers, frames);
        let limits = rim.room.limits().of(&claim.module);
        let deadline = limits.run_time.map(|most| after(past.began, most));
        let began = begins.then(|| Record::Began {
            format: FORMAT,
            module: claim.module.clone(),
            version: claim.version.clone(),
            hash: claim.hash.clone(),
            workflow: claim.workflow.clone(),
        });
        let taken = Record::Taken {
            epoch: claim.epoch,
            by: rim.name.clone(),
            at: UnixMillis::of(SystemTime::now()),
        };
        let begins: Vec<_> = began.into_iter().chain([taken]).collect();
        let bytes = past.bytes + tail.push(&begins, None);
        Self {
            rim: Arc::clone(rim),
            claim: Arc::clone(claim),
            module,
            execution: Execution::new(claim.id, claim.input.clone(), past.records, Mode::Live),
            tail,
            bytes,
            bytes_max: limits.journal_bytes,
            deadline,
            inbox: VecDeque::new(),
            inbox_seen: 0,
            stop,
            paused,
            last_error: None,
        }
    }

    async fn answer(&mut self, command: Command) -> Result<Answer, Stopped> {
        self.last_error = match &command {
            Command::Log(Line::Error(text)) => Some(text.clone()),
            _ => None,
        };
        if self.must_yield() && !matches!(command, Command::Log(_)) {
            return Err(Stopped::Paused);
        }
        let given = Given {
            now: SystemTime::now(),
            entropy: entropy(),
            caller_gone: self.rim.callers.is_gone(self.claim.id),
        };
        let replayed = self.execution.ahead() > 0;
        let step = self.execution.submit(command, given);
        self.rim.metrics.command(replayed);
        let effect = match step {
            Step::Answer(answer) => {
                self.record()?;
                return Ok(answer);
            }
            Step::Stop(halt) => return Err(halt.into()),
            Step::Perform(effect) => effect,
        };
        let performed = self.perform(effect).await?;
        let answer = self.execution.performed(performed, SystemTime::now())?;
        self.record()?;
        Ok(answer)
    }

    /// Hands what is new to the journal.
    fn record(&mut self) -> Result<(), Stopped> {
        let fresh = self.execution.take_fresh();
        if !fresh.is_empty() {
            self.push(&fresh, None)?;
            self.tail.kick()?;
        }
        Ok(())
    }

    fn push(&mut self, fresh: &[Record], response: Option<String>) -> Result<(), Stopped> {
        self.bytes += self.tail.push(fresh, response);
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        Err(Stopped::Misbehaved(format!(
            "its journal has {} bytes; module {} may have {} of each workflow",
            self.bytes, self.claim.module, self.bytes_max
        )))
    }

    async fn perform(&mut self, effect: Effect) -> Result<Performed, Stopped> {
        let fresh = self.execution.take_fresh();
        let response = match &effect {
            Effect::Respond { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.push(&fresh, response)?;
        Ok(match effect {
            Effect::Log { level, text } => {
                emit(&self.claim, &level, &text);
                Performed::Logged
            }
            Effect::Print(_) => Performed::Printed,
            Effect::Secret { name, expected } => self.secret(&name, expected.as_ref())?,
            Effect::Http(request) => {
                self.tail.flush().await?;
                let sent = Instant::now();
                let result = self.rim.http.send(&request).await;
                self.rim.metrics.request(sent.elapsed());
                Performed::Http(Box::new(result))
            }
            // Told to whom it is for as soon as it is durable, for which the guest does not wait.
            Effect::Respond { text: _, heard } => {
                self.tail.kick()?;
                Performed::Responded { heard }
            }
            Effect::Start {
                child,
                workflow,
                input,
            } => {
                self.tail.flush().await?;
                self.start(child, workflow, input).await?;
                Performed::Started
            }
            Effect::Sleep { until } => self.sleep(until).await?,
            Effect::Receive { types, until } => self.receive(&types, until).await?,
        })
    }

    fn secret(&self, name: &str, expected: Option<&SecretReference>) -> Result<Performed, Stopped> {
        let value = self.rim.secrets.get(name);
        if let Some(expected) = expected {
            let same = value
                .is_some_and(|value| SecretReference::to(self.claim.id, name, value) == *expected);
            if !same {
                let how = if value.is_some() {
                    "is another"
                } else {
                    "is missing"
                };
                return Err(Stopped::Lacks(format!(
                    "the secret {name:?}, which it had before, {how} on {}",
                    self.rim.name
                )));
            }
        }
        Ok(Performed::Secret(value.map(str::to_owned)))
    }

    async fn start(
        &self,
        child: ExecutionId,
        workflow: String,
        input: String,
    ) -> Result<(), Stopped> {
        if input.len() > INPUT_BYTES_MAX {
            return Err(Stopped::Misbehaved(format!(
                "it started {workflow:?} with {} bytes of input; at most {INPUT_BYTES_MAX} are allowed",
                input.len()
            )));
        }
        if !self.module.has(&workflow) {
            let shown: String = workflow.chars().take(100).collect();
            return Err(Stopped::Misbehaved(format!(
                "it started the workflow {shown:?}, which its module does not have"
            )));
        }
        let start = Start {
            id: child,
            module: self.claim.module.clone(),
            version: self.claim.version.clone(),
            hash: self.claim.hash.clone(),
            workflow,
            input,
            parent: Some(self.claim.id),
        };
        Ok(self.rim.journal.start(start).await?)
    }

    /// Sleeps in memory for a short time; for a longer one the guest goes.
    async fn sleep(&mut self, until: UnixMillis) -> Result<Performed, Stopped> {
        loop {
            let Some(left) = left(until) else {
                return Ok(Performed::Slept);
            };
            if left > self.rim.patience {
                return Err(Stopped::Waits(Wait {
                    until: Some(until),
                    message_beyond: None,
                    lacks: None,
                }));
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = told(&mut self.stop) => return Err(Stopped::Paused),
                () = told(&mut self.paused) => return Err(Stopped::Paused),
            }
        }
    }

    async fn receive(
        &mut self,
        types: &[String],
        until: Option<UnixMillis>,
    ) -> Result<Performed, Stopped> {
        let patience = tokio::time::Instant::now() + self.rim.patience;
        let mut news = self.rim.journal.watch(self.claim.id);
        loop {
            let more = self
                .rim
                .journal
                .inbox(self.claim.id, self.inbox_seen)
                .await?;
            self.inbox_seen = more
                .last()
                .map_or(self.inbox_seen, |message| message.number);
            self.inbox.extend(more);
            let fits = |message: &Message| types.contains(&message.kind);
            if let Some(place) = self.inbox.iter().position(fits)
                && let Some(Message { number, kind, data }) = self.inbox.remove(place)
            {
                return Ok(Performed::Received { number, kind, data });
            }
            let left = until.map(left);
            if left == Some(None) {
                return Ok(Performed::TimedOut);
            }
            if tokio::time::Instant::now() >= patience {
                return Err(Stopped::Waits(Wait {
                    until,
                    message_beyond: Some(self.inbox_seen),
                    lacks: None,
                }));
            }
            let short = left.flatten().map_or(patience, |left| {
                patience.min(tokio::time::Instant::now() + left)
            });
            tokio::select! {
                () = news.changed() => {}
                () = tokio::time::sleep_until(short) => {}
                () = told(&mut self.stop) => return Err(Stopped::Paused),
                () = told(&mut self.paused) => return Err(Stopped::Paused),
            }
        }
    }

    fn must_yield(&self) -> bool {
        *self.stop.borrow() || *self.paused.borrow()
    }

    /// Tells the store how the guest ended.
    async fn ended(mut self, end: End) -> Result<Ended, Refused> {
        let wait = Wait {
            until: None,
            message_beyond: None,
            lacks: None,
        };
        match end {
            End::Returned => {
                let diverged = self.execution.ended().err();
                self.finish(diverged.map(|halt| halt.to_string())).await
            }
            End::Trapped { trap, complaint } => {
                let said = self.last_error.take();
                let reason = match (said, complaint) {
                    (Some(said), Some(complaint)) => format!("{said}; {complaint}"),
                    (Some(text), None) | (None, Some(text)) => text,
                    (None, None) => format!("it trapped: {trap}"),
                };
                self.finish(Some(reason)).await
            }
            End::Stopped(stopped) => match stopped {
                Stopped::Waits(wait) => self.park(wait).await,
                Stopped::Paused => self.park(wait).await,
                Stopped::Lacks(what) => {
                    tracing::warn!(workflow = %self.claim.id, what, "waits");
                    let until = Some(UnixMillis::of(SystemTime::now() + LACK_PAUSE));
                    let lacks = Some(cut(what));
                    self.park(Wait {
                        until,
                        lacks,
                        ..wait
                    })
                    .await
                }
                Stopped::Refused(full @ Refused::JournalFull { .. }) => {
                    fail(&*self.rim.journal, &self.claim, full.to_string()).await
                }
                Stopped::Refused(refused) => Err(refused),
                Stopped::Halt(halt) => self.finish(Some(halt.to_string())).await,
                Stopped::Misbehaved(what) => self.finish(Some(what)).await,
            },
        }
    }

    /// Ends the execution; with a reason, it failed.
    async fn finish(self, reason: Option<String>) -> Result<Ended, Refused> {
        let (rim, claim) = (Arc::clone(&self.rim), Arc::clone(&self.claim));
        let (outcome, ended) = match reason {
            None => (Outcome::Completed, Ended::Completed),
            Some(reason) => {
                tracing::warn!(workflow = %claim.id, reason, "failed");
                let reason = cut(reason);
                (Outcome::Failed { reason }, Ended::Failed)
            }
        };
        let finishing = async {
            let (rest, sent) = self.tail.rest().await?;
            rim.journal.finish(&claim, Some(rest), outcome).await?;
            sent();
            Ok(ended)
        };
        unless_full(&rim, &claim, finishing.await).await
    }

    async fn park(self, mut wait: Wait) -> Result<Ended, Refused> {
        let (rim, claim) = (Arc::clone(&self.rim), Arc::clone(&self.claim));
        if wait.until.is_some() || wait.message_beyond.is_some() {
            wait.until = wait.until.into_iter().chain(self.deadline).min();
        }
        let parking = async {
            let (rest, sent) = self.tail.rest().await?;
            rim.journal.park(&claim, rest, wait).await?;
            sent();
            Ok(Ended::Parked)
        };
        unless_full(&rim, &claim, parking.await).await
    }
}

/// Ends an execution whose journal has no room for how its run ended.
async fn unless_full<J: Journal>(
    rim: &Rim<J>,
    claim: &Claim,
    ended: Result<Ended, Refused>,
) -> Result<Ended, Refused> {
    match ended {
        Err(full @ Refused::JournalFull { .. }) => {
            fail(&*rim.journal, claim, full.to_string()).await
        }
        other => other,
    }
}

impl<J: Journal> Host for Live<J> {
    fn submit(&mut self, command: Command) -> BoxFuture<'_, Result<Answer, Stopped>> {
        self.answer(command).boxed()
    }
}

/// Returns once something was told; never, if nobody is left to tell it.
pub(crate) async fn told(something: &mut watch::Receiver<bool>) {
    if something.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Puts a line of a workflow into this process's log.
fn emit(claim: &Claim, level: &str, text: &str) {
    let (workflow, name) = (claim.id, &claim.workflow);
    match level {
        "error" => tracing::error!(target: "workflow", %workflow, name, "{text}"),
        "warn" => tracing::warn!(target: "workflow", %workflow, name, "{text}"),
        "info" => tracing::info!(target: "workflow", %workflow, name, "{text}"),
        "debug" => tracing::debug!(target: "workflow", %workflow, name, "{text}"),
        _ => tracing::trace!(target: "workflow", %workflow, name, "{text}"),
    }
}

/// How long it is until a time; nothing if that is past.
fn left(until: UnixMillis) -> Option<Duration> {
    let left = until.0.saturating_sub(UnixMillis::of(SystemTime::now()).0);
    u64::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_millis)
}

fn cut(mut reason: String) -> String {
    reason = reason.replace('\0', "\u{fffd}");
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}
