//! The defaults for what no source says.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, ConfigError, Member, Settings, access, check, member::alone};

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

/// How many finished jobs the cluster keeps.
const RETAIN_JOBS: u64 = 100_000;

/// The port of flawless servers. Taken where the HTTP interface has its own usual port: several nodes on one host would
/// all want it.
const FLOW_PORT: u16 = 27_288;
const HTTP_PORT: u16 = 3_020;

/// How many workflows a node runs at once. Those that wait for long do not count.
const FLOW_SLOTS: u32 = 64;

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Settings {
    /// Fills in the defaults and checks that everything fits.
    pub(super) fn complete(self, home: Option<&Path>) -> Result<Config, ConfigError> {
        let node_id = self.node_id.unwrap_or(1);
        let members = self.members.unwrap_or_else(|| vec![alone(node_id)]);
        check::members(node_id, &members)?;
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
        let listen = self
            .listen
            .unwrap_or_else(|| SocketAddr::new(own_listen.into(), own.http_port));
        let flow_listen = self.flow_listen.or_else(|| {
            (listen.port() == HTTP_PORT).then(|| SocketAddr::new(listen.ip(), FLOW_PORT))
        });
        // Who may come in must be said if others can reach either.
        let reached = flow_listen.filter(|_| listen.ip().is_loopback());
        let access = access::complete(
            reached.unwrap_or(listen),
            single,
            access::Given {
                auth: self.auth,
                tokens: self.tokens,
                tls_cert: self.tls_cert,
                tls_key: self.tls_key,
                tls_ca: self.tls_ca,
                rate_limit_per_s: self.rate_limit_per_s,
                connections_max: self.connections_max,
            },
        )?;
        let config = Config {
            node_id,
            data_dir: self.data_dir.unwrap_or_else(|| default_data_dir(home)),
            listen,
            cluster_listen: self.cluster_listen.unwrap_or(own_listen.into()),
            secret_raft: check::secret("secret_raft", self.secret_raft, single)?,
            secret_store: check::secret("secret_store", self.secret_store, single)?,
            heartbeat: Duration::from_millis(self.heartbeat_ms.unwrap_or(HEARTBEAT_MS)),
            election_min: Duration::from_millis(self.election_min_ms.unwrap_or(ELECTION_MIN_MS)),
            election_max: Duration::from_millis(self.election_max_ms.unwrap_or(ELECTION_MAX_MS)),
            lease: Duration::from_millis(self.lease_ms.unwrap_or(LEASE_MS)),
            backup_keep: check::backup_keep(self.backup_keep_days.unwrap_or(BACKUP_KEEP_DAYS))?,
            slots: self.slots.unwrap_or(0),
            labels: self.labels.unwrap_or_default(),
            flow_listen,
            flow_slots: self.flow_slots.unwrap_or(FLOW_SLOTS),
            flow_secrets: self.flow_secrets,
            flow_limits: self.flow_limits,
            stop_grace: Duration::from_millis(self.stop_grace_ms.unwrap_or(0)),
            retain_jobs: self.retain_jobs.unwrap_or(RETAIN_JOBS),
            retain_for: self.retain_days.map(|days| DAY * days),
            cluster_tls: self.cluster_tls.unwrap_or(access.tls.is_some()),
            access,
            members,
        };
        check::times(&config)?;
        Ok(config)
    }
}

fn default_data_dir(home: Option<&Path>) -> PathBuf {
    home.map_or_else(
        || PathBuf::from("mvm-ci-data"),
        |home| home.join(".local/state/mvm-ci"),
    )
}
