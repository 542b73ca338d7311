//! What a node is told about itself and its cluster: from a file, the environment and flags.
//!
//! Each source fills a [`Settings`]; later ones win: file, then environment, then flags. The result is
//! checked as a whole and becomes a [`Config`], which holds no maybes.

mod access;
mod check;
mod complete;
mod error;
mod file;
mod member;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    access::{AccessConfig, Auth, AuthMode, TlsFiles},
    error::ConfigError,
    member::{Member, MemberSyntax},
    secret::Secret,
    settings::{ENV_PREFIX, Settings},
};

/// The file that is read from the current directory if none is named.
pub const DEFAULT_FILE: &str = "mvm-ci.toml";

/// The configuration of a node, complete and consistent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// This node's number.
    pub node_id: u64,
    /// Where it keeps its data. Created if missing.
    pub data_dir: PathBuf,
    /// Address and port of the HTTP interface.
    pub listen: SocketAddr,
    /// Address of the Raft and store ports.
    pub cluster_listen: IpAddr,
    /// All nodes, this one included; never empty.
    pub members: Vec<Member>,
    /// Proves to other nodes' Raft ports that we belong.
    pub secret_raft: Secret,
    /// Proves the same to their store and HTTP ports.
    pub secret_store: Secret,
    /// How often the leader is heard.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// The longest one.
    pub election_max: Duration,
    /// How long a worker keeps a job without renewing its lease.
    pub lease: Duration,
    /// A new backup removes those that are older.
    pub backup_keep: Duration,
    /// How many jobs this node runs at once; with none it runs no worker.
    pub slots: u32,
    /// What its worker offers to jobs that ask for it.
    pub labels: Vec<String>,
    /// Address and port of the interface for workflows, if there is one.
    pub flow_listen: Option<SocketAddr>,
    /// How many workflows this node runs at once; with none it runs no engine.
    pub flow_slots: u32,
    /// The file of secrets that workflows of this node may ask for.
    pub flow_secrets: Option<PathBuf>,
    /// What workflows may have by their module; see [`mvm_flow::limits`].
    pub flow_limits: Option<PathBuf>,
    /// How long a node that stops lets its jobs go on before it gives them back.
    pub stop_grace: Duration,
    /// How many finished jobs the cluster keeps.
    pub retain_jobs: u64,
    /// For how long it keeps them; for ever if nothing.
    pub retain_for: Option<Duration>,
    /// Who may come in by HTTP, and how.
    pub access: AccessConfig,
    /// Whether hiqlite encrypts what it sends between nodes.
    pub cluster_tls: bool,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must exist. Without one, [`DEFAULT_FILE`] is read if it exists.
    pub file: Option<PathBuf>,
    /// The environment, of which the variables in question are picked.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line says.
    pub flags: Settings,
}

impl Config {
    /// Reads all sources and checks the result.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let from_file = match &sources.file {
            Some(path) => file::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => file::read(Path::new(DEFAULT_FILE))?,
            None => Settings::default(),
        };
        let from_environment = Settings::from_environment(&sources.environment)?;
        let home = sources
            .environment
            .iter()
            .find(|(name, _)| name == "HOME")
            .map(|(_, value)| value);
        let settings = from_file
            .overridden_by(from_environment)
            .overridden_by(sources.flags);
        settings.complete(home.map(Path::new))
    }

    /// This node among the members.
    pub fn this_member(&self) -> &Member {
        // `complete` has checked that there is one.
        self.members
            .iter()
            .find(|member| member.id == self.node_id)
            .unwrap_or(&self.members[0])
    }
}
