//! A packet capture: a pcapng file, and the thread that writes it.
//!
//! ```text
//!  switch A ──tap──┐ records                             writer thread
//!  switch B ──tap──┼────────▶ buffer of whole blocks ──────────────────▶ file
//!  switch B ──tap──┘          bounded, never waits        some times a second
//! ```
//!
//! What is in the buffer, and what is not for want of room, is decided in `packet_capture::buffer`; how blocks
//! look, in `pcapng`. Which frames of which ports are recorded is the taps' business, see
//! [`Switch::tap`](crate::Switch::tap). The capture of a switch's state is another thing, see
//! [`Switch::capture`](crate::Switch::capture).

mod buffer;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::buffer::Buffer;
use crate::pcapng::{Section, UnixNanos};

pub(crate) use self::buffer::{InterfaceId, Kind, Record};

/// How long a record waits for others before they are written together. Those who look into the file of a
/// running capture, or into one whose process was killed, miss no more than that.
const GATHER: Duration = Duration::from_millis(100);

/// How much memory the writer gives back to the buffer at the most; it seldom holds more.
const KEPT_BYTES: usize = 4 << 20;

/// How a packet capture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCaptureOptions {
    /// How large the file may grow by frames, in bytes. Recording stops before the first frame that would not
    /// fit. The descriptions of interfaces and their statistics, some hundred bytes for each, come on top.
    pub bytes_max: u64,
    /// How many bytes of each frame are kept; `None` for whole frames.
    pub snap_bytes: Option<NonZeroU32>,
    /// How many bytes may wait to be written. A frame that finds no room is not recorded, and counted as lost.
    pub buffer_bytes_max: usize,
}

impl PacketCaptureOptions {
    /// Whole frames, up to a gibibyte.
    pub const DEFAULT: PacketCaptureOptions = PacketCaptureOptions {
        // About a million full frames, and what Wireshark opens with patience.
        bytes_max: 1 << 30,
        snap_bytes: None,
        // Half a second of the fastest guest seen (600 Mbit/s), each frame recorded as it comes and as it goes.
        buffer_bytes_max: 64 << 20,
    };
}

/// What a packet capture has recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCaptureSummary {
    /// Frames recorded as they came from a machine.
    pub received: u64,
    /// Frames recorded as they were handed over to a machine.
    pub sent: u64,
    /// Frames recorded as they were dropped, each copy by itself.
    pub dropped: u64,
    /// Records lost because they came faster than they could be written.
    pub lost: u64,
    /// Records left out because the file had reached [`PacketCaptureOptions::bytes_max`].
    pub left_out: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// A packet capture could not be written; the file ends with what was written before.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the packet capture {} could not be written", path.display())]
pub struct PacketCaptureError {
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: Arc<io::Error>,
}

/// A running packet capture into a pcapng file of its own.
///
/// It records nothing by itself: switches are tapped for it, by [`Switch::tap`](crate::Switch::tap), as many as
/// wanted, at the same time or one after the other. Clones are handles of the same capture.
///
/// # What the file holds
///
/// One packet for each event, in the order of time, in nanoseconds of the host's clock as it was when the
/// capture began: it never goes back. Each belongs to an interface, one per name that a tap gives to a port.
///
/// | event | interface | direction | comment |
/// |---|---|---|---|
/// | a machine sent a frame | its port's | inbound | |
/// | the kernel took the whole of a frame for a machine | its port's | outbound | |
/// | a copy was dropped | the port's it was for | none | `dropped: cut (node1 to node2)` |
///
/// The comment has the [`Cause`](crate::Cause) and the names of the ports. A copy that had come to no egress
/// port, or to one that is not tapped, is at the interface of its ingress port. So each frame that
/// [`PortCounters`](crate::PortCounters) count as received, sent or dropped is one packet, and a copy that waits
/// is none yet.
///
/// What the capture misses, because the disk was too slow or the file full, is in the statistics at the end, by
/// interface.
///
/// # When it is written
///
/// A tenth of a second after the first of some events, at the latest; a switch never waits for it. The file
/// is a valid one after each write, and so it is if the process is killed. The last handle dropped
/// finishes it.
#[derive(Clone)]
pub struct PacketCapture {
    owner: Arc<Owner>,
}

impl PacketCapture {
    /// Creates the file, or empties it, and starts the thread that writes it.
    ///
    /// # Errors
    ///
    /// If the file cannot be created, or the kernel gives no thread.
    pub fn create(path: &Path, options: PacketCaptureOptions) -> io::Result<PacketCapture> {
        let file = File::create(path)?;
        let shared = Arc::new(Shared::new(options));
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("mvm-capture".to_owned())
            .spawn(move || write(&writer, file))?;
        let owner = Owner {
            path: path.to_owned(),
            shared,
            thread: Mutex::new(Some(thread)),
            outcome: OnceLock::new(),
        };
        Ok(PacketCapture {
            owner: Arc::new(owner),
        })
    }

    /// Ends the capture and waits until the file is written. Taps that are left record nothing any more.
    ///
    /// Every handle is told the same, however often.
    ///
    /// # Errors
    ///
    /// If the file could not be written, as on a full disk. The capture ended when that was found.
    pub fn finish(&self) -> Result<PacketCaptureSummary, PacketCaptureError> {
        self.owner.finish()
    }

    pub(crate) fn recorder(&self) -> Recorder {
        Recorder {
            shared: Arc::clone(&self.owner.shared),
        }
    }
}

impl fmt::Debug for PacketCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketCapture")
            .field("path", &self.owner.path)
            .finish_non_exhaustive()
    }
}

/// What all handles of a capture have together, and no tap has: the last one finishes the file, on the thread of
/// whoever drops it, which must not be a switch's.
struct Owner {
    path: PathBuf,
    shared: Arc<Shared>,
    /// `None` once it was awaited.
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
    outcome: OnceLock<Result<PacketCaptureSummary, PacketCaptureError>>,
}

impl Owner {
    fn finish(&self) -> Result<PacketCaptureSummary, PacketCaptureError> {
        let outcome = self.outcome.get_or_init(|| {
            self.shared.end();
            let written = self.join().map(|()| self.shared.lock().summary());
            written.map_err(|error| PacketCaptureError {
                path: self.path.clone(),
                source: Arc::new(error),
            })
        });
        outcome.clone()
    }

    fn join(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let panicked = |_| Err(io::Error::other("the thread that writes it had panicked"));
        thread
            .take()
            .map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            let source = &error.source;
            tracing::warn!(%error, %source, "a packet capture is incomplete");
        }
    }
}

/// Adds records to a capture, and nothing to one that has ended.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    /// The interface of this name.
    pub(crate) fn interface(&self, name: &str) -> InterfaceId {
        self.shared.update(|buffer, _| buffer.interface(name))
    }

    /// Adds a record of now.
    pub(crate) fn record(&self, record: &Record<'_>) {
        self.shared
            .update(|buffer, clock| buffer.record(record, clock.now()));
    }

    /// Tells whether both add to the same capture.
    pub(crate) fn is_same(&self, other: &Recorder) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// What recorders and the writer share.
struct Shared {
    clock: WallClock,
    /// Held for a moment only: neither side does I/O with it.
    buffer: Mutex<Buffer>,
    /// Wakes the writer.
    ready: Condvar,
}

impl Shared {
    fn new(options: PacketCaptureOptions) -> Shared {
        let clock = WallClock::start();
        let system = rustix::system::uname();
        let os = format!(
            "{} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy()
        );
        let section = Section {
            hardware: std::env::consts::ARCH,
            os: &os,
            application: concat!("mvm-fabric ", env!("CARGO_PKG_VERSION")),
        };
        Shared {
            buffer: Mutex::new(Buffer::new(options, section, clock.now())),
            clock,
            ready: Condvar::new(),
        }
    }

    /// The time is to be asked for under the lock, or the file would not be in its order.
    fn update<T>(&self, update: impl FnOnce(&mut Buffer, &WallClock) -> T) -> T {
        let mut buffer = self.lock();
        let (was_empty, was_urgent) = (buffer.waiting_bytes() == 0, buffer.is_urgent());
        let answer = update(&mut buffer, &self.clock);
        let news = was_empty && buffer.waiting_bytes() > 0;
        let wanted = news || (!was_urgent && buffer.is_urgent());
        drop(buffer);
        // It is a system call, hence not for each record.
        if wanted {
            self.ready.notify_one();
        }
        answer
    }

    fn end(&self) {
        self.update(|buffer, clock| buffer.end(clock.now()));
    }

    /// Waits for blocks and takes them, for memory to put others into; false with the last ones.
    fn take(&self, empty: Vec<u8>) -> (Vec<u8>, bool) {
        let idle = |buffer: &mut Buffer| buffer.waiting_bytes() == 0 && !buffer.is_ended();
        let buffer = self.ready.wait_while(self.lock(), idle);
        let buffer = buffer.unwrap_or_else(PoisonError::into_inner);
        let gathering = |buffer: &mut Buffer| !buffer.is_urgent();
        let gathered = self.ready.wait_timeout_while(buffer, GATHER, gathering);
        let (mut buffer, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        (buffer.take(empty), !buffer.is_ended())
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer thread does.
fn write(shared: &Shared, mut file: File) -> io::Result<()> {
    let mut blocks = Vec::new();
    let mut written = 0;
    let mut more = true;
    while more {
        (blocks, more) = shared.take(blocks);
        if let Err(error) = file.write_all(&blocks) {
            shared.lock().fail();
            // Without the beginning of a block. A device cannot be cut, and is no worse for it.
            let _ = file.set_len(written);
            return Err(error);
        }
        written += blocks.len() as u64;
        blocks.clear();
        blocks.shrink_to(KEPT_BYTES);
    }
    Ok(())
}

/// The host's wall clock as it was once, going on by itself, so that it cannot be set back.
#[derive(Debug)]
struct WallClock {
    started: Instant,
    start: UnixNanos,
}

impl WallClock {
    fn start() -> WallClock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        WallClock {
            started: Instant::now(),
            // A host that believes to be before 1970 has no better time; the number lasts until 2554.
            start: since.unwrap_or_default().as_nanos() as UnixNanos,
        }
    }

    fn now(&self) -> UnixNanos {
        self.start + self.started.elapsed().as_nanos() as UnixNanos
    }
}
