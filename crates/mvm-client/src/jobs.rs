//! Submitting, reading and changing jobs. Following them is in [`crate::follow`], lists in [`crate::list`].

use mvm_queue::{Attempt, FencingToken, JobId, JobSpec};
use reqwest::StatusCode;
use serde::Deserialize;

use crate::{
    calls::Client,
    error::ClientError,
    exchange::Call,
    view::{Changed, Chunk, Consistency, JobView, Stats, Submitted},
};

#[derive(Deserialize)]
struct OneJob {
    job: JobView,
}

#[derive(Deserialize)]
struct Attempts {
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Log {
    chunks: Vec<Chunk>,
}

const NOTHING: Option<&()> = None;

impl Client {
    /// Submits a job; once it is answered, the job is on the disks of a majority.
    ///
    /// # Errors
    ///
    /// See [`ClientError`], as for all calls.
    pub async fn submit(&self, spec: &JobSpec) -> Result<Submitted, ClientError> {
        let (status, mut submitted): (_, Submitted) =
            self.write(&["api", "v1", "jobs"], Some(spec)).await?;
        submitted.existing = status == StatusCode::OK;
        Ok(submitted)
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 404 if there is no such job.
    pub async fn job(&self, job: &JobId, consistency: Consistency) -> Result<JobView, ClientError> {
        let mut call = Call::get(["api", "v1", "jobs", &job.0]);
        call.query.extend(consistency.query());
        Ok(self.read::<OneJob>(call).await?.job)
    }

    /// The attempts at a job, the first one first.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 404 if there is no such job.
    pub async fn attempts(&self, job: &JobId) -> Result<Vec<Attempt>, ClientError> {
        let call = Call::get(["api", "v1", "jobs", &job.0, "attempts"]);
        Ok(self.read::<Attempts>(call).await?.attempts)
    }

    /// A page of the log of an attempt, from a chunk's number on. Behind the last chunk it is empty.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 404 if there is no such job.
    pub async fn log(
        &self,
        job: &JobId,
        attempt: FencingToken,
        from: u32,
    ) -> Result<Vec<Chunk>, ClientError> {
        let mut call = Call::get(["api", "v1", "jobs", &job.0, "log"]);
        call.query = vec![("attempt", attempt.to_string()), ("from", from.to_string())];
        Ok(self.read::<Log>(call).await?.chunks)
    }

    /// Cancels a job: a pending one at once, one that a worker holds when its worker has stopped it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 409 if the job has ended.
    pub async fn cancel(&self, job: &JobId) -> Result<Changed, ClientError> {
        self.change(job, "cancel").await
    }

    /// Tries a failed or dead job again.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 409 if the job is not failed or dead.
    pub async fn retry(&self, job: &JobId) -> Result<Changed, ClientError> {
        self.change(job, "retry").await
    }

    async fn change(&self, job: &JobId, how: &str) -> Result<Changed, ClientError> {
        let segments = ["api", "v1", "jobs", &job.0, how];
        Ok(self.write(&segments, NOTHING).await?.1)
    }

    /// How many jobs there are in each state.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn stats(&self, consistency: Consistency) -> Result<Stats, ClientError> {
        let mut call = Call::get(["api", "v1", "stats"]);
        call.query.extend(consistency.query());
        self.read(call).await
    }
}
