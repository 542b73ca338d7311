//! A machine's end of a port: how frames go through its socket, and the frames themselves.
//!
//! Where ends come from is in `switches`; what is done with them in `peer`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// What QEMU reads at most at once, `NET_BUFSIZE`.
const READ_BYTES: usize = 4096 + 65536;
const PREFIX_BYTES: usize = 4;
/// Where a frame's mark is: behind the header.
const MARK: usize = 14;
/// No frame is under way as long, unless it is lost.
const HANG: Duration = Duration::from_secs(10);

/// What a frame is for; the first byte of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// Tells the switch where its sender is.
    Hello = 1,
    /// Is counted and timed.
    Data = 2,
    /// No data follows.
    End = 3,
}

/// A numbered station's hardware address.
fn station(number: usize) -> [u8; 6] {
    let [.., high, low] = number.to_be_bytes();
    [0x52, 0x54, 0, 0, high, low]
}

/// The station behind the sending port of a pair.
pub(crate) fn source_of(pair: usize) -> usize {
    2 * pair + 1
}

/// The station behind the receiving port of a pair.
pub(crate) fn target_of(pair: usize) -> usize {
    2 * pair + 2
}

fn frame(target: usize, source: usize, mark: Mark, bytes: usize) -> Vec<u8> {
    // The type is one of those for experiments.
    let mut frame = [&station(target)[..], &station(source), &[0x88, 0xb5]].concat();
    frame.push(mark as u8);
    frame.resize(bytes, 0);
    frame
}

/// How frames go through a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// One after the other, each with its length in front: QEMU's `-netdev stream`, our switch.
    Stream,
    /// One per datagram: `vde_switch`.
    Datagram,
}

impl Wire {
    /// Its word on the command line of a peer.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Wire::Stream => "stream",
            Wire::Datagram => "datagram",
        }
    }

    pub(crate) fn of_word(word: &str) -> Option<Wire> {
        [Wire::Stream, Wire::Datagram]
            .into_iter()
            .find(|wire| wire.word() == word)
    }

    /// A frame as one write puts it into the socket.
    pub(crate) fn packed(self, target: usize, source: usize, mark: Mark, bytes: usize) -> Vec<u8> {
        let frame = frame(target, source, mark, bytes);
        match self {
            Wire::Stream => [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat(),
            Wire::Datagram => frame,
        }
    }
}

/// A machine's end of a port, in use.
pub(crate) struct Port {
    wire: Wire,
    socket: OwnedFd,
    buffer: Box<[u8]>,
    /// How much of the buffer's beginning is the beginning of a frame.
    partial: usize,
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port {
    pub(crate) fn new(wire: Wire, socket: OwnedFd) -> Port {
        Port {
            wire,
            socket,
            buffer: vec![0; 2 * READ_BYTES].into_boxed_slice(),
            partial: 0,
        }
    }

    /// Gives the socket back, between two frames.
    pub(crate) fn into_socket(self) -> OwnedFd {
        assert_eq!(self.partial, 0, "a frame has arrived in part");
        self.socket
    }

    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    /// Writes a packed frame, and waits as long as the kernel has no room for it.
    pub(crate) fn send(&self, packed: &[u8]) -> Result<(), Errno> {
        let mut rest = packed;
        while !rest.is_empty() {
            match rustix::io::write(&self.socket, rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once and hands over the mark of each frame that is complete now. False at the end of a stream.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(Mark)) -> Result<bool, Errno> {
        let space = &mut self.buffer[self.partial..][..READ_BYTES];
        let bytes = rustix::io::read(&self.socket, space)?;
        if bytes == 0 {
            return Ok(false);
        }
        match self.wire {
            Wire::Datagram => take(mark_of(&self.buffer[..bytes])),
            Wire::Stream => self.unpack(self.partial + bytes, take),
        }
        Ok(true)
    }

    fn unpack(&mut self, filled: usize, mut take: impl FnMut(Mark)) {
        let mut rest = &self.buffer[..filled];
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            let Some((frame, after)) = after.split_at_checked(length) else {
                break;
            };
            take(mark_of(frame));
            rest = after;
        }
        self.partial = rest.len();
        self.buffer.copy_within(filled - self.partial..filled, 0);
    }

    /// Reads and forgets what is there already.
    pub(crate) fn drain(&mut self) {
        while self.is_readable(Duration::ZERO) {
            assert!(self.receive(|_| {}).unwrap(), "the switch hung up");
        }
    }

    /// Waits for a frame with this mark.
    pub(crate) fn await_mark(&mut self, awaited: Mark) {
        let mut arrived = false;
        while !arrived {
            assert!(self.is_readable(HANG), "no {awaited:?} arrives");
            let open = self.receive(|mark| arrived |= mark == awaited);
            assert!(open.unwrap(), "the switch hung up");
        }
    }

    /// Waits for the next frame, where no two are under way at once.
    pub(crate) fn await_one(&mut self) -> Mark {
        let mut arrived = None;
        while arrived.is_none() {
            let open = self.receive(|mark| arrived = Some(mark)).unwrap();
            assert!(open, "the switch hung up");
        }
        arrived.unwrap()
    }

    fn is_readable(&self, allowed: Duration) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let allowed = Timespec::try_from(allowed).unwrap();
        rustix::event::poll(&mut polled, Some(&allowed)).unwrap() > 0
    }
}

fn mark_of(frame: &[u8]) -> Mark {
    match frame[MARK] {
        1 => Mark::Hello,
        2 => Mark::Data,
        3 => Mark::End,
        other => panic!("a frame of nobody's arrived, marked {other}"),
    }
}

/// Lets both stations of a pair speak, so that the switch knows where they are.
///
/// The first frame is flooded. The switch is done with all its copies before it handles the answer, so
/// after this the other ports can be drained for good.
pub(crate) fn introduce(pair: usize, source: &mut Port, target: &mut Port) {
    let (a, b) = (source_of(pair), target_of(pair));
    let hello = |to, from| source.wire.packed(to, from, Mark::Hello, super::SMALL);
    let (there, back) = (hello(b, a), hello(a, b));
    source.send(&there).unwrap();
    target.await_mark(Mark::Hello);
    target.send(&back).unwrap();
    source.await_mark(Mark::Hello);
}

/// Two machines' ends that are joined without any switch.
pub(crate) fn direct_pair() -> [OwnedFd; 2] {
    let (a, b) = UnixStream::pair().unwrap();
    [a.into(), b.into()]
}
