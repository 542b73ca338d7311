//! The task that owns a channel after the handshake: it reads frames into the streams and writes what the
//! streams queued. What the frames mean is decided in [`super::channel`].

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::channel::Shared;
use super::error::ChannelEnd;
use super::handshake::Conversation;
use crate::protocol::{self, Frame, Nonce, Packet, StreamId, ToGuest, ToHost};
use crate::wire::{self, Decoder};

/// How often a client that waits for something says that it is there. A guest that restarted says then that it does not
/// know the conversation; without it, a call waiting on such a guest would wait for ever. Who waits for nothing says
/// nothing: a hundred idle guests would wake up two hundred times a second.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// How long a dropped client may take to write its last words.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

const READ_BYTES: usize = 64 * 1024;

/// The stream id of messages about the conversation itself.
const NO_STREAM: StreamId = StreamId(0);

/// Starts the task. It ends when the channel does, or soon after [`Shared::finish`].
pub(super) fn start<S>(conversation: Conversation<S>) -> Arc<Shared>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let shared = Arc::new(Shared::new());
    let task = Arc::clone(&shared);
    // The task's owner is `Shared`: `finish` ends it, and nothing outlives it that would need its result.
    tokio::spawn(async move {
        let task = Task(task);
        // By the time the end is told, the channel is dropped: whoever parted may hand it on.
        let end = run(conversation, &task.0).await;
        tracing::debug!(%end, "agent channel ended");
        task.0.end(end);
    });
    shared
}

/// Ends the channel also when the runtime drops the task.
struct Task(Arc<Shared>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.end(ChannelEnd::Dropped);
    }
}

async fn run<S>(conversation: Conversation<S>, shared: &Shared) -> ChannelEnd
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Conversation {
        nonce,
        mut reader,
        mut writer,
        decoder,
        rest,
    } = conversation;
    let incoming = Incoming {
        nonce,
        decoder,
        expected: 0,
    };
    let mut outgoing = Outgoing {
        nonce,
        sequence: 0,
        packets: vec![wire::DELIMITER],
    };
    let end = tokio::select! {
        end = read(&mut reader, incoming, &rest, shared) => end,
        end = write(&mut writer, &mut outgoing, shared) => end,
        () = shared.finished() => ChannelEnd::Dropped,
    };
    if matches!(end, ChannelEnd::Dropped) {
        // The writer above may have been stopped in the middle of a packet, whose rest would be missing:
        // what `outgoing` still holds begins where it stopped.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, outgoing.flush(&mut writer, shared)).await;
    }
    end
}

async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    mut incoming: Incoming,
    rest: &[u8],
    shared: &Shared,
) -> ChannelEnd {
    if let Err(end) = incoming.take(rest, shared) {
        return end;
    }
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return ChannelEnd::HungUp,
            Ok(count) => count,
            Err(error) => return ChannelEnd::Io(Arc::new(error)),
        };
        if let Err(end) = incoming.take(&buffer[..count], shared) {
            return end;
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    outgoing: &mut Outgoing,
    shared: &Shared,
) -> ChannelEnd {
    loop {
        if let Err(end) = outgoing.flush(writer, shared).await {
            return end;
        }
        if tokio::time::timeout(KEEP_ALIVE_INTERVAL, shared.queued())
            .await
            .is_err()
            && shared.awaits_something()
        {
            outgoing.frame(NO_STREAM, &ToGuest::KeepAlive, &[]);
        }
    }
}

/// The guest's frames.
struct Incoming {
    nonce: Nonce,
    decoder: Decoder,
    expected: u32,
}

impl Incoming {
    fn take(&mut self, mut bytes: &[u8], shared: &Shared) -> Result<(), ChannelEnd> {
        while let Some(content) = self.decoder.next(&mut bytes) {
            match protocol::read_packet::<ToHost>(&content) {
                Ok(Packet::Frame(frame)) if frame.nonce == self.nonce => {
                    self.frame(frame, shared)?
                }
                Ok(Packet::Gone(nonce)) if nonce.is_none_or(|nonce| nonce == self.nonce) => {
                    return Err(ChannelEnd::Forgotten);
                }
                // Of another conversation, or a greeting answered twice.
                Ok(
                    Packet::Frame(_) | Packet::Gone(_) | Packet::Hello(_) | Packet::HelloBack(_),
                ) => {}
                Err(_) => return Err(ChannelEnd::Violation("a packet that means nothing")),
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame<ToHost>, shared: &Shared) -> Result<(), ChannelEnd> {
        if frame.sequence != self.expected {
            let dropped = self.decoder.dropped();
            return Err(ChannelEnd::OutOfStep {
                expected: self.expected,
                received: frame.sequence,
                dropped,
            });
        }
        self.expected = self.expected.wrapping_add(1);
        tracing::trace!(stream = frame.stream.0, message = ?frame.message, bytes = frame.payload.len(), "from guest");
        shared.receive(frame.stream, frame.message, frame.payload)
    }
}

/// The host's frames, encoded and not yet written.
struct Outgoing {
    nonce: Nonce,
    sequence: u32,
    packets: Vec<u8>,
}

impl Outgoing {
    fn frame(&mut self, stream: StreamId, message: &ToGuest, payload: &[u8]) {
        tracing::trace!(
            stream = stream.0,
            ?message,
            bytes = payload.len(),
            "to guest"
        );
        // `Stream::open` refuses what does not fit, and all else is small.
        if protocol::write_frame(
            self.nonce,
            self.sequence,
            stream,
            message,
            payload,
            &mut self.packets,
        )
        .is_ok()
        {
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Writes everything that is queued. When it is dropped in between, it can be called again and goes on
    /// where it stopped.
    async fn flush<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        shared: &Shared,
    ) -> Result<(), ChannelEnd> {
        loop {
            while !self.packets.is_empty() {
                match writer.write(&self.packets).await {
                    Ok(0) => return Err(ChannelEnd::HungUp),
                    Ok(count) => drop(self.packets.drain(..count)),
                    Err(error) => return Err(ChannelEnd::Io(Arc::new(error))),
                }
            }
            let queued = shared.take_queued();
            if queued.is_empty() {
                return writer
                    .flush()
                    .await
                    .map_err(|error| ChannelEnd::Io(Arc::new(error)));
            }
            for outgoing in queued {
                self.frame(outgoing.stream, &outgoing.message, &outgoing.payload);
            }
        }
    }
}
