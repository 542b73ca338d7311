//! The leader's way into the log: commands that come at the same time share one entry.
//!
//! ```text
//!   propose ──▶ waiting ──▶ writer: one batch at a time ──▶ hiqlite ──▶ outcomes ──▶ answers, and the timekeeper
//!      └── its time is over: still waiting? then it is taken back, and was not handed over
//! ```
//!
//! While one batch is on its way to a majority the next one gathers, so batches grow with the load.

use std::{sync::Arc, time::Instant};

use hiqlite::{Client, Error};
use mvm_queue::{Command, Outcome, sql};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    GIVE_UP_AFTER, WAL_BYTES,
    handing::{Waiting, handing},
    peers::until,
    rows,
};
use crate::{
    consensus::{Proposal, Unavailable},
    metrics::{Entry, Metrics},
};

/// Commands that may wait for the next batch; more than that wait before the queue.
const WAITING_MAX: usize = 4_096;
/// Commands in one batch.
const BATCH_MAX: usize = 512;
/// What a batch takes in the log. hiqlite panics on an entry that does not fit into one of its files.
const BATCH_BYTES_MAX: usize = WAL_BYTES as usize / 4;
const _: () = assert!(BATCH_BYTES_MAX >= 2 * mvm_queue::COMMAND_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < WAL_BYTES as usize / 2);

/// What was applied by this node as leader, for those who keep time.
#[derive(Debug)]
pub(super) enum Applied {
    /// A command and what became of it.
    Known(Box<Command>, Outcome),
    /// Something was handed over, and what became of it is not known.
    Unknown,
}

struct Write {
    command: Command,
    waiting: Waiting,
    answer: oneshot::Sender<Proposal>,
}

/// The writer of a node. It only writes what it is given; whether the node leads is looked at before.
pub(super) struct Writer {
    waiting: mpsc::Sender<Write>,
    /// Drops, and so ends, the task with this.
    _task: JoinSet<()>,
}

impl Writer {
    pub(super) fn new(
        client: Client,
        applied: mpsc::UnboundedSender<Applied>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (waiting, writes) = mpsc::channel(WAITING_MAX);
        let mut task = JoinSet::new();
        task.spawn(write(client, writes, applied, metrics));
        Self {
            waiting,
            _task: task,
        }
    }

    /// Hands a command to the log, with others that come at the same time.
    pub(super) async fn propose(&self, command: Command, give_up_at: Instant) -> Proposal {
        let (handing, waiting) = handing();
        let (answer, answered) = oneshot::channel();
        let write = Write {
            command,
            waiting,
            answer,
        };
        let answered = async {
            self.waiting.send(write).await.ok()?;
            answered.await.ok()
        };
        if let Some(proposal) = until(give_up_at, answered).await.flatten() {
            return proposal;
        }
        match handing.take_back() {
            true => Proposal::Unavailable {
                cause: Unavailable::NoQuorum { since_ms: 0 },
            },
            false => Proposal::Unknown,
        }
    }
}

/// Writes batch after batch until nobody can propose any more.
async fn write(
    client: Client,
    mut writes: mpsc::Receiver<Write>,
    applied: mpsc::UnboundedSender<Applied>,
    metrics: Arc<Metrics>,
) {
    let mut gathered: Vec<Write> = Vec::new();
    loop {
        let room = BATCH_MAX.saturating_sub(gathered.len());
        if gathered.is_empty() && writes.recv_many(&mut gathered, room).await == 0 {
            return;
        }
        while gathered.len() < BATCH_MAX
            && let Ok(write) = writes.try_recv()
        {
            gathered.push(write);
        }
        let batch = take_batch(&mut gathered);
        if !batch.is_empty() {
            metrics.store.batch(batch.len());
            commit(&client, batch, &applied, &metrics).await;
        }
    }
}

/// Takes from the front as much as fits into one entry, and leaves out what was taken back.
fn take_batch(gathered: &mut Vec<Write>) -> Vec<Write> {
    let mut bytes = 0;
    let fit = gathered
        .iter()
        .take_while(|write| {
            bytes += sql::encoded_bytes(&sql::statements(std::slice::from_ref(&write.command)));
            bytes <= BATCH_BYTES_MAX
        })
        .count();
    // One that is too large alone, which none is, goes alone.
    let rest = gathered.split_off(fit.max(1).min(gathered.len()));
    let mut batch = std::mem::replace(gathered, rest);
    batch.retain(|write| write.waiting.hand_over());
    batch
}

async fn commit(
    client: &Client,
    batch: Vec<Write>,
    applied: &mpsc::UnboundedSender<Applied>,
    metrics: &Metrics,
) {
    let (commands, answers): (Vec<Command>, Vec<_>) = batch
        .into_iter()
        .map(|write| (write.command, write.answer))
        .unzip();
    let committed = tokio::time::timeout(GIVE_UP_AFTER, apply(client, &commands, metrics)).await;
    let proposals = match committed {
        Ok(Ok(proposals)) => proposals,
        Ok(Err(detail)) => vec![Proposal::Broken { detail }; commands.len()],
        Err(_elapsed) => vec![Proposal::Unknown; commands.len()],
    };
    for ((command, answer), proposal) in commands.into_iter().zip(answers).zip(proposals) {
        let told = match &proposal {
            Proposal::Committed { effect } => Applied::Known(Box::new(command), Ok(effect.clone())),
            Proposal::Rejected { refusal } => {
                Applied::Known(Box::new(command), Err(refusal.clone()))
            }
            Proposal::Unknown | Proposal::Unavailable { .. } => Applied::Unknown,
            Proposal::Broken { .. } => continue,
        };
        // Without a timekeeper there is nobody to tell; whoever waited for the answer may be gone.
        let _ = applied.send(told);
        let _ = answer.send(proposal);
    }
}

/// Applies commands, and reads what this replica recorded for them. An error is a defect.
async fn apply(
    client: &Client,
    commands: &[Command],
    metrics: &Metrics,
) -> Result<Vec<Proposal>, String> {
    let unknown = || vec![Proposal::Unknown; commands.len()];
    let handed_over = Instant::now();
    let written = match commands {
        [command] if let Some(returning) = sql::returning(command) => {
            rows::write(client, returning).await
        }
        _ => {
            let statements = sql::statements(commands).into_iter().map(rows::statement);
            let done = client.txn(statements.collect::<Vec<_>>()).await;
            done.map(|_| Vec::new())
        }
    };
    let mut found = match written {
        Ok(found) => {
            metrics
                .store
                .written(Entry::Commands, handed_over.elapsed());
            found
        }
        Err(
            error @ (Error::Sqlite(_)
            | Error::PrepareStatement(_)
            | Error::QueryParams(_)
            | Error::ConstraintViolation(_)
            | Error::Transaction(_)),
        ) => return Err(error.to_string()),
        Err(error) => {
            tracing::debug!(%error, commands = commands.len(), "proposed without an answer");
            return Ok(unknown());
        }
    };
    if found.is_empty() {
        found = match rows::read(client, sql::outcomes(commands)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "applied, but the outcomes are unreadable");
                return Ok(unknown());
            }
        };
    }
    let outcomes = sql::interpret(commands, found).map_err(|error| error.to_string())?;
    // No row: another leader committed it, and it has not come here yet.
    let proposal = |outcome: Option<Outcome>| outcome.map_or(Proposal::Unknown, Proposal::from);
    Ok(outcomes.into_iter().map(proposal).collect())
}

#[cfg(test)]
mod tests {
    use mvm_queue::{Change, Command, FencingToken, JobId, RequestId, Stream, UnixMillis, sql};
    use tokio::sync::oneshot;

    use super::{BATCH_BYTES_MAX, WAL_BYTES, Write, handing, take_batch};
    use crate::store::handing::Handing;

    /// What the bytes of a log take in an entry besides themselves, with its command.
    fn overhead() -> usize {
        encoded(&[write(0).1])
    }

    fn encoded(writes: &[Write]) -> usize {
        let commands: Vec<_> = writes.iter().map(|write| write.command.clone()).collect();
        sql::encoded_bytes(&sql::statements(&commands))
    }

    /// A command with so many bytes.
    fn write(bytes: usize) -> (Handing, Write) {
        let change = Change::Log {
            job: JobId("job".into()),
            token: FencingToken(1),
            number: 0,
            stream: Stream::Stdout,
            bytes: vec![0; bytes],
        };
        let (handing, waiting) = handing();
        let write = Write {
            command: Command {
                request: RequestId("request".into()),
                at: UnixMillis(1),
                change,
            },
            waiting,
            answer: oneshot::channel().0,
        };
        (handing, write)
    }

    /// Of commands that take so much of an entry each, how many go into each batch.
    #[track_caller]
    fn check(sizes: &[usize], batches: &[usize]) {
        let size = |size: &usize| write(size - overhead());
        let (_handings, mut gathered): (Vec<_>, Vec<_>) = sizes.iter().map(size).unzip();
        let mut taken = Vec::new();
        while !gathered.is_empty() {
            let batch = take_batch(&mut gathered);
            if batch.len() > 1 {
                assert!(encoded(&batch) <= BATCH_BYTES_MAX);
                assert!(encoded(&batch) < WAL_BYTES as usize / 2);
            }
            taken.push(batch.len());
        }
        assert_eq!(taken, batches);
    }

    #[test]
    fn a_batch_takes_as_much_as_fits_into_an_entry() {
        let quarter = BATCH_BYTES_MAX / 4;
        check(&[overhead()], &[1]);
        check(&[quarter; 4], &[4]);
        check(&[quarter; 9], &[4, 4, 1]);
        check(&[quarter, quarter, quarter, quarter + 1], &[3, 1]);
        check(&[BATCH_BYTES_MAX, overhead()], &[1, 1]);
        check(&[overhead(), BATCH_BYTES_MAX, overhead()], &[1, 1, 1]);
        check(&[BATCH_BYTES_MAX - overhead(), overhead()], &[2]);
        check(&[mvm_queue::COMMAND_BYTES_MAX; 9], &[8, 1]);
    }

    #[test]
    fn what_was_taken_back_is_not_handed_over() {
        let (mut handings, mut gathered): (Vec<_>, Vec<_>) = (1..=4).map(write).unzip();
        assert!(handings[1].take_back());
        drop(handings.remove(3));
        let batch = take_batch(&mut gathered);
        let size = |write: &Write| match &write.command.change {
            Change::Log { bytes, .. } => bytes.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(batch.iter().map(size).collect::<Vec<_>>(), [1, 3]);
        assert!(!handings[0].take_back());
    }
}
