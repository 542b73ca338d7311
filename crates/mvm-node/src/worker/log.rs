//! What of a job's output goes to the store: the first bytes of each stream as they come, the last ones at the end.

use mvm_exec::{Capture, OutputLimits, Stream};
use mvm_queue::{CHUNK_BYTES_MAX, LOG_BYTES_MAX};

/// A chunk in the log; its text is replicated as it is.
const CHUNK_BYTES: usize = CHUNK_BYTES_MAX / 2;

/// The end of a stream that is longer than the store keeps.
const LAST_BYTES: usize = 32 * 1024;

/// Room for what is said of bytes that are left out.
const REMARKS_BYTES: usize = 4 * 1024;

/// Output on its way to the store.
pub(super) struct Log {
    streams: [(Stream, Capture); 2],
    gathered: Vec<(Stream, Vec<u8>)>,
}

impl Log {
    pub(super) fn new() -> Self {
        let store = usize::try_from(LOG_BYTES_MAX).unwrap_or(usize::MAX);
        let limits = OutputLimits {
            first_bytes: store / 2 - LAST_BYTES - REMARKS_BYTES,
            last_bytes: LAST_BYTES,
        };
        Self {
            streams: [Stream::Stdout, Stream::Stderr].map(|stream| (stream, Capture::new(limits))),
            gathered: Vec::new(),
        }
    }

    /// Takes output, all of it or what the store has room for.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let [stdout, stderr] = &mut self.streams;
        let (_, capture) = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let first = capture.push(bytes);
        gather(&mut self.gathered, stream, first);
    }

    /// Takes what there is to be written now.
    pub(super) fn take(&mut self) -> Vec<(Stream, Vec<u8>)> {
        std::mem::take(&mut self.gathered)
    }

    /// Whether the store has no room for some of it.
    pub(super) fn finish(&mut self, remark: impl Fn(Stream, u64) -> String) -> bool {
        let none = OutputLimits {
            first_bytes: 0,
            last_bytes: 0,
        };
        let mut left_out = false;
        for (stream, capture) in &mut self.streams {
            let (omitted, last) = std::mem::replace(capture, Capture::new(none)).finish();
            if omitted > 0 {
                left_out = true;
                gather(
                    &mut self.gathered,
                    *stream,
                    remark(*stream, omitted).as_bytes(),
                );
            }
            gather(&mut self.gathered, *stream, &last);
        }
        left_out
    }
}

/// Adds output to the last chunk if that has room and is of the same stream.
fn gather(gathered: &mut Vec<(Stream, Vec<u8>)>, stream: Stream, bytes: &[u8]) {
    for piece in bytes.chunks(CHUNK_BYTES) {
        match gathered.last_mut() {
            Some((of, chunk)) if *of == stream && chunk.len() + piece.len() <= CHUNK_BYTES => {
                chunk.extend(piece);
            }
            _ => gathered.push((stream, piece.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes so many bytes to both streams; returns what reached the store in all, and whether some was left out.
    fn written(bytes: usize) -> (usize, bool) {
        let mut log = Log::new();
        let piece = [b'x'; 1_000];
        for _ in 0..bytes / piece.len() {
            log.push(Stream::Stdout, &piece);
            log.push(Stream::Stderr, &piece);
        }
        let left_out = log.finish(|_, omitted| format!("[{omitted}]"));
        let chunks = log.take();
        assert!(chunks.iter().all(|(_, chunk)| chunk.len() <= CHUNK_BYTES));
        (chunks.iter().map(|(_, chunk)| chunk.len()).sum(), left_out)
    }

    #[test]
    fn the_store_gets_no_more_than_it_keeps() {
        assert_eq!(written(0), (0, false));
        assert_eq!(written(400_000), (800_000, false));
        let (bytes, left_out) = written(50_000_000);
        let most = usize::try_from(LOG_BYTES_MAX).unwrap();
        assert!(
            left_out && bytes <= most && bytes > most * 9 / 10,
            "{bytes}"
        );
    }
}
