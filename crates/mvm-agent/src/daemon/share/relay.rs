//! The thread between the kernel and the port.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Desk, fuse};
use crate::protocol::{Nonce, SHARED_MESSAGE_BYTES_MAX, read_shared, write_shared};
use crate::wire::Decoder;

const READ_BYTES: usize = 64 * 1024;

/// What goes between the kernel and the port.
pub(super) struct Relay {
    device: File,
    port: OwnedFd,
    desk: Arc<Desk>,
    /// Whose what is under way is.
    session: Option<Nonce>,
    /// The kernel's questions that the session has not answered.
    asked: BTreeSet<u64>,
    decoder: Decoder,
    /// The packet of the kernel's last message, as far as the port has not taken it.
    outgoing: Vec<u8>,
}

impl Relay {
    pub(super) fn new(device: File, port: OwnedFd, desk: Arc<Desk>) -> Self {
        Self {
            device,
            port,
            desk,
            session: None,
            asked: BTreeSet::new(),
            decoder: Decoder::new(),
            outgoing: Vec::new(),
        }
    }

    /// Relays until the file system is unmounted, or the host's end of the port is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let is_idle = self.outgoing.is_empty();
            let mut port_flags = PollFlags::IN;
            port_flags.set(PollFlags::OUT, !is_idle);
            let mut interests = vec![
                PollFd::new(&self.desk.ended, PollFlags::IN),
                PollFd::new(&self.port, port_flags),
            ];
            // One message at a time: the others wait in the kernel.
            if is_idle {
                interests.push(PollFd::new(&self.device, PollFlags::IN));
            }
            match poll(&mut interests, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<_> = interests.iter().map(PollFd::revents).collect();
            if ready[1].contains(PollFlags::HUP) {
                return Ok(());
            }
            if !ready[0].is_empty() {
                would_block(rustix::io::read(&self.desk.ended, &mut [0; 8]))?;
            }
            self.turn()?;
            if ready[1].contains(PollFlags::IN) {
                self.answer()?;
            }
            if is_idle && !ready[2].is_empty() {
                self.ask()?;
            }
            self.send()?;
        }
    }

    /// Goes over to whoever answers now; what another was asked has failed.
    fn turn(&mut self) -> io::Result<()> {
        let session = self.desk.session();
        if session == self.session {
            return Ok(());
        }
        self.session = session;
        self.outgoing.clear();
        for unique in std::mem::take(&mut self.asked) {
            self.tell(&fuse::refusal(unique, Errno::NOTCONN))?;
        }
        Ok(())
    }

    /// Hands the host's messages to the kernel.
    fn answer(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        let Some(count) = would_block(rustix::io::read(&self.port, &mut buffer))? else {
            return Ok(());
        };
        let mut bytes = &buffer[..count];
        while let Some(content) = self.decoder.next(&mut bytes) {
            let message = self
                .session
                .and_then(|session| read_shared(session, &content));
            if let Some(message) = message
                && fuse::answered(message).is_some_and(|unique| self.asked.remove(&unique))
            {
                self.tell(message)?;
            }
        }
        Ok(())
    }

    fn tell(&self, message: &[u8]) -> io::Result<()> {
        match rustix::io::write(&self.device, message) {
            // Whoever asked was killed meanwhile.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the kernel's next message.
    fn ask(&mut self) -> io::Result<()> {
        let mut message = Vec::with_capacity(SHARED_MESSAGE_BYTES_MAX);
        let read = match rustix::io::read(&self.device, spare_capacity(&mut message)) {
            // Whoever asked was killed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            read => would_block(read)?,
        };
        if read.is_none() {
            return Ok(());
        }
        let question = fuse::question(&message);
        match self.session {
            Some(session) => {
                self.asked.extend(question);
                write_shared(session, &message, &mut self.outgoing);
                Ok(())
            }
            None => question.map_or(Ok(()), |unique| {
                self.tell(&fuse::refusal(unique, Errno::NOTCONN))
            }),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match would_block(rustix::io::write(&self.port, &self.outgoing))? {
                Some(count) => drop(self.outgoing.drain(..count)),
                None => break,
            }
        }
        Ok(())
    }
}

/// `None` for what can be done later.
fn would_block(done: Result<usize, Errno>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
