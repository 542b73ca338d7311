//! How long the disk under the data directory takes to sync: hiqlite, which syncs its log there, tells nobody.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::metrics::Metrics;

/// Often enough to see a disk grow slow, and too seldom to make it so.
const PERIOD: Duration = Duration::from_secs(10);
const FILE: &str = "sync-probe";
const BYTES: [u8; 4096] = [0; 4096];

/// Measures it now and then, until dropped.
pub(crate) async fn probe(data_dir: PathBuf, metrics: &Metrics) {
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let data_dir = data_dir.clone();
        let synced = tokio::task::spawn_blocking(move || sync(&data_dir)).await;
        match synced.map_err(io::Error::other).flatten() {
            Ok(took) => metrics.store.synced(took),
            Err(error) => tracing::debug!(%error, "the disk could not be probed"),
        }
    }
}

/// Writes a block and waits until the disk has it.
fn sync(data_dir: &Path) -> io::Result<Duration> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join(FILE))?;
    let start = Instant::now();
    file.write_all_at(&BYTES, 0)?;
    file.sync_data()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::{BYTES, FILE, sync};

    #[test]
    fn a_probe_leaves_one_block_however_often_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            sync(folder.path()).unwrap();
        }
        let left = std::fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!(left.len(), BYTES.len() as u64);
        assert!(sync(&folder.path().join("none")).is_err());
    }
}
