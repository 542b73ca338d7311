//! Machines kept ready: resumed, answering, and nobody's yet, so that who needs one has it at once.
//!
//! ```text
//!            obtain a snapshot ─ resume ─ agent answers ─ rehearse ─ part ─ stop
//!   tender  ────────────────────────────────────────────────────────────────────▶ stock, k of each kind
//!                                                                                   │ take
//!   taker   ◀───── agent answers ◀ cont ◀ its disk ◀ its console and log ◀──────────┘
//! ```
//!
//! A kind is all machines with one snapshot ([`Snapshot::key`]) and one plan for their memory. The pool learns of a kind
//! when somebody asks for it.
//!
//! A machine that waits stands still, so it costs no processor time, its memory does not grow, and its clocks and its
//! randomness are where a machine that was just resumed has them: its taker gives it identity and time in the same way, and
//! two siblings share no more than two that were resumed. It has rehearsed that once, since an emulator is quicker the second
//! time; what the rehearsal set, down to its host name, the taker sets anew. What it has on the host lies in a folder of the pool, and is:
//!
//! - its console and QEMU's complaints, which go to the taker's files from the moment of taking, on whatever file system
//!   these are; what was said before goes there too;
//! - an empty disk in the place of the private one. At the taking QEMU changes over to the taker's disk, so that it knows that
//!   one by its own path, with all layers below it, and a later overlay names it rightly;
//! - its memory, if that is to be in a file of its own: moved, which works within one file system only. A taker that wants
//!   it elsewhere gets nothing.
//!
//! What is decided about the stock - what to make next, what to let go - is `stock`'s; making one machine is `waiting`'s.
//! Identity, time and the network are the taker's to give, as to any machine that was resumed.

mod stock;
mod waiting;

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinHandle};

use self::{
    stock::{Bounds, Kind, Next, Stock},
    waiting::{Place, Waiting},
};
use crate::{
    cache::Cache,
    machine::{MachineSpec, Memory, Places, Running},
    process::{Keeper, PathGuard, ProcessError},
    snapshot::Snapshot,
};

/// Where in the cache the pool has its folder, beside those of runs.
const RUNNING: &str = "running";
/// An agent that was let go on answers in milliseconds; a loaded host may need a hundred times that. A taker that waits longer
/// would have resumed a machine of its own.
const ANSWER_ALLOWED: Duration = Duration::from_secs(2);

/// What a pool may do.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// How many machines of each kind are kept ready.
    pub machines_per_kind: usize,
    /// What all that wait may take of the host's memory, in MiB. A machine counts with its private memory; the first of
    /// a kind, not measured yet, with its nominal size.
    pub memory_mib_max: u64,
    /// A kind that nobody has asked for in so long is let go.
    pub unused_max: Duration,
    /// How long the first machine of a kind may take to boot where there is no snapshot yet.
    pub boot_allowed: Duration,
    /// How a machine's network cards are connected while nobody is there.
    pub cable: fn() -> io::Result<Cable>,
}

/// What connects a network card that has no port yet.
#[derive(Debug)]
pub struct Cable {
    /// The end for the switch of whoever takes the machine.
    pub switch_end: OwnedFd,
    /// The end for the machine.
    pub machine_end: OwnedFd,
}

impl Cable {
    /// A pair of sockets as the kernel makes them.
    pub fn plain() -> io::Result<Cable> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok(Cable {
            switch_end: ours.into(),
            machine_end: theirs.into(),
        })
    }
}

/// A pool has no place for its machines.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The folder could not be made.
    #[error("could not make a folder for machines that wait in {place:?}: {source}")]
    Folder {
        /// Where.
        place: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder could not be guarded.
    #[error(transparent)]
    Guard(#[from] ProcessError),
}

/// A machine from the pool. Its agent answers; it has no identity and not the right time.
pub struct Warm {
    /// The machine, as the taker specified it.
    pub running: Running,
    /// The switch's ends of its cards' connections, in the cards' order. Nothing that the machine sent before is in them.
    pub switch_ends: Vec<OwnedFd>,
}

/// Keeps machines ready. It belongs to the runtime in which it was made, and so do the machines.
///
/// Dropping it ends all machines that wait. [`Pool::close`] also waits until what was under way has ended.
pub struct Pool {
    shared: Arc<Shared>,
    tender: JoinHandle<()>,
}

/// What takers and the tender share. The folder goes with the last of them, after the machines.
struct Shared {
    stock: Mutex<Stock<MachineSpec, Waiting>>,
    changed: Notify,
    options: PoolOptions,
    place: Arc<Place>,
}

impl Pool {
    /// Makes an empty pool; must be called within a runtime.
    pub fn new(cache: &Cache, options: PoolOptions) -> Result<Pool, PoolError> {
        let shared = Arc::new(Shared {
            stock: Mutex::new(Stock::new(Bounds {
                machines_per_kind: options.machines_per_kind,
                bytes_max: options.memory_mib_max << 20,
                unused_max: options.unused_max,
            })),
            changed: Notify::new(),
            options,
            place: Arc::new(Place {
                cache: cache.clone(),
                folder: folder(cache)?,
            }),
        });
        let tender = tokio::spawn(tend(Arc::clone(&shared)));
        Ok(Pool { shared, tender })
    }

    /// Takes a machine like `spec`, with the name, the logs, the disk and the place of the memory of `spec`; the pool makes
    /// another in its place a moment later. `None` if none is ready: the pool then begins to keep such machines.
    ///
    /// The disk of `spec` must be there. Dropping the future ends the machine that was about to be taken.
    pub async fn take(&self, spec: &MachineSpec) -> Option<Warm> {
        let kind = self.kind(spec).await?;
        self.stock().asked(&kind, spec, Instant::now());
        let warm = self.take_of(&kind, spec).await;
        self.stock().taken(Instant::now());
        self.shared.changed.notify_one();
        warm
    }

    /// Tells the pool that machines like `spec` will be asked for, so that it begins to make them.
    pub async fn expect(&self, spec: &MachineSpec) {
        if let Some(kind) = self.kind(spec).await {
            self.stock().asked(&kind, spec, Instant::now());
            self.shared.changed.notify_one();
        }
    }

    /// How many machines like `spec` are ready, as far as is known.
    pub async fn ready(&self, spec: &MachineSpec) -> usize {
        match self.kind(spec).await {
            Some(kind) => self.stock().ready(&kind),
            None => 0,
        }
    }

    /// Where what belongs to waiting machines lies.
    pub fn folder(&self) -> &Path {
        self.shared.place.folder.path()
    }

    /// Ends all machines that wait and whatever is under way; returns when all is gone.
    pub async fn close(mut self) {
        self.tender.abort();
        // It was aborted, or had panicked, which it told itself.
        let _ = (&mut self.tender).await;
    }

    async fn take_of(&self, kind: &Kind, spec: &MachineSpec) -> Option<Warm> {
        loop {
            let mut waiting = self.stock().take(kind)?;
            if waiting.has_ended() {
                tracing::warn!("a machine that waited in the pool has ended by itself");
                continue;
            }
            let places = match prepare(&mut waiting, spec).await {
                Ok(places) => places,
                // The next one would fare no better.
                Err(error) => {
                    tracing::warn!(machine = spec.name, %error, "no machine is taken from the pool");
                    let unwanted = self.stock().put_back(kind, waiting);
                    drop(unwanted);
                    return None;
                }
            };
            match waiting.hand_over(spec, places, ANSWER_ALLOWED).await {
                Ok(warm) => return Some(warm),
                Err(error) => {
                    tracing::warn!(%error, "a machine that waited in the pool is of no use");
                    if let Memory::Own(file) = &spec.memory {
                        // It may not have got there.
                        let _ = std::fs::remove_file(file);
                    }
                    if error.blames_taker() {
                        return None;
                    }
                }
            }
        }
    }

    /// `None` if a file that counts cannot be read: then there can be no such machine.
    async fn kind(&self, spec: &MachineSpec) -> Option<Kind> {
        let (cache, spec) = (self.shared.place.cache.clone(), spec.clone());
        let own_memory = matches!(spec.memory, Memory::Own(_));
        let key = tokio::task::spawn_blocking(move || Snapshot::key(&cache, &spec)).await;
        let key = key.ok()?.inspect_err(|error| {
            tracing::warn!(%error, "no machine is taken from the pool");
        });
        Some(Kind {
            snapshot: key.ok()?,
            own_memory,
        })
    }

    fn stock(&self) -> MutexGuard<'_, Stock<MachineSpec, Waiting>> {
        self.shared.stock()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tender.abort();
        // Killing them takes a while, during which nobody should have to wait for the lock.
        let machines = self.stock().close();
        drop(machines);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("options", &self.shared.options)
            .field("folder", &self.folder())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn stock(&self) -> MutexGuard<'_, Stock<MachineSpec, Waiting>> {
        // Nothing under this lock can be left half changed.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what may fail for a reason of the taker's; the machine is as good as before then.
async fn prepare(waiting: &mut Waiting, spec: &MachineSpec) -> io::Result<Places> {
    if let Some(disk) = &spec.data_disk {
        tokio::fs::metadata(&disk.path).await?;
    }
    let places = Places::open(spec).await?;
    waiting.move_memory(spec)?;
    Ok(places)
}

/// A new folder on the cache's file system, which goes when we do.
fn folder(cache: &Cache) -> Result<PathGuard, PoolError> {
    let place = cache.root().join(RUNNING);
    let made = std::fs::create_dir_all(&place).and_then(|()| {
        tempfile::Builder::new()
            .prefix(&format!("mvm-ci-{}-pool-", std::process::id()))
            .tempdir_in(&place)
    });
    let made = made.map_err(|source| PoolError::Folder { place, source })?;
    Ok(Keeper::get()?.guard_path(&made.keep())?)
}

/// Keeps the stock as it should be, one machine after another, for as long as it is let.
async fn tend(shared: Arc<Shared>) {
    loop {
        let now = Instant::now();
        let unused = shared.stock().let_go(now);
        drop(unused);
        let next = shared.stock().next(now);
        match next {
            Next::Make(kind, example) => make(&shared, kind, &example).await,
            Next::Wait(None) => shared.changed.notified().await,
            Next::Wait(Some(until)) => {
                let slept = tokio::time::timeout_at(until.into(), shared.changed.notified());
                // Both are reasons to look again.
                let _ = slept.await;
            }
        }
    }
}

async fn make(shared: &Shared, kind: Kind, example: &MachineSpec) {
    let PoolOptions {
        cable,
        boot_allowed,
        ..
    } = shared.options;
    match Waiting::make(&shared.place, example, cable, boot_allowed).await {
        Ok(waiting) => {
            let bytes = waiting.bytes();
            let refused = shared.stock().put(&kind, waiting, bytes);
            drop(refused);
        }
        Err(error) => {
            tracing::warn!(%error, "a machine for the pool could not be made");
            shared.stock().failed(&kind, Instant::now());
        }
    }
}
