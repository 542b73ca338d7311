//! Output that is longer than the store keeps, on the disk of the node where the job ran.
//!
//! ```text
//!  DATA_DIR/outputs/JOB/TOKEN/stdout
//!                            /stderr
//! ```
//!
//! While an attempt runs all its output goes there; afterwards it stays if the store did not have room for it. The
//! oldest go when all of them together take too much.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use mvm_exec::Stream;
use mvm_queue::{FencingToken, JobId};

/// What is kept of one stream of one attempt.
pub(super) const STREAM_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What all of them together may take.
const TOTAL_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// The outputs on this node's disk; none by default.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    folder: PathBuf,
    total_max: u64,
}

impl Outputs {
    /// Those of a node with this data directory.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join("outputs"),
            total_max: TOTAL_BYTES_MAX,
        }
    }

    /// What is kept of a stream of an attempt; nothing if nothing is.
    pub(crate) fn open(&self, job: &JobId, token: FencingToken, stream: Stream) -> Option<File> {
        File::open(self.of_attempt(job, token)?.join(name(stream))).ok()
    }

    /// Begins to keep what an attempt writes.
    pub(super) fn begin(&self, job: &JobId, token: FencingToken) -> io::Result<Output> {
        let no_name = || io::Error::other("the job's id is no file name");
        let folder = self.of_attempt(job, token).ok_or_else(no_name)?;
        fs::create_dir_all(&folder)?;
        let open = |stream| File::create(folder.join(name(stream)));
        Ok(Output {
            stdout: open(Stream::Stdout)?,
            stderr: open(Stream::Stderr)?,
            folder,
        })
    }

    /// Removes the oldest until the others take no more than they may.
    pub(super) fn keep_bound(&self) -> io::Result<()> {
        let mut attempts = Vec::new();
        for job in folders(&self.folder)? {
            for attempt in folders(&job)? {
                attempts.push((begun(&attempt)?, bytes(&attempt)?, attempt));
            }
        }
        attempts.sort();
        let mut total: u64 = attempts.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, attempt) in attempts {
            if total <= self.total_max {
                break;
            }
            remove(&attempt)?;
            total -= bytes;
        }
        Ok(())
    }

    /// Ids come from clients too: only one that is a plain name leads anywhere.
    fn of_attempt(&self, job: &JobId, token: FencingToken) -> Option<PathBuf> {
        let plain = !self.folder.as_os_str().is_empty()
            && !job.0.is_empty()
            && job.0.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain.then(|| self.folder.join(&job.0).join(token.0.to_string()))
    }
}

/// An attempt's output while it runs.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    stdout: File,
    stderr: File,
}

impl Output {
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => self.stdout.write_all(bytes),
            Stream::Stderr => self.stderr.write_all(bytes),
        }
    }

    /// Forgets it, since the store has all of it.
    pub(super) fn remove(self) -> io::Result<()> {
        remove(&self.folder)
    }
}

const fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn folders(within: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(within) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn begun(attempt: &Path) -> io::Result<SystemTime> {
    fs::metadata(attempt)?.modified()
}

fn bytes(attempt: &Path) -> io::Result<u64> {
    let files = folders(attempt)?;
    files.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Removes an attempt, and its job's folder if nothing else is in it.
fn remove(attempt: &Path) -> io::Result<()> {
    fs::remove_dir_all(attempt)?;
    if let Some(job) = attempt.parent() {
        // Another attempt may be there.
        let _ = fs::remove_dir(job);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(outputs: &Outputs, job: &str, token: i64) -> Option<String> {
        let job = JobId(job.to_owned());
        let mut text = String::new();
        let mut file = outputs.open(&job, FencingToken(token), Stream::Stdout)?;
        file.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn the_oldest_outputs_go_first() {
        let data_dir = tempfile::tempdir().unwrap();
        let mut outputs = Outputs::new(data_dir.path());
        outputs.total_max = 8;
        outputs.keep_bound().unwrap();
        for (job, token) in [("A", 1), ("A", 2), ("B", 1)] {
            let mut output = outputs
                .begin(&JobId(job.to_owned()), FencingToken(token))
                .unwrap();
            output.write(Stream::Stdout, b"out ").unwrap();
            // The clock of the file system is coarse.
            let age = std::time::Duration::from_secs(if job == "B" {
                40
            } else {
                100 - token.unsigned_abs()
            });
            let folder = File::open(&output.folder).unwrap();
            folder.set_modified(SystemTime::now() - age).unwrap();
        }
        outputs.keep_bound().unwrap();
        assert_eq!(read(&outputs, "A", 1), None);
        assert_eq!(read(&outputs, "A", 2).as_deref(), Some("out "));
        assert_eq!(read(&outputs, "B", 1).as_deref(), Some("out "));
        outputs
            .begin(&JobId("B".to_owned()), FencingToken(1))
            .unwrap()
            .remove()
            .unwrap();
        assert!(!data_dir.path().join("outputs/B").exists());
        for id in ["", "../A", "A/2", "."] {
            assert!(
                outputs
                    .begin(&JobId(id.to_owned()), FencingToken(1))
                    .is_err(),
                "{id}"
            );
            assert_eq!(read(&outputs, id, 1), None);
        }
    }
}
