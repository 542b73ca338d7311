//! A bound on how many guests boot at once on this host, across all processes of one user.
//!
//! Booting is all processor; more boots than processors make each slower and every timeout tighter.
//! A token is a lock on one of a few files, so the kernel returns it when its holder dies.

use std::{fs::File, io, path::Path, thread::available_parallelism, time::Duration};

use rustix::fs::{FlockOperation, flock};

/// How often a waiting boot looks for a free token.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Fewer would leave one processor idle while a guest waits for its disk.
const TOKENS_MIN: usize = 2;

/// Permission to boot one guest; given back when dropped.
#[derive(Debug)]
pub struct BootToken {
    _lock: File,
}

/// Waits for a token. `folder` is where the lock files live. Cancel safe.
///
/// Where no lock file can be made there is no token, and a warning: the bound keeps a host responsive, which is no
/// reason not to boot.
pub async fn acquire(folder: &Path) -> Option<BootToken> {
    loop {
        match try_acquire(folder) {
            Ok(Some(token)) => return Some(token),
            Ok(None) => tokio::time::sleep(POLL_INTERVAL).await,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "booting without a boot token");
                return None;
            }
        }
    }
}

fn try_acquire(folder: &Path) -> io::Result<Option<BootToken>> {
    std::fs::create_dir_all(folder)?;
    for index in 0..count() {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(format!("boot-{index}")))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Some(BootToken { _lock: file }));
        }
    }
    Ok(None)
}

fn count() -> usize {
    available_parallelism()
        .map_or(TOKENS_MIN, usize::from)
        .max(TOKENS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_comes_back_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = Vec::new();
        for _ in 0..count() {
            held.push(acquire(folder.path()).await.unwrap());
        }
        let wait = tokio::time::timeout(Duration::from_millis(100), acquire(folder.path())).await;
        assert!(wait.is_err(), "one token too many was given out");
        held.pop();
        let wait = tokio::time::timeout(Duration::from_secs(10), acquire(folder.path())).await;
        wait.expect("a freed token was not given out").unwrap();
    }

    #[tokio::test]
    async fn where_no_lock_can_be_made_nobody_waits_for_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(acquire(&file.path().join("locks")).await.is_none());
    }
}
