//! One child process: awaits its end, kills it when dropped.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    thread,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use super::Keeper;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(formatter, "exit code {code}"),
            Exit::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// A child process; killed and reaped when dropped.
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<Exit>>,
    reaper: Option<thread::JoinHandle<()>>,
}

impl Child {
    /// Takes the child over; a thread of its own waits for its end.
    pub(super) fn adopt(mut child: std::process::Child) -> io::Result<Child> {
        let pid = child.id();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| io::Error::other("a child without a pid"))?;
        // The child is not reaped before this, so its number cannot have passed to another process.
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        let (publish, exit) = watch::channel(None);
        let reaper = thread::Builder::new()
            .name(format!("mvm-wait-{pid}"))
            .spawn(move || {
                let status = child.wait();
                let exit = status.map_or(Exit::Signal(0), |status| match status.code() {
                    Some(code) => Exit::Code(code),
                    None => Exit::Signal(status.signal().unwrap_or(0)),
                });
                publish.send_replace(Some(exit));
            })?;
        Ok(Child {
            pid,
            pidfd,
            exit,
            reaper: Some(reaper),
        })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns how the child ended, or `None` while it runs.
    pub fn try_exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until the child has ended. Cancel safe; any number of callers may wait.
    pub async fn wait(&self) -> Exit {
        self.end().await;
        // The reaper publishes before it lets go of the channel.
        self.try_exit().unwrap_or(Exit::Signal(0))
    }

    /// Waits until the child has ended, without a hold on it.
    pub fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            let _ = exit.wait_for(Option::is_some).await;
        }
    }

    /// Waits until the child has ended. Blocks.
    pub fn join(mut self) -> Exit {
        if let Some(reaper) = self.reaper.take() {
            // Its thread cannot panic.
            let _ = reaper.join();
        }
        self.try_exit().unwrap_or(Exit::Signal(0))
    }

    /// Kills the child at once; a child that has ended already is no error.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if let Some(reaper) = self.reaper.take() {
            // A killed child ends at once; its thread cannot panic.
            let _ = reaper.join();
        }
        if let Ok(keeper) = Keeper::get() {
            keeper.watcher.forget_process(self.pid);
        }
    }
}
