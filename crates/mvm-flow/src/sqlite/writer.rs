//! The writer: one thread, to which changes are handed; those that come at the same time share a transaction, and so one
//! wait for the disk. A change that is refused leaves nothing behind, and does not touch the others.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::journal::Refused;

/// Changes that may wait.
const WAITING_MAX: usize = 4_096;
/// Changes of one transaction.
const BATCH_MAX: usize = 512;

/// Makes a change, and returns what is to be told to the one who asked for it, once the transaction is done.
type Change = Box<dyn FnOnce(&Connection) -> Tell + Send>;
type Tell = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// The way to the writer. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Writer {
    changes: mpsc::Sender<Change>,
}

impl Writer {
    pub(super) fn new(database: Connection) -> Self {
        let (changes, waiting) = mpsc::channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("flow-writer".into());
        if let Err(error) = writer.spawn(move || write(&database, waiting)) {
            // Every change is refused then, since nobody takes it.
            tracing::error!(%error, "the writer of the journal cannot be started");
        }
        Self { changes }
    }

    /// Makes a change. It is durable when this returns. Dropping the future leaves open whether it is made.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        self.write_and(change, |made| made).await
    }

    /// Makes a change, and does something with what came of it as soon as it is durable, whether or not anybody still waits.
    pub(super) async fn write_and<M: Send + 'static, T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<M, Refused> + Send + 'static,
        then: impl FnOnce(M) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (tell, told) = oneshot::channel();
        let change: Change = Box::new(move |database| {
            let changed = atomically(database, change);
            Box::new(move |committed| {
                let made = changed.and_then(|made| committed.map(|()| then(made)));
                // Whoever asked may be gone.
                let _ = tell.send(made);
            })
        });
        let gone = || Refused::Broken {
            why: "the writer of the journal has ended".into(),
        };
        self.changes.send(change).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn write(database: &Connection, mut waiting: mpsc::Receiver<Change>) {
    let mut batch = Vec::new();
    while waiting.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let mut begun = say(database, "BEGIN IMMEDIATE").map_err(Refused::from);
        let tells: Vec<Tell> = match &begun {
            Ok(()) => batch.drain(..).map(|change| change(database)).collect(),
            Err(refused) => batch.drain(..).map(|_| refuse(refused)).collect(),
        };
        if begun.is_ok() {
            begun = say(database, "COMMIT").map_err(|error| {
                // Nothing of it is there then.
                let _ = say(database, "ROLLBACK");
                Refused::from(error)
            });
        }
        for tell in tells {
            tell(begun.clone());
        }
    }
}

/// What remains of a change that could not even begin: nothing, and its future hears that the writer is gone.
fn refuse(refused: &Refused) -> Tell {
    tracing::error!(%refused, "the journal cannot be written");
    Box::new(|_| ())
}

fn atomically<T>(
    database: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, Refused>,
) -> Result<T, Refused> {
    say(database, "SAVEPOINT change")?;
    let changed = change(database);
    if changed.is_err() {
        say(database, "ROLLBACK TO change")?;
    }
    say(database, "RELEASE change")?;
    changed
}

/// Says one of a few words, which are parsed once.
fn say(database: &Connection, word: &str) -> rusqlite::Result<()> {
    database.prepare_cached(word)?.execute([]).map(drop)
}
