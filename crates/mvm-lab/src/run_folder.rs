//! The folder a run leaves behind: events, consoles, logs, verdict and the command that runs it again.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{control::POINTER, verdict::Verdict};

/// Why a run folder could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write {path:?} in the run folder: {source}")]
pub struct RunFolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A run's folder. It stays after the run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// What `verdict.json` holds.
#[derive(Debug, Serialize)]
pub struct VerdictFile<'a> {
    /// The scenario's name.
    pub scenario: &'a str,
    /// What the run came to.
    pub verdict: Verdict,
    /// The exit code that says so.
    pub exit_code: u8,
    /// Why, unless it passed.
    pub message: Option<&'a str>,
    /// How long it took.
    pub duration_ms: u64,
    /// The command line that runs it again.
    pub command: &'a [String],
}

impl RunFolder {
    /// Makes a new folder in `root`, named after the scenario, the time and this process.
    pub fn create(root: &Path, scenario: &str) -> Result<RunFolder, RunFolderError> {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let name = format!("{scenario}-{now}-{}", std::process::id());
        let failed = |path: &Path, source| RunFolderError {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(&root).map_err(|source| failed(&root, source))?;
        let mut path = root.join(&name);
        for more in 2.. {
            match std::fs::create_dir(&path) {
                Ok(()) => break,
                // The same scenario may run twice at once.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    path = root.join(format!("{name}-{more}"));
                }
                Err(source) => return Err(failed(&path, source)),
            }
        }
        Ok(RunFolder { path })
    }

    /// Makes a folder within this one, for a fork.
    pub fn below(&self, name: &str) -> Result<RunFolder, RunFolderError> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(|source| RunFolderError {
            path: path.clone(),
            source,
        })?;
        Ok(RunFolder { path })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the event file.
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// Returns the file that tells where the lab's control socket is while it runs.
    pub fn control(&self) -> PathBuf {
        self.path.join(POINTER)
    }

    /// Returns the folder that all machines have in common with this host.
    pub fn shared(&self) -> PathBuf {
        self.path.join("shared")
    }

    /// Returns the file for a machine's serial console.
    pub fn console(&self, machine: &str) -> PathBuf {
        self.path.join(format!("{machine}-console.log"))
    }

    /// Returns the file for QEMU's own complaints about a machine.
    pub fn qemu_log(&self, machine: &str) -> PathBuf {
        self.path.join(format!("{machine}-qemu.log"))
    }

    /// Returns the file for a capture of the whole network.
    pub fn network_capture(&self) -> PathBuf {
        self.path.join("network.pcapng")
    }

    /// Returns the file for a service's output.
    pub fn service_log(&self, machine: &str, service: &str) -> PathBuf {
        self.path.join(format!("{machine}-{service}.log"))
    }

    /// Writes `verdict.json`, and the command to run again as `again.txt`.
    pub fn conclude(&self, verdict: &VerdictFile<'_>) -> Result<(), RunFolderError> {
        let text = serde_json::to_string_pretty(verdict).expect("verdicts serialize");
        self.write("verdict.json", &text)?;
        self.write("again.txt", &shell_line(verdict.command))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), RunFolderError> {
        let path = self.path.join(name);
        std::fs::write(&path, format!("{text}\n")).map_err(|source| RunFolderError { path, source })
    }
}

/// Quotes a command line for a POSIX shell.
pub fn shell_line(command: &[String]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    let words = command.iter().map(|word| {
        if !word.is_empty() && word.bytes().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_lines_survive_a_shell() {
        let words = ["mvm-ci", "test", "", "it's", "a b", "$(rm)"].map(str::to_owned);
        let line = shell_line(&words);
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                &format!("for word in {line}; do printf '%s\\n' \"$word\"; done"),
            ])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .collect::<Vec<_>>(),
            words
        );
    }

    #[test]
    fn an_unwritable_root_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = RunFolder::create(file.path(), "cluster").unwrap_err();
        assert!(error.to_string().starts_with("could not write"), "{error}");
    }
}
