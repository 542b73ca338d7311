//! One machine that waits: made, kept still, handed over.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_agent::client::{Agent, AgentError, Identity};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tempfile::TempDir;

use super::{Cable, Warm, stock::Nominal};
use crate::{
    cache::{Cache, Lease},
    console::Console,
    files::{self, FileError},
    machine::{BootError, HandOverError, LoadError, MachineSpec, Memory, Owner, Parted, Places},
    process::PathGuard,
    qmp::QmpError,
    snapshot::{self, Snapshot, SnapshotError},
};

/// What a machine is called that is nobody's.
const NAME: &str = "warm";
/// A machine that was resumed answers in a tenth of a second; a loaded host may need a hundred times that.
const READY_ALLOWED: Duration = Duration::from_secs(20);

/// Where machines wait.
pub(super) struct Place {
    pub(super) cache: Cache,
    pub(super) folder: PathGuard,
}

/// A machine for the pool could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error("could not make a folder for it: {0}")]
    Folder(#[source] io::Error),
    #[error("could not make the connections of its cards: {0}")]
    Cable(#[source] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Memory(#[from] FileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Boot(#[from] Box<BootError>),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Monitor(#[from] QmpError),
    #[error("could not read what its cards had sent: {0}")]
    Drain(#[from] Errno),
}

/// A machine that waits: it stands still, and nobody talks to its agent. Dropping it ends it and removes its files.
pub(super) struct Waiting {
    parted: Parted,
    switch_ends: Vec<OwnedFd>,
    bytes: u64,
    /// Keeps what its disk reads through to.
    _disk: Option<Lease>,
    _folder: TempDir,
}

impl Waiting {
    /// Makes a machine like `example`, which has its files in a folder of its own in `place`.
    pub(super) async fn make(
        place: &Arc<Place>,
        example: &MachineSpec,
        cable: fn() -> io::Result<Cable>,
        boot_allowed: Duration,
    ) -> Result<Waiting, MakeError> {
        let cache = &place.cache;
        let (snapshot, _) = Snapshot::obtain(cache, example, boot_allowed).await?;
        let folder = tempfile::tempdir_in(place.folder.path()).map_err(MakeError::Folder)?;
        let file = |name| folder.path().join(name);
        let memory = match (&example.memory, snapshot.memory_file()) {
            (Memory::Own(_), Some(frozen)) => {
                copy(place, frozen, file("ram")).await?;
                Memory::Own(file("ram"))
            }
            _ => Memory::Anonymous,
        };
        let (data_disk, disk) = snapshot::empty_disk(cache, example, file("data.qcow2")).await?;
        let spec = MachineSpec {
            name: NAME.to_owned(),
            memory,
            data_disk,
            console: Console::new(file("console.log"), Instant::now()),
            qemu_log: file("qemu.log"),
            ..example.clone()
        };
        let (switch_ends, machine_ends) =
            cables(spec.nics.len(), cable).map_err(MakeError::Cable)?;
        let loaded = snapshot.resume_for(Owner::ToCome, spec, machine_ends).await;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                if error.blames_state() {
                    snapshot.discard(cache);
                }
                return Err(error.into());
            }
        };
        let running = loaded.go().await?.ready(READY_ALLOWED).await;
        let running = running.map_err(Box::new)?;
        rehearse(running.agent()).await?;
        let bytes = running
            .memory_use()
            .map_or(example.bytes(), |used| used.private);
        let parted = running.part().await.map_err(|(_, error)| error)?;
        parted.stop().await?;
        let waiting = Waiting {
            parted,
            switch_ends,
            bytes,
            _disk: disk,
            _folder: folder,
        };
        waiting.drain().await?;
        Ok(waiting)
    }

    /// What it takes of the host's memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells whether its QEMU has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.parted.has_ended()
    }

    /// Moves its memory to where `spec` wants it; nothing is changed after an error.
    pub(super) fn move_memory(&mut self, spec: &MachineSpec) -> io::Result<()> {
        self.parted.move_memory(spec)
    }

    /// Lets it go on as the machine that `spec` describes.
    pub(super) async fn hand_over(
        self,
        spec: &MachineSpec,
        places: Places,
        allowed: Duration,
    ) -> Result<Warm, HandOverError> {
        Ok(Warm {
            running: self.parted.hand_over(spec, places, allowed).await?,
            switch_ends: self.switch_ends,
        })
    }

    /// Reads all that its cards had sent before it stood still: nobody is to get that later.
    async fn drain(&self) -> Result<(), MakeError> {
        loop {
            // A QEMU whose socket was full goes on writing as it is read.
            self.parted.settle().await?;
            let mut drained = 0;
            for end in &self.switch_ends {
                drained += drain(end)?;
            }
            if drained == 0 {
                return Ok(());
            }
        }
    }
}

impl Nominal for MachineSpec {
    fn bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }
}

/// Has the guest become somebody, and nobody in particular: under an emulator the first time takes four times as long as
/// the next, the taker's. Whatever this sets, that one sets anew.
async fn rehearse(agent: &Agent) -> Result<(), AgentError> {
    let nobody = Identity {
        hostname: NAME.to_owned(),
        machine_id: None,
        interfaces: Vec::new(),
        hosts: Vec::new(),
        name_servers: Vec::new(),
        layers: None,
        mounts: Vec::new(),
    };
    agent.configure(nobody).await?;
    agent.set_clock().await.map(drop)
}

/// Reads and forgets what has arrived; returns how many bytes that was.
fn drain(end: &OwnedFd) -> Result<usize, Errno> {
    let mut buffer = [0; 16 << 10];
    let mut drained = 0;
    loop {
        match recv(end, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::WOULDBLOCK) => return Ok(drained),
            Ok((read, _)) => drained += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The ends for a switch, and those for the machine.
fn cables(
    nics: usize,
    cable: fn() -> io::Result<Cable>,
) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let cables = (0..nics).map(|_| cable()).collect::<io::Result<Vec<_>>>()?;
    let ends = cables.into_iter();
    Ok(ends
        .map(|cable| (cable.switch_end, cable.machine_end))
        .unzip())
}

/// Begins a machine's own memory as a copy of the frozen one.
async fn copy(place: &Arc<Place>, frozen: PathBuf, file: PathBuf) -> Result<(), MakeError> {
    // The copying cannot be cancelled; the folder stays until it has ended.
    let place = Arc::clone(place);
    let copied = tokio::task::spawn_blocking(move || {
        let copied = files::copy_sparse(&frozen, &file);
        drop(place);
        copied
    });
    let copied = copied
        .await
        .map_err(io::Error::other)
        .map_err(MakeError::Folder)?;
    Ok(copied?)
}
