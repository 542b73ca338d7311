//! What a data directory belongs to: which node of which cluster, and how far it got.
//!
//! Kept in `node.json` beside hiqlite's files, so that it is lost with them. Directories of earlier builds have none and
//! count as a member's.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// In the data directory.
const FILE: &str = "node.json";

/// Of the file.
const VERSION: u32 = 1;

/// hiqlite's Raft log; without one there is no vote and no entry.
const LOG: &str = "logs";

/// hiqlite's database and snapshots.
const STATE: &str = "state_machine";

/// How far a node got.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No data. Its Raft has not been started.
    New,
    /// Node 1 makes a cluster.
    Founding,
    /// The same, from a backup.
    Restoring,
    /// It was told that it may join, and has not finished.
    Joining,
    /// It has been a voter.
    Member,
}

/// What a node says of itself to others, and keeps on its disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Standing {
    /// Which node.
    pub node: u64,
    /// How far it got.
    pub phase: Phase,
    /// A name that the founder made up; none for clusters of earlier builds.
    pub cluster: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Kept {
    version: u32,
    #[serde(flatten)]
    standing: Standing,
}

/// Why a data directory cannot be used by this node.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refuses.
    #[error("could not use {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The note on what the directory belongs to is not understood.
    #[error("could not read {path}: {detail}; it was not written by this build or an earlier one")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The directory is another node's.
    #[error("could not use the data directory {path} for node {node}: it belongs to node {owner}")]
    OtherNode {
        /// Which directory.
        path: PathBuf,
        /// Who wants it.
        node: u64,
        /// Whose it is.
        owner: u64,
    },
    /// The others are of another cluster.
    #[error(
        "could not use the data directory {path}: node {peer} belongs to another cluster; \
         empty the directory to join that one"
    )]
    OtherCluster {
        /// Which directory.
        path: PathBuf,
        /// Who says so.
        peer: u64,
    },
    /// There is a database, and the log that led to it is missing.
    #[error(
        "could not use the data directory {path}: it has a database and no Raft log; \
         empty it, and the node gets its data from the others"
    )]
    NoLog {
        /// Which directory.
        path: PathBuf,
    },
    /// A restore did not end.
    #[error(
        "could not use the data directory {path}: a restore into it was interrupted; \
         empty it and restore again"
    )]
    HalfRestored {
        /// Which directory.
        path: PathBuf,
    },
}

/// A data directory whose owner is known.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    standing: Standing,
}

impl Directory {
    /// Looks at a directory that exists, for node `node`. Writes nothing.
    pub(crate) fn open(path: &Path, node: u64) -> Result<Self, DirectoryError> {
        let path = path.to_owned();
        let has_log = has_entries(&path.join(LOG))?;
        let mut standing = match kept(&path.join(FILE))? {
            Some(kept) if kept.node != node => {
                return Err(DirectoryError::OtherNode {
                    path,
                    node,
                    owner: kept.node,
                });
            }
            Some(kept) => kept,
            None => Standing {
                node,
                phase: if has_log { Phase::Member } else { Phase::New },
                cluster: None,
            },
        };
        match standing.phase {
            Phase::Restoring => return Err(DirectoryError::HalfRestored { path }),
            Phase::New | Phase::Member if !has_log => {
                if has_entries(&path.join(STATE))? {
                    return Err(DirectoryError::NoLog { path });
                }
                // Whatever was here is gone, so this is a new node.
                standing.phase = Phase::New;
                standing.cluster = None;
            }
            Phase::New | Phase::Founding | Phase::Joining | Phase::Member => {}
        }
        Ok(Self { path, standing })
    }

    /// What it says.
    pub(crate) const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Notes a new standing. It is on the disk when this returns.
    pub(crate) fn note(&mut self, standing: Standing) -> Result<(), DirectoryError> {
        let path = self.path.join(FILE);
        let failed = |source| DirectoryError::Io {
            path: path.clone(),
            source,
        };
        let kept = Kept {
            version: VERSION,
            standing: standing.clone(),
        };
        let text = serde_json::to_vec(&kept).map_err(|error| failed(error.into()))?;
        let fresh = path.with_extension("json~");
        let mut file = File::create(&fresh).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&fresh, &path).map_err(failed)?;
        // The new name is on the disk only with its directory.
        let directory = File::open(&self.path).map_err(failed)?;
        directory.sync_all().map_err(failed)?;
        self.standing = standing;
        Ok(())
    }
}

fn kept(path: &Path) -> Result<Option<Standing>, DirectoryError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DirectoryError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let unreadable = |detail| DirectoryError::Unreadable {
        path: path.to_owned(),
        detail,
    };
    let kept: Kept =
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if kept.version != VERSION {
        return Err(unreadable(format!("it has version {}", kept.version)));
    }
    Ok(Some(kept.standing))
}

fn has_entries(path: &Path) -> Result<bool, DirectoryError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DirectoryError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes files in a fresh directory, and opens it for node 1.
    fn opened(files: &[(&str, &str)]) -> Result<Phase, DirectoryError> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Directory::open(directory.path(), 1).map(|directory| directory.standing.phase)
    }

    const LOG_FILE: (&str, &str) = ("logs/0.wal", "x");
    const DATABASE: (&str, &str) = ("state_machine/db/queue.db", "x");

    fn marked(phase: &'static str) -> (&'static str, &'static str) {
        let text = match phase {
            "founding" => r#"{"version":1,"node":1,"phase":"founding","cluster":"c"}"#,
            "joining" => r#"{"version":1,"node":1,"phase":"joining","cluster":null}"#,
            "member" => r#"{"version":1,"node":1,"phase":"member","cluster":"c"}"#,
            "restoring" => r#"{"version":1,"node":1,"phase":"restoring","cluster":"c"}"#,
            other => panic!("{other}"),
        };
        (FILE, text)
    }

    #[test]
    fn a_directory_tells_how_far_its_node_got() {
        for (files, phase) in [
            (vec![], Phase::New),
            (vec![("node.lock", "")], Phase::New),
            (vec![LOG_FILE, DATABASE], Phase::Member),
            (vec![marked("founding")], Phase::Founding),
            (vec![marked("joining"), LOG_FILE], Phase::Joining),
            (vec![marked("member"), LOG_FILE], Phase::Member),
            // The note survived its data.
            (vec![marked("member")], Phase::New),
        ] {
            assert_eq!(opened(&files).unwrap(), phase, "{files:?}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_used_says_why() {
        let directory_error = |files: &[(&str, &str)]| opened(files).unwrap_err();
        assert!(matches!(
            directory_error(&[(
                FILE,
                r#"{"version":1,"node":2,"phase":"member","cluster":null}"#
            )]),
            DirectoryError::OtherNode {
                node: 1,
                owner: 2,
                ..
            }
        ));
        assert!(matches!(
            directory_error(&[(
                FILE,
                r#"{"version":2,"node":1,"phase":"member","cluster":null}"#
            )]),
            DirectoryError::Unreadable { .. }
        ));
        assert!(matches!(
            directory_error(&[(FILE, "")]),
            DirectoryError::Unreadable { .. }
        ));
        assert!(matches!(
            directory_error(&[DATABASE]),
            DirectoryError::NoLog { .. }
        ));
        assert!(matches!(
            directory_error(&[marked("restoring"), LOG_FILE]),
            DirectoryError::HalfRestored { .. }
        ));
    }

    #[test]
    fn what_is_noted_is_found_again() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(path.path(), 3).unwrap();
        let standing = Standing {
            node: 3,
            phase: Phase::Joining,
            cluster: Some("c".into()),
        };
        directory.note(standing.clone()).unwrap();
        let again = Directory::open(path.path(), 3).unwrap();
        assert_eq!(*again.standing(), standing);
    }
}
