//! One child process: awaits its end, kills it when dropped.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::{io::unix::AsyncFd, sync::watch, task::JoinHandle};

use super::{Keeper, Watcher};

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
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
    reaper: JoinHandle<()>,
}

impl Child {
    pub(super) fn adopt(child: std::process::Child, watcher: &Watcher) -> io::Result<Child> {
        let pid = child.id();
        watcher.watch_process(pid);
        let raw = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("a child without a pid"))?;
        // The child is not reaped before this, so its number cannot have passed to another process.
        let pidfd = Arc::new(pidfd_open(raw, PidfdFlags::empty())?);
        let (publish, exit) = watch::channel(None);
        let ended = AsyncFd::with_interest(Arc::clone(&pidfd), tokio::io::Interest::READABLE)?;
        let reaper = tokio::spawn(async move {
            if ended.readable().await.is_ok()
                && let Some(status) = reap(ended.get_ref(), WaitIdOptions::NOHANG)
            {
                publish.send_replace(Some(status));
            }
        });
        Ok(Child { pid, pidfd, exit, reaper })
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
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        // The reaper publishes before it ends; a runtime that shuts down has killed the child.
        ended.ok().and_then(|status| *status).unwrap_or(Exit::Signal(Signal::KILL.as_raw()))
    }

    /// Kills the child at once; a child that has ended already is no error.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.reaper.abort();
        if self.try_exit().is_none() {
            self.kill();
            reap(&self.pidfd, WaitIdOptions::empty());
        }
        if let Ok(keeper) = Keeper::get() {
            keeper.watcher.forget_process(self.pid);
        }
    }
}

/// Reaps the ended child; `None` if it was reaped already or, with `NOHANG`, still runs.
fn reap(pidfd: &OwnedFd, options: WaitIdOptions) -> Option<Exit> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | options).ok()??;
    Some(match status.exit_status() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.terminating_signal().unwrap_or(0)),
    })
}
