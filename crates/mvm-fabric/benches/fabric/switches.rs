//! The two switches: started, machines attached to them, their processor time read.
//!
//! `vde_switch` is spoken to as `libvdeplug` does it, in version 3 of its protocol:
//!
//! ```text
//!  machine                                                vde_switch
//!     │ connects to DIR/ctl, a stream socket                   │
//!     │ binds a datagram socket of its own                     │
//!     ├─ magic, version, "new port", that socket's address ───▶│
//!     │◀─ the address of the port's datagram socket ───────────┤
//!     │ connects its socket to that: datagrams are frames      │
//!     │ keeps the stream open as long as it wants the port     │
//! ```

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mvm_fabric::{PacketCapture, PacketCaptureOptions, PacketCaptureSummary, Switch, Tap};
use tempfile::TempDir;

use crate::port::{Port, Wire};

/// A switch that is measured. It ends when it is dropped.
pub(crate) trait Contender {
    const NAME: &'static str;
    const WIRE: Wire;

    fn start() -> Self;

    /// Adds a port and gives the machine's end of it.
    fn attach(&mut self) -> Port;

    /// The processor time it has used, while it is at rest.
    fn cpu(&self) -> Duration;
}

/// The switch of this crate, as a thread of this process.
pub(crate) struct Ours {
    switch: Switch,
    ports: usize,
    schedstat: PathBuf,
}

impl Ours {
    fn add_port(&mut self) -> (mvm_fabric::Port, OwnedFd) {
        self.ports += 1;
        self.switch.attach(&format!("node{}", self.ports)).unwrap()
    }
}

impl Contender for Ours {
    const NAME: &'static str = "ours";
    const WIRE: Wire = Wire::Stream;

    fn start() -> Ours {
        Ours {
            switch: Switch::start().unwrap(),
            ports: 0,
            schedstat: schedstat_of_thread("mvm-fabric"),
        }
    }

    fn attach(&mut self) -> Port {
        let (_, end) = self.add_port();
        Port::new(Self::WIRE, end)
    }

    fn cpu(&self) -> Duration {
        time_on_cpu(&self.schedstat)
    }
}

/// Our switch with each port tapped for a packet capture of whole frames.
pub(crate) struct Captured {
    ours: Ours,
    taps: Vec<Tap>,
    capture: PacketCapture,
    _folder: TempDir,
}

impl Captured {
    /// What was recorded, once all is over.
    pub(crate) fn finish(mut self) -> PacketCaptureSummary {
        self.taps.clear();
        self.capture.finish().unwrap()
    }
}

impl Contender for Captured {
    const NAME: &'static str = "ours captured";
    const WIRE: Wire = Wire::Stream;

    fn start() -> Captured {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("capture.pcapng");
        Captured {
            ours: Ours::start(),
            taps: Vec::new(),
            capture: PacketCapture::create(&file, PacketCaptureOptions::DEFAULT).unwrap(),
            _folder: folder,
        }
    }

    fn attach(&mut self) -> Port {
        let (port, end) = self.ours.add_port();
        let name = format!("node{}", port.index() + 1);
        let tap = self.ours.switch.tap(&self.capture, [(port, name)].into());
        self.taps.push(tap.unwrap());
        Port::new(Self::WIRE, end)
    }

    fn cpu(&self) -> Duration {
        self.ours.cpu()
    }
}

/// The statistics of the only thread of this process with this name, once it has taken it.
fn schedstat_of_thread(name: &str) -> PathBuf {
    let start = Instant::now();
    loop {
        let mut threads = std::fs::read_dir("/proc/self/task").unwrap();
        let thread = threads.find_map(|entry| {
            let thread = entry.unwrap().path();
            let comm = std::fs::read_to_string(thread.join("comm")).ok()?;
            (comm.trim_end() == name).then_some(thread)
        });
        if let Some(thread) = thread {
            return thread.join("schedstat");
        }
        assert!(
            start.elapsed() < START_ALLOWED,
            "no thread is called {name}"
        );
        std::thread::yield_now();
    }
}

/// `schedstat` begins with the nanoseconds spent on a processor; `stat` knows only hundredths of a second.
fn time_on_cpu(schedstat: &Path) -> Duration {
    let text = std::fs::read_to_string(schedstat).unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

const START_ALLOWED: Duration = Duration::from_secs(10);
/// It has 32 unless told.
const VDE_PORTS: &str = "128";
/// Begins every request, and is followed by the protocol's version.
const VDE_MAGIC: u32 = 0xfeed_face;
const VDE_VERSION: u32 = 3;
/// Asks for whatever port is free.
const VDE_NEW_PORT: u32 = 0;
/// The size of the kernel's `struct sockaddr_un`, which travels as it is.
const ADDRESS_BYTES: usize = 110;

/// Finds the program.
pub(crate) fn vde_switch() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("vde_switch"))
        .find(|program| program.is_file())
}

/// `vde_switch`, as a process.
pub(crate) struct Vde {
    process: Child,
    folder: TempDir,
    /// One per port: it is taken away when its stream ends.
    controls: Vec<UnixStream>,
}

impl Contender for Vde {
    const NAME: &'static str = "vde_switch";
    const WIRE: Wire = Wire::Datagram;

    fn start() -> Vde {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(vde_switch().unwrap())
            .args(["-numports", VDE_PORTS, "-sock"])
            .arg(folder.path().join("switch"))
            // Its console: it ends when that does, even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // It complains of each end mark for a receiver that has seen one and gone.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut vde = Vde {
            process,
            folder,
            controls: Vec::new(),
        };
        drop(vde.connect());
        vde
    }

    fn attach(&mut self) -> Port {
        let own = self.folder.path().join(self.controls.len().to_string());
        let socket = UnixDatagram::bind(&own).unwrap();
        let mut control = self.connect();
        control.write_all(&request(&own)).unwrap();
        let mut answer = [0; ADDRESS_BYTES];
        control.read_exact(&mut answer).unwrap();
        socket.connect(path_of(&answer)).unwrap();
        self.controls.push(control);
        Port::new(Self::WIRE, OwnedFd::from(socket))
    }

    fn cpu(&self) -> Duration {
        // It has one thread.
        time_on_cpu(Path::new(&format!("/proc/{}/schedstat", self.process.id())))
    }
}

impl Vde {
    /// Connects to the control socket, and waits for it while the switch starts.
    fn connect(&mut self) -> UnixStream {
        let control = self.folder.path().join("switch/ctl");
        let start = Instant::now();
        loop {
            match UnixStream::connect(&control) {
                Ok(stream) => return stream,
                Err(error) => {
                    let ended = self.process.try_wait().unwrap();
                    let waiting = ended.is_none() && start.elapsed() < START_ALLOWED;
                    assert!(
                        waiting,
                        "vde_switch has not opened {}: {error}; its end: {ended:?}",
                        control.display()
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Vde {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(own: &Path) -> Vec<u8> {
    let mut request = Vec::new();
    for word in [VDE_MAGIC, VDE_VERSION, VDE_NEW_PORT] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let address = request.len();
    request.extend_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    request.extend_from_slice(own.as_os_str().as_bytes());
    request.resize(address + ADDRESS_BYTES, 0);
    request.extend_from_slice(b"bench\0");
    request
}

fn path_of(address: &[u8; ADDRESS_BYTES]) -> &Path {
    let path = address[2..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Path::new(OsStr::from_bytes(path))
}
