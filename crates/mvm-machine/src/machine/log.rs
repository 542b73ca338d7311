//! QEMU's own complaints: straight into a file, or through us where that file is to be another one later.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};

use super::loaded::Owner;
use crate::recording::{Move, Recording};

/// A file that complaints are appended to.
pub(crate) struct OpenLog {
    path: PathBuf,
    file: File,
}

impl OpenLog {
    pub(crate) async fn at(path: &Path) -> io::Result<OpenLog> {
        let file = File::options().create(true).append(true).open(path).await?;
        Ok(OpenLog {
            path: path.to_owned(),
            file,
        })
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = async {
            self.file.write_all(bytes).await?;
            self.file.flush().await
        };
        if let Err(error) = written.await {
            tracing::warn!(path = %self.path.display(), %error, "could not record what QEMU says");
        }
    }
}

/// Where a QEMU's complaints go.
pub(super) enum Log {
    /// QEMU has the file.
    Straight,
    /// We write the file.
    Recorded(Recording<OpenLog>),
}

impl Log {
    /// Prepares the log at `path`; the other value is for QEMU.
    pub(super) async fn open(path: &Path, owner: Owner) -> io::Result<(Log, Stdio)> {
        let log = OpenLog::at(path).await?;
        match owner {
            Owner::Known => Ok((Log::Straight, log.file.into_std().await.into())),
            Owner::ToCome => {
                let (theirs, ours) = pipe::pipe()?;
                let recording = Recording::start(|moves| record(ours, log, moves));
                Ok((Log::Recorded(recording), theirs.into_blocking_fd()?.into()))
            }
        }
    }

    /// Has what comes from now on written to `target`; false if that cannot be.
    pub(super) async fn move_to(&self, target: OpenLog) -> bool {
        match self {
            Log::Straight => false,
            Log::Recorded(recording) => recording.move_to(target).await,
        }
    }

    /// Waits until all is written that a QEMU which has ended said, at most `allowed`.
    pub(super) async fn ended(&mut self, allowed: Duration) {
        match self {
            Log::Straight => {}
            Log::Recorded(recording) => recording.ended(allowed).await,
        }
    }
}

/// Records until QEMU closes its end. What it had said goes along to another file.
async fn record(
    mut said: pipe::Receiver,
    mut log: OpenLog,
    mut moves: mpsc::Receiver<Move<OpenLog>>,
) {
    let mut buffer = [0; 4096];
    loop {
        tokio::select! {
            read = said.read(&mut buffer) => match read {
                Ok(read @ 1..) => log.write(&buffer[..read]).await,
                Ok(0) | Err(_) => return,
            },
            Some(Move { mut target, moved }) = moves.recv() => {
                let before = tokio::fs::read(&log.path).await.unwrap_or_default();
                target.write(&before).await;
                log = target;
                // Whoever asked for it may have given up.
                let _ = moved.send(());
            }
        }
    }
}
