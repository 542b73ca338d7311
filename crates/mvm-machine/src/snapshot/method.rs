//! Which way of freezing works with this QEMU, found out once per build by resuming what was frozen.
//!
//! The quick way leaves the memory in a file that is shared on one side and private on the other, which QEMU calls
//! experimental; the slow way puts it into the state. (`mapped-ram`, which newer versions have, is no
//! third way: it copies the memory too, and every version that has it has the quick way.)

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Content, Obtained, SCRATCH, SnapshotError, freeze, resume, sealed};
use crate::{
    cache::{Cache, Workspace},
    console::Console,
    files::{self, Naming},
    machine::{MachineSpec, Memory, Owner, unconnected},
    qmp::StateMemory,
};

/// In the order tried.
const METHODS: [StateMemory; 2] = [StateMemory::InSharedFile, StateMemory::InState];
/// A resumed agent answers in milliseconds.
const ANSWER_ALLOWED: Duration = Duration::from_secs(20);

/// What is known of one QEMU build.
#[derive(Serialize, Deserialize)]
enum Known {
    Works(StateMemory),
    Nothing { reason: String },
}

/// Fills a workspace with a sealed snapshot, by the way that works.
pub(super) async fn make(
    cache: &Cache,
    spec: &MachineSpec,
    workspace: &Workspace,
    boot_allowed: Duration,
) -> Result<Obtained, SnapshotError> {
    let build = cache.file_key(&spec.qemu)?;
    let place = cache
        .root()
        .join(format!("snapshot-method-{}.json", build.short()));
    let known = std::fs::read(&place)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    match known {
        Some(Known::Works(memory)) => seal(cache, spec, memory, workspace, boot_allowed).await,
        Some(Known::Nothing { reason }) => Err(SnapshotError::Unsupported { reason }),
        None => {
            let (known, made) = try_all(cache, spec, workspace, boot_allowed).await?;
            let text = serde_json::to_vec(&known)
                .map_err(std::io::Error::other)
                .naming("describe", &place)?;
            files::replace(&place, &text)?;
            made
        }
    }
}

async fn try_all(
    cache: &Cache,
    spec: &MachineSpec,
    workspace: &Workspace,
    boot_allowed: Duration,
) -> Result<(Known, Result<Obtained, SnapshotError>), SnapshotError> {
    let mut reasons = Vec::new();
    for memory in METHODS {
        workspace.refresh()?;
        let made = match seal(cache, spec, memory, workspace, boot_allowed).await {
            Ok(made) => made,
            // A way that QEMU does not know is one thing, a host on which nothing boots another.
            Err(SnapshotError::Monitor(error)) => {
                reasons.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        match attempt(cache, spec, memory, workspace).await {
            Ok(()) => return Ok((Known::Works(memory), Ok(made))),
            Err(reason) => {
                tracing::warn!(?memory, %reason, "a way of freezing machines does not work with this QEMU");
                reasons.push(reason);
            }
        }
    }
    let reason = reasons.join("; ");
    let known = Known::Nothing {
        reason: reason.clone(),
    };
    Ok((known, Err(SnapshotError::Unsupported { reason })))
}

async fn seal(
    cache: &Cache,
    spec: &MachineSpec,
    memory: StateMemory,
    workspace: &Workspace,
    boot_allowed: Duration,
) -> Result<Obtained, SnapshotError> {
    let folder = workspace.path().to_owned();
    let made = freeze(cache, spec, memory, &folder, boot_allowed).await?;
    super::blocking(move || Ok(sealed::seal(&folder, &Content { memory })?)).await?;
    Ok(made)
}

/// Resumes what is in the workspace and hears its agent.
async fn attempt(
    cache: &Cache,
    spec: &MachineSpec,
    memory: StateMemory,
    workspace: &Workspace,
) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let scratch = workspace.path().join(SCRATCH);
    files::create_dir_all(&scratch).map_err(|error| text(&error))?;
    let path = scratch.join("data.qcow2");
    let (data_disk, _lease) = super::empty_disk(cache, spec, path)
        .await
        .map_err(|error| text(&error))?;
    let spec = MachineSpec {
        name: "snapshot-trial".to_owned(),
        memory: Memory::Anonymous,
        data_disk,
        console: Console::new(scratch.join("console.log"), Instant::now()),
        qemu_log: scratch.join("qemu.log"),
        ..spec.clone()
    };
    let (_ends, nic_sockets) = unconnected(spec.nics.len()).map_err(|error| text(&error))?;
    let loaded = resume(workspace.path(), memory, Owner::Known, spec, nic_sockets).await;
    let booting = loaded
        .map_err(|error| text(&error))?
        .go()
        .await
        .map_err(|error| text(&error))?;
    let ready = booting.ready(ANSWER_ALLOWED).await;
    drop(ready.map_err(|error| text(&error))?);
    std::fs::remove_dir_all(&scratch).map_err(|error| text(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_reads_back() {
        let known = Known::Works(StateMemory::InSharedFile);
        let text = serde_json::to_string(&known).unwrap();
        assert_eq!(text, r#"{"Works":"in-shared-file"}"#);
        assert!(matches!(
            serde_json::from_str(&text).unwrap(),
            Known::Works(StateMemory::InSharedFile)
        ));
    }
}
