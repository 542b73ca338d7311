//! What several scenarios begin with, done once and kept as a checkpoint.
//!
//! The checkpoint counts for the same topology, image and QEMU, and for this very program: another build may prepare
//! otherwise. Whatever is wrong with a checkpoint, the run goes on without it.

use mvm_machine::cache::{CacheError, ContentKey, Workspace};

use crate::{
    checkpoint::{self, CHECKPOINTS, CheckpointError, WallClock},
    event::Event,
    runner::Stage,
    scenario::{Failure, Outcome, Preparation, Run},
    topology::{MemoryPlan, Topology},
};

/// Returns a lab that was prepared: restored if it can be, else prepared now and, if that can be, kept for later.
pub(crate) async fn prepared(
    stage: &Stage<'_>,
    topology: &Topology,
    preparation: &Preparation,
) -> Outcome<Run> {
    let warn = |what: &str, error: &dyn std::error::Error| {
        stage.recorder.record(Event::Warning {
            text: format!("{what}: {error}"),
        });
    };
    let name = match name(stage, preparation) {
        Ok(name) => name,
        Err(error) => {
            warn("nothing prepared can be used", &error);
            return prepare(stage, topology, preparation).await;
        }
    };
    // Whoever comes second waits for what the first prepares.
    let _turn = turn(stage, topology, &name).await;
    match restored(stage, topology, &name).await {
        Ok(Some(run)) => return Ok(run),
        Ok(None) => {}
        Err(failure) => warn("what was prepared is of no use", &failure),
    }
    let own = Topology {
        memory: MemoryPlan::Own,
        ..topology.clone()
    };
    let run = prepare(stage, &own, preparation).await?;
    let kept = run.lab.checkpoint_and_end(&name).await;
    run.lab.end().await;
    drop(run);
    let failure = match kept {
        Ok(()) => match restored(stage, topology, &name).await {
            Ok(Some(run)) => return Ok(run),
            Ok(None) => None,
            Err(failure) => Some(failure),
        },
        Err(error) => Some(Failure::from(error)),
    };
    if let Some(failure) = failure {
        warn("what was prepared could not be kept", &failure);
    }
    prepare(stage, topology, preparation).await
}

async fn prepare(
    stage: &Stage<'_>,
    topology: &Topology,
    preparation: &Preparation,
) -> Outcome<Run> {
    let run = stage.build(topology).await?;
    (preparation.run)(&run).await?;
    Ok(run)
}

async fn restored(stage: &Stage<'_>, topology: &Topology, name: &str) -> Outcome<Option<Run>> {
    let run = stage.build(topology).await?;
    match run.lab.restore(name, WallClock::Now).await {
        Ok(()) => Ok(Some(run)),
        Err(CheckpointError::Unknown { .. }) => Ok(None),
        Err(error) => {
            run.lab.end().await;
            Err(error.into())
        }
    }
}

/// The checkpoint's name, with this program's own content in it.
fn name(stage: &Stage<'_>, preparation: &Preparation) -> Result<String, CacheError> {
    let cache = &stage.environment.cache;
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let key = cache.file_key(&program)?;
    Ok(format!("{} {}", preparation.name, key.short()))
}

async fn turn(stage: &Stage<'_>, topology: &Topology, name: &str) -> Option<Workspace> {
    let cache = stage.environment.cache.clone();
    let key = ContentKey::of("turn")
        .text(name)
        .key(&checkpoint::topology_key(topology))
        .finish();
    let turn = tokio::task::spawn_blocking(move || cache.workspace(CHECKPOINTS, &key)).await;
    // Without a turn two runs prepare at once, which is only slower.
    turn.ok()?.ok()
}
