//! Files that are read again when they change: tokens and certificates are renewed without a restart.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// What changes when a file is written, replaced or removed.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The files as they were when somebody last looked.
#[derive(Debug)]
pub(crate) struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Stamp>,
}

impl Watch {
    /// Looks at the files for the first time. To be called before they are read, so that no change is missed.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        let seen = stamps(&files);
        Self { files, seen }
    }

    /// Calls `reload` after each change. Runs until dropped.
    pub(crate) async fn each_change(mut self, mut reload: impl FnMut()) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if self.changed() {
                reload();
            }
        }
    }

    fn changed(&mut self) -> bool {
        let now = stamps(&self.files);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Stamp {
    let metadata = file.metadata().ok()?;
    Some((
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_when_it_is_replaced_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("a"), "one").unwrap();
        let mut watch = Watch::new(vec![path("a"), path("b")]);
        assert!(!watch.changed());
        std::fs::write(path("new"), "two").unwrap();
        std::fs::rename(path("new"), path("a")).unwrap();
        assert!(watch.changed() && !watch.changed());
        std::fs::write(path("b"), "").unwrap();
        assert!(watch.changed() && !watch.changed());
        std::fs::remove_file(path("a")).unwrap();
        assert!(watch.changed() && !watch.changed());
    }
}
