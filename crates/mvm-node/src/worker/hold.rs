//! Holding one job: its lease, its output, its end.

use std::{
    future::pending,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_exec::Isolation;
use mvm_queue::{Change, Claim, Effect, Report, RequestId, Stream};
use tokio::sync::watch;

use super::{
    control::Order,
    log::Log,
    outputs::{Output, Outputs},
    propose,
    work::{Event, Work},
};
use crate::{consensus::Proposal, store::Store};

/// Output waits so long for more of it.
const GATHER: Duration = Duration::from_millis(300);

/// Holds jobs, each in a task of its own.
pub(super) struct Holder<S> {
    pub(super) store: Arc<S>,
    pub(super) isolation: Isolation,
    pub(super) lease: Duration,
    pub(super) outputs: Arc<Outputs>,
    pub(super) orders: watch::Receiver<Order>,
}

/// The claim has ended: nothing that its holder says counts any more.
struct Gone;

impl<S: Store> Holder<S> {
    /// Runs a claimed job to its end, or until it is another's.
    pub(super) async fn hold(&self, claim: Claim) {
        let mut held = Held {
            holder: self,
            claim: &claim,
            confirmed: Instant::now(),
            renewals: 0,
            log: Log::new(),
            chunks: 0,
            output: None,
        };
        if held.run().await.is_err() {
            tracing::info!(
                job = claim.job.0,
                token = claim.token.0,
                "the job is not this worker's any more"
            );
        }
    }
}

struct Held<'a, S> {
    holder: &'a Holder<S>,
    claim: &'a Claim,
    /// When the cluster last said that the job is ours.
    confirmed: Instant,
    renewals: u64,
    /// Output that is not in the store yet.
    log: Log,
    chunks: u32,
    /// All output, on disk; nothing if the disk does not take it.
    output: Option<Output>,
}

impl<S: Store> Held<'_, S> {
    async fn run(&mut self) -> Result<(), Gone> {
        let report = match Work::begin(&self.holder.isolation, &self.claim.spec) {
            Ok(work) => self.attend(work).await?,
            Err(report) => report,
        };
        self.end_output();
        self.write_log().await?;
        let change = Change::Finish {
            job: self.claim.job.clone(),
            token: self.claim.token,
            report,
        };
        self.insist("finish", change).await.map(drop)
    }

    /// Keeps running work's lease and output until it has ended.
    async fn attend(&mut self, mut work: Work) -> Result<Report, Gone> {
        let (job, token) = (self.claim.job.clone(), self.claim.token);
        self.output = self.kept(self.holder.outputs.begin(&job, token));
        self.insist("start", Change::Start { job, token }).await?;
        let mut renew = tokio::time::interval(self.holder.lease / 3);
        let mut gather = tokio::time::interval(GATHER);
        let mut orders = self.holder.orders.clone();
        let mut given_back = false;
        loop {
            let give_back = async {
                if given_back
                    || orders
                        .wait_for(|order| *order == Order::GiveBack)
                        .await
                        .is_err()
                {
                    pending().await
                }
            };
            tokio::select! {
                event = work.next_event() => match event {
                    Event::Output(stream, bytes) => self.note(stream, &bytes),
                    Event::Omitted(stream, bytes) => {
                        let remark = format!("\n[{bytes} bytes are left out here]\n");
                        self.note(stream, remark.as_bytes());
                    }
                    // Stopped for our sake, not for the job's.
                    Event::Ended(Report::Cancelled) if given_back => return Ok(Report::Lost),
                    Event::Ended(report) => return Ok(report),
                },
                () = give_back => {
                    given_back = true;
                    work.kill();
                }
                _ = renew.tick() => {
                    // Dropping the work on the way out ends it.
                    if self.renew().await? {
                        work.cancel();
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
        match propose(&*self.holder.store, &name, change).await {
            Proposal::Committed {
                effect: Effect::Renewed { cancel, .. },
            } => {
                self.confirmed = Instant::now();
                Ok(cancel)
            }
            Proposal::Rejected { .. } => Err(Gone),
            // The next one may get through. Beyond the lease the job may be another's already.
            _ if self.confirmed.elapsed() < self.holder.lease => Ok(false),
            _ => Err(Gone),
        }
    }

    fn note(&mut self, stream: mvm_exec::Stream, bytes: &[u8]) {
        self.log.push(stream, bytes);
        if let Some(mut output) = self.output.take() {
            let written = output.write(stream, bytes);
            self.output = self.kept(written.map(|()| output));
        }
    }

    /// Brings the end of the output to the log, and forgets what is on disk if all of it is there.
    fn end_output(&mut self) {
        let (job, token) = (&self.claim.job, self.claim.token);
        let on_disk = self.output.is_some();
        let left_out = self.log.finish(|stream, bytes| {
            let stream = match stream {
                mvm_exec::Stream::Stdout => "stdout",
                mvm_exec::Stream::Stderr => "stderr",
            };
            let place = match on_disk {
                true => format!("; all of it: /api/v1/jobs/{job}/attempts/{token}/{stream}"),
                false => String::new(),
            };
            format!("\n[{bytes} bytes are left out here{place}]\n")
        });
        match self.output.take() {
            Some(output) if !left_out => drop(self.kept(output.remove())),
            Some(_) => drop(self.kept(self.holder.outputs.keep_bound())),
            None => {}
        }
    }

    /// What a full or broken disk does not take is not worth the job.
    fn kept<T>(&self, tried: io::Result<T>) -> Option<T> {
        tried
            .inspect_err(|error| {
                let job = &self.claim.job.0;
                tracing::warn!(%error, job, "could not keep a job's output on disk");
            })
            .ok()
    }

    /// Brings gathered output to the store, in order.
    async fn write_log(&mut self) -> Result<(), Gone> {
        for (stream, bytes) in self.log.take() {
            let stream = match stream {
                mvm_exec::Stream::Stdout => Stream::Stdout,
                mvm_exec::Stream::Stderr => Stream::Stderr,
            };
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
            match propose(&*self.holder.store, &name, change.clone()).await {
                Proposal::Committed { effect } => {
                    return Ok(effect);
                }
                Proposal::Rejected { .. } => return Err(Gone),
                Proposal::Broken { detail } => {
                    tracing::error!(detail, request = name.0, "a worker's change failed");
                    return Err(Gone);
                }
                Proposal::Unknown | Proposal::Unavailable { .. } => {
                    if self.confirmed.elapsed() >= self.holder.lease {
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
