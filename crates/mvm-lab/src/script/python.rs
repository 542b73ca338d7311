//! The `python3` of a script: found, checked, run with its output in the test's log, and ended with the run.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use mvm_machine::process::{Child, Exit, Keeper, PathGuard, ProcessError};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{UnixStream, unix::pipe},
    sync::mpsc::UnboundedReceiver,
};

use super::{driver, session::Session, wire::End};
use crate::{
    event::{Event, LogLevel, Recorder},
    scenario::{Failure, Outcome, Run},
    scratch,
};

/// The variable that names another Python.
const PYTHON_VARIABLE: &str = "MVM_CI_PYTHON";
/// The variable by which the Python side finds its end of the conversation.
const ENGINE_VARIABLE: &str = "MVM_CI_ENGINE";
/// The oldest Python that runs scripts.
const VERSION_MIN: (u32, u32) = (3, 9);
/// How long the last lines of a Python that has ended may take to arrive.
const LAST_WORDS_ALLOWED: Duration = Duration::from_secs(5);

/// Why no script can be run, or this one cannot.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// There is no Python.
    #[error(
        "could not run {program:?}: {source}; scripts need Python {}.{} or newer (Debian's package python3), or \
         {PYTHON_VARIABLE} naming one",
        VERSION_MIN.0, VERSION_MIN.1
    )]
    Missing {
        /// What was tried.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// It is too old or says nothing of its age.
    #[error(
        "could not use {program:?}: scripts need Python {}.{} or newer, it says {said:?}",
        VERSION_MIN.0, VERSION_MIN.1
    )]
    Old {
        /// What was tried.
        program: OsString,
        /// What it said of itself.
        said: String,
    },
    /// The script is no Python.
    #[error("could not read the script {path:?} as Python:\n{problem}")]
    Syntax {
        /// The script.
        path: PathBuf,
        /// Python's words, with the line.
        problem: String,
    },
    /// What the Python side needs could not be laid out.
    #[error("could not prepare Python: {0}")]
    Prepare(#[from] io::Error),
    /// It could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Tells whether there is a Python that is new enough.
pub(super) fn look_for() -> Result<(), PythonError> {
    let version = "import sys; print(*sys.version_info[:2])";
    let said = Command::new(program())
        .args(["-I", "-c", version])
        .output()
        .map_err(missing)?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    match is_new_enough(&said) {
        true => Ok(()),
        false => Err(PythonError::Old {
            program: program(),
            said,
        }),
    }
}

/// Tells whether there is a Python that takes the script for one, without running it.
pub(super) fn check(script: &Path) -> Result<(), PythonError> {
    look_for()?;
    let folder = tempfile::tempdir()?;
    driver::write(folder.path())?;
    let checked = command(folder.path())
        .arg("check")
        .arg(script)
        .output()
        .map_err(missing)?;
    match checked.status.success() {
        true => Ok(()),
        false => Err(PythonError::Syntax {
            path: script.to_owned(),
            problem: String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat())
                .trim_end()
                .to_owned(),
        }),
    }
}

/// What Python is to do.
pub(super) enum Task {
    /// Run a script; what it prints is in the test's log.
    Script(PathBuf),
    /// Read from the terminal, and show these lines of the log above the prompt. There may be a script to run by hand.
    Prompt {
        script: Option<PathBuf>,
        lines: UnboundedReceiver<String>,
    },
}

/// Has Python do something with the machines of a run.
pub(super) async fn run(run: &Run, task: Task, allowed: Option<Duration>) -> Outcome {
    let started = Python::start(run, task).map_err(|error| Failure::trouble(&error))?;
    let allowed = allowed.unwrap_or(Duration::MAX);
    match tokio::time::timeout(allowed, started.attend(run)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(Failure::broken(format!(
            "the script did not end within {allowed:?} and was stopped"
        ))),
    }
}

/// A Python that runs; dropping it kills it.
struct Python {
    child: Child,
    engine: UnixStream,
    output: Vec<Lines>,
    shown: Option<UnboundedReceiver<String>>,
    /// Holds its side of the conversation.
    _folder: PathGuard,
}

impl Python {
    fn start(run: &Run, task: Task) -> Result<Python, PythonError> {
        let folder = scratch::folder()?;
        driver::write(folder.path())?;
        let (engine, theirs) = pair()?;
        let mut python = command(folder.path());
        python.env(ENGINE_VARIABLE, theirs.as_raw_fd().to_string());
        let mut output = Vec::new();
        let mut shown = None;
        match task {
            Task::Script(script) => {
                python.arg("run").arg(script).stdin(Stdio::null());
                let (stdout, stderr) = (io::pipe()?, io::pipe()?);
                python.stdout(stdout.1).stderr(stderr.1);
                for reader in [stdout.0, stderr.0] {
                    output.push(lines_told(reader, &run.recorder)?);
                }
            }
            Task::Prompt { script, lines } => {
                python.arg("repl").args(script);
                shown = Some(lines);
            }
        }
        let child = Keeper::get()?.spawn(python, vec![theirs])?;
        Ok(Python {
            child,
            engine,
            output,
            shown,
            _folder: folder,
        })
    }

    /// Answers it until it ends.
    async fn attend(self, run: &Run) -> Outcome {
        let session = Session::new(run);
        let serving = session.serve(self.engine, self.shown);
        let telling = async {
            let told = join_all(self.output);
            tokio::pin!(told);
            tokio::select! {
                _ = &mut told => {}
                // What a child of the script's holds open is not waited for.
                _ = self.child.wait() => {
                    let _ = tokio::time::timeout(LAST_WORDS_ALLOWED, told).await;
                }
            }
        };
        let (served, ()) = tokio::join!(serving, telling);
        match served.map_err(|error| Failure::trouble(&error))? {
            Some(finished) if finished.end == End::Passed => match session.failed_start() {
                Some(error) => Err(error.into()),
                None => Ok(()),
            },
            Some(finished) => Err(Failure {
                verdict: finished.end.into(),
                message: finished.message.unwrap_or_default(),
            }),
            None => Err(Failure::broken(match self.child.wait().await {
                Exit::Code(code) => format!("the script ended Python with exit code {code}"),
                Exit::Signal(signal) => format!("Python was killed by signal {signal}"),
            })),
        }
    }
}

fn missing(source: io::Error) -> PythonError {
    PythonError::Missing {
        program: program(),
        source,
    }
}

fn program() -> OsString {
    std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| "python3".into())
}

/// Python with our side of it. Neither the user's settings nor packages of theirs change what a script means; nothing
/// is written beside sources.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["-I", "-B", "-u", "-X", "utf8"]).arg(folder);
    command
}

fn is_new_enough(said: &str) -> bool {
    let mut numbers = said.split(' ').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= VERSION_MIN,
        _ => false,
    }
}

fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// An output of Python's whose lines become the test's log; over when it is closed.
type Lines = Pin<Box<dyn Future<Output = ()> + Send>>;

fn lines_told(reader: io::PipeReader, recorder: &Recorder) -> io::Result<Lines> {
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let recorder = recorder.clone();
    Ok(Box::pin(async move {
        let mut lines = BufReader::new(reader).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            recorder.record(Event::Log {
                level: LogLevel::Info,
                machine: None,
                text: String::from_utf8_lossy(&line).trim_end().to_owned(),
            });
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_python_that_is_new_enough_runs_scripts() {
        for (said, enough) in [
            ("3 9", true),
            ("3 11", true),
            ("4 0", true),
            ("3 8", false),
            ("2 7", false),
            ("", false),
            ("3", false),
            ("hello there", false),
        ] {
            assert_eq!(is_new_enough(said), enough, "{said:?}");
        }
    }
}
