//! The watcher's end in this process: starts it and tells it what to clean.
//!
//! The watcher is the guest agent's binary in its `watch` mode: static, embedded, so nothing else
//! needs to be built or found. It runs from a memory file, so nothing of it is left on disk.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};

use crate::agent_binary;

pub(super) struct Watcher {
    pipe: Mutex<File>,
    pid: u32,
}

impl Watcher {
    /// Starts the watcher with `spawn`, which keeps the given descriptor open in the child.
    pub(super) fn start(
        spawn: impl FnOnce(Command, OwnedFd) -> io::Result<std::process::Child>,
    ) -> io::Result<Watcher> {
        let mut program = File::from(rustix::fs::memfd_create(
            "mvm-ci-watcher",
            MemfdFlags::CLOEXEC,
        )?);
        program.write_all(agent_binary::BYTES)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            program.as_raw_fd()
        ));
        command
            .args(["watch", "--fd", &reader.as_raw_fd().to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = spawn(command, reader)?;
        Ok(Watcher {
            pipe: Mutex::new(File::from(writer)),
            pid: child.id(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn watch_process(&self, pid: u32) {
        if let Some(start_time) = start_time(pid) {
            self.tell(&format!("process {pid} {start_time}\n"));
        }
    }

    pub(super) fn forget_process(&self, pid: u32) {
        self.tell(&format!("forget-process {pid}\n"));
    }

    /// Returns false for a path that the line protocol cannot carry.
    pub(super) fn watch_path(&self, path: &Path) -> bool {
        match path.to_str().filter(|text| !text.contains(['\n', '\r'])) {
            Some(text) => {
                self.tell(&format!("path {text}\n"));
                true
            }
            None => false,
        }
    }

    pub(super) fn forget_path(&self, path: &Path) {
        self.tell(&format!("forget-path {}\n", path.display()));
    }

    fn tell(&self, line: &str) {
        let mut pipe = self
            .pipe
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(error) = pipe.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the watcher is gone: a killed run may leave files behind");
        }
    }
}

/// Returns field 22 of `/proc/PID/stat`, which tells a process from a later one with its number.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}
