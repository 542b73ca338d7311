//! TCP in the guest's network, used from the host.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::channel::{Inbound, SendError, Stream};
use super::error::AgentError;
use super::{Agent, PROMPT_TIMEOUT, unexpected_reply};
use crate::protocol::{Reply, Request, ToGuest};

/// How many connections one forwarded port carries at once; more wait in the host's accept queue.
const FORWARDED_CONNECTIONS_MAX: usize = 256;

impl Agent {
    /// Waits until something in the guest's reach accepts connections on a port. The guest itself tries
    /// again and again; `host` is an address or a name in its `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// [`AgentError::PortClosed`] with the last observation, among others.
    pub async fn wait_for_port(
        &self,
        host: impl Into<String>,
        port: u16,
        timeout: Duration,
    ) -> Result<(), AgentError> {
        let host = host.into();
        let request = Request::WaitForPort {
            host: host.clone(),
            port,
            timeout,
        };
        // The guest keeps the limit; the rest is for a guest that does not answer at all.
        let patience = timeout.saturating_add(PROMPT_TIMEOUT);
        match self.ask(request, "the wait for a port", patience).await? {
            Reply::Nothing => Ok(()),
            Reply::PortClosed { attempts, last } => Err(AgentError::PortClosed {
                host,
                port,
                waited: timeout,
                attempts,
                last,
            }),
            Reply::Detached { .. }
            | Reply::Service { .. }
            | Reply::Services(_)
            | Reply::Parted
            | Reply::File { .. } => Err(unexpected_reply()),
        }
    }

    /// Opens a TCP connection from within the guest. It waits as long as the guest's kernel does, minutes
    /// where packets vanish; dropping the future gives up in the guest too.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when the connection was not accepted, among others.
    pub async fn dial(&self, address: SocketAddr) -> Result<DialedStream, AgentError> {
        let mut stream = self.open(Request::Dial(address))?;
        loop {
            match stream.next().await? {
                Inbound::Started => {
                    return Ok(DialedStream {
                        stream,
                        unread: Vec::new(),
                        taken: 0,
                        eof: false,
                    });
                }
                Inbound::Done(_) => return Err(unexpected_reply()),
                Inbound::Following(_) | Inbound::Data(..) | Inbound::End | Inbound::Exited(_) => {}
            }
        }
    }

    /// Forwards as [`Forward::listen`] does, by this agent.
    ///
    /// # Errors
    ///
    /// [`AgentError::Listen`].
    pub async fn forward(
        &self,
        local: SocketAddr,
        guest: SocketAddr,
    ) -> Result<Forward, AgentError> {
        let agent = self.clone();
        Forward::listen(local, guest, move || Some(agent.clone())).await
    }
}

/// A forwarded port. Dropping it closes the port and all its connections.
#[derive(Debug)]
pub struct Forward {
    local_addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Listens on the host at `local` (port 0: any free one) and forwards every connection to `guest`, dialled from
    /// within the guest by the agent that `agent` returns then, until the returned guard is dropped. A connection that
    /// cannot be made, because there is no agent or the guest refuses, is closed at once.
    ///
    /// # Errors
    ///
    /// [`AgentError::Listen`].
    pub async fn listen(
        local: SocketAddr,
        guest: SocketAddr,
        agent: impl Fn() -> Option<Agent> + Send + 'static,
    ) -> Result<Forward, AgentError> {
        let failed = |error| AgentError::Listen {
            address: local,
            error: Arc::new(error),
        };
        let listener = TcpListener::bind(local).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(accept(listener, agent, guest));
        Ok(Forward { local_addr, task })
    }

    /// Where it listens on the host.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts for ever; the connections end with it.
async fn accept(listener: TcpListener, agent: impl Fn() -> Option<Agent>, guest: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= FORWARDED_CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((connection, _)) => match agent() {
                Some(agent) => drop(connections.spawn(relay(connection, agent, guest))),
                None => tracing::debug!(%guest, "no agent carries a forwarded connection"),
            },
            Err(error) => {
                // Out of descriptors, or a peer that was gone at once: the next accept may well succeed.
                tracing::debug!(%error, "could not accept a forwarded connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn relay(mut connection: TcpStream, agent: Agent, guest: SocketAddr) {
    let relayed = match agent.dial(guest).await {
        Ok(mut dialed) => tokio::io::copy_bidirectional(&mut connection, &mut dialed)
            .await
            .map(drop),
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = relayed {
        tracing::debug!(%guest, %error, "a forwarded connection failed");
    }
}

/// A TCP connection made by the guest. Dropping it closes the connection.
#[derive(Debug)]
pub struct DialedStream {
    stream: Stream,
    unread: Vec<u8>,
    taken: usize,
    eof: bool,
}

impl AsyncRead for DialedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken == self.unread.len() && !self.eof {
            match ready!(self.stream.poll_next(context)).map_err(io_error)? {
                Inbound::Data(_, bytes) => {
                    self.unread = bytes;
                    self.taken = 0;
                }
                Inbound::End | Inbound::Done(_) => self.eof = true,
                Inbound::Started | Inbound::Following(_) | Inbound::Exited(_) => {}
            }
        }
        let count = buffer.remaining().min(self.unread.len() - self.taken);
        buffer.put_slice(&self.unread[self.taken..self.taken + count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DialedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream
            .sender()
            .poll_send(context, bytes)
            .map_err(send_error)
    }

    /// Does nothing: what was accepted is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.sender().send(ToGuest::End) {
            Ok(()) | Err(SendError::Refused) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(send_error(error))),
        }
    }
}

fn send_error(error: SendError) -> io::Error {
    match error {
        SendError::Refused => io::ErrorKind::BrokenPipe.into(),
        SendError::Closed(error) => io_error(error),
    }
}

fn io_error(error: AgentError) -> io::Error {
    match error {
        AgentError::Guest {
            cause: crate::protocol::Cause::Os(errno),
            ..
        } => io::Error::from_raw_os_error(errno),
        error => io::Error::other(error),
    }
}
