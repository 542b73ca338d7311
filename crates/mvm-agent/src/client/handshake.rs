//! Opening a conversation on a channel of which nothing is known: neither whether the guest has booted, nor
//! in the middle of which packet an earlier client left it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::error::{AgentError, ChannelEnd};
use crate::protocol::{self, GuestInfo, Hello, HelloBack, Nonce, Packet, ToHost, VERSION};
use crate::wire::Decoder;

/// How often the greeting is repeated: the guest may not have booted, and bytes may be lost. Short against
/// the boot of a machine, long against the 30 bytes it costs.
const HELLO_INTERVAL: Duration = Duration::from_millis(100);

const READ_BYTES: usize = 64 * 1024;

/// A channel on which the guest answered.
pub(super) struct Conversation<S> {
    pub(super) nonce: Nonce,
    pub(super) reader: ReadHalf<S>,
    pub(super) writer: WriteHalf<S>,
    pub(super) decoder: Decoder,
    /// What was read beyond the answer.
    pub(super) rest: Vec<u8>,
}

/// Greets until the guest answers.
pub(super) async fn open<S>(
    io: S,
    timeout: Duration,
) -> Result<(Conversation<S>, GuestInfo), AgentError>
where
    S: AsyncRead + AsyncWrite,
{
    let nonce = fresh_nonce();
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut decoder = Decoder::new();
    let greetings = AtomicU32::new(0);
    let bytes_received = AtomicU64::new(0);
    let answer = async {
        tokio::select! {
            error = greet(&mut writer, nonce, &greetings) => Err(error),
            answer = listen(&mut reader, &mut decoder, nonce, &bytes_received) => answer,
        }
    };
    let (back, rest) = match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(AgentError::NoAnswer {
                waited: timeout,
                greetings: greetings.into_inner(),
                bytes_received: bytes_received.into_inner(),
            });
        }
    };
    let Some(guest) = back.guest else {
        return Err(AgentError::VersionMismatch {
            host: VERSION,
            guest: back.version,
        });
    };
    Ok((
        Conversation {
            nonce,
            reader,
            writer,
            decoder,
            rest,
        },
        guest,
    ))
}

/// Writes greetings for ever; returns only when that fails. Dropping it may leave half a greeting behind,
/// which the next packet's leading delimiter ends.
async fn greet<W: AsyncWrite + Unpin>(
    writer: &mut W,
    nonce: Nonce,
    greetings: &AtomicU32,
) -> AgentError {
    let mut packet = Vec::new();
    protocol::write_hello(
        &Hello {
            version: VERSION,
            nonce,
        },
        &mut packet,
    );
    loop {
        let written = async {
            writer.write_all(&packet).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return AgentError::Closed(ChannelEnd::Io(Arc::new(error)));
        }
        greetings.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(HELLO_INTERVAL).await;
    }
}

/// Reads until the answer to `nonce`, skipping what else there is.
async fn listen<R: AsyncRead + Unpin>(
    reader: &mut R,
    decoder: &mut Decoder,
    nonce: Nonce,
    bytes_received: &AtomicU64,
) -> Result<(HelloBack, Vec<u8>), AgentError> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return Err(AgentError::Closed(ChannelEnd::HungUp)),
            Ok(count) => count,
            Err(error) => return Err(AgentError::Closed(ChannelEnd::Io(Arc::new(error)))),
        };
        bytes_received.fetch_add(count as u64, Ordering::Relaxed);
        let mut rest = &buffer[..count];
        while let Some(content) = decoder.next(&mut rest) {
            match protocol::read_packet::<ToHost>(&content) {
                Ok(Packet::HelloBack(back)) if back.nonce == nonce => {
                    return Ok((back, rest.to_vec()));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// A number no other conversation has had. It tells conversations apart and guards nothing, so the
/// standard library's randomly seeded hasher is good enough.
pub(super) fn fresh_nonce() -> Nonce {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    Nonce(hasher.finish())
}
