//! What a worker asks for: jobs, and to keep, begin and end them.

use std::collections::BTreeSet;

use mvm_queue::{FencingToken, JobId, Report};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    calls::Client,
    error::ClientError,
    view::{Changed, Claimed, Renewed},
};

/// What a worker can do.
#[derive(Clone, Debug, Serialize)]
pub struct Offer {
    /// Its name.
    pub worker: String,
    /// How many jobs it takes at most.
    pub slots: u32,
    /// The labels it has.
    pub labels: BTreeSet<String>,
    /// The kinds it can do; none means any.
    pub kinds: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Claims {
    claims: Vec<Claimed>,
}

impl Client {
    /// Takes jobs; none if nothing is ready.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn claim(&self, offer: &Offer) -> Result<Vec<Claimed>, ClientError> {
        let (_, claims): (_, Claims) = self.write(&["api", "v1", "claims"], Some(offer)).await?;
        Ok(claims.claims)
    }

    /// Begins a job.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 409 if the lease has ended, as for the following.
    pub async fn start(&self, job: &JobId, token: FencingToken) -> Result<Changed, ClientError> {
        self.held(job, "start", &json!({ "token": token })).await
    }

    /// Goes on with a job; must be done every few seconds.
    ///
    /// # Errors
    ///
    /// See [`Client::start`].
    pub async fn renew(&self, job: &JobId, token: FencingToken) -> Result<Renewed, ClientError> {
        self.held(job, "renew", &json!({ "token": token })).await
    }

    /// Ends a job.
    ///
    /// # Errors
    ///
    /// See [`Client::start`].
    pub async fn finish(
        &self,
        job: &JobId,
        token: FencingToken,
        report: &Report,
    ) -> Result<Changed, ClientError> {
        let body = json!({ "token": token, "report": report });
        self.held(job, "finish", &body).await
    }

    async fn held<T: serde::de::DeserializeOwned>(
        &self,
        job: &JobId,
        what: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let segments = ["api", "v1", "jobs", &job.0, what];
        Ok(self.write(&segments, Some(body)).await?.1)
    }
}
