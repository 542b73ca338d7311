//! A journal in one file, for one engine.
//!
//! ```text
//!   append, start, ... ──▶ writer: one thread, many changes in one transaction ──▶ SQLite (WAL, synced)
//!   frames, show, ... ───▶ reader
//! ```
//!
//! What an engine left running when it died is ready again when the file is opened. A lock keeps a second engine out.

mod rows;
mod schema;
mod writer;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{Notify, oneshot};

use self::writer::Writer;
use crate::{
    hub::Hub,
    id::{ExecutionId, ModuleHash, UnixMillis},
    journal::{
        Append, Claim, INBOX_MAX, JOURNAL_BYTES_MAX, Journal, Message, Module, Order, Outcome,
        Page, Refused, Shown, Start, State, Wait, Watch,
    },
    limits::Room,
    module::Description,
};

const FILE: &str = "flow.db";
const LOCK_FILE: &str = "flow.lock";
/// Times are those of the wall clock, which may be set at any moment: so they are looked at this often.
const WALL_CHECK: Duration = Duration::from_secs(1);
/// Executions removed in one transaction.
const PRUNE_STEPS: u32 = 64;
/// Frames given at once, in bytes.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A journal in one file.
#[derive(Debug)]
pub struct SqliteJournal {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    hub: Hub,
    /// Something may be ready.
    ready: Notify,
    wanted: Arc<Mutex<Option<Wanted>>>,
    _lock: File,
}

/// An engine that has nothing to do. Whoever starts an execution gives it to the engine in the same transaction, so that
/// both wait for the disk once.
#[derive(Debug)]
struct Wanted {
    slots: usize,
    room: Arc<Room>,
    /// Told once the claims are durable; dropped if they are not.
    tell: oneshot::Sender<Vec<Claim>>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("the directory {path} cannot be used: {source}")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("another engine works in {path}; stop it, or give this one a directory of its own")]
    InUse { path: PathBuf },
    #[error("{path} cannot be opened: {source}")]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(
        "{path} has version {found}, which a newer mvm-ci writes; this one reads up to {known}"
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
}

impl SqliteJournal {
    /// Opens the journal of a directory, or begins one there.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Directory {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let lock = File::create(directory.join(LOCK_FILE)).map_err(unusable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse {
                path: directory.to_owned(),
            },
            TryLockError::Error(source) => unusable(source),
        })?;
        let path = directory.join(FILE);
        let failed = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let writer = Connection::open(&path).map_err(failed)?;
        let found = schema::open(&writer).map_err(failed)?;
        if found > schema::VERSION {
            return Err(OpenError::Newer {
                path,
                found,
                known: schema::VERSION,
            });
        }
        let reader = Connection::open(&path).map_err(failed)?;
        Ok(Self {
            writer: Writer::new(writer),
            reader: Arc::new(Mutex::new(reader)),
            hub: Hub::default(),
            ready: Notify::new(),
            wanted: Arc::default(),
            _lock: lock,
        })
    }

    /// Removes all executions that ended before the last so many did.
    pub async fn prune(&self, keep: u64) -> Result<(), Refused> {
        loop {
            let prune = move |database: &Connection| rows::prune(database, keep, PRUNE_STEPS);
            if self.writer.write(prune).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let reader = Arc::clone(&self.reader);
        let reading = move || read(&lock(&reader));
        let read = tokio::task::spawn_blocking(reading).await;
        read.unwrap_or_else(|error| {
            Err(Refused::Broken {
                why: error.to_string(),
            })
        })
    }

    /// Withdraws the engine's wish; what it was given if somebody has taken it before.
    async fn given(
        &self,
        told: oneshot::Receiver<Vec<Claim>>,
    ) -> Result<Vec<Claim>, oneshot::error::RecvError> {
        lock(&self.wanted).take();
        told.await
    }

    /// Changes an execution, and tells those who watch it.
    async fn change<T: Send + 'static>(
        &self,
        id: ExecutionId,
        change: impl FnOnce(&Connection) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let changed = self.writer.write(change).await;
        self.hub.touch(id);
        self.ready.notify_one();
        changed
    }
}

impl Wanted {
    /// Claims what is ready for the engine that wants something, if there is one; the wish stands if nothing is.
    fn claim(
        wanted: &Mutex<Option<Self>>,
        database: &Connection,
        at: UnixMillis,
    ) -> Result<Option<(Self, Vec<Claim>)>, Refused> {
        // Held meanwhile: a wish that is withdrawn has either been taken, and its engine is told, or never will be.
        let mut wanted = lock(wanted);
        let Some(wish) = wanted.take_if(|wish| !wish.tell.is_closed()) else {
            return Ok(None);
        };
        let left = |module: &str| wish.room.left(module);
        match rows::claim(database, wish.slots, &wish.room.full(), left, at) {
            Ok((claims, _)) if !claims.is_empty() => Ok(Some((wish, claims))),
            nothing => {
                *wanted = Some(wish);
                nothing.map(|_| None)
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> UnixMillis {
    UnixMillis::of(SystemTime::now())
}

impl Journal for SqliteJournal {
    async fn deploy(&self, module: &Description, bytes: Arc<[u8]>) -> Result<(), Refused> {
        let module = module.clone();
        let at = now();
        let deploy = move |database: &Connection| {
            let deployed: Option<String> = database
                .prepare_cached("SELECT hash FROM modules WHERE name = ?1 AND version = ?2")?
                .query_row(params![module.name, module.version], |row| row.get(0))
                .optional()?;
            match deployed {
                Some(deployed) if deployed == module.hash.0 => Ok(()),
                Some(deployed) => Err(Refused::VersionTaken {
                    name: module.name,
                    version: module.version,
                    deployed,
                    given: module.hash.0,
                }),
                None => {
                    database.execute(
                        "INSERT INTO modules (hash, name, version, bytes, deployed_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![module.hash.0, module.name, module.version, &bytes[..], at.0],
                    )?;
                    Ok(())
                }
            }
        };
        self.writer.write(deploy).await
    }

    async fn modules(&self) -> Result<Vec<Module>, Refused> {
        let read = |database: &Connection| {
            let mut statement = database.prepare_cached(
                "SELECT name, version, hash, length(bytes), deployed_at FROM modules ORDER BY name, version",
            )?;
            let modules = statement
                .query_map([], rows::module)?
                .collect::<Result<_, _>>()?;
            Ok(modules)
        };
        self.read(read).await
    }

    async fn module_bytes(&self, hash: &ModuleHash) -> Result<Vec<u8>, Refused> {
        let hash = hash.clone();
        let read = move |database: &Connection| {
            let bytes = database
                .prepare_cached("SELECT bytes FROM modules WHERE hash = ?1")?
                .query_row([&hash.0], |row| row.get(0))
                .optional()?;
            bytes.ok_or(Refused::UnknownModule(hash))
        };
        self.read(read).await
    }

    async fn start(&self, start: Start) -> Result<(), Refused> {
        let at = now();
        let wanted = Arc::clone(&self.wanted);
        let insert = move |database: &Connection| {
            database
                .prepare_cached(
                    "INSERT INTO executions (id, module, version, hash, workflow, input, parent, state, created_at, updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'ready', ?8, ?8) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![
                    start.id.number(),
                    start.module,
                    start.version,
                    start.hash.0,
                    start.workflow,
                    start.input,
                    start.parent.map(ExecutionId::number),
                    at.0
                ])?;
            Wanted::claim(&wanted, database, at)
        };
        let given = |claimed: Option<(Wanted, Vec<Claim>)>| {
            // An engine that is gone has left all that it had to the next one.
            claimed.map(|(wanted, claims)| wanted.tell.send(claims).is_ok())
        };
        if self.writer.write_and(insert, given).await?.is_none() {
            self.ready.notify_one();
        }
        Ok(())
    }

    async fn show(&self, id: ExecutionId) -> Result<Shown, Refused> {
        self.read(move |database| rows::shown(database, id)).await
    }

    async fn list(&self, page: Page) -> Result<Vec<Shown>, Refused> {
        let read = move |database: &Connection| {
            let mut statement = database.prepare_cached(&rows::list())?;
            let rows = statement.query_map(
                params![
                    page.state.map(State::as_str),
                    page.module,
                    page.before.map(ExecutionId::number),
                    i64::try_from(page.limit).unwrap_or(i64::MAX)
                ],
                rows::execution,
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.read(read).await
    }

    async fn frames(&self, id: ExecutionId, from: u64) -> Result<Vec<Vec<u8>>, Refused> {
        let read = move |database: &Connection| {
            let mut statement = database.prepare_cached(
                "SELECT bytes FROM frames WHERE execution = ?1 AND number >= ?2 ORDER BY number",
            )?;
            let mut rows = statement.query(params![id.number(), rows::int(from)])?;
            let mut frames: Vec<Vec<u8>> = Vec::new();
            let mut bytes = 0;
            while bytes < READ_BYTES_MAX
                && let Some(row) = rows.next()?
            {
                let frame: Vec<u8> = row.get(0)?;
                bytes += frame.len();
                frames.push(frame);
            }
            Ok(frames)
        };
        self.read(read).await
    }

    async fn send(&self, id: ExecutionId, kind: String, data: String) -> Result<(), Refused> {
        let at = now();
        self.change(id, move |database| {
            let shown = rows::shown(database, id)?;
            if shown.state.is_finished() {
                return Err(Refused::Finished { id, state: shown.state });
            }
            if shown.messages >= INBOX_MAX {
                return Err(Refused::InboxFull { id });
            }
            let number: i64 = database
                .prepare_cached("UPDATE executions SET messages_sent = messages_sent + 1 WHERE id = ?1 RETURNING messages_sent")?
                .query_row([id.number()], |row| row.get(0))?;
            database
                .prepare_cached("INSERT INTO messages (execution, number, type, data) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id.number(), number, kind, data])?;
            database
                .prepare_cached(
                    "UPDATE executions SET state = 'ready', wake_at = NULL, updated_at = ?2
                     WHERE id = ?1 AND state = 'waiting' AND waits_for_messages",
                )?
                .execute(params![id.number(), at.0])?;
            Ok(())
        })
        .await
    }

    async fn cancel(&self, id: ExecutionId, reason: String) -> Result<(), Refused> {
        let at = now();
        let order = Order::Cancel(reason.clone());
        let cancel = move |database: &Connection| {
            let state = rows::shown(database, id)?.state;
            if state.is_finished() {
                return Err(Refused::Finished { id, state });
            }
            database.execute(
                "UPDATE executions SET cancel_reason = ?2, updated_at = ?3 WHERE id = ?1",
                params![id.number(), reason, at.0],
            )?;
            schema::end_cancelled(database, at)?;
            Ok(state == State::Running)
        };
        let running = self.writer.write(cancel).await?;
        if running {
            self.hub.order(id, Some(order));
        }
        self.hub.touch(id);
        Ok(())
    }

    async fn pause(&self, id: ExecutionId) -> Result<(), Refused> {
        let at = now();
        let pause = move |database: &Connection| {
            let state = rows::shown(database, id)?.state;
            if state.is_finished() {
                return Err(Refused::Finished { id, state });
            }
            database.execute(
                "UPDATE executions SET paused = 1, updated_at = ?2,
                     state = CASE state WHEN 'running' THEN state ELSE 'paused' END WHERE id = ?1",
                params![id.number(), at.0],
            )?;
            Ok(state == State::Running)
        };
        let running = self.writer.write(pause).await?;
        if running {
            self.hub.order(id, Some(Order::Pause));
        }
        self.hub.touch(id);
        Ok(())
    }

    async fn resume(&self, id: ExecutionId) -> Result<(), Refused> {
        let at = now();
        self.hub.order(id, None);
        self.change(id, move |database| {
            let state = rows::shown(database, id)?.state;
            if state.is_finished() {
                return Err(Refused::Finished { id, state });
            }
            // What it waits for it finds out by itself.
            let resumed = database.execute(
                "UPDATE executions SET paused = 0, updated_at = ?2,
                     state = CASE state WHEN 'paused' THEN 'ready' ELSE state END WHERE id = ?1 AND paused",
                params![id.number(), at.0],
            )?;
            if resumed == 0 { Err(Refused::NotPaused { id }) } else { Ok(()) }
        })
        .await
    }

    async fn retry(&self, id: ExecutionId, keep_frames: u64) -> Result<(), Refused> {
        let at = now();
        self.change(id, move |database| {
            let state = rows::shown(database, id)?.state;
            if !matches!(state, State::Failed | State::Cancelled) {
                return Err(Refused::CannotRetry { id, state });
            }
            let keep = rows::int(keep_frames);
            database.execute(
                "DELETE FROM frames WHERE execution = ?1 AND number >= ?2",
                params![id.number(), keep],
            )?;
            database.execute(
                "UPDATE executions SET state = 'ready', reason = NULL, cancel_reason = NULL, paused = 0, finished_at = NULL,
                     response = CASE WHEN response >= ?2 THEN NULL ELSE response END, updated_at = ?3,
                     frames = (SELECT count(*) FROM frames WHERE execution = ?1),
                     journal_bytes = (SELECT coalesce(sum(length(bytes)), 0) FROM frames WHERE execution = ?1)
                 WHERE id = ?1",
                params![id.number(), keep, at.0],
            )?;
            Ok(())
        })
        .await
    }

    fn watch(&self, id: ExecutionId) -> Watch {
        self.hub.watch(id)
    }

    /// Watchers are told of what concerns them alone.
    fn is_held_here(&self, _id: ExecutionId) -> bool {
        false
    }

    async fn claim(&self, slots: usize, room: &Arc<Room>) -> Result<Vec<Claim>, Refused> {
        loop {
            let at = now();
            let of_modules = Arc::clone(room);
            let claim = move |database: &Connection| {
                let left = |module: &str| of_modules.left(module);
                rows::claim(database, slots, &of_modules.full(), left, at)
            };
            let (claims, next) = self.writer.write(claim).await?;
            if !claims.is_empty() {
                for claim in &claims {
                    self.hub.order(claim.id, None);
                }
                return Ok(claims);
            }
            let pause = next.map_or(WALL_CHECK, |next| {
                let left = u64::try_from(next.0.saturating_sub(at.0)).unwrap_or(0);
                Duration::from_millis(left).min(WALL_CHECK)
            });
            let (tell, mut told) = oneshot::channel();
            let room = Arc::clone(room);
            let freed = Arc::clone(&room);
            *lock(&self.wanted) = Some(Wanted { slots, room, tell });
            let given = tokio::select! {
                given = &mut told => given,
                () = self.ready.notified() => self.given(told).await,
                () = freed.freed() => self.given(told).await,
                () = tokio::time::sleep(pause) => self.given(told).await,
            };
            if let Ok(claims) = given {
                for claim in &claims {
                    self.hub.order(claim.id, None);
                }
                return Ok(claims);
            }
        }
    }

    async fn append(&self, claim: &Claim, append: Append) -> Result<(), Refused> {
        let (id, epoch) = (claim.id, claim.epoch);
        let write = move |database: &Connection| rows::append(database, id, epoch, append);
        self.writer.write(write).await
    }

    async fn inbox(&self, id: ExecutionId, beyond: u64) -> Result<Vec<Message>, Refused> {
        let read = move |database: &Connection| {
            let mut statement = database.prepare_cached(
                "SELECT number, type, data FROM messages WHERE execution = ?1 AND number > ?2 ORDER BY number LIMIT 100",
            )?;
            let messages =
                statement.query_map(params![id.number(), rows::int(beyond)], rows::message)?;
            Ok(messages.collect::<Result<_, _>>()?)
        };
        self.read(read).await
    }

    async fn order(&self, claim: &Claim) -> Result<Order, Refused> {
        Ok(self.hub.ordered(claim.id))
    }

    async fn park(&self, claim: &Claim, append: Append, wait: Wait) -> Result<(), Refused> {
        let (id, epoch, at) = (claim.id, claim.epoch, now());
        self.change(id, move |database| {
            rows::append(database, id, epoch, append)?;
            rows::park(database, id, &wait, at)
        })
        .await
    }

    async fn finish(
        &self,
        claim: &Claim,
        append: Option<Append>,
        outcome: Outcome,
    ) -> Result<(), Refused> {
        let (id, epoch, at) = (claim.id, claim.epoch, now());
        self.change(id, move |database| {
            match append {
                Some(append) => rows::append(database, id, epoch, append)?,
                None => rows::held(database, id, epoch)?,
            }
            rows::finish(database, id, &outcome, at)
        })
        .await
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure) => {
                Self::Unavailable { why }
            }
            _ => Self::Broken { why },
        }
    }
}

// Checked where a journal is written.
const _: () = assert!(JOURNAL_BYTES_MAX < i64::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn start(number: i64) -> Start {
        Start {
            id: ExecutionId::new(number),
            module: "shop".into(),
            version: "1.0.0".into(),
            hash: ModuleHash("00".into()),
            workflow: "order".into(),
            input: "null".into(),
            parent: None,
        }
    }

    fn wish(journal: &SqliteJournal) -> oneshot::Receiver<Vec<Claim>> {
        let (tell, told) = oneshot::channel();
        *lock(&journal.wanted) = Some(Wanted {
            slots: 1,
            room: Arc::default(),
            tell,
        });
        told
    }

    #[tokio::test]
    async fn what_is_started_is_an_idle_engines_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(directory.path()).unwrap();
        let mut told = wish(&journal);
        journal.start(start(1)).await.unwrap();
        let claims = told.try_recv().unwrap();
        assert_eq!(claims[0].id, ExecutionId::new(1));
        let shown = journal.show(ExecutionId::new(1)).await.unwrap();
        assert_eq!(shown.state, State::Running);
        // The wish is fulfilled; the next one is claimed as ever.
        journal.start(start(2)).await.unwrap();
        let claims = journal.claim(8, &Arc::default()).await.unwrap();
        assert_eq!(claims[0].id, ExecutionId::new(2));
    }

    #[tokio::test]
    async fn a_wish_that_is_withdrawn_or_whose_engine_is_gone_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(directory.path()).unwrap();
        drop(wish(&journal));
        journal.start(start(1)).await.unwrap();
        let told = wish(&journal);
        journal.given(told).await.unwrap_err();
        journal.start(start(2)).await.unwrap();
        for number in [1, 2] {
            let shown = journal.show(ExecutionId::new(number)).await.unwrap();
            assert_eq!(shown.state, State::Ready);
        }
        // Fulfilled before it is withdrawn, it is told all the same.
        let told = wish(&journal);
        journal.start(start(3)).await.unwrap();
        assert_eq!(journal.given(told).await.unwrap().len(), 1);
    }
}
