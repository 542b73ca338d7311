//! Runs a program for its version line, bounded in time and in output. Long-lived children live in `process`.

use std::env;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::view::HostView;

/// Printing a version takes milliseconds; a loaded host or a cold disk may need seconds, never this long.
const ALLOWED: Duration = Duration::from_secs(10);
/// Version texts are a few lines; the rest of a longer one is not read.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

/// Why a program did not say its version. Continues "found PATH, which ...".
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("does not start: {0}")]
    Start(#[source] io::Error),
    #[error("does not answer --version within {allowed:?}")]
    TimedOut { allowed: Duration },
    #[error("could not be awaited: {0}")]
    Wait(#[source] io::Error),
    #[error("fails on --version with {status}{}", quoted(output))]
    Failed { status: ExitStatus, output: String },
}

/// Runs `program --version` and returns what it printed, lossily decoded.
///
/// It runs in a process group of its own, which is killed when the time is over.
pub(super) fn version_output(view: &HostView, program: &Path) -> Result<String, ProbeError> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env("PATH", joined_path(&view.search_path));
    let (output, status) = run(command, ALLOWED)?;
    if status.success() {
        Ok(output)
    } else {
        Err(ProbeError::Failed { status, output })
    }
}

fn run(mut command: Command, allowed: Duration) -> Result<(String, ExitStatus), ProbeError> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(ProbeError::Start)?;
    finish(child, allowed)
}

/// The first line a program printed, in quotes, for an error message; empty for no output.
pub(super) fn quoted(output: &str) -> String {
    match output.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!(", saying {:?}", line.chars().take(80).collect::<String>()),
        None => String::new(),
    }
}

/// Awaits the output and the end; when the time is over the whole group is killed, which ends the awaiting thread too.
fn finish(mut child: Child, allowed: Duration) -> Result<(String, ExitStatus), ProbeError> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let output = read_bounded(child.stdout.take());
            // The receiver has gone when the time is over.
            let _ = sender.send((output, child.wait()));
        });
        let answer = receiver.recv_timeout(allowed).map_err(|_| {
            if let Some(group) = group {
                // It may have ended in this instant: nothing is left to kill then.
                let _ = kill_process_group(group, Signal::KILL);
            }
            ProbeError::TimedOut { allowed }
        })?;
        Ok((answer.0, answer.1.map_err(ProbeError::Wait)?))
    })
}

/// Reads up to the bound, then closes the pipe, so that a program which talks on is not awaited for ever.
fn read_bounded(stdout: Option<ChildStdout>) -> String {
    let mut output = Vec::new();
    if let Some(stdout) = stdout {
        // What was read before an error is still the best evidence.
        let _ = stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut output);
    }
    String::from_utf8_lossy(&output).into_owned()
}

/// A shim found in a made-up `PATH` must find its own helpers there too.
fn joined_path(folders: &[PathBuf]) -> std::ffi::OsString {
    env::join_paths(folders).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{ProbeError, run};

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & wait"]);
        // Returns only once the whole group is dead: the sleeper holds the pipe that is being read.
        let answer = run(command, Duration::from_millis(50));
        assert!(
            matches!(answer, Err(ProbeError::TimedOut { .. })),
            "{answer:?}"
        );
    }
}
