//! The peer: one PostgreSQL, and the usual SQL for a queue in it.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::{process::Child, task::JoinSet};
use tokio_postgres::{NoTls, Statement};

use crate::{
    load::{Client, Steps},
    node_client::payload,
    processes::{folder, stop},
};

const USER: &str = "bench";
/// `nobody` and its group. PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_PERIOD: Duration = Duration::from_millis(50);

const TABLES: &str = "
    CREATE TABLE jobs (
        seq bigserial PRIMARY KEY,
        kind text NOT NULL,
        payload jsonb NOT NULL,
        priority integer NOT NULL DEFAULT 0,
        state text NOT NULL DEFAULT 'pending',
        claimed_by text,
        token bigint NOT NULL DEFAULT 0,
        result jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX jobs_ready ON jobs (kind, priority DESC, seq) WHERE state = 'pending'";
const SUBMIT: &str =
    "INSERT INTO jobs (kind, payload) VALUES ('bench', $1::text::jsonb) RETURNING seq";
const CLAIM: &str = "
    UPDATE jobs SET state = 'in_progress', claimed_by = $1, token = token + 1, updated_at = now()
    WHERE seq = (SELECT seq FROM jobs WHERE state = 'pending' AND kind = 'bench'
        ORDER BY priority DESC, seq LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING seq, token, payload::text";
const FINISH: &str = "
    UPDATE jobs SET state = 'completed', result = $3::text::jsonb, updated_at = now()
    WHERE seq = $1 AND token = $2 AND state = 'in_progress'";

/// A server with its own temporary data. It is killed when this is dropped.
pub(crate) struct Postgres {
    process: Child,
    folder: TempDir,
    connections: JoinSet<()>,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let folder = folder("postgres");
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = program("initdb", folder.path());
        initdb
            .args([
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .args(["-U", USER, "-D"])
            .arg(&data);
        let made = initdb.output().unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut server = program("postgres", folder.path());
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        for setting in [
            "listen_addresses=",
            "fsync=on",
            "synchronous_commit=on",
            "log_min_messages=fatal",
        ] {
            server.args(["-c", setting]);
        }
        let process = tokio::process::Command::from(server)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut postgres = Self {
            process,
            folder,
            connections: JoinSet::new(),
        };
        postgres
            .wait_until_ready()
            .await
            .batch_execute(TABLES)
            .await
            .unwrap();
        postgres
    }

    async fn wait_until_ready(&mut self) -> tokio_postgres::Client {
        let start = Instant::now();
        loop {
            match self.try_connect().await {
                Ok(client) => return client,
                Err(error) => assert!(start.elapsed() < START_TIMEOUT, "PostgreSQL: {error}"),
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }

    async fn try_connect(&mut self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.folder.path())
            .user(USER)
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        self.connections.spawn(async move {
            // Ends with its client.
            let _ = connection.await;
        });
        Ok(client)
    }

    pub(crate) async fn version(&mut self) -> String {
        let client = self.try_connect().await.unwrap();
        let row = client.query_one("SHOW server_version", &[]).await.unwrap();
        row.get(0)
    }

    /// A connection that works as one worker.
    pub(crate) async fn connect(&mut self) -> PostgresClient {
        let client = self.try_connect().await.unwrap();
        PostgresClient {
            submit: client.prepare(SUBMIT).await.unwrap(),
            claim: client.prepare(CLAIM).await.unwrap(),
            finish: client.prepare(FINISH).await.unwrap(),
            client,
        }
    }

    pub(crate) async fn stop(mut self) {
        // "Fast": it does not wait for clients.
        stop(&mut self.process, Signal::INT).await;
    }
}

pub(crate) struct PostgresClient {
    client: tokio_postgres::Client,
    submit: Statement,
    claim: Statement,
    finish: Statement,
}

impl Client for PostgresClient {
    async fn live(&mut self, steps: &mut Steps) {
        let payload = payload().to_string();
        steps
            .time("submit", self.client.query_one(&self.submit, &[&payload]))
            .await
            .unwrap();
        let claim = async {
            // The only free row may have been taken, or not yet been seen.
            loop {
                let row = self
                    .client
                    .query_opt(&self.claim, &[&"worker"])
                    .await
                    .unwrap();
                if let Some(row) = row {
                    return row;
                }
            }
        };
        let row = steps.time("claim", claim).await;
        let (job, token): (i64, i64) = (row.get(0), row.get(1));
        let result = json!({ "passed": 17 }).to_string();
        let finished = steps
            .time(
                "finish",
                self.client.execute(&self.finish, &[&job, &token, &result]),
            )
            .await
            .unwrap();
        assert_eq!(finished, 1, "a claim was not ours");
    }
}

/// A program of the server, as a user that it accepts.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(find(name));
    command.current_dir(folder);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Debian keeps the server's programs out of `PATH`, in a folder per version.
fn find(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(version);
    let found = newest.map(|version| version.join("bin").join(name));
    found
        .filter(|path| path.exists())
        .unwrap_or_else(|| name.into())
}
