//! Starting a new cluster from a backup, on node 1.
//!
//! hiqlite does it when the environment names a file, at its next start, whatever is there. So what it is given is checked
//! here first, and variables that nobody meant for this start are refused.
//!
//! What lives elsewhere: how the other nodes join ([`crate::join`]), and making backups ([`crate::store`]).

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use hiqlite::rusqlite::{Connection, OpenFlags};
use mvm_queue::sql;

use crate::join::{Phase, Standing};

/// hiqlite restores what this names, as `file:` and a path.
const RESTORE: &str = "HQL_BACKUP_RESTORE";

/// hiqlite's other variables that change data, and what they do to it.
const DANGEROUS: [(&str, &str); 2] = [
    ("HQL_DANGER_RAFT_STATE_RESET", "throws away its log"),
    (
        "HQL_BACKUP_SKIP_VALIDATION",
        "restores backups without a look at them",
    ),
];

/// Why a backup was not restored, or a node not started.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A variable of hiqlite's is set.
    #[error(
        "could not start: the environment variable {variable} is set, with which the store {effect}; \
         unset it, and use --restore to restore a backup"
    )]
    Environment {
        /// Which.
        variable: &'static str,
        /// What it would do.
        effect: &'static str,
    },
    /// The file is no backup, or not whole.
    #[error("could not restore from {path}: {detail}")]
    Backup {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Only node 1 founds clusters.
    #[error(
        "could not restore on node {node}: a backup is restored on node 1, \
         and the others join it with empty data directories"
    )]
    NotTheFounder {
        /// Which node.
        node: u64,
    },
    /// There is something to lose.
    #[error(
        "could not restore into {path}: there is data in it; stop all nodes and empty their data directories first"
    )]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
    },
    /// The others have not been stopped.
    #[error(
        "could not restore: the other nodes are a cluster; stop all nodes and empty their data directories first"
    )]
    ClusterExists,
}

/// The variable that must be set for [`crate::restore`] to restore this file; the program that does so starts itself again.
pub fn variable(backup: &Path) -> io::Result<(&'static str, String)> {
    let path = std::path::absolute(backup)?;
    let path = path.to_str().ok_or_else(|| {
        let problem = format!("{}: the path is not UTF-8", backup.display());
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    })?;
    Ok((RESTORE, format!("file:{path}")))
}

/// Refuses variables that would make hiqlite do what this start is not for.
pub(crate) fn check_environment(
    backup: Option<&Path>,
    value_of: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(), RestoreError> {
    for (variable, effect) in DANGEROUS {
        if value_of(variable).is_some() {
            return Err(RestoreError::Environment { variable, effect });
        }
    }
    let expected = match backup {
        Some(backup) => Some(variable(backup).map_err(|error| RestoreError::Backup {
            path: backup.to_owned(),
            detail: error.to_string(),
        })?),
        None => None,
    };
    let expected = expected.as_ref().map(|(_, value)| OsStr::new(value));
    if value_of(RESTORE).as_deref() == expected {
        return Ok(());
    }
    Err(RestoreError::Environment {
        variable: RESTORE,
        effect: "replaces its data, or leaves it, against what was asked for",
    })
}

/// Looks at a backup from end to end. Writes nothing.
pub(crate) fn validate(backup: &Path) -> Result<(), RestoreError> {
    let bad = |detail: String| RestoreError::Backup {
        path: backup.to_owned(),
        detail,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(backup, flags).map_err(|error| bad(error.to_string()))?;
    let text = |query: &str| {
        connection
            .query_row(query, (), |row| row.get::<_, String>(0))
            .map_err(|error| bad(error.to_string()))
    };
    let problem = text("PRAGMA integrity_check")?;
    if problem != "ok" {
        return Err(bad(problem));
    }
    let marks = text("SELECT CAST(count(*) AS TEXT) FROM _metadata WHERE key = 'meta'")?;
    if marks != "1" {
        return Err(bad("it is a database, and no backup of a node".into()));
    }
    let version = text(sql::VERSION_QUERY)?;
    match version.parse::<i64>() {
        Ok(0) | Err(_) => Err(bad("it has no jobs table".into())),
        Ok(version) if version > sql::VERSION => Err(bad(format!(
            "it has version {version} of the tables, and this build knows {}",
            sql::VERSION
        ))),
        Ok(_) => Ok(()),
    }
}

/// Refuses to restore anywhere but on a node 1 that has nothing.
pub(crate) fn check_target(standing: &Standing, path: &Path) -> Result<(), RestoreError> {
    if standing.node != 1 {
        return Err(RestoreError::NotTheFounder {
            node: standing.node,
        });
    }
    if standing.phase != Phase::New {
        return Err(RestoreError::NotEmpty {
            path: path.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, ffi::OsString};

    use super::*;

    #[track_caller]
    fn check(set: &[(&str, &str)], backup: Option<&str>, refused: Option<&str>) {
        let set: HashMap<_, _> = set.iter().copied().collect();
        let value_of = |name: &str| set.get(name).map(OsString::from);
        let found = match check_environment(backup.map(Path::new), value_of) {
            Ok(()) => None,
            Err(RestoreError::Environment { variable, .. }) => Some(variable),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, refused, "{set:?}");
    }

    #[test]
    fn variables_that_nobody_meant_are_refused() {
        check(&[], None, None);
        check(&[("HQL_LOG_SYNC", "x")], None, None);
        check(&[(RESTORE, "file:/b")], None, Some(RESTORE));
        check(&[(RESTORE, "file:/b")], Some("/b"), None);
        check(&[(RESTORE, "file:/c")], Some("/b"), Some(RESTORE));
        check(&[], Some("/b"), Some(RESTORE));
        for (variable, _) in DANGEROUS {
            check(&[(variable, "false")], None, Some(variable));
        }
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let database = directory.path().join("database");
        Connection::open(&database)
            .unwrap()
            .execute_batch(
                "CREATE TABLE _metadata (key TEXT, data BLOB); CREATE TABLE jobs (id TEXT)",
            )
            .unwrap();
        for path in [
            directory.path().join("missing"),
            file("empty", b""),
            file("garbage", &[b'x'; 8_192]),
            database,
        ] {
            let before: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
            assert!(
                matches!(validate(&path), Err(RestoreError::Backup { .. })),
                "{path:?}"
            );
            let after: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
            assert_eq!(before.len(), after.len(), "{path:?}");
        }
    }
}
