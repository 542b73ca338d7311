//! The lab's side: the socket, and one task per connection.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use mvm_machine::process::{Keeper, PathGuard};
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    session,
    wire::{self, Answer, Listing, Machine, Pointer, Refusal, RefusalKind, Request},
};
use crate::{node::Node, run_folder::RunFolder, scratch};

/// What the socket is called in its folder.
const SOCKET: &str = "control";
/// The longest path of a socket, in bytes: the kernel's `sun_path` less its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}: {source}")]
pub struct ControlError {
    what: &'static str,
    source: io::Error,
}

/// A lab's open control socket. Dropping it ends all conversations, and removes the socket and its pointer.
pub struct Control {
    socket: PathBuf,
    serving: JoinHandle<()>,
    _pointer: PathGuard,
    _folder: PathGuard,
}

impl Control {
    /// Opens a socket for the machines of a lab whose run folder is `folder`.
    pub(crate) fn open<'a>(
        nodes: impl Iterator<Item = &'a Arc<Node>>,
        folder: &RunFolder,
    ) -> Result<Control, ControlError> {
        let trouble = |what| move |source| ControlError { what, source };
        let private = scratch::folder_with_short_path(SOCKET_PATH_BYTES_MAX - 1 - SOCKET.len())
            .map_err(trouble("make a folder for the control socket"))?;
        let socket = private.path().join(SOCKET);
        let listener = UnixListener::bind(&socket).map_err(trouble("open the control socket"))?;
        let pointer = point_to(&socket, &folder.control()).map_err(trouble(
            "tell in the run folder where the control socket is",
        ))?;
        let machines = Machines {
            folder: folder.path().to_owned(),
            nodes: nodes
                .map(|node| (node.name().to_owned(), Arc::downgrade(node)))
                .collect(),
        };
        Ok(Control {
            socket,
            serving: tokio::spawn(serve(listener, Arc::new(machines))),
            _pointer: pointer,
            _folder: private,
        })
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn point_to(socket: &Path, file: &Path) -> io::Result<PathGuard> {
    let pointer = Pointer {
        socket: socket.to_owned(),
        pid: std::process::id(),
    };
    let guard = Keeper::get()
        .and_then(|keeper| keeper.guard_path(file))
        .map_err(io::Error::other)?;
    // Under its name it is always whole.
    let partial = file.with_extension("json.new");
    std::fs::write(&partial, serde_json::to_vec(&pointer)?)?;
    std::fs::rename(&partial, file)?;
    Ok(guard)
}

/// The machines, which are not kept from ending.
pub(super) struct Machines {
    folder: PathBuf,
    nodes: BTreeMap<String, Weak<Node>>,
}

impl Machines {
    pub(super) fn find(&self, name: &str) -> Result<Arc<Node>, Refusal> {
        let known = || self.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        let node = self.nodes.get(name).ok_or_else(|| Refusal {
            kind: RefusalKind::UnknownMachine,
            message: format!("could not find machine {name:?}; there are {}", known()),
        })?;
        node.upgrade().ok_or_else(|| Refusal {
            kind: RefusalKind::Off,
            message: "could not find the machine: the lab has ended".to_owned(),
        })
    }

    fn list(&self) -> Listing {
        let nodes = self.nodes.iter();
        let machines = nodes.filter_map(|(name, node)| {
            Some(Machine {
                name: name.clone(),
                power: node.upgrade()?.power(),
            })
        });
        Listing {
            folder: self.folder.clone(),
            machines: machines.collect(),
        }
    }
}

/// Serves connections until it is aborted, which ends them too.
async fn serve(listener: UnixListener, machines: Arc<Machines>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&machines)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket is closed");
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: UnixStream, machines: Arc<Machines>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let done = async {
        match wire::read_line(&mut reader).await {
            Ok(Some(Request::Machines)) => {
                wire::write_line(&mut writer, &Answer::Ok(machines.list())).await
            }
            Ok(Some(Request::Terminal {
                machine,
                command,
                size,
                term,
            })) => {
                let start = session::Terminal::start(&machines, &machine, command, size, term);
                session::serve(start.await, reader, writer).await
            }
            Ok(Some(Request::Command { machine, command })) => {
                let start = session::Command::start(&machines, &machine, command);
                session::serve(start.await, reader, writer).await
            }
            Ok(Some(Request::Console { machine })) => {
                session::serve(session::Console::start(&machines, &machine), reader, writer).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let refusal = Refusal {
                    kind: RefusalKind::Malformed,
                    message: format!("this is no request: {error}"),
                };
                wire::write_line(&mut writer, &Answer::<()>::Error(refusal)).await
            }
        }
    };
    // A client that leaves is no news.
    if let Err(error) = done.await {
        tracing::debug!(%error, "a control connection ended");
    }
}
