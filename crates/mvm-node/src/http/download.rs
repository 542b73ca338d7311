//! Files as bodies: read as they are sent, their length told beforehand.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

/// Read from the disk and sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body of so many bytes from a reader.
pub(super) fn download(reader: Pin<Box<dyn AsyncRead + Send>>, bytes: u64) -> Body {
    Body::new(Download {
        reader,
        left: bytes,
    })
}

/// A file on its way to a client.
struct Download {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    left: u64,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; size];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read = ready!(self.reader.as_mut().poll_read(context, &mut buffer));
        let filled = buffer.filled().len();
        chunk.truncate(filled);
        Poll::Ready(Some(match read {
            Err(error) => Err(error),
            Ok(()) if filled == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => {
                self.left -= filled as u64;
                Ok(Frame::data(chunk.into()))
            }
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
