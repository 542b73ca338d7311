//! Test scripts in Python, with the names and meaning of the NixOS test driver's: a real `python3` runs the script,
//! and asks this engine for all that concerns machines.
//!
//! ```text
//!  script.py ── python/ (our client module) ══ socket pair, JSON lines ══ Session ── Lab
//!                  │ stdout, stderr                                          │
//!                  └──────────────── lines of the test's log ────────────────┘
//! ```
//!
//! What can be asked is in `wire`; each area of it has a file: `machine`, `commands`, `waits`, `files`, `network`. What a
//! script's own firewalls leave open is watched by `firewall`, and what it shapes in vain by `shaping`; both read commands by
//! `shell`.
//! How scripts are written is told by `docs/scripts.md`.

mod commands;
mod driver;
mod files;
mod firewall;
mod machine;
mod network;
mod python;
mod session;
mod shaping;
mod shell;
mod waits;
mod wire;

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use self::python::PythonError;
use self::python::Task;
use crate::{
    node::lock,
    scenario::{Scenario, ScenarioFuture},
    topology::{FileError, Topology},
};

/// The topology's file in a folder.
pub const TOPOLOGY_FILE: &str = "topology.toml";
/// The script's file in a folder.
pub const SCRIPT_FILE: &str = "test.py";

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] FileError),
    /// There is no script beside the topology.
    #[error(
        "could not find the script {path:?}: a folder with a test has {TOPOLOGY_FILE} and {SCRIPT_FILE}, and beside \
         NAME.toml there is NAME.py"
    )]
    NoScript {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Python is not there or says that the script is none.
    #[error(transparent)]
    Python(#[from] PythonError),
}

/// A topology and the script that is run on it.
#[derive(Clone, Debug)]
pub struct ScriptTest {
    /// What it is called: its folder's name, or its file's.
    pub name: String,
    /// The machines.
    pub topology: Topology,
    /// The script.
    pub script: PathBuf,
}

impl ScriptTest {
    /// Reads a test from a folder that has [`TOPOLOGY_FILE`] and [`SCRIPT_FILE`], or from `NAME.toml` with `NAME.py`
    /// beside it; checks the script's syntax.
    ///
    /// # Errors
    ///
    /// If the topology or the script is not there or is wrong, with its line.
    pub fn load(path: &Path) -> Result<ScriptTest, ScriptError> {
        let (name, topology, script) = read(path)?;
        if !script.is_file() {
            return Err(ScriptError::NoScript { path: script });
        }
        python::check(&script)?;
        Ok(ScriptTest {
            name,
            topology,
            script,
        })
    }

    /// Returns it as a scenario, to be run as all others are.
    pub fn scenario(self) -> Scenario {
        let allowed = self.topology.script.timeout;
        Scenario {
            name: self.name.into(),
            about: format!("the script {}", self.script.display()).into(),
            topology: self.topology,
            prepare: None,
            run: Box::new(move |run| -> ScenarioFuture<'_> {
                let task = Task::Script(self.script.clone());
                Box::pin(python::run(run, task, Some(allowed)))
            }),
        }
    }
}

/// A topology to be driven by hand, at a prompt of Python's with a script's names.
pub struct Prompt {
    /// What it is called, as a test would be.
    pub name: String,
    /// The machines.
    pub topology: Topology,
    /// The script that may be run there, if there is one.
    pub script: Option<PathBuf>,
}

impl Prompt {
    /// Reads a topology as [`ScriptTest::load`] does; there need not be a script.
    ///
    /// # Errors
    ///
    /// If the topology is not there or is wrong, with its line; or if there is no Python.
    pub fn load(path: &Path) -> Result<Prompt, ScriptError> {
        let (name, topology, script) = read(path)?;
        python::look_for()?;
        Ok(Prompt {
            name,
            topology,
            script: script.is_file().then_some(script),
        })
    }

    /// Returns it as a scenario. What comes from `lines` is shown above the line that is being typed.
    pub fn scenario(self, lines: UnboundedReceiver<String>) -> Scenario {
        let lines = Mutex::new(Some(lines));
        Scenario {
            name: self.name.into(),
            about: "a prompt".into(),
            topology: self.topology,
            prepare: None,
            run: Box::new(move |run| -> ScenarioFuture<'_> {
                let (_, closed) = unbounded_channel();
                let task = Task::Prompt {
                    script: self.script.clone(),
                    lines: lock(&lines).take().unwrap_or(closed),
                };
                Box::pin(python::run(run, task, None))
            }),
        }
    }
}

/// The topology's file that a path names: itself, or that of a folder.
pub fn topology_file(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join(TOPOLOGY_FILE),
        false => path.with_extension("toml"),
    }
}

/// Reads the topology of a test; returns it with the test's name and where its script would be.
fn read(path: &Path) -> Result<(String, Topology, PathBuf), FileError> {
    let file = topology_file(path);
    let script = match path.is_dir() {
        true => path.join(SCRIPT_FILE),
        false => path.with_extension("py"),
    };
    let topology = Topology::read(&file)?;
    let script = match &topology.script.path {
        Some(told) => file.with_file_name("").join(told),
        None => script,
    };
    let script = std::path::absolute(&script).unwrap_or(script);
    Ok((name_of(path), topology, script))
}

fn name_of(path: &Path) -> String {
    let absolute = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => character,
        _ => '_',
    };
    name.chars().map(plain).collect()
}
