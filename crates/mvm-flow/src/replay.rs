//! Runs an execution again from its journal, with no effects: to see what happened, or what a patched module would have done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    abi::{Answer, Command},
    entropy::entropy,
    execution::{Effect, Execution, Given, Halt, Mode, Performed, Step},
    guest::{CannotRun, End, Guests, Host, Limits, Stopped},
    id::{ExecutionId, ModuleHash},
    record::{Record, stand_in},
    secrets::Secrets,
};

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Which execution.
    pub id: ExecutionId,
    /// Its workflow.
    pub workflow: String,
    /// Its input.
    pub input: String,
    /// Its journal.
    pub records: Vec<Record>,
}

/// How a replay ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Replayed {
    /// The module returned where the journal ends.
    Returned,
    /// It trapped.
    Trapped {
        /// The trap, or what was wrong before.
        reason: String,
        /// Records that it had not come to.
        ahead: usize,
    },
    /// The journal ends, and the module goes on.
    JournalEnded {
        /// With this.
        asked: String,
    },
    /// The module does something else than it did.
    Diverged(String),
}

/// Replays with a module's bytes. Lines of `ReplayDebug` go to `print` as they come.
///
/// A secret that is not given counts as its name in brackets, which differs only where the guest does more with it than pass it on.
pub async fn replay(
    module: Vec<u8>,
    recording: Recording,
    secrets: Secrets,
    limits: Limits,
    print: impl FnMut(&str) + Send + 'static,
) -> Result<Replayed, CannotRun> {
    let guests: Guests<Replay> = Guests::new(None)?;
    let hash = ModuleHash::of(&module);
    let runnable = guests
        .module(&hash, async { Ok::<_, CannotRun>(module) })
        .await?;
    let host = Replay {
        execution: Execution::new(
            recording.id,
            recording.input,
            recording.records,
            Mode::Replay,
        ),
        secrets,
        print: Arc::new(Mutex::new(print)),
    };
    let (end, mut host) = runnable.run(&recording.workflow, host, limits).await;
    Ok(match end {
        End::Returned => match host.execution.ended() {
            Ok(()) => Replayed::Returned,
            Err(halt) => Replayed::Diverged(halt.to_string()),
        },
        End::Trapped { trap, complaint } => Replayed::Trapped {
            reason: complaint.unwrap_or(trap),
            ahead: host.execution.ahead(),
        },
        End::Stopped(Stopped::Halt(Halt::JournalEnded { asked, .. })) => {
            Replayed::JournalEnded { asked }
        }
        End::Stopped(stopped) => Replayed::Diverged(stopped.to_string()),
    })
}

type Print = Arc<Mutex<dyn FnMut(&str) + Send>>;

/// What commands come to in a replay.
struct Replay {
    execution: Execution,
    secrets: Secrets,
    print: Print,
}

impl Replay {
    fn answer(&mut self, command: Command) -> Result<Answer, Stopped> {
        let given = Given {
            now: SystemTime::now(),
            entropy: entropy(),
            caller_gone: false,
        };
        let performed = match self.execution.submit(command, given) {
            Step::Answer(answer) => return Ok(answer),
            Step::Stop(halt) => return Err(halt.into()),
            Step::Perform(Effect::Print(text)) => {
                let mut print = self.print.lock().unwrap_or_else(PoisonError::into_inner);
                print(&text);
                Performed::Printed
            }
            Step::Perform(Effect::Secret { name, .. }) => {
                let value = self
                    .secrets
                    .get(&name)
                    .map_or_else(|| stand_in(&name), str::to_owned);
                Performed::Secret(Some(value))
            }
            // Beyond its journal a replay does nothing, and within it all else is answered.
            Step::Perform(effect) => {
                return Err(Stopped::Misbehaved(format!(
                    "a replay has no effects: {effect:?}"
                )));
            }
        };
        Ok(self.execution.performed(performed, SystemTime::now())?)
    }
}

impl Host for Replay {
    fn submit(&mut self, command: Command) -> BoxFuture<'_, Result<Answer, Stopped>> {
        std::future::ready(self.answer(command)).boxed()
    }
}
