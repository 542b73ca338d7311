//! Runs one child at a time to its end, through signals. What to run is decided by the tasks.
//!
//! At a terminal the child shares our process group: Ctrl-C reaches it without us, we only wait for it to
//! clean up, and sudo may ask for a password. Without a terminal the child gets a group of its own, and whatever asks
//! us to stop is passed to that whole group, because cargo does not pass signals on to the tests it runs.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, getpgrp, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stop::Stop;
use crate::talk;

/// Owns the signals of this process from its start to its end.
pub(crate) struct Runner {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// Where the child lives with respect to us.
#[derive(Clone, Copy)]
enum Group {
    Shared,
    Own,
}

impl Runner {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Says what is run, runs it, and fails with [`Stop`] unless it succeeds; returns how long it took.
    pub(crate) async fn run(&mut self, phase: &str, command: Command) -> anyhow::Result<Duration> {
        let text = describe(&command);
        talk::say(format_args!("xtask: {phase}: {text}"));
        let (status, elapsed) = self.status(phase, command).await?;
        if status.success() {
            Ok(elapsed)
        } else {
            Err(Stop::Child {
                phase: phase.to_owned(),
                command: text,
                status,
            }
            .into())
        }
    }

    /// Runs a child to its end, whatever that is, and tells how long it took.
    pub(crate) async fn status(
        &mut self,
        phase: &str,
        mut command: Command,
    ) -> anyhow::Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        let group = if owns_terminal() {
            Group::Shared
        } else {
            Group::Own
        };
        if let Group::Own = group {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let text = describe(&command);
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .with_context(|| format!("could not start `{text}`"))?;
        let (status, interrupted) = self.wait(&mut child, group).await?;
        if interrupted {
            return Err(Stop::Interrupted {
                phase: phase.to_owned(),
            }
            .into());
        }
        Ok((status, start.elapsed()))
    }

    /// Does our own work until it is done or somebody asks us to stop; the work is dropped then.
    pub(crate) async fn until_interrupted<T>(
        &mut self,
        phase: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        tokio::select! {
            result = pin!(work) => Ok(result),
            _ = self.asked_to_stop() => Err(Stop::Interrupted { phase: phase.to_owned() }),
        }
    }

    async fn wait(&mut self, child: &mut Child, group: Group) -> io::Result<(ExitStatus, bool)> {
        let mut interrupted = false;
        loop {
            tokio::select! {
                status = child.wait() => return Ok((status?, interrupted)),
                asked = self.asked_to_stop() => {
                    interrupted = true;
                    pass_on(asked, child, group);
                }
            }
        }
    }

    async fn asked_to_stop(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
            _ = self.hangup.recv() => rustix::process::Signal::HUP,
        }
    }
}

/// The terminal's own interrupts and hang-ups reach a shared group without us; only `kill` has to be passed on.
fn pass_on(signal: rustix::process::Signal, child: &Child, group: Group) {
    let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    else {
        return;
    };
    // The child may have ended in this instant, which is what was asked for.
    let _ = match group {
        Group::Own => kill_process_group(pid, signal),
        Group::Shared if signal == rustix::process::Signal::TERM => kill_process(pid, signal),
        Group::Shared => Ok(()),
    };
}

/// Whether we are the foreground job of a terminal.
fn owns_terminal() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal()
        && rustix::termios::tcgetpgrp(&stdin).is_ok_and(|foreground| foreground == getpgrp())
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program)
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Runner, describe};
    use crate::stop::Stop;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn exit_code(script: &str) -> Option<u8> {
        let error = Runner::new()
            .unwrap()
            .run("a test", shell(script))
            .await
            .err()?;
        Some(error.downcast_ref::<Stop>().unwrap().exit_code())
    }

    #[tokio::test]
    async fn the_childs_end_is_ours() {
        assert_eq!(exit_code("exit 0").await, None);
        assert_eq!(exit_code("exit 4").await, Some(4));
        assert_eq!(exit_code("kill -KILL $$").await, Some(137));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = Runner::new()
            .unwrap()
            .run("a test", Command::new("/no/such/program"))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("could not start `program`"),
            "{error:#}"
        );
    }

    #[test]
    fn commands_read_as_typed() {
        assert_eq!(describe(&shell("true")), "sh -c true");
    }
}
