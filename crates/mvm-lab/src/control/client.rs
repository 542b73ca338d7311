//! The other process's side: finding a running lab and asking it.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::de::DeserializeOwned;
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    POINTER,
    wire::{self, Answer, Frame, Listing, Pointer, Refusal, Request},
};

/// Why a lab could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No run in the folder is under way.
    #[error("could not find a running lab in {runs:?}")]
    NoLab {
        /// The folder of run folders.
        runs: PathBuf,
    },
    /// This run is not under way.
    #[error("could not find a running lab in {run:?}: {source}")]
    NotRunning {
        /// The run's folder.
        run: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such socket, or nobody behind it.
    #[error("could not reach a lab at {socket:?}: {source}")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lab went away, or what answers is no lab.
    #[error("could not talk to the lab: {0}")]
    Broken(#[from] io::Error),
    /// The lab said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A connection to a lab that nothing was asked on yet.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// A terminal, command or console of the lab.
#[derive(Debug)]
pub struct Attached {
    /// What comes from it.
    pub output: Output,
    /// What goes to it.
    pub input: Input,
}

/// What comes from an [`Attached`].
#[derive(Debug)]
pub struct Output(BufReader<OwnedReadHalf>);

/// What goes to an [`Attached`]. When both halves are dropped, it ends.
#[derive(Debug)]
pub struct Input(OwnedWriteHalf);

impl Client {
    /// Connects to a lab's control socket.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`].
    pub async fn connect(socket: &Path) -> Result<Client, ClientError> {
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Client { stream }),
            Err(source) => Err(ClientError::Unreachable {
                socket: socket.to_owned(),
                source,
            }),
        }
    }

    /// Connects to the lab of a run.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotRunning`].
    pub async fn of_run(run: &Path) -> Result<Client, ClientError> {
        let connected = async {
            let pointer = std::fs::read(run.join(POINTER))?;
            let pointer: Pointer = serde_json::from_slice(&pointer)?;
            UnixStream::connect(&pointer.socket).await
        };
        match connected.await {
            Ok(stream) => Ok(Client { stream }),
            Err(source) => Err(ClientError::NotRunning {
                run: run.to_owned(),
                source,
            }),
        }
    }

    /// Connects to the lab that began last among the runs whose folders are in `runs`.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoLab`].
    pub async fn newest(runs: &Path) -> Result<Client, ClientError> {
        for run in with_pointer(runs) {
            // What a killed run left points nowhere.
            if let Ok(client) = Client::of_run(&run).await {
                return Ok(client);
            }
        }
        Err(ClientError::NoLab {
            runs: runs.to_owned(),
        })
    }

    /// Asks which machines there are.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] and [`ClientError::Broken`].
    pub async fn machines(self) -> Result<Listing, ClientError> {
        Ok(self.ask(&Request::Machines).await?.0)
    }

    /// Asks for something with an input and an output.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`], such as for a machine that is off, and [`ClientError::Broken`].
    pub async fn attach(self, request: &Request) -> Result<Attached, ClientError> {
        let ((), output, input) = self.ask(request).await?;
        Ok(Attached { output, input })
    }

    async fn ask<T: DeserializeOwned>(
        self,
        request: &Request,
    ) -> Result<(T, Output, Input), ClientError> {
        let (reader, mut writer) = self.stream.into_split();
        let mut reader = BufReader::new(reader);
        wire::write_line(&mut writer, request).await?;
        match wire::read_line(&mut reader).await? {
            Some(Answer::Ok(answer)) => Ok((answer, Output(reader), Input(writer))),
            Some(Answer::Error(refusal)) => Err(refusal.into()),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

impl Output {
    /// Waits for the next frame; `None` when the lab closed the connection. A frame is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        wire::read_frame(&mut self.0).await
    }
}

impl Input {
    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        wire::write_frame(&mut self.0, frame).await
    }
}

/// The run folders that tell of a control socket, the newest first.
fn with_pointer(runs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let told = std::fs::metadata(entry.path().join(POINTER)).ok()?;
            Some((told.modified().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, run)| run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lab_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("up-1");
        let error = Client::newest(&run).await.unwrap_err().to_string();
        assert!(error.contains("up-1"), "{error}");

        // A run that was killed together with its watcher.
        std::fs::create_dir(&run).unwrap();
        let pointer = Pointer {
            socket: folder.path().join("gone"),
            pid: 1,
        };
        let pointer = serde_json::to_vec(&pointer).unwrap();
        std::fs::write(run.join(POINTER), pointer).unwrap();
        let error = Client::newest(folder.path()).await.unwrap_err();
        assert!(matches!(error, ClientError::NoLab { .. }), "{error:?}");
        let error = Client::of_run(&run).await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
        let error = Client::connect(&run).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unreachable { .. }),
            "{error:?}"
        );
    }
}
