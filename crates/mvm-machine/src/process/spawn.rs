//! What a child does between `fork` and `exec`: ask to die with its parent, keep its descriptors, take small pages.
//!
//! `CommandExt::pre_exec` is unsafe because only async-signal-safe calls are allowed between `fork`
//! and `exec` in a threaded program; this module is the one place that takes that duty.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    io::FdFlags,
    process::{Signal, getpid, getppid, set_parent_process_death_signal, setpgid},
    thread::disable_transparent_huge_pages,
};

/// Makes the child its own process group, sent `signal` by the kernel when the spawning thread ends.
///
/// The parent is checked after the signal is armed: a parent that died in between would never send it.
pub(super) fn dies_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(signal))?;
        if getppid() != Some(parent) {
            return Err(io::Error::other("the parent ended before its child began"));
        }
        setpgid(None, None)?;
        Ok(())
    };
    // SAFETY: `prepare` makes only system calls (prctl, getppid, setpgid); the error it may build is
    // allocated only when the parent is already gone and the child is about to end.
    unsafe { command.pre_exec(prepare) };
}

/// Gives the child its memory in small pages only, whatever it asks for: it has then what it touches, and no more is cleared
/// for it.
pub(crate) fn in_small_pages(command: &mut Command) {
    let prepare = || {
        // A kernel that has no large pages does not know this, and needs it not.
        let _ = disable_transparent_huge_pages(true);
        Ok(())
    };
    // SAFETY: `prepare` makes only one system call (prctl).
    unsafe { command.pre_exec(prepare) };
}

/// Leaves `descriptors` open across `exec`, under the same numbers, in this child only.
pub(super) fn keep_open(command: &mut Command, descriptors: &[OwnedFd]) {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        for &number in &numbers {
            // SAFETY: the order that carries these descriptors keeps them open until after `spawn`.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: `prepare` makes only fcntl calls on descriptors that outlive the fork.
    unsafe { command.pre_exec(prepare) };
}
