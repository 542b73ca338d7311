//! Where executions live: what the engine asks of a store. One file ([`crate::SqliteJournal`]), or a replicated one.
//!
//! ```text
//!   anybody   deploy, start, send, cancel, pause, resume, retry      list, show, frames, inbox
//!   an owner  claim ──▶ append, append, ... ──▶ park | finish
//! ```
//!
//! A claim makes an owner, with an epoch higher than all before. From then on nothing is taken from an older owner
//! ([`Refused::Lost`]). What returned without an error is durable.

use std::{future::Future, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    id::{Epoch, ExecutionId, ModuleHash, UnixMillis},
    limits::Room,
    module::Description,
};

/// The largest input of a workflow, and the largest message, as JSON text.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// The longest type of a message.
pub const MESSAGE_TYPE_BYTES_MAX: usize = 128;
/// Messages of one execution that wait to be received.
pub const INBOX_MAX: u64 = 1_000;
/// The longest reason of a cancellation or a failure.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// Frames of one execution, in bytes.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Keeps modules and executions.
pub trait Journal: Send + Sync + 'static {
    /// Makes a module known. The same again is no error; other bytes under the same name and version are refused.
    fn deploy(
        &self,
        module: &Description,
        bytes: Arc<[u8]>,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// All modules, by name and version.
    fn modules(&self) -> impl Future<Output = Result<Vec<Module>, Refused>> + Send;

    /// The bytes of a module.
    fn module_bytes(
        &self,
        hash: &ModuleHash,
    ) -> impl Future<Output = Result<Vec<u8>, Refused>> + Send;

    /// Starts a workflow, unless there is an execution of that id.
    fn start(&self, start: Start) -> impl Future<Output = Result<(), Refused>> + Send;

    /// One execution.
    fn show(&self, id: ExecutionId) -> impl Future<Output = Result<Shown, Refused>> + Send;

    /// Executions, the newest first.
    fn list(&self, page: Page) -> impl Future<Output = Result<Vec<Shown>, Refused>> + Send;

    /// The frames of an execution's journal, some or all, from one on; none beyond the last.
    fn frames(
        &self,
        id: ExecutionId,
        from: u64,
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, Refused>> + Send;

    /// Sends a message.
    fn send(
        &self,
        id: ExecutionId,
        kind: String,
        data: String,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Asks for the end of an execution.
    fn cancel(
        &self,
        id: ExecutionId,
        reason: String,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Keeps an execution from going on, until it is resumed.
    fn pause(&self, id: ExecutionId) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Lets a paused execution go on.
    fn resume(&self, id: ExecutionId) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Lets a failed or cancelled execution go on with the first so many frames of its journal.
    fn retry(
        &self,
        id: ExecutionId,
        keep_frames: u64,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Watches an execution. Nothing is missed that changes after the call.
    fn watch(&self, id: ExecutionId) -> Watch;

    /// Whether an owner in this process has an execution, so that its watchers need not look after each change: the
    /// response is told to those who wait, and a change follows when it is the owner's no more.
    fn is_held_here(&self, id: ExecutionId) -> bool;

    /// Takes executions that are ready, at most so many, and of each module no more than there is room for here or, if the
    /// store sees to that itself, anywhere; waits until there is one.
    fn claim(
        &self,
        slots: usize,
        room: &Arc<Room>,
    ) -> impl Future<Output = Result<Vec<Claim>, Refused>> + Send;

    /// Appends to the journal.
    fn append(
        &self,
        claim: &Claim,
        append: Append,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Messages that wait with a number beyond this one, in order; some or all.
    fn inbox(
        &self,
        id: ExecutionId,
        beyond: u64,
    ) -> impl Future<Output = Result<Vec<Message>, Refused>> + Send;

    /// What the owner must know: whether it is to stop. Answers at once from what is known, which may be old.
    fn order(&self, claim: &Claim) -> impl Future<Output = Result<Order, Refused>> + Send;

    /// Appends, and gives an execution back until something happens; until nothing, if nothing is named.
    fn park(
        &self,
        claim: &Claim,
        append: Append,
        wait: Wait,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Appends, and ends an execution. Without anything to append, the end of the journal does not matter.
    fn finish(
        &self,
        claim: &Claim,
        append: Option<Append>,
        outcome: Outcome,
    ) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// Tells that something may have changed.
#[derive(Clone, Debug)]
pub struct Watch(pub watch::Receiver<u64>);

impl Watch {
    /// Waits for a change since the last one. For ever, if the store is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A module that is deployed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its bytes.
    pub hash: ModuleHash,
    /// How many they are.
    pub bytes: u64,
    /// Since when.
    pub deployed_at: UnixMillis,
}

/// A workflow to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The id it gets.
    pub id: ExecutionId,
    /// The module's name.
    pub module: String,
    /// Its version.
    pub version: String,
    /// Its bytes: the execution is pinned to them.
    pub hash: ModuleHash,
    /// The workflow.
    pub workflow: String,
    /// Its input, as JSON text.
    pub input: String,
    /// The workflow that starts it.
    pub parent: Option<ExecutionId>,
}

/// An execution that an owner has.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which execution.
    pub id: ExecutionId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The module's name.
    pub module: String,
    /// Its version.
    pub version: String,
    /// Its bytes.
    pub hash: ModuleHash,
    /// The workflow.
    pub workflow: String,
    /// Its input.
    pub input: String,
    /// How many frames its journal has.
    pub frames: u64,
    /// Which of the owner's runs it is, for a store where one may follow another in the same epoch.
    pub run: u64,
}

/// Something for the journal.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The number of the first frame.
    pub first: u64,
    /// The frames.
    pub frames: Vec<Vec<u8>>,
    /// Messages that these frames say have been received.
    pub consumed: Vec<u64>,
    /// The frame where the record of the response begins, if it is among these.
    pub response: Option<u64>,
}

/// A message that waits to be received.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// Its number among those of the execution.
    pub number: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its data, as JSON text.
    pub data: String,
}

/// What an execution waits for that was given back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wait {
    /// A time, by the wall clock.
    pub until: Option<UnixMillis>,
    /// A message with a number beyond this one.
    pub message_beyond: Option<u64>,
    /// Something that its engine lacks, for people.
    pub lacks: Option<String>,
}

/// What is asked of an owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// Nothing.
    GoOn,
    /// To end the execution, for this reason.
    Cancel(String),
    /// To give it back.
    Pause,
}

/// How an execution ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The workflow returned.
    Completed,
    /// It could not go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// Somebody ended it.
    Cancelled {
        /// Why.
        reason: String,
    },
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for an engine.
    Ready,
    /// An engine runs it.
    Running,
    /// It waits for a time or a message.
    Waiting,
    /// Somebody paused it.
    Paused,
    /// It returned.
    Completed,
    /// It could not go on.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether it is over.
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// An execution as it stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shown {
    /// Its id.
    pub id: ExecutionId,
    /// The module's name.
    pub module: String,
    /// Its version.
    pub version: String,
    /// Its bytes.
    pub hash: ModuleHash,
    /// The workflow.
    pub workflow: String,
    /// Its input, as JSON text.
    pub input: String,
    /// The workflow that started it.
    pub parent: Option<ExecutionId>,
    /// Where it stands.
    pub state: State,
    /// Why it does not go on, or did not go well.
    pub reason: Option<String>,
    /// Until when it waits.
    pub until: Option<UnixMillis>,
    /// How many owners it has had.
    pub epoch: Epoch,
    /// Frames of its journal.
    pub frames: u64,
    /// How many bytes they are.
    pub journal_bytes: u64,
    /// The frame where the record of the response begins.
    pub response: Option<u64>,
    /// Messages that wait.
    pub messages: u64,
    /// When it was started.
    pub created_at: UnixMillis,
    /// When it last changed hands or state.
    pub updated_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
}

/// Which executions to list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this module.
    pub module: Option<String>,
    /// Only those older than this one.
    pub before: Option<ExecutionId>,
    /// At most so many.
    pub limit: usize,
}

/// Why a store did not do something.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refused {
    #[error("there is no workflow {0}")]
    UnknownExecution(ExecutionId),
    #[error("the bytes of module {0} are not there")]
    UnknownModule(ModuleHash),
    #[error(
        "{name} {version} is deployed with other bytes ({deployed:.12}, these are {given:.12}); give the module a new version"
    )]
    VersionTaken {
        name: String,
        version: String,
        deployed: String,
        given: String,
    },
    #[error("workflow {id} has ended ({state})", state = .state.as_str())]
    Finished { id: ExecutionId, state: State },
    #[error("workflow {id} is {state}; only a failed or cancelled one can be retried", state = .state.as_str())]
    CannotRetry { id: ExecutionId, state: State },
    #[error("workflow {id} is not paused")]
    NotPaused { id: ExecutionId },
    #[error("{INBOX_MAX} messages wait for workflow {id}, which does not receive them")]
    InboxFull { id: ExecutionId },
    #[error(
        "the journal of workflow {id} has {found} bytes; at most {JOURNAL_BYTES_MAX} are allowed"
    )]
    JournalFull { id: ExecutionId, found: u64 },
    #[error("another engine has workflow {id} now")]
    Lost { id: ExecutionId },
    #[error("{why}")]
    Invalid { why: String },
    #[error("it cannot be done now, and was not: {why}")]
    Unavailable { why: String },
    #[error("nobody knows whether it was done: {why}")]
    Unknown { why: String },
    #[error("the store is broken: {why}")]
    Broken { why: String },
}
