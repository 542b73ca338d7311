//! Holding one job: its lease, its log, its end.

use std::time::{Duration, Instant};

use mvm_exec::{Event, Isolation, Job};
use mvm_queue::{CHUNK_BYTES_MAX, Change, Claim, Effect, Report, RequestId, Stream};

use super::{
    process::{Process, report},
    propose,
};
use crate::{consensus::Proposal, store::Store};

/// Output waits so long for more of it.
const GATHER: Duration = Duration::from_millis(300);

/// A chunk in the log; its text is replicated as it is.
const CHUNK_BYTES: usize = CHUNK_BYTES_MAX / 2;

/// The claim has ended: nothing that its holder says counts any more.
struct Gone;

/// Runs a claimed job to its end, or until it is another's.
pub(super) async fn hold<S: Store>(
    store: &S,
    isolation: &Isolation,
    lease: Duration,
    claim: Claim,
) {
    let mut held = Held {
        store,
        claim: &claim,
        lease,
        confirmed: Instant::now(),
        renewals: 0,
        log: Vec::new(),
        chunks: 0,
    };
    if held.run(isolation).await.is_err() {
        tracing::info!(
            job = claim.job.0,
            token = claim.token.0,
            "the job is not this worker's any more"
        );
    }
}

struct Held<'a, S> {
    store: &'a S,
    claim: &'a Claim,
    lease: Duration,
    /// When the cluster last said that the job is ours.
    confirmed: Instant,
    renewals: u64,
    /// Output that is not in the store yet.
    log: Vec<(Stream, Vec<u8>)>,
    chunks: u32,
}

impl<S: Store> Held<'_, S> {
    async fn run(&mut self, isolation: &Isolation) -> Result<(), Gone> {
        let report = match Process::parse(&self.claim.spec.payload) {
            Err(problem) => Report::failed(&problem, true),
            Ok(process) => match Job::start(isolation, process.spec(&self.claim.spec)) {
                Ok(job) => self.attend(job).await?,
                // The host is short of something; another may have it.
                Err(error) => {
                    tracing::warn!(%error, job = self.claim.job.0, "could not start a job");
                    Report::Lost
                }
            },
        };
        self.write_log().await?;
        let change = Change::Finish {
            job: self.claim.job.clone(),
            token: self.claim.token,
            report,
        };
        self.insist("finish", change).await.map(drop)
    }

    /// Keeps a running job's lease and log until it has ended.
    async fn attend(&mut self, mut job: Job) -> Result<Report, Gone> {
        let (id, token) = (self.claim.job.clone(), self.claim.token);
        self.insist("start", Change::Start { job: id, token })
            .await?;
        let mut renew = tokio::time::interval(self.lease / 3);
        let mut gather = tokio::time::interval(GATHER);
        loop {
            tokio::select! {
                event = job.next_event() => match event {
                    Event::Started { .. } => {}
                    Event::Output(output) => self.note(stream(output.stream), &output.bytes),
                    Event::Omitted { stream: of, bytes } => {
                        let line = format!("\n[{bytes} bytes of output are left out here]\n");
                        self.note(stream(of), line.as_bytes());
                    }
                    Event::Ended(outcome) => return Ok(report(outcome)),
                },
                _ = renew.tick() => {
                    // Dropping the job on the way out kills it.
                    if self.renew().await? {
                        job.cancel();
                    }
                }
                _ = gather.tick() => self.write_log().await?,
            }
        }
    }

    /// Tells the cluster that the worker lives; returns whether the job is to be stopped.
    async fn renew(&mut self) -> Result<bool, Gone> {
        self.renewals += 1;
        let change = Change::Renew {
            job: self.claim.job.clone(),
            token: self.claim.token,
        };
        let name = self.name(&format!("renew-{}", self.renewals));
        match propose(self.store, &name, change).await {
            Proposal::Committed {
                effect: Effect::Renewed { cancel, .. },
            } => {
                self.confirmed = Instant::now();
                Ok(cancel)
            }
            Proposal::Rejected { .. } => Err(Gone),
            // The next one may get through. Beyond the lease the job may be another's already.
            _ if self.confirmed.elapsed() < self.lease => Ok(false),
            _ => Err(Gone),
        }
    }

    fn note(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(CHUNK_BYTES) {
            match self.log.last_mut() {
                Some((of, gathered))
                    if *of == stream && gathered.len() + piece.len() <= CHUNK_BYTES =>
                {
                    gathered.extend(piece);
                }
                _ => self.log.push((stream, piece.to_vec())),
            }
        }
    }

    /// Brings gathered output to the store, in order.
    async fn write_log(&mut self) -> Result<(), Gone> {
        for (stream, bytes) in std::mem::take(&mut self.log) {
            let change = Change::Log {
                job: self.claim.job.clone(),
                token: self.claim.token,
                number: self.chunks,
                stream,
                bytes,
            };
            self.insist(&format!("log-{}", self.chunks), change).await?;
            self.chunks += 1;
        }
        Ok(())
    }

    /// Asks for a change until it is decided, for as long as the lease can last.
    async fn insist(&mut self, what: &str, change: Change) -> Result<Effect, Gone> {
        let name = self.name(what);
        loop {
            match propose(self.store, &name, change.clone()).await {
                Proposal::Committed { effect } => {
                    return Ok(effect);
                }
                Proposal::Rejected { .. } => return Err(Gone),
                Proposal::Broken { detail } => {
                    tracing::error!(detail, request = name.0, "a worker's change failed");
                    return Err(Gone);
                }
                Proposal::Unknown | Proposal::Unavailable { .. } => {
                    if self.confirmed.elapsed() >= self.lease {
                        return Err(Gone);
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    fn name(&self, what: &str) -> RequestId {
        RequestId(format!("{}-{}-{what}", self.claim.job, self.claim.token))
    }
}

const fn stream(stream: mvm_exec::Stream) -> Stream {
    match stream {
        mvm_exec::Stream::Stdout => Stream::Stdout,
        mvm_exec::Stream::Stderr => Stream::Stderr,
    }
}
