//! Backups of the queue, which every node has on its disk.

use std::time::{Duration, Instant};

use reqwest::Response;

use crate::{
    calls::Client,
    error::{Cause, ClientError, ServerCause},
    exchange::{self, Call},
    view::{BackupView, BackupsView},
};

/// A node waits so long for another one's backup, and a little longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

const PATH: [&str; 3] = ["api", "v1", "backups"];
const NOTHING: Option<&()> = None;

impl Client {
    /// Makes a backup on every node; within a minute there is only one.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 507 if the leader's disk does not take it.
    pub async fn back_up(&self) -> Result<BackupView, ClientError> {
        let client = self.patient(ANSWER_TIMEOUT);
        Ok(client.write(&PATH, NOTHING).await?.1)
    }

    /// The backups of the node that answers.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn backups(&self) -> Result<BackupsView, ClientError> {
        self.read(Call::get(PATH)).await
    }

    /// Begins to fetch a backup from the node that answers.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 404 if that node has no such backup.
    pub async fn fetch_backup(&self, name: &str) -> Result<Download, ClientError> {
        let [api, version, backups] = PATH;
        let call = Call::get([api, version, backups, name]);
        let (server, response) = self.open(&call).await?;
        Ok(Download {
            client: self.clone(),
            server,
            began: Instant::now(),
            response,
        })
    }
}

/// A backup on its way.
#[derive(Debug)]
pub struct Download {
    client: Client,
    server: usize,
    began: Instant,
    response: Response,
}

impl Download {
    /// Its size, if the node told that.
    pub fn bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; nothing at the end. What came is whole if this gives no error up to the end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] if the node goes away or falls silent.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let idle = self.client.options.idle_timeout;
        let cause = match tokio::time::timeout(idle, self.response.chunk()).await {
            Ok(Ok(piece)) => return Ok(piece.map(Vec::from)),
            Ok(Err(error)) => exchange::cause(error),
            Err(_) => Cause::Slow { after: idle },
        };
        let server = self.client.servers()[self.server].clone();
        Err(ClientError::Unreachable {
            elapsed: self.began.elapsed(),
            causes: vec![ServerCause { server, cause }],
        })
    }
}
