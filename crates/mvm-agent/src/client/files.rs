//! Files to and from the guest.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::channel::{Inbound, SendError};
use super::error::AgentError;
use super::{Agent, unexpected_reply};
use crate::protocol::{DATA_BYTES_MAX, Reply, Request, ToGuest};

impl Agent {
    /// Writes a file in the guest, with these permission bits, creating its parent directories. It appears
    /// under its name only when it is whole and on its disk; what was there before is replaced.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] naming the step, among others.
    pub async fn upload(
        &self,
        path: impl Into<String>,
        mode: u32,
        content: &[u8],
    ) -> Result<(), AgentError> {
        self.upload_from(path, mode, content).await
    }

    /// [`Agent::upload`] from a reader, whatever its length.
    ///
    /// # Errors
    ///
    /// As for [`Agent::upload`], and [`AgentError::Source`] when the reader fails; the guest's file is not
    /// changed then.
    pub async fn upload_from<R>(
        &self,
        path: impl Into<String>,
        mode: u32,
        content: R,
    ) -> Result<(), AgentError>
    where
        R: AsyncRead,
    {
        let mut content = std::pin::pin!(content);
        let mut stream = self.open(Request::Upload {
            path: path.into(),
            mode,
        })?;
        let sender = stream.sender().clone();
        let mut buffer = vec![0; DATA_BYTES_MAX];
        loop {
            let count = content
                .read(&mut buffer)
                .await
                .map_err(|error| AgentError::Source(Arc::new(error)))?;
            let sent = if count == 0 {
                sender.send(ToGuest::End)
            } else {
                sender.send_all(&buffer[..count]).await
            };
            match sent {
                Ok(()) if count > 0 => {}
                // The guest refuses when it failed; the reply says why.
                Ok(()) | Err(SendError::Refused) => break,
                Err(SendError::Closed(error)) => return Err(error),
            }
        }
        stream.reply().await.map(drop)
    }

    /// Reads a regular file of the guest: its content and its permission bits.
    ///
    /// # Errors
    ///
    /// [`AgentError::FileTooLarge`] beyond `bytes_max`; [`AgentError::Guest`], among others.
    pub async fn download(
        &self,
        path: impl Into<String>,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, u32), AgentError> {
        let path = path.into();
        let mut stream = self.open(Request::Download { path: path.clone() })?;
        let mut content = Vec::new();
        loop {
            match stream.next().await? {
                Inbound::Data(_, bytes)
                    if content.len() as u64 + bytes.len() as u64 > bytes_max =>
                {
                    return Err(AgentError::FileTooLarge { path, bytes_max });
                }
                Inbound::Data(_, bytes) => content.extend_from_slice(&bytes),
                Inbound::Done(Reply::File { mode }) => return Ok((content, mode)),
                Inbound::Done(_) => return Err(unexpected_reply()),
                Inbound::Started | Inbound::Following(_) | Inbound::End | Inbound::Exited(_) => {}
            }
        }
    }
}
