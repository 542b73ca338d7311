//! The events between the task that reads a job's pipes and whoever asks for them. Bounded by the output
//! limits, not by the reader.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Event;
use crate::capture::{CHUNK_BYTES_MAX, Capture, Output, Stream};
use crate::mask::{Mask, Secrets};
use crate::{Outcome, OutputLimits};

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limits: OutputLimits,
    events: VecDeque<Event>,
    stdout: Capture,
    stderr: Capture,
    /// Of either stream, if there are secrets.
    masks: Option<[Mask; 2]>,
    ended: Option<Outcome>,
}

impl Queue {
    pub(super) fn new(limits: OutputLimits, secrets: Option<Secrets>) -> Self {
        let masks = secrets
            .map(Arc::new)
            .map(|secrets| [(); 2].map(|()| Mask::new(&secrets)));
        Self {
            state: Mutex::new(State {
                limits,
                events: VecDeque::new(),
                stdout: Capture::new(limits),
                stderr: Capture::new(limits),
                masks,
                ended: None,
            }),
            changed: Notify::new(),
        }
    }

    pub(super) fn started(&self, directory: PathBuf) {
        self.state().events.push_back(Event::Started { directory });
        self.changed.notify_one();
    }

    /// Takes what was read of a stream.
    pub(super) fn output(&self, stream: Stream, bytes: &[u8]) {
        self.state().output(stream, bytes);
        self.changed.notify_one();
    }

    /// Hands out what was kept for the end, and the end.
    pub(super) fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.finish(Stream::Stdout);
            state.finish(Stream::Stderr);
            state.ended = Some(outcome);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Cancel safe: an event is taken and returned in one go.
    pub(super) async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.state().next() {
                return event;
            }
            self.changed.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        event.or_else(|| self.ended.clone().map(Event::Ended))
    }

    fn capture(&mut self, stream: Stream) -> &mut Capture {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn mask(&mut self, stream: Stream) -> Option<&mut Mask> {
        let [stdout, stderr] = self.masks.as_mut()?;
        Some(match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        })
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) {
        match self.mask(stream).map(|mask| mask.push(bytes)) {
            Some(masked) => self.keep(stream, &masked),
            None => self.keep(stream, bytes),
        }
    }

    fn keep(&mut self, stream: Stream, bytes: &[u8]) {
        let live = self.capture(stream).push(bytes);
        if live.is_empty() {
            return;
        }
        match self.events.back_mut() {
            Some(Event::Output(last))
                if last.stream == stream && last.bytes.len() + live.len() <= CHUNK_BYTES_MAX =>
            {
                last.bytes.extend(live);
            }
            _ => self.events.push_back(Event::Output(Output {
                stream,
                bytes: live.to_vec(),
            })),
        }
    }

    fn finish(&mut self, stream: Stream) {
        if let Some(held) = self.mask(stream).map(Mask::finish) {
            self.keep(stream, &held);
        }
        let empty = Capture::new(self.limits);
        let (omitted, last) = std::mem::replace(self.capture(stream), empty).finish();
        if omitted > 0 {
            let bytes = omitted;
            self.events.push_back(Event::Omitted { stream, bytes });
        }
        for chunk in last.chunks(CHUNK_BYTES_MAX) {
            let bytes = chunk.to_vec();
            self.events
                .push_back(Event::Output(Output { stream, bytes }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stream: Stream, text: &str) -> Event {
        Event::Output(Output {
            stream,
            bytes: text.into(),
        })
    }

    #[tokio::test]
    async fn events_come_in_order_and_the_end_stays() {
        let queue = Queue::new(
            OutputLimits {
                first_bytes: 4,
                last_bytes: 2,
            },
            None,
        );
        queue.started("/".into());
        queue.output(Stream::Stdout, b"a");
        queue.output(Stream::Stdout, b"b");
        queue.output(Stream::Stderr, b"x");
        queue.output(Stream::Stdout, b"cdefgh");
        queue.end(Outcome::Exited(0));
        queue.end(Outcome::TimedOut);
        let omitted = Event::Omitted {
            stream: Stream::Stdout,
            bytes: 2,
        };
        let expected = [
            Event::Started {
                directory: "/".into(),
            },
            output(Stream::Stdout, "ab"),
            output(Stream::Stderr, "x"),
            output(Stream::Stdout, "cd"),
            omitted,
            output(Stream::Stdout, "gh"),
            Event::Ended(Outcome::Exited(0)),
            Event::Ended(Outcome::Exited(0)),
        ];
        for event in expected {
            assert_eq!(queue.next().await, event);
        }
    }
}
