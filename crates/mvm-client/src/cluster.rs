//! What a node knows of its cluster.

use crate::{calls::Client, error::ClientError, exchange::Call, view::ClusterView};

impl Client {
    /// The cluster as one node sees it, which may be cut off: [`Client::only`] chooses the node.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.read(Call::get(["cluster"])).await
    }
}
