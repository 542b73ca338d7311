//! Whether a command that waits to be handed over still is to be.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

const WAITING: u8 = 0;
const HANDED_OVER: u8 = 1;
const TAKEN_BACK: u8 = 2;

/// The end of whoever hands it over.
#[derive(Debug)]
pub(super) struct Waiting(Arc<AtomicU8>);

/// The end of whoever waits for the answer. Dropped, it takes back what was not handed over.
#[derive(Debug)]
pub(super) struct Handing(Arc<AtomicU8>);

/// Two ends for one command, which waits.
pub(super) fn handing() -> (Handing, Waiting) {
    let stands = Arc::new(AtomicU8::new(WAITING));
    (Handing(Arc::clone(&stands)), Waiting(stands))
}

impl Waiting {
    /// Says that it is handed over from now on; no, if it was taken back.
    pub(super) fn hand_over(&self) -> bool {
        change(&self.0, HANDED_OVER)
    }
}

impl Handing {
    /// Takes it back; no, if it was handed over.
    pub(super) fn take_back(&self) -> bool {
        change(&self.0, TAKEN_BACK)
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        self.take_back();
    }
}

fn change(stands: &AtomicU8, to: u8) -> bool {
    stands
        .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}
