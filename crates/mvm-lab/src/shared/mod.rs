//! The folder that all machines of a lab and their host have in common: a FUSE server for each machine.
//!
//! ```text
//!   process ─▶ guest's kernel ─▶ agent ═ a port of its own ═▶ serve ─▶ Server ─▶ folder on the host
//! ```
//!
//! A machine is not trusted: [`fuse`] reads what it sends, [`nodes`] knows what it may name, and [`server`] never leaves the
//! folder. Why there is no library behind this is told in `docs/design/shared-folder.md`.

mod fuse;
mod nodes;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use mvm_agent::{
    client::{AgentError, ChannelEnd, Share},
    protocol::SHARED_FOLDER,
};
use rustix::io::Errno;
use tokio::net::UnixStream;

use self::{fuse::Malformed, server::Server};
use crate::event::{Event, Recorder};

/// Why a machine's folder is served no longer.
#[derive(Debug, thiserror::Error)]
enum ShareError {
    /// The machine has none, or the conversation ended.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The folder on the host cannot be used.
    #[error("could not open {path:?}: {source}")]
    Folder { path: PathBuf, source: Errno },
    /// The machine says what no kernel does.
    #[error("its kernel sent what is no request")]
    Malformed,
}

/// Serves `folder` to a machine until it or the conversation is over; warns of anything else.
pub(crate) async fn serve(
    share: Result<Share<UnixStream>, AgentError>,
    machine: String,
    folder: PathBuf,
    recorder: Recorder,
) {
    let Err(error) = answer_all(share, &folder).await else {
        return;
    };
    // Conversations end with their machine, when it is frozen, and when another begins.
    if let ShareError::Agent(AgentError::Closed(end)) = &error
        && !matches!(end, ChannelEnd::Violation(_))
    {
        return;
    }
    recorder.record(Event::Warning {
        text: format!("machine {machine} is without {SHARED_FOLDER}: {error}"),
    });
}

async fn answer_all(
    share: Result<Share<UnixStream>, AgentError>,
    folder: &Path,
) -> Result<(), ShareError> {
    let mut share = share?;
    let mut server =
        Server::open(folder, share.session()).map_err(|source| ShareError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    while let Some(message) = share.next_request().await? {
        let answered = tokio::task::spawn_blocking(move || {
            let answer = server.answer(&message);
            (server, answer)
        });
        let (same, answer) = answered
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        server = same;
        match answer {
            Ok(Some(answer)) => share.answer(&answer).await?,
            Ok(None) => {}
            Err(Malformed) => return Err(ShareError::Malformed),
        }
    }
    Ok(())
}
