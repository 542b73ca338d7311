//! The egress queue of a port: frames on their way to a machine, already in the form the socket takes.
//!
//! Bounded in bytes; what does not fit is refused and the caller counts it. Writing to the socket is
//! done in `worker`.

use std::collections::VecDeque;
use std::ops::Range;

use crate::counters::Traffic;
use crate::deframer::PREFIX_BYTES;
use crate::link::Port;

/// A frame in the queue; its bytes are in [`Queue::bytes`], in the same order.
#[derive(Clone, Copy, Debug)]
struct Queued {
    from: Port,
    /// With the prefix.
    bytes: u32,
}

/// Frames taken out of a queue unsent, in the order they had there.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// The stream they were in, with others.
    bytes: Vec<u8>,
    /// Ingress port and place of each.
    frames: Vec<(Port, Range<usize>)>,
}

impl Removed {
    /// The frames with their ingress ports.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (Port, &[u8])> {
        let frames = self.frames.iter().cloned();
        frames.map(|(from, place)| (from, &self.bytes[place]))
    }
}

/// Frames waiting for one egress port.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The stream for the machine, each frame with its length in front; sent up to `head`. The sent part
    /// of the first frame is always there still, so that the frame can be captured as a whole.
    bytes: Vec<u8>,
    head: usize,
    frames: VecDeque<Queued>,
    /// How much of the first frame is sent.
    first_sent: usize,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue {
            bytes: Vec::new(),
            head: 0,
            frames: VecDeque::new(),
            first_sent: 0,
            bytes_max,
        }
    }

    /// Appends a frame; false, and nothing done, if there is no room.
    #[must_use]
    pub(crate) fn push(&mut self, from: Port, frame: &[u8]) -> bool {
        self.push_beyond(from, frame, 0)
    }

    /// Appends a frame that may wait with so many bytes above the bound before it.
    #[must_use]
    pub(crate) fn push_beyond(&mut self, from: Port, frame: &[u8], extra_bytes: usize) -> bool {
        let bytes = PREFIX_BYTES + frame.len();
        if self.pending().len() + bytes > self.bytes_max + extra_bytes {
            return false;
        }
        self.compact();
        self.append(from, frame);
        true
    }

    /// Appends a frame that waited when a queue was captured; false, and nothing done, if there is no room.
    ///
    /// The first frame may have been sent in part and counts as if all but one byte had been, for that much
    /// may have waited within the bound and `extra_bytes`.
    #[must_use]
    pub(crate) fn restore(&mut self, from: Port, frame: &[u8], extra_bytes: usize) -> bool {
        assert_eq!(self.head, 0, "a queue is restored before it is sent");
        if let Some(first) = self.frames.front() {
            let behind = self.bytes.len() - first.bytes as usize;
            if behind + PREFIX_BYTES + frame.len() >= self.bytes_max + extra_bytes {
                return false;
            }
        }
        self.append(from, frame);
        true
    }

    fn append(&mut self, from: Port, frame: &[u8]) {
        self.bytes
            .extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(frame);
        self.frames.push_back(Queued {
            from,
            bytes: (PREFIX_BYTES + frame.len()) as u32,
        });
    }

    /// What is to be sent next.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The rest of a first frame of which a part is sent; empty if there is none.
    pub(crate) fn begun(&self) -> &[u8] {
        match self.frames.front() {
            Some(first) if self.first_sent > 0 => {
                &self.pending()[..first.bytes as usize - self.first_sent]
            }
            Some(_) | None => &[],
        }
    }

    /// The frames that wait, in order and each as a whole, with their ingress ports.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (Port, &[u8])> {
        let mut rest = &self.bytes[self.head - self.first_sent..];
        self.frames.iter().map(move |queued| {
            let (bytes, after) = rest.split_at(queued.bytes as usize);
            rest = after;
            (queued.from, &bytes[PREFIX_BYTES..])
        })
    }

    /// Notes that the first `bytes` of [`Queue::pending`] are sent, and tells the frames this completed.
    pub(crate) fn sent(&mut self, bytes: usize) -> Traffic {
        self.sent_telling(bytes, |_| {})
    }

    /// As [`Queue::sent`], and hands over each frame that this completed.
    pub(crate) fn sent_telling(&mut self, bytes: usize, mut tell: impl FnMut(&[u8])) -> Traffic {
        assert!(
            bytes <= self.pending().len(),
            "more sent than there was to send"
        );
        let mut start = self.head - self.first_sent;
        self.head += bytes;
        self.first_sent += bytes;
        let mut completed = Traffic::default();
        while let Some(first) = self.frames.front() {
            let frame_bytes = first.bytes as usize;
            if self.first_sent < frame_bytes {
                break;
            }
            self.first_sent -= frame_bytes;
            let frame = &self.bytes[start + PREFIX_BYTES..start + frame_bytes];
            completed.add_frame(frame.len());
            tell(frame);
            start += frame_bytes;
            self.frames.pop_front();
        }
        if self.frames.is_empty() {
            self.bytes.clear();
            self.head = 0;
            // Only what went beyond the bound once takes so much; it is not kept for that.
            self.bytes.shrink_to(4 * self.bytes_max);
        }
        completed
    }

    /// Takes out the frames from ports that `drops` names.
    ///
    /// A first frame of which a part is sent stays: the machine could not tell frames apart any more.
    pub(crate) fn remove(&mut self, drops: impl Fn(Port) -> bool) -> Removed {
        if !self.frames.iter().any(|queued| drops(queued.from)) {
            return Removed::default();
        }
        let begun = self.first_sent > 0;
        self.split(|index, from| !(begun && index == 0) && drops(from))
    }

    /// Takes out all frames, a partly sent one included.
    pub(crate) fn clear(&mut self) -> Removed {
        let removed = self.split(|_, _| true);
        self.head = 0;
        self.first_sent = 0;
        removed
    }

    /// Takes out the frames that `drops` says so of, by position and ingress port, and keeps the others in new
    /// memory: the old goes with those taken out, and a machine that is gone needs none.
    fn split(&mut self, drops: impl Fn(usize, Port) -> bool) -> Removed {
        let bytes = std::mem::take(&mut self.bytes);
        let mut start = self.head - self.first_sent;
        let mut kept = VecDeque::new();
        let mut frames = Vec::new();
        for (index, queued) in self.frames.drain(..).enumerate() {
            let end = start + queued.bytes as usize;
            if drops(index, queued.from) {
                frames.push((queued.from, start + PREFIX_BYTES..end));
            } else {
                self.bytes.extend_from_slice(&bytes[start..end]);
                kept.push_back(queued);
            }
            start = end;
        }
        self.head = self.first_sent;
        self.frames = kept;
        Removed { bytes, frames }
    }

    /// The frames that wait; a partly sent one counts as a whole.
    pub(crate) fn waiting(&self) -> Traffic {
        let frames = self.frames.len();
        let bytes = self.first_sent + self.pending().len() - frames * PREFIX_BYTES;
        Traffic {
            frames: frames as u64,
            bytes: bytes as u64,
        }
    }

    /// Gives frames sent back once they outweigh the pending bytes, so that little more than twice the bound
    /// is held, and moving costs no more than sending did.
    fn compact(&mut self) {
        let sent = self.head - self.first_sent;
        if sent > self.bytes_max / 2 && sent > self.pending().len() {
            self.bytes.drain(..sent);
            self.head = self.first_sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for three frames of six bytes.
    fn queue() -> Queue {
        Queue::new(30)
    }

    fn frame(mark: u8) -> [u8; 6] {
        [mark; 6]
    }

    fn stream(marks: &[u8]) -> Vec<u8> {
        marks
            .iter()
            .flat_map(|mark| [0, 0, 0, 6].into_iter().chain(frame(*mark)))
            .collect()
    }

    #[test]
    fn a_full_queue_refuses_and_accepts_again_after_sending() {
        let mut queue = queue();
        for mark in 1..=3 {
            assert!(queue.push(Port(0), &frame(mark)));
        }
        assert!(!queue.push(Port(0), &frame(4)));
        assert_eq!(
            queue.waiting(),
            Traffic {
                frames: 3,
                bytes: 18
            }
        );
        assert_eq!(queue.sent(9), Traffic::default());
        assert!(!queue.push(Port(0), &frame(4)));
        assert_eq!(
            queue.sent(1),
            Traffic {
                frames: 1,
                bytes: 6
            }
        );
        assert!(queue.push(Port(0), &frame(4)));
        assert_eq!(queue.pending(), stream(&[2, 3, 4]));
        assert_eq!(
            queue.sent(30),
            Traffic {
                frames: 3,
                bytes: 18
            }
        );
        assert_eq!(queue.pending(), []);
    }

    #[test]
    fn removing_keeps_the_order_and_a_frame_sent_in_part() {
        let mut queue = queue();
        for (port, mark) in [(0, 1), (1, 2), (0, 3)] {
            assert!(queue.push(Port(port), &frame(mark)));
        }
        let _ = queue.sent(2);
        let removed = queue.remove(|from| from == Port(0));
        assert_eq!(
            removed.frames().collect::<Vec<_>>(),
            [(Port(0), &frame(3)[..])]
        );
        assert_eq!(queue.pending(), &stream(&[1, 2])[2..]);
        assert_eq!(
            queue.sent(8),
            Traffic {
                frames: 1,
                bytes: 6
            }
        );
        let removed = queue.remove(|from| from == Port(1));
        assert_eq!(
            removed.frames().collect::<Vec<_>>(),
            [(Port(1), &frame(2)[..])]
        );
        assert_eq!(queue.pending(), []);
        assert!(queue.push(Port(0), &frame(5)));
        assert_eq!(queue.pending(), stream(&[5]));
    }

    #[test]
    fn clearing_gives_up_a_frame_sent_in_part() {
        let mut queue = queue();
        assert!(queue.push(Port(2), &frame(1)));
        assert!(queue.push(Port(3), &frame(2)));
        let _ = queue.sent(5);
        let removed = queue.clear();
        assert_eq!(
            removed.frames().collect::<Vec<_>>(),
            [(Port(2), &frame(1)[..]), (Port(3), &frame(2)[..])]
        );
        assert_eq!(queue.waiting(), Traffic::default());
        assert!(queue.push(Port(2), &frame(3)));
        assert_eq!(queue.pending(), stream(&[3]));
    }

    #[test]
    fn a_frame_sent_in_part_is_told_as_its_rest_and_as_a_whole() {
        let mut queue = queue();
        assert_eq!(queue.begun(), []);
        for (port, mark) in [(0, 1), (1, 2), (0, 3)] {
            assert!(queue.push(Port(port), &frame(mark)));
        }
        assert_eq!(queue.begun(), []);
        let _ = queue.sent(13);
        // Neither the rest nor the whole may suffer when bytes are moved.
        assert!(queue.push(Port(1), &frame(4)));
        assert_eq!(queue.remove(|from| from == Port(0)).frames().count(), 1);
        assert_eq!(queue.begun(), &stream(&[2])[3..]);
        let frames: Vec<_> = queue.frames().collect();
        assert_eq!(frames, [(Port(1), &frame(2)[..]), (Port(1), &frame(4)[..])]);
        let _ = queue.sent(7);
        assert_eq!(queue.begun(), []);
    }

    #[test]
    fn a_restored_queue_holds_what_a_full_one_held_whose_first_frame_was_sent_in_part() {
        let mut full = queue();
        for mark in 1..=3 {
            assert!(full.push(Port(0), &frame(mark)));
        }
        let _ = full.sent(9);
        assert!(full.push(Port(0), &[4; 5]));
        let mut restored = queue();
        for (from, frame) in full.frames() {
            assert!(restored.restore(from, frame, 0));
        }
        assert_eq!(
            restored.pending(),
            [stream(&[1, 2, 3]), [0, 0, 0, 5, 4, 4, 4, 4, 4].to_vec()].concat()
        );
        assert!(!restored.restore(Port(0), &[5], 0));
        assert!(!restored.push(Port(0), &[5]));
    }

    #[test]
    fn memory_stays_bounded_while_the_queue_never_runs_dry() {
        let mut queue = Queue::new(1000);
        assert!(queue.push(Port(0), &frame(0)));
        for mark in 0..100_000_u32 {
            assert!(queue.push(Port(0), &frame(mark as u8)));
            let _ = queue.sent(10);
        }
        assert!(queue.bytes.capacity() <= 4000, "{}", queue.bytes.capacity());
    }
}
