//! Bringing all machines back from a checkpoint.

use std::{sync::Arc, time::Instant};

use futures_util::future::try_join_all;
use mvm_fabric::Switch;
use mvm_machine::{
    data_disk::DataDisk,
    machine::{Loaded, MachineSpec, Memory, SavedState},
    qmp::StateMemory,
};

use super::{
    Checkpoint, CheckpointError, WallClock,
    content::{MachineContent, RunningContent, disk_file, memory_file, state_file},
};
use crate::{
    event::{Event, Way, precise_ms},
    lab::Lab,
    node::{Node, copy_memory, lock},
    topology::MemoryPlan,
};

/// Loading takes a tenth of a second; a loaded host may need a hundred times that.
const LOAD_ALLOWED: std::time::Duration = std::time::Duration::from_secs(30);

/// Ends what runs in `lab` and brings the checkpoint's machines back in its place; all are off after an error.
pub(super) async fn bring_back(
    lab: &Lab,
    checkpoint: &Arc<Checkpoint>,
    wall: WallClock,
) -> Result<(), CheckpointError> {
    let brought = replace_all(lab, checkpoint, wall).await;
    if brought.is_err() {
        end_all(lab).await;
    }
    brought
}

async fn end_all(lab: &Lab) {
    for node in lab.nodes.values() {
        node.end().await;
    }
}

async fn replace_all(
    lab: &Lab,
    checkpoint: &Arc<Checkpoint>,
    wall: WallClock,
) -> Result<(), CheckpointError> {
    let began = Instant::now();
    end_all(lab).await;
    let switch = Switch::restore(&checkpoint.content.switch)?;
    lab.common.network.replace_switch(switch)?;
    lab.keep_base(checkpoint);
    let loads = lab.nodes.values().map(|node| load(lab, node, checkpoint));
    let loaded = try_join_all(loads).await?;
    let going = loaded
        .into_iter()
        .flatten()
        .map(|(node, running, loaded)| async move {
            Ok::<_, CheckpointError>((node, running, loaded.go().await?))
        });
    let going = try_join_all(going).await?;
    // All disks are based on it alone now.
    *lock(&lab.based_on) = vec![Arc::clone(checkpoint)];
    lab.common.network.switch().release()?;
    try_join_all(
        going
            .into_iter()
            .map(|(node, content, booting)| async move {
                let ready = booting.ready(lab.common.boot_timeout).await;
                let running = ready.map_err(Box::new)?;
                let agent = running.agent();
                let failed = |source| node.agent_error(source);
                agent.reseed().await.map_err(failed)?;
                if wall == WallClock::Now {
                    agent.set_clock().await.map_err(failed)?;
                }
                node.came_up(
                    &mut *node.machine.lock().await,
                    running,
                    Way::Restored,
                    began,
                );
                node.follow_services(&content.services).await?;
                Ok::<_, CheckpointError>(())
            }),
    )
    .await?;
    lab.common.recorder.record(Event::Restored {
        checkpoint: checkpoint.name.clone(),
        taken_unix_ms: checkpoint.content.taken_unix_ms,
        taken_at_ms: checkpoint.content.clock_ms,
        duration_ms: precise_ms(began.elapsed()),
    });
    Ok(())
}

/// Gives a machine the checkpoint's disk, and loads it if it ran.
async fn load<'a>(
    lab: &Lab,
    node: &'a Node,
    checkpoint: &'a Checkpoint,
) -> Result<Option<(&'a Node, &'a RunningContent, Loaded)>, CheckpointError> {
    let name = node.name();
    let folder = checkpoint.lease.path();
    let content =
        checkpoint
            .content
            .machines
            .get(name)
            .ok_or_else(|| CheckpointError::Foreign {
                name: checkpoint.name.clone(),
                what: "machines",
            })?;
    let number = lab.next_number();
    let disk = disk(node, content, folder.join(disk_file(name)), number)?;
    let kept = disk.as_ref().map(|disk| disk.path.clone());
    lock(&node.spec).data_disk = disk;
    node.clear_scratch(kept.as_deref())
        .map_err(|source| CheckpointError::Io {
            what: "clear",
            path: lab.common.scratch.path().to_owned(),
            source,
        })?;
    let Some(running) = &content.running else {
        return Ok(None);
    };
    let _turn = lab.common.resuming.acquire().await;
    let frozen = folder.join(memory_file(name));
    let memory = match (running.memory, lab.common.memory) {
        (StateMemory::InState, _) => Memory::Anonymous,
        (StateMemory::InSharedFile, MemoryPlan::Shared) => Memory::Frozen(frozen),
        (StateMemory::InSharedFile, MemoryPlan::Own) => {
            let own = node.scratch_file(&format!("ram-{number}"));
            copy_memory(frozen, own.clone()).await?;
            Memory::Own(own)
        }
    };
    let spec = MachineSpec {
        memory,
        ..node.next_spec()
    };
    let state = SavedState {
        path: folder.join(state_file(name)),
        memory: running.memory,
    };
    let sockets = node.plug_in()?;
    let loaded = Loaded::load(spec, &state, sockets, LOAD_ALLOWED).await?;
    Ok(Some((node, running, loaded)))
}

/// A new disk over the checkpoint's.
fn disk(
    node: &Node,
    content: &MachineContent,
    kept: std::path::PathBuf,
    number: u64,
) -> Result<Option<DataDisk>, CheckpointError> {
    let Some(bytes) = content.disk_bytes else {
        return Ok(None);
    };
    let kept = DataDisk { path: kept, bytes };
    let path = node.scratch_file(&format!("data-{number}.qcow2"));
    let over = kept.overlay(&path).map_err(|error| CheckpointError::Disk {
        machine: node.name().to_owned(),
        reason: error.to_string(),
    })?;
    Ok(Some(over))
}
