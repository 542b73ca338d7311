//! Standard input, read by a thread that can be stopped: one that waits in `read` would take a key from whoever comes
//! next, and hold up the end of the program.

use std::{
    io,
    os::fd::OwnedFd,
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    stdio::stdin,
};
use tokio::sync::mpsc;

/// How many pieces wait while the lab takes none.
const PIECES_MAX: usize = 4;
const PIECE_BYTES: usize = 4096;

/// What is typed. Dropping it stops reading; what was not read stays for others.
pub(super) struct Keyboard {
    typed: mpsc::Receiver<Vec<u8>>,
    reader: Option<JoinHandle<()>>,
    /// Closed to stop the thread.
    stop: Option<OwnedFd>,
}

impl Keyboard {
    pub(super) fn start() -> io::Result<Keyboard> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let (outbox, typed) = mpsc::channel(PIECES_MAX);
        let reader = thread::Builder::new()
            .name("mvm-keyboard".into())
            .spawn(move || read(&stopped, &outbox))?;
        Ok(Keyboard {
            typed,
            reader: Some(reader),
            stop: Some(stop),
        })
    }

    /// Waits for what is typed next; `None` at the end of the input. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.typed.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // A thread that waits for room hears of this end, one that waits for keys of the other.
        self.typed.close();
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            // It does not panic, and if it did, the program would end as it does.
            let _ = reader.join();
        }
    }
}

/// Reads until the input ends or the other end of `stopped` is closed.
fn read(stopped: &OwnedFd, outbox: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; PIECE_BYTES];
    loop {
        let mut interests = [
            PollFd::from_borrowed_fd(stdin(), PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut interests, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !interests[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(count @ 1..) => {
                if outbox.blocking_send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(_) | Err(_) => return,
        }
    }
}
