//! The sockets between switch and machines: made in pairs, prepared, measured.
//!
//! Reading and writing them is done in `worker`.
//!
//! The kernel tells what a machine has not read by an `ioctl` that `rustix` has no function for. This module
//! is the one place that calls it by its number, which the compiler cannot check.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, FdFlags};
use rustix::ioctl::{Getter, Opcode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// What a machine may have sent and we have not read. The kernel charges each small frame several times
/// its size, so its default holds some three hundred; it caps this at `net.core.wmem_max`.
pub(crate) const MACHINE_SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// What we may have sent and a machine has not read. Smaller, because a cut cannot call these bytes back.
const SWITCH_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// The two ends of a connection that has no port yet, for a machine that is started before it has one.
///
/// Both are close-on-exec. The switch's end goes to [`Switch::adopt`](crate::Switch::adopt).
#[derive(Debug)]
pub struct Connection {
    /// The end for the switch.
    pub switch_end: OwnedFd,
    /// The end for the machine, as [`Switch::attach`](crate::Switch::attach) would give it.
    pub machine_end: OwnedFd,
}

impl Connection {
    /// Makes a connection.
    ///
    /// # Errors
    ///
    /// If the kernel gives no sockets.
    pub fn new() -> io::Result<Connection> {
        let (switch_end, machine_end) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        prepare(&switch_end)?;
        sockopt::set_socket_send_buffer_size(&machine_end, MACHINE_SEND_BUFFER_BYTES)?;
        Ok(Connection {
            switch_end,
            machine_end,
        })
    }
}

/// Makes a socket fit to be the switch's end of a connection, or tells why it cannot be.
pub(crate) fn prepare(end: &OwnedFd) -> Result<(), Errno> {
    if sockopt::socket_domain(end)? != AddressFamily::UNIX {
        return Err(Errno::AFNOSUPPORT);
    }
    if sockopt::socket_type(end)? != SocketType::STREAM {
        return Err(Errno::PROTOTYPE);
    }
    // Fails on a socket that listens or was never connected.
    rustix::net::getpeername(end)?;
    rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(end, true)?;
    // The receiving side of a Unix socket has no buffer of its own to enlarge.
    sockopt::set_socket_send_buffer_size(end, SWITCH_SEND_BUFFER_BYTES)
}

/// What the kernel still holds of the bytes sent through `end`, in bytes of its memory.
///
/// That is more than the bytes themselves, and counts a buffer read in part as a whole. Zero means that the
/// other side has read everything.
pub(crate) fn unread_memory_bytes(end: impl AsFd) -> Result<usize, Errno> {
    const OUTPUT_QUEUE: Opcode = libc::TIOCOUTQ as Opcode;
    // SAFETY: `TIOCOUTQ`, also known as `SIOCOUTQ`, writes one `int` to where its argument points.
    let getter = unsafe { Getter::<OUTPUT_QUEUE, c_int>::new() };
    // SAFETY: As above; the descriptor is borrowed, hence open.
    let bytes = unsafe { rustix::ioctl::ioctl(end, getter) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn what_is_sent_counts_until_all_of_it_is_read() {
        let Connection {
            switch_end,
            machine_end,
        } = Connection::new().unwrap();
        let (mut near, mut far) = (UnixStream::from(switch_end), UnixStream::from(machine_end));
        assert_eq!(unread_memory_bytes(&near), Ok(0));
        near.write_all(&[7; 100]).unwrap();
        assert!(unread_memory_bytes(&near).unwrap() >= 100);
        far.read_exact(&mut [0; 99]).unwrap();
        assert!(unread_memory_bytes(&near).unwrap() > 0);
        far.read_exact(&mut [0]).unwrap();
        assert_eq!(unread_memory_bytes(&near), Ok(0));
    }

    #[track_caller]
    fn check_unfit(end: impl Into<OwnedFd>, expected: Errno) {
        assert_eq!(prepare(&end.into()), Err(expected));
    }

    #[test]
    fn only_a_connected_unix_stream_is_fit() {
        check_unfit(std::fs::File::open("/dev/null").unwrap(), Errno::NOTSOCK);
        check_unfit(UnixDatagram::pair().unwrap().0, Errno::PROTOTYPE);
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        check_unfit(tcp, Errno::AFNOSUPPORT);
        let lonely = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        check_unfit(lonely, Errno::NOTCONN);
    }
}
