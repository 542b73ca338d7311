//! What one source of configuration says, and how sources are laid over each other.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

use super::{AuthMode, ConfigError, Member, Secret};

/// What precedes a key's name, in capitals, to make an environment variable.
pub const ENV_PREFIX: &str = "MVM_CI_";

/// What one source says; nothing for what it leaves open. Flags are handed in as one of these.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// This node's number.
    pub node_id: Option<u64>,
    /// Where it keeps its data.
    pub data_dir: Option<PathBuf>,
    /// Address and port of the HTTP interface.
    pub listen: Option<SocketAddr>,
    /// Address of the Raft and store ports.
    pub cluster_listen: Option<IpAddr>,
    /// All nodes, this one included.
    pub members: Option<Vec<Member>>,
    /// Proves to other nodes' Raft ports that we belong.
    pub secret_raft: Option<Secret>,
    /// Proves the same to their store and HTTP ports.
    pub secret_store: Option<Secret>,
    /// How often the leader is heard.
    pub heartbeat_ms: Option<u64>,
    /// The shortest silence after which a follower stands for election.
    pub election_min_ms: Option<u64>,
    /// The longest one.
    pub election_max_ms: Option<u64>,
    /// How long a worker keeps a job without renewing its lease.
    pub lease_ms: Option<u64>,
    /// After so many days a new backup removes an old one.
    pub backup_keep_days: Option<u64>,
    /// How many jobs this node runs at once.
    pub slots: Option<u32>,
    /// What its worker offers to jobs that ask for it.
    pub labels: Option<Vec<String>>,
    /// Address and port of the interface for workflows.
    pub flow_listen: Option<SocketAddr>,
    /// How many workflows this node runs at once.
    pub flow_slots: Option<u32>,
    /// The file of secrets that workflows of this node may ask for.
    pub flow_secrets: Option<PathBuf>,
    /// The file that says what workflows may have by their module.
    pub flow_limits: Option<PathBuf>,
    /// How long a node that stops lets its jobs go on before it gives them back.
    pub stop_grace_ms: Option<u64>,
    /// How many finished jobs the cluster keeps.
    pub retain_jobs: Option<u64>,
    /// For how many days it keeps them.
    pub retain_days: Option<u32>,
    /// Whether clients need tokens.
    pub auth: Option<AuthMode>,
    /// The file of tokens.
    pub tokens: Option<PathBuf>,
    /// The certificate of the HTTP interface, as PEM, with those that lead to an authority.
    pub tls_cert: Option<PathBuf>,
    /// Its key, as PEM.
    pub tls_key: Option<PathBuf>,
    /// The authorities by which this node knows others, as PEM.
    pub tls_ca: Option<PathBuf>,
    /// Whether hiqlite encrypts what it sends between nodes.
    pub cluster_tls: Option<bool>,
    /// Requests per second that an address other than loopback may send; 0 for no limit.
    pub rate_limit_per_s: Option<u32>,
    /// HTTP connections at once.
    pub connections_max: Option<u32>,
}

impl Settings {
    /// Reads the variables named after the keys: `node_id` is `MVM_CI_NODE_ID`. Members are written
    /// `1=node1,2=node2`, or with ports `1=host:HTTP:RAFT:STORE`.
    pub fn from_environment(environment: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        Ok(Self {
            node_id: variable(environment, "node_id", |text| text.parse().ok())?,
            data_dir: variable(environment, "data_dir", |text| Some(text.into()))?,
            listen: variable(environment, "listen", |text| text.parse().ok())?,
            cluster_listen: variable(environment, "cluster_listen", |text| text.parse().ok())?,
            members: variable(environment, "members", |text| {
                text.split(',').map(|member| member.parse().ok()).collect()
            })?,
            secret_raft: variable(environment, "secret_raft", secret)?,
            secret_store: variable(environment, "secret_store", secret)?,
            heartbeat_ms: variable(environment, "heartbeat_ms", |text| text.parse().ok())?,
            election_min_ms: variable(environment, "election_min_ms", |text| text.parse().ok())?,
            election_max_ms: variable(environment, "election_max_ms", |text| text.parse().ok())?,
            lease_ms: variable(environment, "lease_ms", |text| text.parse().ok())?,
            backup_keep_days: variable(environment, "backup_keep_days", |text| text.parse().ok())?,
            slots: variable(environment, "slots", |text| text.parse().ok())?,
            labels: variable(environment, "labels", |text| {
                Some(text.split(',').map(str::to_owned).collect())
            })?,
            flow_listen: variable(environment, "flow_listen", |text| text.parse().ok())?,
            flow_slots: variable(environment, "flow_slots", |text| text.parse().ok())?,
            flow_secrets: variable(environment, "flow_secrets", |text| Some(text.into()))?,
            flow_limits: variable(environment, "flow_limits", |text| Some(text.into()))?,
            stop_grace_ms: variable(environment, "stop_grace_ms", |text| text.parse().ok())?,
            retain_jobs: variable(environment, "retain_jobs", |text| text.parse().ok())?,
            retain_days: variable(environment, "retain_days", |text| text.parse().ok())?,
            auth: variable(environment, "auth", |text| text.parse().ok())?,
            tokens: variable(environment, "tokens", |text| Some(text.into()))?,
            tls_cert: variable(environment, "tls_cert", |text| Some(text.into()))?,
            tls_key: variable(environment, "tls_key", |text| Some(text.into()))?,
            tls_ca: variable(environment, "tls_ca", |text| Some(text.into()))?,
            cluster_tls: variable(environment, "cluster_tls", |text| text.parse().ok())?,
            rate_limit_per_s: variable(environment, "rate_limit_per_s", |text| text.parse().ok())?,
            connections_max: variable(environment, "connections_max", |text| text.parse().ok())?,
        })
    }

    /// Takes from `stronger` what that says, and the rest from here.
    pub fn overridden_by(self, stronger: Self) -> Self {
        Self {
            node_id: stronger.node_id.or(self.node_id),
            data_dir: stronger.data_dir.or(self.data_dir),
            listen: stronger.listen.or(self.listen),
            cluster_listen: stronger.cluster_listen.or(self.cluster_listen),
            members: stronger.members.or(self.members),
            secret_raft: stronger.secret_raft.or(self.secret_raft),
            secret_store: stronger.secret_store.or(self.secret_store),
            heartbeat_ms: stronger.heartbeat_ms.or(self.heartbeat_ms),
            election_min_ms: stronger.election_min_ms.or(self.election_min_ms),
            election_max_ms: stronger.election_max_ms.or(self.election_max_ms),
            lease_ms: stronger.lease_ms.or(self.lease_ms),
            backup_keep_days: stronger.backup_keep_days.or(self.backup_keep_days),
            slots: stronger.slots.or(self.slots),
            labels: stronger.labels.or(self.labels),
            flow_listen: stronger.flow_listen.or(self.flow_listen),
            flow_slots: stronger.flow_slots.or(self.flow_slots),
            flow_secrets: stronger.flow_secrets.or(self.flow_secrets),
            flow_limits: stronger.flow_limits.or(self.flow_limits),
            stop_grace_ms: stronger.stop_grace_ms.or(self.stop_grace_ms),
            retain_jobs: stronger.retain_jobs.or(self.retain_jobs),
            retain_days: stronger.retain_days.or(self.retain_days),
            auth: stronger.auth.or(self.auth),
            tokens: stronger.tokens.or(self.tokens),
            tls_cert: stronger.tls_cert.or(self.tls_cert),
            tls_key: stronger.tls_key.or(self.tls_key),
            tls_ca: stronger.tls_ca.or(self.tls_ca),
            cluster_tls: stronger.cluster_tls.or(self.cluster_tls),
            rate_limit_per_s: stronger.rate_limit_per_s.or(self.rate_limit_per_s),
            connections_max: stronger.connections_max.or(self.connections_max),
        }
    }
}

/// Any text is one.
#[expect(
    clippy::unnecessary_wraps,
    reason = "variables are read by functions that may refuse"
)]
fn secret(text: &str) -> Option<Secret> {
    Some(text.to_owned().into())
}

fn variable<T>(
    environment: &[(OsString, OsString)],
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    let variable = format!("{ENV_PREFIX}{}", key.to_uppercase());
    let Some((_, value)) = environment
        .iter()
        .find(|(name, _)| name == variable.as_str())
    else {
        return Ok(None);
    };
    match value.to_str().and_then(|text| parse(text.trim())) {
        Some(value) => Ok(Some(value)),
        None => {
            // A secret never gets here: any text is one.
            let problem = format!("{value:?} is not a value for {key}");
            Err(ConfigError::Environment { variable, problem })
        }
    }
}
