//! The folder that machines and host have in common, on the host's side: the messages of the guest's kernel, cut out of
//! the stream. What they mean is [FUSE]'s; who answers them is the caller.
//!
//! [FUSE]: https://docs.kernel.org/filesystems/fuse.html

use super::channel::{Inbound, SendError, Stream};
use super::error::{AgentError, ChannelEnd};
use super::{Agent, unexpected_reply};
use crate::protocol::{Reply, Request, shared_message_bytes};

/// The host's end of a guest's [`SHARED_FOLDER`](crate::protocol::SHARED_FOLDER). Dropping it fails everything that is
/// under way there, and everything after.
#[derive(Debug)]
pub struct Share {
    stream: Stream,
    begun: Vec<u8>,
}

impl Agent {
    /// Has the guest mount the folder; what is asked of the agent afterwards finds it there. What it came to is told by
    /// [`Share::next_request`].
    ///
    /// It ends with the conversation, and is no reason not to part.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn share(&self) -> Result<Share, AgentError> {
        Ok(Share {
            stream: self.open(Request::Share)?,
            begun: Vec::new(),
        })
    }
}

impl Share {
    /// Waits for the guest's next message, which is no longer than
    /// [`SHARED_MESSAGE_BYTES_MAX`](crate::protocol::SHARED_MESSAGE_BYTES_MAX); `None` once the guest unmounted the folder.
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be mounted; [`AgentError::Closed`] once the conversation is over, or for
    /// what is no message.
    pub async fn next_request(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        loop {
            let bytes = shared_message_bytes(&self.begun)
                .map_err(|_| AgentError::Closed(ChannelEnd::Violation("no FUSE message")))?;
            if let Some(bytes) = bytes.filter(|bytes| *bytes <= self.begun.len()) {
                let rest = self.begun.split_off(bytes);
                return Ok(Some(std::mem::replace(&mut self.begun, rest)));
            }
            match self.stream.next().await? {
                Inbound::Data(_, bytes) => self.begun.extend_from_slice(&bytes),
                Inbound::Done(Reply::Nothing) => return Ok(None),
                Inbound::Started
                | Inbound::Following(_)
                | Inbound::End
                | Inbound::Exited(_)
                | Inbound::Done(_) => return Err(unexpected_reply()),
            }
        }
    }

    /// Sends an answer, a whole FUSE message. A part of it may have been sent when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`]. To a guest that takes no more nothing is sent, and [`Share::next_request`] tells why.
    pub async fn answer(&mut self, message: &[u8]) -> Result<(), AgentError> {
        match self.stream.sender().send_all(message).await {
            Ok(()) | Err(SendError::Refused) => Ok(()),
            Err(SendError::Closed(error)) => Err(error),
        }
    }
}
