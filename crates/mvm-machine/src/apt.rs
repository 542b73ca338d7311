//! Fetches packages of the host's distribution with its own apt, as an ordinary user, without installing.
//!
//! What is done with a package is up to [`crate::kernel`], [`crate::image`] and the project's automation; unpacking is
//! [`crate::deb`]'s. Signatures and hashes are apt's business: we never fetch by ourselves.
//!
//! The system's package lists are tried first. They may be absent (containers remove them), unreadable, or
//! name a version the mirror no longer has; then the lists are fetched into a private directory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::files::{self, FileError, Naming};

/// A package could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// The command is not there, so this is not a Debian or Ubuntu host.
    #[error("could not start {program}: {cause}")]
    Start {
        /// The command.
        program: &'static str,
        /// Why it did not start.
        cause: io::Error,
    },
    /// The command failed.
    #[error("could not fetch packages: `{command}` ended with {status}: {evidence}")]
    Failed {
        /// The whole command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        evidence: String,
    },
    /// The command took too long and was killed.
    #[error("could not fetch packages: `{command}` did not end within {} s", allowed.as_secs())]
    Slow {
        /// The whole command.
        command: String,
        /// How long it was given.
        allowed: Duration,
    },
    /// None of the packages looked for is offered.
    #[error("could not find any of the packages {} in the package lists", names.join(", "))]
    Absent {
        /// The names tried.
        names: Vec<String>,
    },
    /// Neither the system's package lists nor fresh ones would do.
    #[error(
        "{fresh}; the system's own package lists did not help either: {system}{}",
        said(update)
    )]
    Both {
        /// What went wrong with the system's lists.
        system: Box<AptError>,
        /// What went wrong with freshly fetched ones.
        fresh: Box<AptError>,
        /// What `apt-get update` complained of, though it did not fail: without a network it succeeds.
        update: Option<String>,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

fn said(update: &Option<String>) -> String {
    update.as_ref().map_or_else(String::new, |update| {
        format!("; `apt-get update` said: {update}")
    })
}

/// Ubuntu's kernel is some 60 MB; ten minutes allow for 1 Mbit/s.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(600);

const POLL: Duration = Duration::from_millis(20);

/// One way to ask apt: with the system's package lists, or with private ones.
#[derive(Debug)]
pub struct Apt {
    /// Downloads and private lists go below this directory.
    directory: PathBuf,
    private: bool,
}

impl Apt {
    /// Does some work with the system's package lists and, if that fails, again with freshly fetched ones.
    ///
    /// `directory` must be empty; everything fetched is left below it.
    pub fn attempt<T>(
        directory: &Path,
        work: impl Fn(&Apt) -> Result<T, AptError>,
    ) -> Result<T, AptError> {
        let system = Apt {
            directory: directory.to_owned(),
            private: false,
        };
        let first = match work(&system) {
            Err(error @ AptError::Start { .. }) => return Err(error),
            Err(error) => error,
            done => return done,
        };
        tracing::info!(reason = %first, "fetching package lists into a private directory");
        let private = Apt::private(directory);
        let (update, result) = match private.update() {
            Ok(update) => (update, work(&private)),
            Err(error) => (None, Err(error)),
        };
        result.map_err(|fresh| AptError::Both {
            system: Box::new(first),
            fresh: Box::new(fresh),
            update,
        })
    }

    /// Does some work with freshly fetched package lists, for callers to whom an old version is of no use.
    ///
    /// `directory` must be empty; everything fetched is left below it.
    pub fn fresh<T>(
        directory: &Path,
        work: impl FnOnce(&Apt) -> Result<T, AptError>,
    ) -> Result<T, AptError> {
        let private = Apt::private(directory);
        private.update()?;
        work(&private)
    }

    fn private(directory: &Path) -> Apt {
        Apt {
            directory: directory.to_owned(),
            private: true,
        }
    }

    /// The names of the packages a package depends on; empty if it is not offered.
    pub fn depends(&self, package: &str) -> Result<Vec<String>, AptError> {
        // An unknown name is an exit code of 100, which looks like any other failure.
        match self.run(
            "apt-cache",
            &["depends", "--no-recommends", "--no-suggests", package],
            &self.directory,
        ) {
            Ok(said) => Ok(parse_depends(&said.output)),
            Err(AptError::Failed { evidence, .. }) if evidence.contains("No packages found") => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Downloads packages, each given as `name` or `name=version`; the files, one for each, in the order asked for.
    pub fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>, AptError> {
        packages
            .iter()
            .map(|package| self.download_one(package))
            .collect()
    }

    fn download_one(&self, package: &str) -> Result<PathBuf, AptError> {
        tracing::info!(
            package,
            "downloading a package of the host's distribution with apt-get"
        );
        let into = self.directory.join("packages").join(package);
        files::create_dir_all(&into)?;
        self.run("apt-get", &["download", "-q", package], &into)?;
        files::walk(&into)?
            .into_iter()
            .find(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| AptError::Absent {
                names: vec![package.to_owned()],
            })
    }

    /// Fetches the package lists; what apt complained of meanwhile.
    fn update(&self) -> Result<Option<String>, AptError> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            files::create_dir_all(&self.directory.join(part))?;
        }
        let said = self.run("apt-get", &["update", "-q"], &self.directory)?;
        Ok(tail(&said.errors))
    }

    fn options(&self) -> Vec<String> {
        let mut options = vec![
            "Acquire::Retries=2".to_owned(),
            "Acquire::http::Timeout=30".to_owned(),
            "Acquire::https::Timeout=30".to_owned(),
        ];
        if self.private {
            for (name, part) in [
                ("Dir::State", "state"),
                ("Dir::State::lists", "state/lists"),
                ("Dir::Cache", "cache"),
                ("Dir::Cache::archives", "cache/archives"),
            ] {
                options.push(format!("{name}={}", self.directory.join(part).display()));
            }
            // It moved with Dir::State; apt refuses to work without one.
            options.push("Dir::State::status=/var/lib/dpkg/status".to_owned());
            // Hooks of the system's configuration are for the system's own lists.
            options.push("APT::Update::Post-Invoke-Success::=true".to_owned());
        }
        // As root apt would fetch as the user `_apt`, who may not write below our directory.
        options.push("APT::Sandbox::User=".to_owned());
        options
    }

    fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        directory: &Path,
    ) -> Result<Said, AptError> {
        let output_path = self.directory.join("output");
        let errors_path = self.directory.join("errors");
        let mut output = read_write(&output_path)?;
        let mut errors = read_write(&errors_path)?;
        let mut command = Command::new(program);
        command
            .args(self.options().iter().flat_map(|option| ["-o", option]))
            .args(arguments);
        command
            .current_dir(directory)
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().naming("share", &output_path)?);
        command.stderr(errors.try_clone().naming("share", &errors_path)?);
        let text = format!("{program} {}", arguments.join(" "));
        let status = wait(command, program, &text)?;
        let output = rewound(&mut output).naming("read", &output_path)?;
        let errors = rewound(&mut errors).naming("read", &errors_path)?;
        if status.success() {
            return Ok(Said { output, errors });
        }
        let evidence = tail(&errors).unwrap_or_else(|| "it printed no error".to_owned());
        Err(AptError::Failed {
            command: text,
            status,
            evidence,
        })
    }
}

/// What a command that succeeded printed.
#[derive(Debug)]
struct Said {
    output: String,
    errors: String,
}

fn wait(mut command: Command, program: &'static str, text: &str) -> Result<ExitStatus, AptError> {
    let start = |cause| AptError::Start { program, cause };
    let mut child = command.spawn().map_err(start)?;
    let deadline = Instant::now() + COMMAND_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill().and_then(|()| child.wait()).map_err(start)?;
            return Err(AptError::Slow {
                command: text.to_owned(),
                allowed: COMMAND_TIME_MAX,
            });
        }
        std::thread::sleep(POLL);
    }
}

fn read_write(path: &Path) -> Result<File, FileError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .naming("create", path)
}

fn rewound(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines that say something, on one line.
fn tail(text: &str) -> Option<String> {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    (!lines.is_empty()).then(|| lines[lines.len().saturating_sub(4)..].join("; "))
}

/// Reads `apt-cache depends`; alternatives (`|Depends`) are listed too, virtual packages (`<name>`) are not.
fn parse_depends(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            line.trim_start_matches([' ', '|'])
                .strip_prefix("Depends: ")
        })
        .map(str::trim)
        .filter(|name| !name.starts_with('<'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let text = "linux-image-6.8.0-45-generic\n PreDepends: a\n |Depends: linux-base\n  Depends: <virtual>\n    x\n  \
                    Depends: linux-modules-6.8.0-45-generic\n  Conflicts: y\n";
        assert_eq!(
            parse_depends(text),
            ["linux-base", "linux-modules-6.8.0-45-generic"]
        );
        assert!(parse_depends("").is_empty());
    }

    #[test]
    fn the_tail_is_short() {
        assert_eq!(tail("\n\n"), None);
        assert_eq!(tail("1\n2\n\n3\n4\n5\n").as_deref(), Some("2; 3; 4; 5"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let apt = Apt {
            directory: directory.path().to_owned(),
            private: false,
        };
        let message = apt
            .run("apt-of-nowhere", &["update"], directory.path())
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("could not start apt-of-nowhere: "),
            "{message}"
        );
    }
}
