//! A machine's serial console: stamped line by line into a file, its tail kept at hand, its raw bytes for those who
//! listen live ([`live`]).
//!
//! What the guest prints is untrusted: lines are bounded and control characters do not reach the file.
//! Who shows consoles to people is the lab's affair.

mod live;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, BufWriter},
    net::UnixStream,
    sync::mpsc,
};

pub use self::live::{Listener, Said};
use self::live::{Live, Typed};
use crate::recording::{Move, Recording};

/// Lines kept in memory for error messages.
const TAIL_LINES: usize = 200;
/// A longer line is broken; a guest must not make us hold an endless one.
const LINE_BYTES_MAX: usize = 4096;

/// The recording of one console, across restarts of its machine.
///
/// Each line is stamped with the seconds since `origin`, the run's one clock.
#[derive(Clone)]
pub struct Console {
    path: PathBuf,
    origin: Instant,
    kept: Arc<Mutex<Kept>>,
    live: Arc<Live>,
    on_line: Option<OnLine>,
}

/// What is at hand of a console.
#[derive(Default)]
struct Kept {
    tail: VecDeque<String>,
    /// The line that has not ended yet.
    begun: String,
}

/// Called with each line, less its stamp, before it is recorded.
pub type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

impl Console {
    /// Prepares a recording to `path`; lines are stamped with the time since `origin`.
    pub fn new(path: PathBuf, origin: Instant) -> Console {
        Console {
            path,
            origin,
            kept: Arc::default(),
            live: Arc::new(Live::new()),
            on_line: None,
        }
    }

    /// Has each line told to somebody, too.
    pub fn with_lines_told(self, on_line: OnLine) -> Console {
        Console {
            on_line: Some(on_line),
            ..self
        }
    }

    /// Prepares a recording of another console by the same clock.
    pub fn elsewhere(&self, path: PathBuf) -> Console {
        Console::new(path, self.origin)
    }

    /// Returns the last lines, oldest first, at most `lines` of them.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let tail = &self.lock().tail;
        tail.iter()
            .skip(tail.len().saturating_sub(lines))
            .cloned()
            .collect()
    }

    /// Returns what was said since the last line ended, such as the question of a login.
    pub fn begun(&self) -> String {
        self.lock().begun.clone()
    }

    /// Begins to listen to the raw bytes that the guest says, across restarts of its machine.
    pub fn listen(&self) -> Listener {
        self.live.listen()
    }

    /// Types `bytes` on the console, as fast as the machine takes them; false if it is off. What is typed while
    /// nobody in the guest reads the console waits, and then holds up who types.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        self.live.write(bytes).await
    }

    /// Returns the file the recording goes to.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Opens the file that the recording is appended to.
    pub(crate) async fn open(&self) -> std::io::Result<OpenConsole> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&self.path)
            .await?;
        Ok(OpenConsole {
            console: self.clone(),
            file: BufWriter::new(file),
        })
    }

    /// Appends what arrives on `stream` until it closes.
    pub(crate) async fn record(
        &self,
        stream: UnixStream,
    ) -> std::io::Result<Recording<OpenConsole>> {
        let console = self.open().await?;
        let typed = Typed::plug_into(&self.live);
        Ok(Recording::start(|moves| {
            record(stream, console, typed, moves)
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A console whose file is open.
pub(crate) struct OpenConsole {
    console: Console,
    file: BufWriter<File>,
}

impl OpenConsole {
    async fn take(&mut self, splitter: &mut LineSplitter, bytes: &[u8]) {
        self.keep(splitter.push(bytes)).await;
        self.console.lock().begun = splitter.begun();
    }

    async fn keep(&mut self, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        if let Some(on_line) = &self.console.on_line {
            lines.iter().for_each(|line| on_line(line));
        }
        let stamp = self.console.origin.elapsed().as_secs_f64();
        let mut text = String::new();
        for line in &lines {
            text.push_str(&format!("[{stamp:10.3}] {line}\n"));
        }
        if let Err(error) = write_through(&mut self.file, text.as_bytes()).await {
            tracing::warn!(path = %self.console.path.display(), %error, "could not record a console");
        }
        let tail = &mut self.console.lock().tail;
        tail.extend(lines);
        let excess = tail.len().saturating_sub(TAIL_LINES);
        tail.drain(..excess);
    }
}

/// Records until the stream closes, and passes on what is typed. What was kept at one place goes along to the next,
/// stamped when it gets there.
async fn record(
    mut stream: UnixStream,
    mut console: OpenConsole,
    mut typed: Typed,
    mut moves: mpsc::Receiver<Move<OpenConsole>>,
) {
    let (mut said, mut heard) = stream.split();
    let mut splitter = LineSplitter::default();
    let mut buffer = [0; 4096];
    loop {
        tokio::select! {
            read = said.read(&mut buffer) => match read {
                Ok(read @ 1..) => {
                    console.console.live.say(&buffer[..read]);
                    console.take(&mut splitter, &buffer[..read]).await;
                }
                Ok(0) | Err(_) => break,
            },
            () = typed.write_to(&mut heard) => {}
            Some(Move { target, moved }) = moves.recv() => {
                let before = console.console.tail(TAIL_LINES);
                console = target;
                typed = Typed::plug_into(&console.console.live);
                console.keep(before).await;
                // Whoever asked for it may have given up.
                let _ = moved.send(());
            }
        }
    }
    console.keep(splitter.finish().into_iter().collect()).await;
    console.console.lock().begun.clear();
}

async fn write_through(file: &mut BufWriter<File>, text: &[u8]) -> std::io::Result<()> {
    file.write_all(text).await?;
    file.flush().await
}

/// Cuts bytes into printable lines.
#[derive(Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and returns the lines that they end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || self.pending.len() >= LINE_BYTES_MAX {
                lines.extend(self.finish());
            }
            if byte != b'\n' {
                self.pending.push(byte);
            }
        }
        lines
    }

    /// Returns what the last line has so far.
    fn begun(&self) -> String {
        printable(&String::from_utf8_lossy(&self.pending))
    }

    /// Ends the last line; `None` if nothing is to be seen on it.
    pub fn finish(&mut self) -> Option<String> {
        let line = self.begun();
        self.pending.clear();
        let line = line.trim_end();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// Drops ANSI escape sequences and other control characters.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => skip_escape(&mut rest),
            '\t' => clean.push(' '),
            character if character.is_control() => {}
            character => clean.push(character),
        }
    }
    clean
}

/// Skips the rest of a control sequence (ECMA-48: parameters, then one final byte in `@`..`~`).
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if rest.next_if_eq(&'[').is_some() {
        for character in rest.by_ref() {
            if ('@'..='~').contains(&character) {
                break;
            }
        }
    } else {
        rest.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &[&str]) {
        let mut splitter = LineSplitter::default();
        let mut lines: Vec<String> = chunks
            .iter()
            .flat_map(|chunk| splitter.push(chunk))
            .collect();
        lines.extend(splitter.finish());
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_are_cut_and_cleaned() {
        check(&[b"one\r\ntwo\n"], &["one", "two"]);
        check(&[b"on", b"e\ntw", b"o"], &["one", "two"]);
        check(&[b"\x1b[1;32mgreen\x1b[0m \x07\n\n"], &["green"]);
        check(&[b"\xff\xfe\n"], &["\u{fffd}\u{fffd}"]);
        check(&[b"\x1b[", b"\n\x1b", b"\nx"], &["x"]);
    }

    #[tokio::test]
    async fn a_recording_moves_with_what_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let first = Console::new(folder.path().join("first"), Instant::now());
        let second = first.elsewhere(folder.path().join("second"));
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let mut recording = first.record(ours).await.unwrap();
        guest.write_all(b"before\nha").await.unwrap();
        while first.tail(1).is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(recording.move_to(second.open().await.unwrap()).await);
        guest.write_all(b"lf\nafter\n").await.unwrap();
        drop(guest);
        recording.ended(std::time::Duration::from_secs(10)).await;
        assert_eq!(second.tail(9), ["before", "half", "after"]);
        assert_eq!(first.tail(9), ["before"]);
        let text = std::fs::read_to_string(second.path()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!recording.move_to(first.open().await.unwrap()).await);
    }

    #[tokio::test]
    async fn a_console_is_listened_to_and_typed_on_while_its_machine_is_on() {
        let folder = tempfile::tempdir().unwrap();
        let console = Console::new(folder.path().join("console"), Instant::now());
        assert!(!console.write(b"nobody").await);
        let mut listener = console.listen();
        for _start in 0..2 {
            let (ours, mut guest) = UnixStream::pair().unwrap();
            let mut recording = console.record(ours).await.unwrap();
            guest.write_all(b"\x1b[1mlogin: ").await.unwrap();
            let Some(Said::Bytes(bytes)) = listener.next().await else {
                panic!("nothing was heard");
            };
            assert_eq!(&*bytes, b"\x1b[1mlogin: ");
            while console.begun().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(console.begun(), "login: ");
            assert!(console.write(b"root\r").await);
            let mut typed = [0; 5];
            guest.read_exact(&mut typed).await.unwrap();
            assert_eq!(&typed, b"root\r");
            drop(guest);
            recording.ended(std::time::Duration::from_secs(10)).await;
            assert!(!console.write(b"nobody").await);
        }
    }

    #[tokio::test]
    async fn a_guest_that_reads_nothing_is_still_heard() {
        let folder = tempfile::tempdir().unwrap();
        let console = Console::new(folder.path().join("console"), Instant::now());
        let mut listener = console.listen();
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let _recording = console.record(ours).await.unwrap();
        let much = vec![b'x'; 1 << 20];
        tokio::select! {
            _ = console.write(&much) => panic!("a guest took what it did not read"),
            heard = async {
                guest.write_all(b"still here").await.unwrap();
                listener.next().await
            } => assert!(matches!(heard, Some(Said::Bytes(_)))),
        }
    }

    #[test]
    fn an_endless_line_is_broken() {
        let mut splitter = LineSplitter::default();
        let lines = splitter.push(&vec![b'x'; 3 * LINE_BYTES_MAX]);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
        assert!(splitter.pending.len() <= LINE_BYTES_MAX);
        assert_eq!(lines.len(), 2);
    }
}
