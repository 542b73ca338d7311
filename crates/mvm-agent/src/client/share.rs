//! The folder that machines and host have in common, on the host's side: the messages of the guest's kernel. What they mean
//! is [FUSE]'s; who answers them is the caller.
//!
//! [FUSE]: https://docs.kernel.org/filesystems/fuse.html

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::channel::Stream;
use super::error::{AgentError, ChannelEnd};
use super::{Agent, handshake};
use crate::protocol::{Nonce, Request, read_shared, write_shared};
use crate::wire::Decoder;

const READ_BYTES: usize = 64 * 1024;

/// The host's end of a guest's [`SHARED_FOLDER`](crate::protocol::SHARED_FOLDER). What the guest does there waits while
/// nobody asks for it.
#[derive(Debug)]
pub struct Share<S> {
    /// The guest has not said yet that it is mounted.
    mounting: Option<Stream>,
    session: Nonce,
    channel: S,
    decoder: Decoder,
    read: Vec<u8>,
    packet: Vec<u8>,
}

impl Agent {
    /// Has the guest mount the folder, and relay it over `channel`, the host's end of the port
    /// [`SHARED_PORT_NAME`](crate::boot::SHARED_PORT_NAME). What is asked of the agent after this finds it mounted; what
    /// that came to is told by [`Share::next_request`].
    ///
    /// It ends with the conversation, or when the guest is asked once more: whatever is under way there fails then, and
    /// everything after, until it is mounted anew.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn share<S>(&self, channel: S) -> Result<Share<S>, AgentError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let session = handshake::fresh_nonce();
        Ok(Share {
            mounting: Some(self.open(Request::Share { session })?),
            session,
            channel,
            decoder: Decoder::new(),
            read: Vec::new(),
            packet: Vec::new(),
        })
    }
}

impl<S> Share<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Waits for the guest's next message; `None` once its machine is gone. Not to be dropped before it is done.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be mounted; [`AgentError::Closed`].
    pub async fn next_request(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        if let Some(mut mounting) = self.mounting.take() {
            mounting.reply().await?;
        }
        loop {
            let mut rest = self.read.as_slice();
            while let Some(content) = self.decoder.next(&mut rest) {
                if let Some(message) = read_shared(self.session, &content) {
                    self.read = rest.to_vec();
                    return Ok(Some(message.to_vec()));
                }
            }
            self.read.resize(READ_BYTES, 0);
            let count = self.channel.read(&mut self.read).await.map_err(closed)?;
            self.read.truncate(count);
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends an answer, which is no longer than
    /// [`SHARED_MESSAGE_BYTES_MAX`](crate::protocol::SHARED_MESSAGE_BYTES_MAX). A part of it may have been sent when the
    /// future is dropped; the next session copes with that.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub async fn answer(&mut self, message: &[u8]) -> Result<(), AgentError> {
        self.packet.clear();
        write_shared(self.session, message, &mut self.packet);
        self.channel.write_all(&self.packet).await.map_err(closed)
    }
}

fn closed(error: std::io::Error) -> AgentError {
    AgentError::Closed(ChannelEnd::Io(Arc::new(error)))
}
