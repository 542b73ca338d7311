//! A machine's serial console: stamped line by line into a file, its tail kept at hand.
//!
//! What the guest prints is untrusted: lines are bounded and control characters do not reach the file.
//! Who shows consoles to people is the lab's affair.

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
    task::JoinHandle,
};

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
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Console {
    /// Prepares a recording to `path`; lines are stamped with the time since `origin`.
    pub fn new(path: PathBuf, origin: Instant) -> Console {
        Console {
            path,
            origin,
            tail: Arc::default(),
        }
    }

    /// Prepares a recording of another console by the same clock.
    pub fn elsewhere(&self, path: PathBuf) -> Console {
        Console::new(path, self.origin)
    }

    /// Returns the last lines, oldest first, at most `lines` of them.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let tail = self.lock();
        tail.iter()
            .skip(tail.len().saturating_sub(lines))
            .cloned()
            .collect()
    }

    /// Returns the file the recording goes to.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Appends what arrives on `stream` until it closes.
    pub(crate) async fn record(&self, mut stream: UnixStream) -> std::io::Result<JoinHandle<()>> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&self.path)
            .await?;
        let console = self.clone();
        Ok(tokio::spawn(async move {
            let mut file = BufWriter::new(file);
            let mut splitter = LineSplitter::default();
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let lines = splitter.push(&buffer[..read]);
                console.keep(lines, &mut file).await;
            }
            console
                .keep(splitter.finish().into_iter().collect(), &mut file)
                .await;
        }))
    }

    async fn keep(&self, lines: Vec<String>, file: &mut BufWriter<File>) {
        if lines.is_empty() {
            return;
        }
        let stamp = self.origin.elapsed().as_secs_f64();
        let mut text = String::new();
        for line in &lines {
            text.push_str(&format!("[{stamp:10.3}] {line}\n"));
        }
        if let Err(error) = write_through(file, text.as_bytes()).await {
            tracing::warn!(path = %self.path.display(), %error, "could not record a console");
        }
        let mut tail = self.lock();
        tail.extend(lines);
        let excess = tail.len().saturating_sub(TAIL_LINES);
        tail.drain(..excess);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.tail
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn write_through(file: &mut BufWriter<File>, text: &[u8]) -> std::io::Result<()> {
    file.write_all(text).await?;
    file.flush().await
}

/// Cuts bytes into printable lines.
#[derive(Default)]
struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
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

    fn finish(&mut self) -> Option<String> {
        let line = printable(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        (!line.is_empty()).then_some(line)
    }
}

/// Drops ANSI escape sequences and other control characters, and blanks at the end.
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
    clean.truncate(clean.trim_end().len());
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

    #[test]
    fn an_endless_line_is_broken() {
        let mut splitter = LineSplitter::default();
        let lines = splitter.push(&vec![b'x'; 3 * LINE_BYTES_MAX]);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
        assert!(splitter.pending.len() <= LINE_BYTES_MAX);
        assert_eq!(lines.len(), 2);
    }
}
