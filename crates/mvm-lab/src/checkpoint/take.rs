//! Freezing all machines together.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{join_all, try_join_all};
use mvm_fabric::SwitchState;
use mvm_machine::{
    cache::ContentKey,
    data_disk::DataDisk,
    files,
    machine::{Loaded, MachineSpec, Memory, Parted, Running, SavedState, unconnected},
    qmp::StateMemory,
    snapshot::sealed,
};
use tokio::sync::MutexGuard;

use super::{
    CHECKPOINTS, Checkpoint, CheckpointError, blocking,
    content::{Content, MachineContent, RunningContent, disk_file, memory_file, state_file},
    pointed, pointer,
};
use crate::{
    event::{Event, precise_ms},
    lab::Lab,
    node::{Node, lock},
    scenario::milliseconds,
    storage,
};

/// Machines read what they were given within milliseconds; one that hangs reads nothing, and what it was given is lost
/// to it as it would be to a real one.
const READ_ALLOWED: Duration = Duration::from_millis(500);
/// The switch reads what stopped machines had sent in one go, but for a QEMU that is in the middle of a frame.
const DRAIN_ALLOWED: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// An agent answers in milliseconds.
const RECONNECT_ALLOWED: Duration = Duration::from_secs(30);
const END_ALLOWED: Duration = Duration::from_secs(10);
/// Loading a whole memory from a stream takes a second.
const CONVERT_ALLOWED: Duration = Duration::from_secs(60);

/// What becomes of the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// They run on; their memories are copied.
    GoOn,
    /// They end; their memories become the checkpoint's.
    End,
}

/// A machine under way into a checkpoint; holding the guard keeps everybody else from it.
struct Subject<'a> {
    node: &'a Node,
    machine: MutexGuard<'a, Option<Running>>,
    parted: Option<Parted>,
    positions: BTreeMap<String, u64>,
}

/// What was kept of the machines, but for the files.
struct Kept {
    machines: BTreeMap<String, MachineContent>,
    switch: SwitchState,
    clock_ms: f64,
    taken_unix_ms: u64,
}

pub(super) async fn take(
    lab: &Lab,
    name: &str,
    after: After,
) -> Result<Checkpoint, CheckpointError> {
    let environment = &lab.common.environment;
    let cache = environment.cache.clone();
    let key = ContentKey::of("checkpoint 1")
        .text(name)
        .number(nanoseconds_now())
        .number(std::process::id().into())
        .finish();
    let workspace = blocking({
        let (cache, key) = (cache.clone(), key.clone());
        move || cache.workspace(CHECKPOINTS, &key)
    })
    .await?;
    let kept = freeze(lab, name, workspace.path(), after).await?;
    let content = Content {
        image: environment.images_key(),
        qemu: environment.qemu_key.clone(),
        accelerator: environment.accelerator.accelerator.to_string(),
        machines: kept.machines,
        switch: kept.switch,
        based_on: bases(lab),
        clock_ms: kept.clock_ms,
        taken_unix_ms: kept.taken_unix_ms,
    };
    let pointer = pointer(environment, &lab.topology, name);
    let (environment, name) = (lab.common.environment.clone(), name.to_owned());
    blocking(move || {
        sealed::seal(workspace.path(), &content)?;
        let lease = cache.publish(CHECKPOINTS, &key, workspace)?;
        let earlier = pointed(&pointer);
        let text = serde_json::to_vec(&key).expect("keys serialize");
        files::replace(&pointer, &text)?;
        // Nothing leads to it any more; whoever uses it holds a lease. Another run may replace ours as soon.
        if let Some(earlier) = earlier {
            cache.remove(CHECKPOINTS, &earlier);
        }
        storage::keep_bound(&cache);
        Checkpoint::open(&cache, lease, &key, &name, &environment)
    })
    .await
}

/// Every checkpoint that holds a part of the machines' disks.
fn bases(lab: &Lab) -> Vec<ContentKey> {
    let mut bases = Vec::new();
    for checkpoint in lock(&lab.based_on).iter() {
        for key in std::iter::once(&checkpoint.key).chain(&checkpoint.content.based_on) {
            if !bases.contains(key) {
                bases.push(key.clone());
            }
        }
    }
    bases
}

async fn freeze(
    lab: &Lab,
    name: &str,
    folder: &Path,
    after: After,
) -> Result<Kept, CheckpointError> {
    let mut subjects = Vec::new();
    for node in lab.nodes.values() {
        subjects.push(Subject {
            node,
            machine: node.machine.lock().await,
            parted: None,
            positions: BTreeMap::new(),
        });
    }
    let parted = part_all(&mut subjects).await;
    let frozen = match parted {
        Ok(()) => keep_all(lab, &mut subjects, folder, after).await,
        Err(error) => Err(error),
    };
    match after {
        After::End if frozen.is_ok() => {}
        After::End | After::GoOn => go_on(lab, &mut subjects).await?,
    }
    let (kept, stood_still) = frozen?;
    lab.common.recorder.record(Event::Checkpointed {
        checkpoint: name.to_owned(),
        stood_still_ms: precise_ms(stood_still),
    });
    Ok(kept)
}

/// Ends the conversations; those that have been ended when one agent refuses are for the caller to reopen.
async fn part_all(subjects: &mut [Subject<'_>]) -> Result<(), CheckpointError> {
    for subject in subjects.iter() {
        if subject
            .node
            .paused
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return Err(CheckpointError::Paused {
                machine: subject.node.name().to_owned(),
            });
        }
        // One whose monitor does not answer would not stop either; now nothing is disturbed yet.
        if let Some(running) = subject.machine.as_ref() {
            running
                .settle()
                .await
                .map_err(|source| monitor(subject.node, source))?;
        }
    }
    for subject in subjects {
        let Some(running) = subject.machine.take() else {
            continue;
        };
        subject.node.note_memory(&running);
        match running.part().await {
            Ok(parted) => {
                subject.parted = Some(parted);
                subject.node.talk_to_nobody();
                subject.positions = subject.node.leave_services().await;
            }
            Err((running, source)) => {
                *subject.machine = Some(running);
                return Err(CheckpointError::Busy {
                    machine: subject.node.name().to_owned(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Stops the network and the machines, and keeps everything; returns how long the machines stood still.
async fn keep_all(
    lab: &Lab,
    subjects: &mut [Subject<'_>],
    folder: &Path,
    after: After,
) -> Result<(Kept, Duration), CheckpointError> {
    let switch = lab.common.network.switch();
    switch.hold()?;
    let deadline = Instant::now() + READ_ALLOWED;
    while Instant::now() < deadline && switch.unread().is_ok_and(|unread| !unread.is_empty()) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let stopped = Instant::now();
    let clock_ms = precise_ms(lab.common.recorder.origin().elapsed());
    try_join_all(parted(subjects).map(|(node, parted)| async {
        parted.stop().await.map_err(|source| monitor(node, source))
    }))
    .await?;
    let mut state = drain(lab, subjects).await?;
    // A new QEMU does not go on with the frame that the old one had begun.
    state.partial.iter_mut().for_each(Vec::clear);
    // One that fails leaves the others time to end what QEMU is at: they are to run on.
    let machines = join_all(
        subjects
            .iter_mut()
            .map(|subject| keep(lab, subject, folder, after)),
    )
    .await;
    let kept = Kept {
        machines: machines.into_iter().collect::<Result<_, _>>()?,
        switch: state,
        clock_ms,
        taken_unix_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, milliseconds),
    };
    Ok((kept, stopped.elapsed()))
}

/// Reads what stopped machines had sent until nothing more comes, and captures the switch.
async fn drain(lab: &Lab, subjects: &[Subject<'_>]) -> Result<SwitchState, CheckpointError> {
    let switch = lab.common.network.switch();
    let deadline = Instant::now() + DRAIN_ALLOWED;
    loop {
        // A QEMU whose socket was full goes on writing as it is read.
        for (node, parted) in parted(subjects) {
            parted
                .settle()
                .await
                .map_err(|source| monitor(node, source))?;
        }
        if switch.drain()?.is_quiet() || Instant::now() > deadline {
            return Ok(switch.capture()?);
        }
    }
}

/// Keeps one machine: its disk always, its state and memory if it runs.
async fn keep(
    lab: &Lab,
    subject: &mut Subject<'_>,
    folder: &Path,
    after: After,
) -> Result<(String, MachineContent), CheckpointError> {
    let node = subject.node;
    let machine = node.name().to_owned();
    let running = match subject.parted {
        Some(_) => Some(RunningContent {
            memory: keep_running(lab, node, &mut subject.parted, folder, after).await?,
            services: subject.positions.clone(),
        }),
        None => {
            if let Some(disk) = node.next_spec().data_disk {
                copy_disk(node, disk, folder).await?;
            }
            None
        }
    };
    let disk_bytes = node.next_spec().data_disk.map(|disk| disk.bytes);
    let content = MachineContent {
        running,
        disk_bytes,
    };
    Ok((machine, content))
}

/// Keeps a machine that stands still; it is still there afterwards if it is to go on, or if this fails.
async fn keep_running(
    lab: &Lab,
    node: &Node,
    subject: &mut Option<Parted>,
    folder: &Path,
    after: After,
) -> Result<StateMemory, CheckpointError> {
    let parted = subject.as_mut().expect("a machine that stands still");
    let machine = node.name();
    let memory_kept = folder.join(memory_file(machine));
    let disk_kept = folder.join(disk_file(machine));
    let number = lab.next_number();
    let over = node.scratch_file(&format!("data-{number}.qcow2"));
    let frozen = match after {
        After::GoOn => parted
            .freeze_disk(&over)
            .await
            .map_err(|source| monitor(node, source))?,
        After::End => parted.spec().data_disk.clone(),
    };
    let state_kept = folder.join(state_file(machine));
    let state = create(&state_kept)?;
    let memory = parted
        .save(&state)
        .await
        .map_err(|source| monitor(node, source))?;
    match (&parted.spec().memory, after) {
        (Memory::Own(file), After::GoOn) => copy(file.clone(), memory_kept).await?,
        (Memory::Own(file), After::End) => {
            let file = file.clone();
            end(subject).await;
            take_over(file, memory_kept).await?;
            if let Some(disk) = frozen {
                if layered(node, &disk)? {
                    copy_disk(node, disk, folder).await?;
                } else {
                    take_over(disk.path, disk_kept).await?;
                }
            }
            return Ok(memory);
        }
        (Memory::Anonymous | Memory::Frozen(_), _) => {
            let spec = parted.spec().clone();
            convert(lab, node, spec, &state_kept, memory_kept).await?;
        }
    }
    if let Some(disk) = frozen {
        copy_disk(node, disk, folder).await?;
    }
    if after == After::End {
        end(subject).await;
    }
    Ok(StateMemory::InSharedFile)
}

async fn end(subject: &mut Option<Parted>) {
    if let Some(parted) = subject.take() {
        parted.end(END_ALLOWED).await;
    }
}

/// Tells whether an earlier checkpoint of this run put a disk over the machine's.
fn layered(node: &Node, disk: &DataDisk) -> Result<bool, CheckpointError> {
    disk.has_layers_in(node.common.scratch.path())
        .map_err(|error| disk_error(node, &error))
}

/// Copies a disk that does not change into the checkpoint, with those of its layers that go with the run.
async fn copy_disk(node: &Node, disk: DataDisk, folder: &Path) -> Result<(), CheckpointError> {
    let target = folder.join(disk_file(node.name()));
    let own = node.common.scratch.path().to_owned();
    blocking(move || disk.copy_with_layers(&target, &own))
        .await
        .map_err(|error| disk_error(node, &error))
}

fn disk_error(node: &Node, error: &dyn std::error::Error) -> CheckpointError {
    CheckpointError::Disk {
        machine: node.name().to_owned(),
        reason: error.to_string(),
    }
}

/// Turns a state that holds the memory into a small one and a memory file, by loading it into a machine whose memory
/// is that file and saving it again. The machine never runs.
async fn convert(
    lab: &Lab,
    node: &Node,
    spec: MachineSpec,
    state: &Path,
    memory_kept: PathBuf,
) -> Result<(), CheckpointError> {
    let whole = SavedState {
        path: state.with_extension("whole"),
        memory: StateMemory::InState,
    };
    rename(state, &whole.path)?;
    let number = lab.next_number();
    let data_disk = match &spec.data_disk {
        Some(disk) => {
            let path = node.scratch_file(&format!("convert-{number}.qcow2"));
            let over = disk.overlay(&path);
            Some(over.map_err(|error| disk_error(node, &error))?)
        }
        None => None,
    };
    let spec = MachineSpec {
        memory: Memory::Own(memory_kept),
        data_disk,
        console: spec.console.elsewhere(node.scratch_file("convert.console")),
        qemu_log: node.scratch_file("convert.log"),
        ..spec
    };
    let used = [
        spec.data_disk.as_ref().map(|disk| disk.path.clone()),
        Some(spec.console.path().to_owned()),
        Some(spec.qemu_log.clone()),
    ];
    // Its cards are connected to nothing, since it never runs.
    let (_held, sockets) = unconnected(spec.nics.len()).map_err(|source| CheckpointError::Io {
        what: "make sockets for",
        path: whole.path.clone(),
        source,
    })?;
    let loaded = Loaded::load(spec, &whole, sockets, CONVERT_ALLOWED).await?;
    let file = create(state)?;
    loaded
        .save(&file)
        .await
        .map_err(|source| monitor(node, source))?;
    loaded.end(END_ALLOWED).await;
    for path in used.into_iter().flatten().chain([whole.path]) {
        std::fs::remove_file(&path).map_err(|source| CheckpointError::Io {
            what: "remove",
            path,
            source,
        })?;
    }
    Ok(())
}

/// Lets machines and network run on, and talks to the agents again. One that is lost takes none of the others with it.
async fn go_on(lab: &Lab, subjects: &mut [Subject<'_>]) -> Result<(), CheckpointError> {
    let resumed = join_all(subjects.iter_mut().map(resume)).await;
    lab.common.network.switch().release()?;
    let talking = join_all(subjects.iter_mut().map(talk_again)).await;
    resumed.into_iter().chain(talking).collect()
}

/// Lets a machine run on; one that cannot is lost.
async fn resume(subject: &mut Subject<'_>) -> Result<(), CheckpointError> {
    let Some(parted) = &subject.parted else {
        return Ok(());
    };
    // Its disk may be another than before, which the next start must find even if this machine is lost.
    lock(&subject.node.spec)
        .data_disk
        .clone_from(&parted.spec().data_disk);
    let resumed = parted.resume().await;
    resumed.map_err(|source| {
        subject.parted = None;
        CheckpointError::Resume {
            machine: subject.node.name().to_owned(),
            source,
        }
    })
}

/// Opens a new conversation with a machine that runs on; one that does not answer is lost.
async fn talk_again(subject: &mut Subject<'_>) -> Result<(), CheckpointError> {
    let Some(parted) = subject.parted.take() else {
        return Ok(());
    };
    let node = subject.node;
    let reconnected = parted.reconnect(RECONNECT_ALLOWED).await;
    let running = reconnected.map_err(|source| CheckpointError::Reconnect {
        machine: node.name().to_owned(),
        source,
    })?;
    node.talk_to(&running);
    *subject.machine = Some(running);
    node.follow_services(&subject.positions).await?;
    Ok(())
}

fn parted<'a>(subjects: &'a [Subject<'_>]) -> impl Iterator<Item = (&'a Node, &'a Parted)> {
    subjects
        .iter()
        .filter_map(|subject| Some((subject.node, subject.parted.as_ref()?)))
}

fn monitor(node: &Node, source: mvm_machine::qmp::QmpError) -> CheckpointError {
    CheckpointError::Monitor {
        machine: node.name().to_owned(),
        source,
    }
}

fn create(path: &Path) -> Result<std::fs::File, CheckpointError> {
    std::fs::File::create(path).map_err(|source| CheckpointError::Io {
        what: "create",
        path: path.to_owned(),
        source,
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    std::fs::rename(from, to).map_err(|source| CheckpointError::Io {
        what: "move",
        path: from.to_owned(),
        source,
    })
}

async fn copy(source: PathBuf, target: PathBuf) -> Result<(), CheckpointError> {
    Ok(blocking(move || files::copy_sparse(&source, &target)).await?)
}

/// Moves a file of a machine that has ended into the checkpoint; copies it where it lies on another file system.
async fn take_over(source: PathBuf, target: PathBuf) -> Result<(), CheckpointError> {
    match std::fs::rename(&source, &target) {
        Ok(()) => Ok(()),
        Err(_) => copy(source, target).await,
    }
}

fn nanoseconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
