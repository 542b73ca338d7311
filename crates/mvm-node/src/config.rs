//! What a node is told about itself and its cluster: from a file, the environment and flags.
//!
//! Each source fills a [`Settings`]; later ones win: file, then environment, then flags. The result is
//! checked as a whole and becomes a [`Config`], which holds no maybes.

mod file;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;

/// The file that is read from the current directory if none is named.
pub const DEFAULT_FILE: &str = "mvm-ci.toml";

/// What precedes a key's name, in capitals, to make an environment variable.
pub const ENV_PREFIX: &str = "MVM_CI_";

const HTTP_PORT: u16 = 3020;
const RAFT_PORT: u16 = 9000;
const STORE_PORT: u16 = 9001;

/// hiqlite asks for that many characters.
const SECRET_CHARS_MIN: usize = 16;

/// Heartbeat and election times are faster than hiqlite's own (500, 1500 and 3000 ms), which leave a
/// cluster without a leader for 5 s. They are not as fast as a local network would bear, since
/// emulated machines on a busy host stall for a few hundred milliseconds.
const HEARTBEAT_MS: u64 = 200;
const ELECTION_MIN_MS: u64 = 800;
const ELECTION_MAX_MS: u64 = 1_600;

/// How long a worker keeps a job without a sign of life.
const LEASE_MS: u64 = 15_000;

/// How long a backup is kept.
const BACKUP_KEEP_DAYS: u64 = 7;
const BACKUP_KEEP_DAYS_MAX: u64 = 3_650;

/// One node of the cluster, as every node's configuration lists it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number, from 1. Number 1 founds the cluster.
    pub id: u64,
    /// A name or address under which the others reach it.
    pub host: String,
    /// The port of its HTTP interface.
    #[serde(default = "http_port")]
    pub http_port: u16,
    /// The port for Raft messages.
    #[serde(default = "raft_port")]
    pub raft_port: u16,
    /// The port for joining the cluster.
    #[serde(default = "store_port")]
    pub store_port: u16,
}

const fn http_port() -> u16 {
    HTTP_PORT
}

const fn raft_port() -> u16 {
    RAFT_PORT
}

const fn store_port() -> u16 {
    STORE_PORT
}

impl Member {
    /// Host and HTTP port.
    pub fn http(&self) -> String {
        self.at(self.http_port)
    }

    /// Host and Raft port.
    pub fn raft(&self) -> String {
        self.at(self.raft_port)
    }

    /// Host and store port.
    pub fn store(&self) -> String {
        self.at(self.store_port)
    }

    fn at(&self, port: u16) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{}:{port}", self.host),
        }
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

/// Text that is no [`Member`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a member is written ID=HOST or ID=HOST:HTTP:RAFT:STORE")]
pub struct MemberSyntax;

/// Reads `ID=HOST` or `ID=HOST:HTTP:RAFT:STORE`.
impl FromStr for Member {
    type Err = MemberSyntax;

    fn from_str(text: &str) -> Result<Self, MemberSyntax> {
        let (id, rest) = text.trim().split_once('=').ok_or(MemberSyntax)?;
        let id = id.trim().parse().map_err(|_| MemberSyntax)?;
        let rest = rest.trim();
        let is_bare = rest.parse::<IpAddr>().is_ok() || !rest.contains(':');
        let (host, [http_port, raft_port, store_port]) = if is_bare {
            (rest, [HTTP_PORT, RAFT_PORT, STORE_PORT])
        } else {
            let mut parts = rest.rsplitn(4, ':');
            let mut port = || parts.next()?.parse::<u16>().ok();
            let ports = [port(), port(), port()];
            let [Some(store), Some(raft), Some(http)] = ports else {
                return Err(MemberSyntax);
            };
            (parts.next().ok_or(MemberSyntax)?, [http, raft, store])
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || (host.contains([':', '[', ']']) && !is_address) {
            return Err(MemberSyntax);
        }
        Ok(Self {
            id,
            host: host.into(),
            http_port,
            raft_port,
            store_port,
        })
    }
}

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
    pub secret_raft: Option<String>,
    /// Proves the same to their store and HTTP ports.
    pub secret_store: Option<String>,
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
}

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
    pub secret_raft: String,
    /// Proves the same to their store and HTTP ports.
    pub secret_store: String,
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not readable.
    #[error("could not read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not understood.
    #[error("{path}, line {line}, key {key:?}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key on that line; empty if there is none.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file has a key that means nothing.
    #[error("{path}, line {line}: unknown key {key:?}; {}", hint(suggestion.as_deref(), known))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// A known key that looks like it.
        suggestion: Option<String>,
        /// The keys that are known in this place.
        known: Vec<&'static str>,
    },
    /// A variable is not understood.
    #[error("environment variable {variable}: {problem}")]
    Environment {
        /// Which variable.
        variable: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Each setting is understood, and they do not fit together.
    #[error("setting {key:?}: {problem}")]
    Inconsistent {
        /// The setting to change.
        key: &'static str,
        /// What does not fit.
        problem: String,
    },
}

fn hint(suggestion: Option<&str>, known: &[&str]) -> String {
    match suggestion {
        Some(suggestion) => format!("did you mean {suggestion:?}?"),
        None => format!("known keys are {}", known.join(", ")),
    }
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
            secret_raft: variable(environment, "secret_raft", |text| Some(text.into()))?,
            secret_store: variable(environment, "secret_store", |text| Some(text.into()))?,
            heartbeat_ms: variable(environment, "heartbeat_ms", |text| text.parse().ok())?,
            election_min_ms: variable(environment, "election_min_ms", |text| text.parse().ok())?,
            election_max_ms: variable(environment, "election_max_ms", |text| text.parse().ok())?,
            lease_ms: variable(environment, "lease_ms", |text| text.parse().ok())?,
            backup_keep_days: variable(environment, "backup_keep_days", |text| text.parse().ok())?,
            slots: variable(environment, "slots", |text| text.parse().ok())?,
            labels: variable(environment, "labels", |text| {
                Some(text.split(',').map(str::to_owned).collect())
            })?,
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
        }
    }

    /// Fills in the defaults and checks that everything fits.
    fn complete(self, home: Option<&Path>) -> Result<Config, ConfigError> {
        let node_id = self.node_id.unwrap_or(1);
        let members = self.members.unwrap_or_else(|| vec![alone(node_id)]);
        check_members(node_id, &members)?;
        let single = members.len() == 1;
        let loopback = single || members.iter().all(Member::is_loopback);
        let own = members
            .iter()
            .find(|member| member.id == node_id)
            .unwrap_or(&members[0]);
        let own_listen = if loopback {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let config = Config {
            node_id,
            data_dir: self.data_dir.unwrap_or_else(|| default_data_dir(home)),
            listen: self
                .listen
                .unwrap_or_else(|| SocketAddr::new(own_listen.into(), own.http_port)),
            cluster_listen: self.cluster_listen.unwrap_or(own_listen.into()),
            secret_raft: secret("secret_raft", self.secret_raft, single)?,
            secret_store: secret("secret_store", self.secret_store, single)?,
            heartbeat: Duration::from_millis(self.heartbeat_ms.unwrap_or(HEARTBEAT_MS)),
            election_min: Duration::from_millis(self.election_min_ms.unwrap_or(ELECTION_MIN_MS)),
            election_max: Duration::from_millis(self.election_max_ms.unwrap_or(ELECTION_MAX_MS)),
            lease: Duration::from_millis(self.lease_ms.unwrap_or(LEASE_MS)),
            backup_keep: backup_keep(self.backup_keep_days)?,
            slots: self.slots.unwrap_or(0),
            labels: self.labels.unwrap_or_default(),
            members,
        };
        check_times(&config)?;
        Ok(config)
    }
}

/// The only member of a cluster that nobody configured.
fn alone(id: u64) -> Member {
    Member {
        id,
        host: Ipv4Addr::LOCALHOST.to_string(),
        http_port: HTTP_PORT,
        raft_port: RAFT_PORT,
        store_port: STORE_PORT,
    }
}

fn default_data_dir(home: Option<&Path>) -> PathBuf {
    home.map_or_else(
        || PathBuf::from("mvm-ci-data"),
        |home| home.join(".local/state/mvm-ci"),
    )
}

fn check_members(node_id: u64, members: &[Member]) -> Result<(), ConfigError> {
    let bad = |problem: String| {
        Err(ConfigError::Inconsistent {
            key: "members",
            problem,
        })
    };
    if !(1..=u64::from(u16::MAX)).contains(&node_id) {
        let problem = format!("{node_id} is not between 1 and {}", u16::MAX);
        return Err(ConfigError::Inconsistent {
            key: "node_id",
            problem,
        });
    }
    for (place, member) in members.iter().enumerate() {
        if !(1..=u64::from(u16::MAX)).contains(&member.id) {
            return bad(format!(
                "id {} is not between 1 and {}",
                member.id,
                u16::MAX
            ));
        }
        if members[..place].iter().any(|other| other.id == member.id) {
            return bad(format!("id {} is given twice", member.id));
        }
    }
    if !members.iter().any(|member| member.id == node_id) {
        return bad(format!("node_id is {node_id}, and no member has that id"));
    }
    if !members.iter().any(|member| member.id == 1) {
        return bad("no member has id 1, which founds the cluster".into());
    }
    Ok(())
}

fn backup_keep(days: Option<u64>) -> Result<Duration, ConfigError> {
    match days.unwrap_or(BACKUP_KEEP_DAYS) {
        days @ 1..=BACKUP_KEEP_DAYS_MAX => Ok(Duration::from_hours(24 * days)),
        days => Err(ConfigError::Inconsistent {
            key: "backup_keep_days",
            problem: format!("{days} is not between 1 and {BACKUP_KEEP_DAYS_MAX}"),
        }),
    }
}

fn check_times(config: &Config) -> Result<(), ConfigError> {
    let bad = |key, problem: String| Err(ConfigError::Inconsistent { key, problem });
    let (heartbeat, min, max) = (config.heartbeat, config.election_min, config.election_max);
    if heartbeat < Duration::from_millis(10) {
        return bad(
            "heartbeat_ms",
            format!("{} ms is below 10 ms", heartbeat.as_millis()),
        );
    }
    if min < heartbeat * 2 {
        let problem = format!(
            "{} ms is less than two heartbeats of {} ms",
            min.as_millis(),
            heartbeat.as_millis()
        );
        return bad("election_min_ms", problem);
    }
    if max <= min || max > Duration::from_secs(60) {
        let problem = format!(
            "{} ms is not between election_min_ms ({}) and 60000",
            max.as_millis(),
            min.as_millis()
        );
        return bad("election_max_ms", problem);
    }
    let lease = config.lease;
    if lease <= max || lease > Duration::from_secs(3600) {
        let problem = format!(
            "{} ms is not between election_max_ms ({}) and 3600000",
            lease.as_millis(),
            max.as_millis()
        );
        return bad("lease_ms", problem);
    }
    check_worker(config)
}

/// A worker that offers what no job may ask for would be refused with each claim.
fn check_worker(config: &Config) -> Result<(), ConfigError> {
    let labels = config.labels.iter().cloned().collect();
    let offer = mvm_queue::validate_offer("node", 1, &labels, &BTreeSet::new());
    offer.map_err(|invalid| ConfigError::Inconsistent {
        key: "labels",
        problem: invalid.to_string(),
    })
}

/// A given secret, or for a single node, which talks to itself only, one that nobody else learns.
fn secret(key: &'static str, given: Option<String>, single: bool) -> Result<String, ConfigError> {
    let problem = match given {
        Some(secret) if secret.len() < SECRET_CHARS_MIN => {
            format!(
                "has {} characters; at least {SECRET_CHARS_MIN} are needed",
                secret.len()
            )
        }
        // It travels in an HTTP header.
        Some(secret) if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "has characters other than printable ASCII without spaces".into()
        }
        Some(secret) => return Ok(secret),
        None if single => return Ok(crate::id::random_secret()),
        None => "is missing; nodes of a cluster prove by it that they belong together".into(),
    };
    Err(ConfigError::Inconsistent { key, problem })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn load(file: &str, pairs: &[(&str, &str)], flags: Settings) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mvm-ci.toml");
        std::fs::write(&path, file).unwrap();
        let sources = Sources {
            file: Some(path.clone()),
            environment: environment(pairs),
            flags,
        };
        let shown = |error: ConfigError| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        };
        Config::load(sources).map_err(shown)
    }

    #[track_caller]
    fn check_error(file: &str, expected: &str) {
        assert_eq!(load(file, &[], Settings::default()).unwrap_err(), expected);
    }

    const THREE: &str = r#"
secret_raft = "0123456789abcdef"
secret_store = "fedcba9876543210"
[[members]]
id = 1
host = "node1"
[[members]]
id = 2
host = "192.168.1.2"
http_port = 4020
[[members]]
id = 3
host = "2001:db8::3"
"#;

    #[test]
    fn without_configuration_a_node_is_alone_on_loopback() {
        let config = load("", &[("HOME", "/home/ann")], Settings::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3020");
        assert_eq!(config.cluster_listen.to_string(), "127.0.0.1");
        assert_eq!(config.data_dir, Path::new("/home/ann/.local/state/mvm-ci"));
        assert_eq!(config.members, [alone(1)]);
        assert_ne!(config.secret_raft, config.secret_store);
    }

    #[test]
    fn a_cluster_listens_where_the_others_reach_it() {
        let config = load(THREE, &[("MVM_CI_NODE_ID", "2")], Settings::default()).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:4020");
        assert_eq!(config.this_member().raft(), "192.168.1.2:9000");
        assert_eq!(config.members[2].store(), "[2001:db8::3]:9001");
    }

    #[test]
    fn flags_beat_environment_beats_file() {
        let file = "node_id = 1\nheartbeat_ms = 100\ndata_dir = \"/f\"";
        let variables = [("MVM_CI_HEARTBEAT_MS", "110"), ("MVM_CI_DATA_DIR", "/e")];
        let flags = Settings {
            data_dir: Some("/flag".into()),
            ..Settings::default()
        };
        let config = load(file, &variables, flags).unwrap();
        assert_eq!(config.heartbeat, Duration::from_millis(110));
        assert_eq!(config.data_dir, Path::new("/flag"));
    }

    #[test]
    fn a_member_is_read_or_refused_as_a_whole() {
        let http = |text: &str| text.parse::<Member>().map(|member| member.http());
        for (text, expected) in [
            ("1=node1", "node1:3020"),
            ("1=node1:1:2:3", "node1:1"),
            ("1=::1", "[::1]:3020"),
            ("1=2001:db8:0:1:2:3:4:5", "[2001:db8:0:1:2:3:4:5]:3020"),
            ("1=[2001:db8::3]:1:2:3", "[2001:db8::3]:1"),
        ] {
            assert_eq!(http(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "1=",
            "x=node1",
            "1=node1:1",
            "1=node1:1:2:99999",
            "1=a:b:1:2:3",
            "1=:1:2:3",
        ] {
            assert_eq!(http(text), Err(MemberSyntax), "{text}");
        }
    }

    #[test]
    fn members_are_read_from_one_variable() {
        let variables = [
            ("MVM_CI_MEMBERS", "1=node1, 2=127.0.0.1:1:2:3"),
            ("MVM_CI_SECRET_RAFT", "0123456789abcdef"),
            ("MVM_CI_SECRET_STORE", "0123456789abcdef"),
        ];
        let config = load("", &variables, Settings::default()).unwrap();
        let found: Vec<_> = config
            .members
            .iter()
            .map(|member| (member.http(), member.store()))
            .collect();
        let expected = [("node1:3020", "node1:9001"), ("127.0.0.1:1", "127.0.0.1:3")];
        assert_eq!(
            found,
            expected.map(|(http, store)| (http.into(), store.into()))
        );
    }

    #[test]
    fn a_malformed_file_names_line_and_key() {
        check_error(
            "node_id = 1\ndata_dri = \"/x\"\n",
            r#"FILE, line 2: unknown key "data_dri"; did you mean "data_dir"?"#,
        );
        check_error(
            "[[members]]\nid = 1\nhots = \"a\"\n",
            r#"FILE, line 3: unknown key "hots"; did you mean "host"?"#,
        );
        check_error(
            "\nzzz = 1\n[members]\n",
            r#"FILE, line 2: unknown key "zzz"; known keys are node_id, data_dir, listen, cluster_listen, members, secret_raft, secret_store, heartbeat_ms, election_min_ms, election_max_ms, lease_ms, backup_keep_days, slots, labels"#,
        );
        check_error(
            "node_id = \"one\"\n",
            r#"FILE, line 1, key "node_id": invalid type: string "one", expected u64"#,
        );
        check_error(
            "node_id = 1\nlisten = \"localhost\"\n",
            r#"FILE, line 2, key "listen": invalid socket address syntax"#,
        );
        check_error(
            "[[members]]\nid = 1\nhost = \"a\"\n\nhttp_port = 70000\n",
            r#"FILE, line 5, key "http_port": invalid value: integer `70000`, expected u16"#,
        );
        check_error(
            "[[members]]\nid = 1\n",
            r#"FILE, line 1, key "members": missing field `host`"#,
        );
        check_error(
            "node_id = 1\nnode_id = 2\n",
            r#"FILE, line 2, key "node_id": duplicate key"#,
        );
        check_error(
            "node_id\n",
            r#"FILE, line 1, key "node_id": key with no value, expected `=`"#,
        );
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        check_error(
            "node_id = 0",
            r#"setting "node_id": 0 is not between 1 and 65535"#,
        );
        check_error(
            "node_id = 2",
            r#"setting "members": no member has id 1, which founds the cluster"#,
        );
        check_error(
            "[[members]]\nid=1\nhost=\"a\"\n[[members]]\nid=1\nhost=\"b\"",
            r#"setting "members": id 1 is given twice"#,
        );
        check_error(
            "[[members]]\nid=1\nhost=\"a\"\n[[members]]\nid=2\nhost=\"b\"",
            r#"setting "secret_raft": is missing; nodes of a cluster prove by it that they belong together"#,
        );
        check_error(
            "secret_raft = \"short\"",
            r#"setting "secret_raft": has 5 characters; at least 16 are needed"#,
        );
        check_error(
            "heartbeat_ms = 500",
            r#"setting "election_min_ms": 800 ms is less than two heartbeats of 500 ms"#,
        );
        let error = load("", &[("MVM_CI_LISTEN", "3020")], Settings::default()).unwrap_err();
        assert_eq!(
            error,
            r#"environment variable MVM_CI_LISTEN: "3020" is not a value for listen"#
        );
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources {
            file: Some("/nonexistent/x.toml".into()),
            ..Sources::default()
        };
        let error = Config::load(sources).unwrap_err().to_string();
        assert!(
            error.starts_with("could not read /nonexistent/x.toml"),
            "{error}"
        );
    }
}
