//! TCP on behalf of the host: waiting for a port and relaying a connection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, connect, ipproto, shutdown, socket_with,
    sockopt,
};

use super::services::Services;
use super::work::{Input, InputQueue, Kind, Outlet, Progress, Work, failure};
use crate::protocol::{Cause, DATA_BYTES_MAX, Failure, Lane, Reply, ToHost};

/// The pause between two attempts to connect: well below what a person or a test notices.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How long one attempt may take. A packet lost while the peer's interface comes up would otherwise cost
/// the kernel's retransmission time, which doubles from one second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// Begins to connect without waiting.
fn begin_connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Whether a connection that was begun stands by now.
///
/// One to itself does not count: the kernel makes that of an attempt whose own port happens to be the one that it is
/// for (RFC 9293, 3.5, simultaneous open), and nobody listens there.
fn is_connected(socket: &OwnedFd) -> Result<bool, Errno> {
    sockopt::socket_error(socket)??;
    match rustix::net::getpeername(socket) {
        Ok(Some(peer)) if peer == rustix::net::getsockname(socket)? => Err(Errno::CONNREFUSED),
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Looks a host up: an address, or a name in `/etc/hosts`. There is no other name service in the lab, and
/// the C library's cannot be used from a static binary.
fn resolve(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    find_host(&hosts, host)
        .or_else(|| (host == "localhost").then_some(IpAddr::from([127, 0, 0, 1])))
}

fn find_host(hosts: &str, host: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    })
}

/// Tries to connect until somebody accepts.
#[derive(Debug)]
pub(super) struct PortWait {
    host: String,
    port: u16,
    deadline: Instant,
    attempts: u32,
    last: Cause,
    attempt: Attempt,
}

#[derive(Debug)]
enum Attempt {
    /// Nothing is under way until then.
    Paused { until: Instant },
    /// A connection was begun and is given up then.
    Begun { socket: OwnedFd, until: Instant },
}

impl PortWait {
    pub(super) fn begin(host: String, port: u16, timeout: Duration, now: Instant) -> Self {
        // A timeout beyond what the clock can count is no limit at all; a year stands for it.
        let deadline = now
            .checked_add(timeout)
            .unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        let last = Cause::Other("not tried yet".to_owned());
        Self {
            host,
            port,
            deadline,
            attempts: 0,
            last,
            attempt: Attempt::Paused { until: now },
        }
    }

    fn try_once(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        let Some(address) = resolve(&self.host) else {
            self.pause(
                now,
                Cause::Other(format!("`{}` is not in /etc/hosts", self.host)),
            );
            return;
        };
        match begin_connect(SocketAddr::new(address, self.port)) {
            Ok(socket) => {
                self.attempt = Attempt::Begun {
                    socket,
                    until: now + ATTEMPT_TIMEOUT,
                }
            }
            Err(errno) => self.pause(now, Cause::Os(errno.raw_os_error())),
        }
    }

    fn pause(&mut self, now: Instant, last: Cause) {
        self.last = last;
        self.attempt = Attempt::Paused {
            until: now + RETRY_INTERVAL,
        };
    }
}

impl Work for PortWait {
    fn kind(&self) -> Kind {
        Kind::PortWait
    }

    fn interests<'a>(&'a self, _may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        if let Attempt::Begun { socket, .. } = &self.attempt {
            interests.push(PollFd::new(socket, PollFlags::OUT));
        }
    }

    fn deadline(&self, _may_send: bool) -> Option<Instant> {
        let (Attempt::Paused { until } | Attempt::Begun { until, .. }) = &self.attempt;
        Some(self.deadline.min(*until))
    }

    fn input(&mut self, _input: Input) {}

    fn advance(
        &mut self,
        now: Instant,
        _services: &Services,
        _outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        if let Attempt::Paused { until } = &self.attempt
            && now >= *until
        {
            self.try_once(now);
        }
        if let Attempt::Begun { socket, until } = &self.attempt {
            match is_connected(socket) {
                Ok(true) => return Ok(Progress::Done(Reply::Nothing)),
                Ok(false) if now < *until => {}
                Ok(false) => self.pause(now, Cause::Os(Errno::TIMEDOUT.raw_os_error())),
                Err(errno) => self.pause(now, Cause::Os(errno.raw_os_error())),
            }
        }
        if now >= self.deadline {
            let last = self.last.clone();
            return Ok(Progress::Done(Reply::PortClosed {
                attempts: self.attempts,
                last,
            }));
        }
        Ok(Progress::Going)
    }
}

/// One TCP connection, relayed.
#[derive(Debug)]
pub(super) struct Dial {
    address: SocketAddr,
    socket: OwnedFd,
    connected: bool,
    pending: InputQueue,
    /// The peer takes no more, or was told that no more comes.
    output_closed: bool,
    /// The peer sends no more.
    input_closed: bool,
}

impl Dial {
    pub(super) fn begin(address: SocketAddr) -> Result<Self, Failure> {
        let socket = begin_connect(address)
            .map_err(|errno| failure(format!("connect to {address}"), &errno.into()))?;
        let (connected, output_closed, input_closed) = (false, false, false);
        Ok(Self {
            address,
            socket,
            connected,
            pending: InputQueue::default(),
            output_closed,
            input_closed,
        })
    }

    fn write(&mut self, outlet: &mut Outlet<'_>) {
        if self.output_closed {
            self.pending.discard(outlet);
            return;
        }
        if self.pending.write_to(&self.socket, outlet).is_err() {
            self.pending.discard(outlet);
            self.output_closed = true;
            outlet.send(&ToHost::InputClosed);
        } else if self.pending.is_finished() {
            self.output_closed = true;
            // A connection that is broken already shows when it is read.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    fn read(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Errno> {
        let room = outlet.room();
        if room == 0 || self.input_closed {
            return Ok(());
        }
        let mut buffer = [0; DATA_BYTES_MAX];
        match rustix::io::read(&self.socket, &mut buffer[..room]) {
            Ok(0) => {
                self.input_closed = true;
                outlet.send(&ToHost::End);
            }
            Ok(count) => outlet.data(Lane::Main, &buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }
}

impl Work for Dial {
    fn kind(&self) -> Kind {
        Kind::Connection
    }

    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        let mut flags = PollFlags::empty();
        flags.set(
            PollFlags::OUT,
            !self.connected || !(self.output_closed || self.pending.is_empty()),
        );
        flags.set(
            PollFlags::IN,
            self.connected && may_send && !self.input_closed,
        );
        // With nothing to wait for, a peer that hung up would be reported again and again.
        if !flags.is_empty() {
            interests.push(PollFd::new(&self.socket, flags));
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Data(chunk) => self.pending.push(chunk),
            Input::End => self.pending.end(),
            Input::Signal(_) | Input::Resize(_) | Input::Kill => {}
        }
    }

    fn advance(
        &mut self,
        _now: Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        let failed = |errno: Errno| failure(format!("connect to {}", self.address), &errno.into());
        if !self.connected {
            if !is_connected(&self.socket).map_err(failed)? {
                return Ok(Progress::Going);
            }
            self.connected = true;
            // Without this a small message could wait for the acknowledgement of the one before. A socket
            // that does not know the option works all the same.
            let _ = sockopt::set_tcp_nodelay(&self.socket, true);
            outlet.send(&ToHost::Started);
        }
        self.write(outlet);
        let address = self.address;
        self.read(outlet)
            .map_err(|errno| failure(format!("read from {address}"), &errno.into()))?;
        Ok(if self.input_closed && self.output_closed {
            Progress::Done(Reply::Nothing)
        } else {
            Progress::Going
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(host: &str, expected: Option<&str>) {
        let hosts = "127.0.0.1 localhost\n# 9.9.9.9 node1\n192.168.1.1\tnode1 web # first\nbad line\n2001:db8:1::2 Node2\n";
        assert_eq!(
            find_host(hosts, host),
            expected.map(|address| address.parse().unwrap())
        );
    }

    #[test]
    fn a_connection_to_itself_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            flags,
            Some(ipproto::TCP),
        )
        .unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        connect(&socket, &address).unwrap();
        assert_eq!(is_connected(&socket), Err(Errno::CONNREFUSED));
    }

    #[test]
    fn names_are_found_in_the_hosts_file() {
        check_host("node1", Some("192.168.1.1"));
        check_host("web", Some("192.168.1.1"));
        check_host("node2", Some("2001:db8:1::2"));
        check_host("first", None);
        check_host("node3", None);
    }
}
