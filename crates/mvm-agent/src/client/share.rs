//! The folder that machines and host have in common, on the host's side: the messages of the guest's kernel. What they mean
//! is [FUSE]'s; who answers them is the caller.
//!
//! [FUSE]: https://docs.kernel.org/filesystems/fuse.html

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::channel::Stream;
use super::error::{AgentError, ChannelEnd};
use super::{Agent, handshake};
use crate::protocol::{Nonce, Request, read_shared, write_shared};
use crate::wire::Decoder;

const READ_BYTES: usize = 64 * 1024;
/// A mount takes 0.1 s under an emulator; a loaded host may need a hundred times that.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Has the guest mount the folder, which nobody serves yet: a machine that is frozen then has that behind it.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be mounted; [`AgentError::Unresponsive`], [`AgentError::Closed`].
    pub async fn mount_shared(&self) -> Result<(), AgentError> {
        self.ask(Request::MountShared, "the mount", MOUNT_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Has the guest mount the folder if need be, and relay it over `channel`, the host's end of the port
    /// [`SHARED_PORT_NAME`](crate::boot::SHARED_PORT_NAME). What is asked of the agent after this finds it mounted; what
    /// that came to is told by [`Share::next_request`].
    ///
    /// It ends with the conversation, or when the guest is asked once more: whatever is under way there fails then, and
    /// everything after, until somebody serves it again. The mount stays: its kernel may go on with what another session
    /// told it, see [`Share::session`].
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
    /// Which session it is: no other has this number, so what is told to the kernel can be told from what another did.
    pub fn session(&self) -> u64 {
        self.session.0
    }

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
