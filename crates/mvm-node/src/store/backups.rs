//! Backups: files beside the database, made by hiqlite on every node at the same entry of the log.
//!
//! What lives elsewhere: starting a cluster from one ([`crate::restore`]), and the routes ([`crate::http`]).

use std::{io, pin::Pin};

use hiqlite::Client;
use mvm_queue::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::consensus::Unavailable;

/// hiqlite names them `backup_node_{leader}_{seconds}.sqlite`.
const PREFIX: &str = "backup_node_";
const SUFFIX: &str = ".sqlite";

/// One backup on a node's disk. The other nodes have a file of the same name with the same contents.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Backup {
    /// The file's name.
    pub name: String,
    /// When the leader asked for it, by its wall clock.
    pub created_at_ms: UnixMillis,
    /// Its size.
    pub bytes: u64,
}

/// What became of the wish for a backup.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "backup", rename_all = "snake_case")]
pub enum BackupMade {
    /// There is one.
    Done {
        /// Which.
        made: Backup,
        /// Whether it is new: within a minute hiqlite makes only one.
        is_new: bool,
    },
    /// It was not asked for.
    Unavailable {
        /// What stood in the way.
        cause: Unavailable,
    },
    /// The leader could not write it; some of the others may have.
    Failed {
        /// Who led.
        node: u64,
        /// What went wrong.
        detail: String,
    },
    /// It was asked for, and may come to be or not.
    Unknown {
        /// What is known.
        detail: String,
    },
}

/// Why this node cannot look at its backups.
#[derive(Debug, thiserror::Error)]
pub enum BackupsUnread {
    /// It does not know them yet.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Its disk or the store fails.
    #[error("could not read the backups: {0}")]
    Disk(#[from] io::Error),
}

/// A backup's contents.
pub struct BackupContents {
    /// The size.
    pub bytes: u64,
    /// The bytes.
    pub reader: Pin<Box<dyn AsyncRead + Send + Sync>>,
}

/// Makes a backup; this node must lead.
pub(super) async fn make(client: &Client, node: u64) -> BackupMade {
    match try_make(client).await {
        Ok(made) => made,
        // SQLite says so of the disk, and hiqlite of the folder.
        Err(hiqlite::Error::Sqlite(detail) | hiqlite::Error::Error(detail)) => BackupMade::Failed {
            node,
            detail: detail.into_owned(),
        },
        Err(error) => BackupMade::Unknown {
            detail: error.to_string(),
        },
    }
}

async fn try_make(client: &Client) -> Result<BackupMade, hiqlite::Error> {
    let before = list(client).await?.into_iter().next();
    client.backup().await?;
    let newest = list(client).await?.into_iter().next();
    let made = newest.ok_or_else(|| {
        hiqlite::Error::Error("the store reports success, and there is no file".into())
    })?;
    Ok(BackupMade::Done {
        is_new: before.is_none_or(|before| before.name != made.name),
        made,
    })
}

/// This node's backups, the newest first.
pub(super) async fn list(client: &Client) -> Result<Vec<Backup>, hiqlite::Error> {
    let found = client.backup_list_local().await?;
    let mut backups: Vec<Backup> = found
        .into_iter()
        .filter_map(|file| {
            Some(Backup {
                created_at_ms: created_at(&file.name)?,
                bytes: file.size.unwrap_or(0),
                name: file.name,
            })
        })
        .collect();
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.created_at_ms));
    Ok(backups)
}

/// Opens one of this node's backups; nothing if it has none of that name.
pub(super) async fn open(client: &Client, name: &str) -> io::Result<Option<BackupContents>> {
    let known = list(client).await.map_err(io::Error::other)?;
    // A name that is listed leads nowhere else.
    let Some(backup) = known.into_iter().find(|backup| backup.name == name) else {
        return Ok(None);
    };
    let file = client.backup_file_local(&backup.name).await;
    Ok(Some(BackupContents {
        bytes: backup.bytes,
        reader: Box::pin(file.map_err(io::Error::other)?),
    }))
}

/// Nothing for files that are no finished backups.
fn created_at(name: &str) -> Option<UnixMillis> {
    let middle = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (_, seconds) = middle.rsplit_once('_')?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(UnixMillis(seconds.saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_backups_count() {
        for (name, seconds) in [
            ("backup_node_2_1764028800.sqlite", Some(1_764_028_800)),
            ("backup_node_2_1764028800.sqlite~", None),
            ("backup_node_2.sqlite", None),
            ("restore.sqlite", None),
        ] {
            let expected = seconds.map(|seconds: i64| UnixMillis(seconds * 1_000));
            assert_eq!(created_at(name), expected, "{name}");
        }
    }
}
