//! Machines' stand-ins, each a process: this program, started again with a part to play.
//!
//! ```text
//!  bench                                    peer
//!    ├─ starts it, its part as arguments ───▶│
//!    ├─ ports' ends, through its stdin ─────▶│ plays
//!    ├─ closes its stdin ───────────────────▶│ a sender ends now, others by themselves
//!    │◀─ a report, one line on its stdout ───┤
//! ```

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::port::{Mark, Port, Wire, source_of, target_of};
use crate::sorted::Sorted;

/// More than any measurement has; the kernel passes 253 at once.
const PORTS_MAX: usize = 64;
/// The end mark may be lost, and is sent again this often.
const END_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// What a peer does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Writes frames to its ports in turn, then end marks until its stdin ends. Reports when it began.
    Send { frames: u64, frame_bytes: usize },
    /// Reads until each port has brought its end mark or was closed. Reports how many frames there were, and
    /// when the last came.
    Receive,
    /// Sends a frame and waits for the answer, again and again. Reports what the times came to.
    Ping { rounds: usize },
    /// Answers each frame, until it is closed.
    Echo,
}

impl Part {
    /// The part of this process, and `None` in the one that measures.
    pub(crate) fn of_this_process() -> Option<(Part, Wire)> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [peer, wire, part, numbers @ ..] = &words[..] else {
            return None;
        };
        let wire = Wire::of_word(wire).filter(|_| peer == "peer")?;
        let number = |index: usize| numbers[index].parse::<u64>().unwrap();
        let part = match part.as_str() {
            "send" => Part::Send {
                frames: number(0),
                frame_bytes: number(1) as usize,
            },
            "receive" => Part::Receive,
            "ping" => Part::Ping {
                rounds: number(0) as usize,
            },
            "echo" => Part::Echo,
            other => panic!("no part is called {other}"),
        };
        Some((part, wire))
    }

    fn words(self) -> Vec<String> {
        match self {
            Part::Send {
                frames,
                frame_bytes,
            } => vec![
                "send".to_owned(),
                frames.to_string(),
                frame_bytes.to_string(),
            ],
            Part::Receive => vec!["receive".to_owned()],
            Part::Ping { rounds } => vec!["ping".to_owned(), rounds.to_string()],
            Part::Echo => vec!["echo".to_owned()],
        }
    }
}

/// A peer that plays. It is killed when dropped before its report.
pub(crate) struct Peer {
    process: Child,
    control: Option<UnixStream>,
}

impl Peer {
    pub(crate) fn start(part: Part, wire: Wire, ends: Vec<OwnedFd>) -> Peer {
        let (near, far) = UnixStream::pair().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["peer", wire.word()])
            .args(part.words())
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        pass(&near, &ends);
        Peer {
            process,
            control: Some(near),
        }
    }

    /// Closes its stdin and waits for its report and its end.
    pub(crate) fn report(mut self) -> Value {
        self.control = None;
        let mut text = String::new();
        let mut stdout = self.process.stdout.take().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "a peer ended with {status}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The one byte goes along because nothing cannot be sent.
fn pass(control: &UnixStream, ends: &[OwnedFd]) {
    let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PORTS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&ends)));
    sendmsg(
        control,
        &[IoSlice::new(&[0])],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
}

fn passed() -> Vec<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PORTS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        std::io::stdin(),
        &mut [IoSliceMut::new(&mut [0])],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut ends = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            ends.extend(descriptors);
        }
    }
    assert!(!ends.is_empty(), "no ports were passed");
    ends
}

/// Plays a part to its end and prints the report.
pub(crate) fn play((part, wire): (Part, Wire)) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let ports: Vec<Port> = passed()
        .into_iter()
        .map(|end| Port::new(wire, end))
        .collect();
    let report = match part {
        Part::Send {
            frames,
            frame_bytes,
        } => send(&ports, frames, frame_bytes),
        Part::Receive => receive(ports),
        Part::Ping { rounds } => ping(ports, rounds),
        Part::Echo => echo(ports),
    };
    println!("{report}");
}

/// The time since the host's start, which all processes share.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn send(ports: &[Port], frames: u64, frame_bytes: usize) -> Value {
    let packed = |mark| -> Vec<Vec<u8>> {
        let one = |(pair, port): (usize, &Port)| {
            let (to, from) = (target_of(pair), source_of(pair));
            port.wire().packed(to, from, mark, frame_bytes)
        };
        ports.iter().enumerate().map(one).collect()
    };
    let (data, ends) = (packed(Mark::Data), packed(Mark::End));
    let start = now();
    let turns = ports.iter().zip(&data).cycle();
    for (_, (port, frame)) in (0..frames).zip(turns) {
        if port.send(frame).is_err() {
            // The switch has ended, and with it the measurement.
            break;
        }
    }
    while !stdin_ended() {
        for (port, end) in ports.iter().zip(&ends) {
            let _ = port.send(end);
        }
    }
    json!({ "start": nanos(start) })
}

/// Tells whether nobody needs more end marks, and waits a moment to see.
fn stdin_ended() -> bool {
    let stdin = std::io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&END_AGAIN)).unwrap() > 0
}

/// What has come in so far.
#[derive(Default)]
struct Tally {
    frames: u64,
    last: Duration,
}

impl Tally {
    /// Reads once; true if that was the last of this port.
    fn read(&mut self, port: &mut Port) -> Result<bool, Errno> {
        let before = self.frames;
        let mut ended = false;
        let open = port.receive(|mark| match mark {
            Mark::Hello => {}
            Mark::Data => self.frames += 1,
            Mark::End => ended = true,
        })?;
        if self.frames > before {
            self.last = now();
        }
        Ok(ended || !open)
    }
}

fn receive(mut ports: Vec<Port>) -> Value {
    let mut tally = Tally::default();
    match &mut ports[..] {
        [port] => while !tally.read(port).unwrap() {},
        ports => receive_all(ports, &mut tally),
    }
    json!({ "frames": tally.frames, "last": nanos(tally.last) })
}

/// Drains the ports that have something, until all have ended.
fn receive_all(ports: &mut [Port], tally: &mut Tally) {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (index, port) in ports.iter().enumerate() {
        rustix::io::ioctl_fionbio(port, true).unwrap();
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, port, data, EventFlags::IN).unwrap();
    }
    let mut open = ports.len();
    let mut events = Vec::with_capacity(PORTS_MAX);
    while open > 0 {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let port = &mut ports[event.data.u64() as usize];
            if drain(port, tally) {
                epoll::delete(&epoll, &*port).unwrap();
                open -= 1;
            }
        }
    }
}

fn drain(port: &mut Port, tally: &mut Tally) -> bool {
    loop {
        match tally.read(port) {
            Ok(false) => {}
            Ok(true) => return true,
            Err(Errno::AGAIN) => return false,
            Err(error) => panic!("could not read from a port: {error}"),
        }
    }
}

fn ping(ports: Vec<Port>, rounds: usize) -> Value {
    let [mut port] = <[Port; 1]>::try_from(ports).ok().unwrap();
    let packed = |mark| {
        let (to, from) = (target_of(0), source_of(0));
        port.wire().packed(to, from, mark, crate::SMALL)
    };
    let (frame, end) = (packed(Mark::Data), packed(Mark::End));
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = now();
        port.send(&frame).unwrap();
        port.await_one();
        times.push(nanos(now() - start) as f64 / 1000.0);
    }
    port.send(&end).unwrap();
    let times = Sorted::of(times);
    json!({ "median_us": times.median(), "p99_us": times.percentile(99) })
}

fn echo(ports: Vec<Port>) -> Value {
    let [mut port] = <[Port; 1]>::try_from(ports).ok().unwrap();
    let (to, from) = (source_of(0), target_of(0));
    let frame = port.wire().packed(to, from, Mark::Data, crate::SMALL);
    while port.await_one() == Mark::Data {
        port.send(&frame).unwrap();
    }
    json!({})
}
