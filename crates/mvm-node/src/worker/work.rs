//! A claimed job's work, of whatever kind: what it says, and how it ends.

use mvm_exec::{Isolation, Job, Stream};
use mvm_queue::{FETCH_KIND, JobSpec, Report};

use super::{
    fetch::Fetch,
    process::{PROCESS_KIND, Process, report},
};

/// What a job's work tells.
#[derive(Debug)]
pub(super) enum Event {
    /// A piece of output.
    Output(Stream, Vec<u8>),
    /// So many bytes of output are left out here.
    Omitted(Stream, u64),
    /// It has ended.
    Ended(Report),
}

/// Work under way. Dropping it ends it at once.
pub(super) enum Work {
    Process(Job),
    Fetch(Fetch),
}

impl Work {
    /// Begins the work of a job, unless it cannot be begun.
    pub(super) fn begin(isolation: &Isolation, job: &JobSpec) -> Result<Self, Report> {
        let misunderstood = |problem: String| Report::failed(&problem, true);
        match job.kind.as_str() {
            PROCESS_KIND => {
                let process = Process::parse(&job.payload).map_err(misunderstood)?;
                match Job::start(isolation, process.spec(job)) {
                    Ok(job) => Ok(Self::Process(job)),
                    // The host is short of something; another may have it.
                    Err(error) => {
                        tracing::warn!(%error, "could not start a job");
                        Err(Report::Lost)
                    }
                }
            }
            FETCH_KIND => Ok(Self::Fetch(Fetch::begin(job).map_err(misunderstood)?)),
            kind => Err(misunderstood(format!(
                "this worker does no jobs of kind {kind}"
            ))),
        }
    }

    /// Waits for what happens next. Cancel safe.
    pub(super) async fn next_event(&mut self) -> Event {
        match self {
            Self::Process(job) => loop {
                return match job.next_event().await {
                    mvm_exec::Event::Started { .. } => continue,
                    mvm_exec::Event::Output(output) => Event::Output(output.stream, output.bytes),
                    mvm_exec::Event::Omitted { stream, bytes } => Event::Omitted(stream, bytes),
                    mvm_exec::Event::Ended(outcome) => Event::Ended(report(outcome)),
                };
            },
            Self::Fetch(fetch) => Event::Ended(fetch.ended().await),
        }
    }

    /// Asks it to end; how that went is told by the events.
    pub(super) fn cancel(&mut self) {
        match self {
            Self::Process(job) => job.cancel(),
            Self::Fetch(fetch) => fetch.cancel(),
        }
    }

    /// Ends it at once, which its events tell like a cancellation. What had ended before has ended.
    pub(super) fn kill(&mut self) {
        match self {
            Self::Process(job) => job.kill(),
            Self::Fetch(fetch) => fetch.cancel(),
        }
    }
}
