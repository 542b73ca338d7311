//! Children that cannot outlive us, and paths that are removed whatever ends us.
//!
//! Two mechanisms cover one another:
//!
//! - The kernel's parent-death signal. It fires when the *thread* that spawned the child ends, so every
//!   child is spawned from one thread that lives as long as the process ([`Keeper`]).
//! - A small watcher process in a session of its own, holding the read end of a pipe. When this
//!   process ends in any way, `SIGKILL` included, the pipe closes; the watcher kills what is still
//!   there and removes the registered paths.
//!
//! What the children are is decided elsewhere (`qemu`).

mod child;
mod spawn;
mod watcher;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, mpsc},
    thread,
};

pub use child::{Child, Exit};
use rustix::process::Signal;
pub(crate) use spawn::in_small_pages;
use watcher::Watcher;

/// Why a child could not be started or guarded.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("could not start {program}: {source}")]
    Spawn {
        /// The program as it was named.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The watcher process could not be started.
    #[error("could not start the watcher that cleans up after a killed run: {0}")]
    Watcher(#[source] io::Error),
    /// The thread that spawns children could not be started.
    #[error("could not start the thread that keeps children: {0}")]
    Thread(#[source] io::Error),
    /// The path cannot be written in the watcher's line protocol.
    #[error("could not guard {path:?}: the path is not valid UTF-8 or holds a line break")]
    PathNotGuardable {
        /// The path in question.
        path: PathBuf,
    },
}

struct Order {
    command: Command,
    inherited: Vec<OwnedFd>,
    reply: mpsc::Sender<io::Result<std::process::Child>>,
}

/// Spawns children and guards paths; one per process.
pub struct Keeper {
    orders: Mutex<mpsc::Sender<Order>>,
    watcher: Watcher,
}

impl Keeper {
    /// Returns the keeper of this process, starting its thread and its watcher on first use.
    pub fn get() -> Result<&'static Keeper, ProcessError> {
        static KEEPER: Mutex<Option<&'static Keeper>> = Mutex::new(None);
        let mut slot = KEEPER
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(keeper) = *slot {
            return Ok(keeper);
        }
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("mvm-children".into())
            .spawn(move || serve(&inbox))
            .map_err(ProcessError::Thread)?;
        let orders = Mutex::new(orders);
        let watcher = Watcher::start(|command, fd| spawn_through(&orders, command, vec![fd]))
            .map_err(ProcessError::Watcher)?;
        let keeper: &'static Keeper = Box::leak(Box::new(Keeper { orders, watcher }));
        *slot = Some(keeper);
        Ok(keeper)
    }

    /// Starts `command` as a child that dies with this process.
    ///
    /// The descriptors in `inherited` stay open in the child under the same numbers, and are closed
    /// here.
    pub fn spawn(
        &self,
        mut command: Command,
        inherited: Vec<OwnedFd>,
    ) -> Result<Child, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        spawn::dies_with_parent(&mut command, Signal::KILL);
        spawn_through(&self.orders, command, inherited)
            .and_then(|child| {
                self.watcher.watch_process(child.id());
                Child::adopt(child)
            })
            .map_err(|source| ProcessError::Spawn { program, source })
    }

    /// Starts `command` as a child that is told to end when this process ends, in order: for one that has more to clean
    /// up than we know of.
    pub fn spawn_in_order(&self, mut command: Command) -> Result<Child, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        spawn::dies_with_parent(&mut command, Signal::TERM);
        spawn_through(&self.orders, command, Vec::new())
            .and_then(Child::adopt)
            .map_err(|source| ProcessError::Spawn { program, source })
    }

    /// Has `path` removed, file or tree, when the guard is dropped or this process ends.
    pub fn guard_path(&self, path: &Path) -> Result<PathGuard, ProcessError> {
        if !self.watcher.watch_path(path) {
            return Err(ProcessError::PathNotGuardable {
                path: path.to_owned(),
            });
        }
        Ok(PathGuard {
            path: path.to_owned(),
        })
    }

    /// Returns the process id of the watcher, for tests that count survivors.
    pub fn watcher_pid(&self) -> u32 {
        self.watcher.pid()
    }
}

/// Removes its path when dropped.
#[derive(Debug)]
pub struct PathGuard {
    path: PathBuf,
}

impl PathGuard {
    /// Returns the guarded path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the guarding and leaves the path alone.
    pub fn let_go(self) {
        self.forget();
        std::mem::forget(self);
    }

    fn forget(&self) {
        if let Ok(keeper) = Keeper::get() {
            keeper.watcher.forget_path(&self.path);
        }
    }
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        let removed = if self.path.is_dir() {
            std::fs::remove_dir_all(&self.path)
        } else {
            std::fs::remove_file(&self.path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "could not remove a temporary path");
            }
            _ => self.forget(),
        }
    }
}

fn spawn_through(
    orders: &Mutex<mpsc::Sender<Order>>,
    mut command: Command,
    inherited: Vec<OwnedFd>,
) -> io::Result<std::process::Child> {
    spawn::keep_open(&mut command, &inherited);
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that keeps children has ended");
    orders
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .send(Order {
            command,
            inherited,
            reply,
        })
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Spawns what it is told until the process ends: its end would kill every child.
fn serve(inbox: &mpsc::Receiver<Order>) {
    while let Ok(mut order) = inbox.recv() {
        let spawned = order.command.spawn();
        drop(order.inherited);
        // A requester that no longer listens leaves the child to the watcher and the death signal.
        let _ = order.reply.send(spawned);
    }
}
