//! The few system calls for which `rustix` has no safe function. Nothing else in the crate is unsafe.
#![expect(
    unsafe_code,
    reason = "signalfd, the signal mask and priority of children, sessions of children, signals by number, ioctls of the random device and of disks, packet addresses and adopting an inherited descriptor"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, ioctl_tiocsctty, setsid};
use rustix::stdio::stdin;

/// One more than the highest number of a standard signal (signal(7)).
const SIGNALS_END: i32 = 32;

/// Adopts a descriptor that the process inherited.
///
/// The caller names each number once, at start, before opening anything: that is what makes the descriptor
/// the caller's own.
pub(super) fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and by the contract above nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Blocks these signals for the process (for its only thread) and returns a non-blocking descriptor that
/// yields them. Programs inherit the block: see [`reset_signals`].
pub(super) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; sigaddset refuses numbers that are no signals; the other two
    // read the set.
    let number = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has a program begin with no signal blocked, whatever [`signal_fd`] blocked here, and none ignored, whatever whoever
/// started this daemon ignored: a shell could not change that.
pub(super) fn reset_signals(command: &mut Command) {
    let reset = || {
        for signal in 1..SIGNALS_END {
            // SAFETY: this sets no handler. Those that cannot be changed are refused.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, sigprocmask reads it; both may be called after a fork.
        let failed = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) < 0
        };
        if failed {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: the closure makes async-signal-safe calls alone and allocates nothing.
    unsafe { command.pre_exec(reset) };
}

/// Has a program lead a session of its own, with its standard input, which is to be a terminal, as that session's
/// terminal.
pub(super) fn lead_session(command: &mut Command) {
    let lead = || {
        setsid()?;
        ioctl_tiocsctty(stdin())?;
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing; descriptor 0 is set by then.
    unsafe { command.pre_exec(lead) };
}

/// Has a program run at the usual priority, whatever this process has.
pub(super) fn usual_priority(command: &mut Command) {
    let lower = || {
        // SAFETY: it takes any numbers. It fails where this process has a lower priority and may not raise it: then that
        // is the usual one here.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
        Ok(())
    };
    // SAFETY: the closure makes an async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(lower) };
}

/// Sends a signal, by its number, to a process group.
pub(super) fn signal_group(group: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes any numbers; a `Pid` is positive, so this addresses one group.
    if unsafe { libc::kill(-group.as_raw_nonzero().get(), signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a signal, by its number, to one process.
pub(super) fn signal_process(process: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes any numbers; a `Pid` is positive, so this addresses one process.
    if unsafe { libc::kill(process.as_raw_nonzero().get(), signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a signal to every process but PID 1, which alone may call this.
pub(super) fn signal_everybody(signal: i32) {
    assert_eq!(std::process::id(), 1, "only PID 1 owns all processes");
    // SAFETY: kill takes any numbers. It fails only when there is nobody else.
    unsafe { libc::kill(-1, signal) };
}

/// Mixes bytes into the kernel's random pool, counts them as entropy, and reseeds its generator, so that
/// two machines restored from one snapshot go different ways at once.
pub(super) fn add_entropy(random: &impl AsRawFd, entropy: &[u8]) -> io::Result<()> {
    const POOL_BYTES_MAX: usize = 256;
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    /// The kernel's `struct rand_pool_info` with room for the bytes.
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: libc::c_int,
        buffer_bytes: libc::c_int,
        buffer: [u8; POOL_BYTES_MAX],
    }
    let count = entropy.len().min(POOL_BYTES_MAX);
    let mut info = PoolInfo {
        entropy_bits: count as libc::c_int * 8,
        buffer_bytes: count as libc::c_int,
        buffer: [0; POOL_BYTES_MAX],
    };
    info.buffer[..count].copy_from_slice(&entropy[..count]);
    // SAFETY: the kernel reads the two numbers and `buffer_bytes` bytes after them, all within `info`.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this call has no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) } < 0 {
        let error = io::Error::last_os_error();
        // A generator that was never seeded has nothing to forget: it takes from the pool each time.
        if error.raw_os_error() != Some(libc::ENODATA) {
            return Err(error);
        }
    }
    Ok(())
}

/// Writes out and forgets what the kernel remembers of a block device's content.
pub(super) fn flush_block_device(device: &impl AsRawFd) -> io::Result<()> {
    const BLKFLSBUF: libc::c_ulong = 0x1261;
    // SAFETY: the call has no argument, and fails on what is no block device.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF as _, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a whole frame, with its header, from the card with this index through a raw packet socket.
pub(super) fn send_on_link(socket: &impl AsRawFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zeros is a value of this structure of numbers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the kernel reads the frame and the address, each no further than the length told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
