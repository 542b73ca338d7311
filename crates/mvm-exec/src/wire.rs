//! What node and supervisor say to one another: frames over a Unix stream socket. Pure; who reads and writes
//! them is in `job` and `supervisor`.
//!
//! A frame is a length (u32), a tag (u8) and a body of that length less one; numbers are little-endian, byte
//! strings and lists carry their length (u32) in front. Whoever reads a frame that is too long, of an unknown
//! tag, too short or with something left over treats it as the other side's death: the job may have reached
//! the socket, and nothing it could write there is obeyed further.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::{Directory, DiskPriority, Priority, Spec};
use crate::{Outcome, OutputLimits};

/// The longest frame: more than the kernel takes as arguments and environment of a program.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// The first word of a supervisor, which proves that it is one, of this version.
pub(crate) const HELLO: &[u8] = b"mvm-exec 1";

/// A frame that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame of {bytes} bytes with tag {tag}")]
pub(crate) struct Malformed {
    tag: u8,
    bytes: usize,
}

/// Node to supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Try what this host allows and answer [`Report::Probed`].
    Probe,
    /// Run this job.
    Start(Box<Start>),
    /// Ask the job to end, then make it.
    Cancel,
    /// Make it end.
    Kill,
}

/// What a supervisor needs to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) namespace: bool,
    /// The control group in which to make the job's own, if its memory is limited that way.
    pub(crate) control_group: Option<PathBuf>,
    pub(crate) spec: Spec,
}

/// Supervisor to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Hello(Vec<u8>),
    Probed(Probed),
    /// The job runs, in this directory.
    Started(PathBuf),
    Ended(Outcome),
}

/// What a supervisor found it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    /// A PID namespace can be made.
    pub(crate) namespace: bool,
    /// It needs a user namespace.
    pub(crate) user_namespace: bool,
    /// It has a `/proc` of its own.
    pub(crate) own_proc: bool,
    /// Why not, where not.
    pub(crate) reason: String,
}

/// Takes the first frame off `buffer`, if it is complete: its tag and body.
pub(crate) fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, Malformed> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    let tag = rest.first().copied();
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(Malformed {
            tag: tag.unwrap_or(0),
            bytes: length,
        });
    }
    let (Some(tag), Some(body)) = (tag, rest.get(1..length)) else {
        return Ok(None);
    };
    let body = body.to_vec();
    buffer.drain(..4 + length);
    Ok(Some((tag, body)))
}

impl Order {
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Probe => Writer::new(b'P').frame(),
            Self::Start(start) => start.write(Writer::new(b'S')).frame(),
            Self::Cancel => Writer::new(b'C').frame(),
            Self::Kill => Writer::new(b'K').frame(),
        }
    }

    pub(crate) fn parse(tag: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let order = match tag {
            b'P' => Some(Self::Probe),
            b'S' => Start::read(&mut reader).map(|start| Self::Start(Box::new(start))),
            b'C' => Some(Self::Cancel),
            b'K' => Some(Self::Kill),
            _ => None,
        };
        reader.finish(order, tag, body)
    }
}

impl Report {
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Hello(word) => Writer::new(b'h').bytes(word).frame(),
            Self::Probed(probed) => Writer::new(b'p')
                .flag(probed.namespace)
                .flag(probed.user_namespace)
                .flag(probed.own_proc)
                .bytes(probed.reason.as_bytes())
                .frame(),
            Self::Started(path) => Writer::new(b's').bytes(path.as_os_str().as_bytes()).frame(),
            Self::Ended(outcome) => {
                let (kind, number, text) = match outcome {
                    Outcome::Exited(code) => (0, *code, ""),
                    Outcome::Signalled(signal) => (1, *signal, ""),
                    Outcome::TimedOut => (2, 0, ""),
                    Outcome::Cancelled => (3, 0, ""),
                    Outcome::OutOfMemory => (4, 0, ""),
                    Outcome::CouldNotStart { reason } => (5, 0, reason.as_str()),
                    Outcome::Lost { reason } => (6, 0, reason.as_str()),
                };
                Writer::new(b'e')
                    .byte(kind)
                    .number(number.unsigned_abs().into())
                    .bytes(text.as_bytes())
                    .frame()
            }
        }
    }

    pub(crate) fn parse(tag: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let report = match tag {
            b'h' => reader.bytes().map(|word| Self::Hello(word.to_vec())),
            b'p' => Self::read_probed(&mut reader),
            b's' => reader.path().map(Self::Started),
            b'e' => Self::read_ended(&mut reader),
            _ => None,
        };
        reader.finish(report, tag, body)
    }

    fn read_probed(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self::Probed(Probed {
            namespace: reader.flag()?,
            user_namespace: reader.flag()?,
            own_proc: reader.flag()?,
            reason: reader.text()?,
        }))
    }

    fn read_ended(reader: &mut Reader<'_>) -> Option<Self> {
        let kind = reader.byte()?;
        let number = i32::try_from(reader.number()?).ok()?;
        let reason = reader.text()?;
        Some(Self::Ended(match kind {
            0 => Outcome::Exited(number),
            1 => Outcome::Signalled(number),
            2 => Outcome::TimedOut,
            3 => Outcome::Cancelled,
            4 => Outcome::OutOfMemory,
            5 => Outcome::CouldNotStart { reason },
            6 => Outcome::Lost { reason },
            _ => return None,
        }))
    }
}

impl Start {
    fn write(&self, writer: Writer) -> Writer {
        let spec = &self.spec;
        let (kind, path) = match &spec.directory {
            Directory::Given(path) => (0, path),
            Directory::Private { under } => (1, under),
        };
        let names = spec.environment.iter().map(|(name, _)| name);
        let values = spec.environment.iter().map(|(_, value)| value);
        writer
            .flag(self.namespace)
            .flag(self.control_group.is_some())
            .bytes(
                self.control_group
                    .as_deref()
                    .map_or(&[], |path| path.as_os_str().as_bytes()),
            )
            .bytes(spec.program.as_bytes())
            .list(spec.arguments.iter())
            .list(names)
            .list(values)
            .byte(kind)
            .bytes(path.as_os_str().as_bytes())
            .duration(spec.time_limit.unwrap_or(Duration::MAX))
            .number(spec.memory_limit.unwrap_or(u64::MAX))
            .duration(spec.kill_grace)
            .duration(spec.linger)
            .byte(spec.priority.nice)
            .byte(match spec.priority.disk {
                DiskPriority::Unchanged => 0,
                DiskPriority::Low => 1,
                DiskPriority::Idle => 2,
            })
    }

    /// Reads all but what concerns the output, which is the node's own business.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let namespace = reader.flag()?;
        let has_group = reader.flag()?;
        let control_group = Some(reader.path()?).filter(|_| has_group);
        let program = reader.os_string()?;
        let arguments = reader.list()?;
        let names = reader.list()?;
        let values = reader.list()?;
        if names.len() != values.len() {
            return None;
        }
        let directory = match (reader.byte()?, reader.path()?) {
            (0, path) => Directory::Given(path),
            (1, under) => Directory::Private { under },
            _ => return None,
        };
        Some(Self {
            namespace,
            control_group,
            spec: Spec {
                program,
                arguments,
                directory,
                environment: names.into_iter().zip(values).collect(),
                time_limit: reader.duration()?,
                memory_limit: Some(reader.number()?).filter(|bytes| *bytes != u64::MAX),
                output: OutputLimits::default(),
                secrets: Vec::new(),
                kill_grace: reader.duration()?.unwrap_or(Duration::MAX),
                linger: reader.duration()?.unwrap_or(Duration::MAX),
                priority: Priority {
                    nice: reader.byte()?,
                    disk: match reader.byte()? {
                        0 => DiskPriority::Unchanged,
                        1 => DiskPriority::Low,
                        2 => DiskPriority::Idle,
                        _ => return None,
                    },
                },
            },
        })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(tag: u8) -> Self {
        Self(vec![0, 0, 0, 0, tag])
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn flag(self, flag: bool) -> Self {
        self.byte(flag.into())
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    /// In milliseconds, rounded up; the longest one stands for no end.
    fn duration(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        self.number(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// A length past u32 makes the whole frame too long, which `Job::start` refuses.
    fn length(mut self, length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend(length.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.length(bytes.len());
        self.0.extend(bytes);
        self
    }

    fn list<'a>(self, items: impl ExactSizeIterator<Item = &'a OsString>) -> Self {
        let writer = self.length(items.len());
        items.fold(writer, |writer, item| writer.bytes(item.as_bytes()))
    }

    fn frame(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// `None` inside stands for no end.
    fn duration(&mut self) -> Option<Option<Duration>> {
        let millis = self.number()?;
        Some((millis != u64::MAX).then(|| Duration::from_millis(millis)))
    }

    fn length(&mut self) -> Option<usize> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        usize::try_from(length).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn os_string(&mut self) -> Option<OsString> {
        Some(OsString::from_vec(self.bytes()?.to_vec()))
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.os_string().map(PathBuf::from)
    }

    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// Allocates no more than the frame holds, whatever count it claims.
    fn list(&mut self) -> Option<Vec<OsString>> {
        let count = self.length()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.os_string()?);
        }
        Some(items)
    }

    fn finish<T>(self, value: Option<T>, tag: u8, body: &[u8]) -> Result<T, Malformed> {
        let malformed = Malformed {
            tag,
            bytes: body.len(),
        };
        value.filter(|_| self.0.is_empty()).ok_or(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Order {
        let mut spec = Spec::script("echo")
            .env("A", OsString::from_vec(vec![0xff, b'=']))
            .time_limit(Duration::from_millis(7))
            .memory_limit(99)
            .priority(Priority {
                nice: 5,
                disk: DiskPriority::Idle,
            });
        spec.directory = Directory::Given("/x y".into());
        Order::Start(Box::new(Start {
            namespace: true,
            control_group: Some("/sys/fs/cgroup".into()),
            spec,
        }))
    }

    #[track_caller]
    fn parts(frame: &[u8]) -> (u8, Vec<u8>) {
        let mut buffer = frame.to_vec();
        let taken = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, [0; 0]);
        taken
    }

    #[test]
    fn orders_read_back() {
        let plain = Order::Start(Box::new(Start {
            namespace: false,
            control_group: None,
            spec: Spec::program("true"),
        }));
        for order in [Order::Probe, start(), plain, Order::Cancel, Order::Kill] {
            let (tag, body) = parts(&order.to_frame());
            assert_eq!(Order::parse(tag, &body), Ok(order));
        }
    }

    #[test]
    fn reports_read_back() {
        let reason = "because".to_owned();
        let outcomes = [
            Outcome::Exited(255),
            Outcome::Signalled(9),
            Outcome::TimedOut,
            Outcome::Cancelled,
            Outcome::OutOfMemory,
            Outcome::CouldNotStart {
                reason: reason.clone(),
            },
            Outcome::Lost {
                reason: reason.clone(),
            },
        ];
        let probed = Report::Probed(Probed {
            namespace: true,
            user_namespace: false,
            own_proc: true,
            reason,
        });
        let others = [
            Report::Hello(HELLO.to_vec()),
            Report::Started("/a".into()),
            probed,
        ];
        for report in others.into_iter().chain(outcomes.map(Report::Ended)) {
            let (tag, body) = parts(&report.to_frame());
            assert_eq!(Report::parse(tag, &body), Ok(report));
        }
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let frame = start().to_frame();
        let mut buffer = Vec::new();
        for byte in &frame[..frame.len() - 1] {
            buffer.push(*byte);
            assert_eq!(take_frame(&mut buffer), Ok(None));
        }
        buffer.extend(&frame[frame.len() - 1..]);
        buffer.extend([1, 0]);
        assert!(take_frame(&mut buffer).unwrap().is_some());
        assert_eq!(buffer, [1, 0]);
    }

    #[test]
    fn what_is_cut_damaged_or_too_long_is_refused() {
        let (tag, body) = parts(&start().to_frame());
        for length in 0..body.len() {
            assert!(Order::parse(tag, &body[..length]).is_err(), "{length}");
        }
        let longer = [body.as_slice(), &[0]].concat();
        assert!(Order::parse(tag, &longer).is_err());
        assert!(Order::parse(b'?', &[]).is_err());
        assert!(Report::parse(b'e', &[9; 40]).is_err());
        for position in 0..body.len() {
            let mut damaged = body.clone();
            damaged[position] = 0xff;
            let _ = Order::parse(tag, &damaged);
        }
        assert!(take_frame(&mut vec![0, 0, 0, 0]).is_err());
        assert!(take_frame(&mut vec![0xff; 8]).is_err());
    }
}
