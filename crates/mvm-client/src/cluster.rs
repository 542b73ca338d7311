//! What a node knows of its cluster, and what its own worker does.

use serde_json::json;

use crate::{
    calls::Client,
    error::ClientError,
    exchange::Call,
    view::{ClusterView, WorkerView},
};

impl Client {
    /// The cluster as one node sees it, which may be cut off: [`Client::only`] chooses the node.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.read(Call::get(["cluster"])).await
    }

    /// The worker of the node that answers: [`Client::only`] chooses the node.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn worker(&self) -> Result<WorkerView, ClientError> {
        self.read(Call::get(["api", "v1", "node"])).await
    }

    /// Has the worker of the node that answers take no more jobs, or take them again.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn drain(&self, draining: bool) -> Result<WorkerView, ClientError> {
        let body = json!({ "draining": draining });
        let path = ["api", "v1", "node", "drain"];
        Ok(self.write(&path, Some(&body)).await?.1)
    }
}
