//! The orders a runner gives its watcher.
//!
//! A runner that is killed by SIGKILL cannot clean up. So it starts `mvm-agent watch --fd N` in a session of
//! its own and writes to the pipe, line by line, what it has made: processes to kill, paths to remove. When
//! the pipe ends without [`Order::Done`], the runner is dead and the watcher does the work. The watcher
//! itself is a mode of the daemon's binary, because that one is static and small; see `daemon::watcher`.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The longest line of an order, in bytes: the kernel's longest path and a word before it.
pub const LINE_BYTES_MAX: usize = 4096 + 32;

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks after boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// Looks up a process that is running now.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let malformed = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat: {stat:?}"),
            )
        };
        // The second field is the program's name in parentheses and may itself contain anything.
        let (_, fields) = stat.rsplit_once(')').ok_or_else(malformed)?;
        let start_time = fields
            .split_ascii_whitespace()
            .nth(19)
            .and_then(|field| field.parse().ok());
        Ok(Self {
            pid,
            start_time: start_time.ok_or_else(malformed)?,
        })
    }
}

/// What a runner tells its watcher; one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Kill this process if the runner dies.
    Process(ProcessId),
    /// It ended; leave its id alone.
    ForgetProcess(i32),
    /// Remove this file or directory tree if the runner dies.
    Path(PathBuf),
    /// Leave it alone.
    ForgetPath(PathBuf),
    /// The runner cleaned up itself: exit without doing anything.
    Done,
}

/// A path that cannot be an order: it is relative, has no name, or contains a line break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a path that a watcher can be told to remove", .0.display())]
pub struct UnfitPath(pub PathBuf);

impl Order {
    /// Orders the removal of a file or directory tree.
    ///
    /// # Errors
    ///
    /// [`UnfitPath`] unless it is absolute, names something below the root, and fits a line.
    pub fn path(path: &Path) -> Result<Self, UnfitPath> {
        if is_fit(path) {
            Ok(Self::Path(path.to_owned()))
        } else {
            Err(UnfitPath(path.to_owned()))
        }
    }

    /// The order as a line, with its line break.
    pub fn to_line(&self) -> Vec<u8> {
        let (word, path) = match self {
            Self::Path(path) => ("path ", path),
            Self::ForgetPath(path) => ("forget-path ", path),
            Self::Process(_) | Self::ForgetProcess(_) | Self::Done => {
                return format!("{self}\n").into_bytes();
            }
        };
        [word.as_bytes(), path.as_os_str().as_bytes(), b"\n"].concat()
    }

    /// Reads a line, without its line break; `None` if it is not an order.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], &line[space + 1..]),
            None => (line, &[][..]),
        };
        let text = || std::str::from_utf8(rest).ok();
        match word {
            b"process" => {
                let (pid, start_time) = text()?.split_once(' ')?;
                Some(Self::Process(ProcessId {
                    pid: pid.parse().ok()?,
                    start_time: start_time.parse().ok()?,
                }))
            }
            b"forget-process" => Some(Self::ForgetProcess(text()?.parse().ok()?)),
            b"path" => fit_path(rest).map(Self::Path),
            b"forget-path" => fit_path(rest).map(Self::ForgetPath),
            b"done" if rest.is_empty() => Some(Self::Done),
            _ => None,
        }
    }
}

impl Display for Order {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(ProcessId { pid, start_time }) => {
                write!(formatter, "process {pid} {start_time}")
            }
            Self::ForgetProcess(pid) => write!(formatter, "forget-process {pid}"),
            Self::Path(path) => write!(formatter, "path {}", path.display()),
            Self::ForgetPath(path) => write!(formatter, "forget-path {}", path.display()),
            Self::Done => formatter.write_str("done"),
        }
    }
}

fn fit_path(bytes: &[u8]) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
    is_fit(&path).then_some(path)
}

fn is_fit(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    path.is_absolute()
        && path.file_name().is_some()
        && !bytes.contains(&b'\n')
        && bytes.len() < LINE_BYTES_MAX - 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_round_trip(order: Order) {
        let line = order.to_line();
        let (end, line) = line.split_last().unwrap();
        assert_eq!(*end, b'\n');
        assert_eq!(Order::parse(line), Some(order));
    }

    #[test]
    fn orders_read_back() {
        check_round_trip(Order::Process(ProcessId {
            pid: 17,
            start_time: 99,
        }));
        check_round_trip(Order::ForgetProcess(17));
        check_round_trip(Order::Path("/tmp/a file".into()));
        check_round_trip(Order::Path(
            OsString::from_vec(b"/tmp/\xff".to_vec()).into(),
        ));
        check_round_trip(Order::ForgetPath("/tmp/x".into()));
        check_round_trip(Order::Done);
    }

    #[test]
    fn what_is_not_an_order_is_refused() {
        for line in [
            "",
            "path",
            "path ",
            "path /",
            "path x",
            "path /tmp/..",
            "process 1",
            "process x 1",
            "done now",
        ] {
            assert_eq!(Order::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn paths_that_do_not_fit_a_line_are_refused() {
        for path in ["relative", "/", "/tmp/two\nlines", "/tmp/.."] {
            assert!(Order::path(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert_eq!(ProcessId::of(own.pid).unwrap(), own);
        assert_eq!(
            ProcessId::of(i32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
