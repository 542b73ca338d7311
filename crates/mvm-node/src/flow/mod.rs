//! Workflows of a node: its engine, with the journal in the replicated store.
//!
//! ```text
//!   27288 ──▶ access ──▶ mvm_flow::api ──▶ Engine ──▶ FlowJournal ──▶ Store
//!                                            └── runs what it claims     └── a workflow is a job of kind `flow`
//! ```
//!
//! An execution is a job: who holds the job's lease writes its journal, by the fencing token that the lease has. So when a
//! node dies its workflows go on elsewhere, as its jobs do, and what it still writes is refused. Each node has its own cache of compiled
//! modules and its own secrets.

mod access;
mod free;
mod journal;
mod leases;
mod payload;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mvm_flow::{
    Engine, Settings,
    engine::SetupError,
    limits::{BadLimits, Limits, ModuleLimits},
    secrets::{BadSecrets, Secrets},
};

pub(crate) use self::{
    access::guarded,
    journal::FlowJournal,
    payload::{Payload, pin},
};
use crate::{store::Store, worker::Control};

/// What the engine of a node is told.
#[derive(Clone, Debug)]
pub(crate) struct FlowConfig {
    /// The node.
    pub(crate) node: u64,
    /// How many workflows run at once.
    pub(crate) slots: u32,
    /// What it offers.
    pub(crate) labels: std::collections::BTreeSet<String>,
    /// How long the cluster believes in it without a sign of life.
    pub(crate) lease: Duration,
    /// Where compiled modules are.
    pub(crate) cache: PathBuf,
    /// The file of secrets.
    pub(crate) secrets: Option<PathBuf>,
    /// What workflows may have.
    pub(crate) limits: Limits,
    /// How long workflows may take to come to their next command when the node stops.
    pub(crate) stop_grace: Duration,
}

/// The engine cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Modules cannot be run here.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The file of secrets.
    #[error(transparent)]
    Secrets(#[from] BadSecrets),
    /// The file of limits.
    #[error(transparent)]
    Limits(#[from] BadLimits),
}

/// Reads the file of limits, if there is one.
pub(crate) fn limits(file: Option<&Path>) -> Result<Limits, FlowError> {
    match file {
        Some(file) => Ok(Limits::read(file, ModuleLimits::default())?),
        None => Ok(Limits::default()),
    }
}

/// Sets the engine of a node up.
pub(crate) fn engine<S: Store>(
    store: Arc<S>,
    config: FlowConfig,
    control: Arc<Control>,
) -> Result<Engine<FlowJournal<S>>, FlowError> {
    let secrets = match &config.secrets {
        Some(path) => Secrets::read(path)?,
        None => Secrets::default(),
    };
    let journal = FlowJournal::new(store, &config, control);
    let settings = Settings {
        name: format!("node{}", config.node),
        slots: config.slots as usize,
        stop_grace: config.stop_grace,
        cache: Some(config.cache),
        secrets,
        limits: config.limits,
        ..Settings::default()
    };
    Ok(Engine::new(Arc::new(journal), settings)?)
}
