//! The few system calls for which `rustix` has no safe function. Nothing else in the crate is unsafe.
#![expect(
    unsafe_code,
    reason = "fork of a single-threaded process, signalfd, signal masks and dispositions, closing inherited descriptors, ioprio_set, unshare, pre_exec"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(crate) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks. Only for a process of one thread, in which the child may go on as any program does; others are
/// refused.
pub(crate) fn fork() -> io::Result<Forked> {
    require_one_thread()?;
    // SAFETY: there is no other thread whose locks the child could inherit locked.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent))
}

/// Fails if this process has begun threads.
pub(crate) fn require_one_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        count => Err(io::Error::other(format!(
            "{count} threads run already: call `supervise_if_asked` first thing in `main`, before any runtime"
        ))),
    }
}

/// Moves this process, or the children it is going to have, into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags used here (new PID, user and mount namespaces) leave the descriptor table shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Closes every descriptor from `first` on. Only for a process that has opened none yet: what is closed is
/// what it inherited and nobody here knows.
pub(crate) fn close_inherited(first: u32) {
    // SAFETY: nothing in this process owns one of them, by the contract above.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Blocks all signals that can be, and returns a non-blocking descriptor that yields the ends of children.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut child = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first calls initialise the sets, the others read them.
    let number = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigemptyset(child.as_mut_ptr());
        libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        // An inherited `ignore` would have the kernel reap the children and tell nobody.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signalfd(-1, child.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has `prepare` run in the child between fork and exec. Only for a process of one thread, see [`fork`].
pub(crate) fn before_exec(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the supervisor has one thread (checked at its start), so its forked child may do what any
    // program may.
    unsafe { command.pre_exec(prepare) };
}

/// Gives every signal its default action and blocks none; for the child between fork and exec, which would
/// hand what is ignored or blocked on to the program.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction` of the default action, and its signal set, are all zeroes. The C library
    // would refuse the two signals it keeps for itself, and programs do leave them ignored.
    let default = [0_u64; 4];
    let none = 0_u64;
    // SAFETY: the kernel reads 32 and 8 bytes, and refuses signals that cannot be changed.
    unsafe {
        for signal in 1..=64 {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8);
        }
        let old = std::ptr::null_mut::<u64>();
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            old,
            8,
        );
    }
}

/// Sets this process's turn at the disks: `class` and `level` as in `ioprio_set(2)`.
pub(crate) fn set_disk_priority(class: i32, level: i32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_SHIFT: i32 = 13;
    // SAFETY: it only reads its numbers; 0 is this process.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            0,
            class << CLASS_SHIFT | level,
        )
    } < 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
