//! A console as it is now: raw bytes to those who listen, and what is typed on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{broadcast, mpsc},
};

/// A listener that is this many pieces behind, each of at most 4 KiB, misses the oldest ones.
const PIECES_BEHIND_MAX: usize = 256;
/// How many pieces wait for a guest that does not read.
const PIECES_TYPED_MAX: usize = 4;
/// The size of such a piece.
const TYPED_BYTES_MAX: usize = 1024;

/// Who listens to a console and who types on it, across restarts of its machine.
pub(super) struct Live {
    said: broadcast::Sender<Arc<[u8]>>,
    /// To the machine that is on.
    typed: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
}

impl Live {
    pub(super) fn new() -> Live {
        Live {
            said: broadcast::Sender::new(PIECES_BEHIND_MAX),
            typed: Mutex::new(None),
        }
    }

    pub(super) fn listen(&self) -> Listener {
        Listener {
            said: self.said.subscribe(),
        }
    }

    pub(super) fn say(&self, bytes: &[u8]) {
        if self.said.receiver_count() > 0 {
            // The last listener may have left since.
            let _ = self.said.send(bytes.into());
        }
    }

    pub(super) async fn write(&self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(TYPED_BYTES_MAX) {
            let machine = self.lock().clone();
            match machine {
                Some(machine) if machine.send(piece.to_vec()).await.is_ok() => {}
                Some(_) | None => return false,
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Sender<Vec<u8>>>> {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The machine's side of what is typed; pulls its plug when it is dropped.
pub(super) struct Typed {
    live: Arc<Live>,
    inbox: mpsc::Receiver<Vec<u8>>,
    /// Not written yet.
    pending: Vec<u8>,
}

impl Typed {
    pub(super) fn plug_into(live: &Arc<Live>) -> Typed {
        let (outbox, inbox) = mpsc::channel(PIECES_TYPED_MAX);
        *live.lock() = Some(outbox);
        Typed {
            live: Arc::clone(live),
            inbox,
            pending: Vec::new(),
        }
    }

    /// Waits for what is typed and writes some of it. Nothing is lost when the future is dropped.
    pub(super) async fn write_to(&mut self, guest: &mut (impl AsyncWrite + Unpin)) {
        if self.pending.is_empty() {
            match self.inbox.recv().await {
                Some(bytes) => self.pending = bytes,
                // Another machine is plugged in.
                None => std::future::pending().await,
            }
        }
        match guest.write(&self.pending).await {
            Ok(count) => drop(self.pending.drain(..count)),
            // Its end shows where it is read from.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let mut typed = self.live.lock();
        self.inbox.close();
        if typed.as_ref().is_some_and(mpsc::Sender::is_closed) {
            *typed = None;
        }
    }
}

/// What is heard on a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The guest's bytes, as they are.
    Bytes(Arc<[u8]>),
    /// The listener was too slow: this many pieces were thrown away here.
    Missed(u64),
}

/// Hears what a console says from now on.
pub struct Listener {
    said: broadcast::Receiver<Arc<[u8]>>,
}

impl Listener {
    /// Waits for what is said next; `None` once the console is gone, with its lab. Nothing is lost when the future is
    /// dropped.
    pub async fn next(&mut self) -> Option<Said> {
        match self.said.recv().await {
            Ok(bytes) => Some(Said::Bytes(bytes)),
            Err(broadcast::error::RecvError::Lagged(pieces)) => Some(Said::Missed(pieces)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
