//! Drives a workload against a target, in one task: clients, nemesis, and the wait until all is done.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::{join_all, select};

use crate::{
    action::{Action, At, Consistency, JobSeen, NodeId, Told},
    history::{FinalState, Recorder},
    workload::{Ask, Next, Phase, Plan, Process},
};

/// Something that answers as the queue's nodes do, with a clock.
pub trait Target: Sync {
    /// Asks a node, and answers whatever happens, in bounded time.
    fn ask(&self, ask: &Ask) -> impl Future<Output = Told> + Send;

    /// The time since the history began.
    fn now(&self) -> At;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// Whether all jobs had ended when the time for it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// They had.
    Yes,
    /// The checker tells which had not.
    TimeIsOver,
}

/// How often it is looked whether all jobs have ended.
const LOOK: Duration = Duration::from_millis(200);

/// The clients' view of a run.
struct Stage<'a, T> {
    target: &'a T,
    recorder: &'a Recorder,
    calm: AtomicBool,
    over: AtomicBool,
    /// Submitters that have something left to do.
    submitting: AtomicU64,
}

/// Runs a workload while a nemesis is at work; then waits, at most for `drain_allowed`, until every submitter is done and, if there
/// are workers, every job that is listed has ended; then records what each node tells.
///
/// The nemesis must leave the cluster healed. Dropping the future leaves the history as far as it came.
pub async fn run<T: Target, N>(
    target: &T,
    recorder: &Recorder,
    plan: &Plan,
    nemesis: impl Future<Output = N>,
    drain_allowed: Duration,
) -> (N, Drained) {
    let stage = &Stage {
        target,
        recorder,
        calm: AtomicBool::new(false),
        over: AtomicBool::new(false),
        submitting: AtomicU64::new(plan.submitters),
    };
    let clients = plan
        .processes()
        .into_iter()
        .map(|process| stage.client(process));
    let rest = async {
        let done = nemesis.await;
        stage.calm.store(true, Ordering::Relaxed);
        let drained = stage.drain(plan, drain_allowed).await;
        stage.over.store(true, Ordering::Relaxed);
        (done, drained)
    };
    let (done, _) = futures_util::future::join(rest, join_all(clients)).await;
    let (nemesis, drained) = done;
    let finals = (1..=plan.nodes).map(|node| stage.tell(NodeId(node), drain_allowed));
    join_all(finals).await;
    (nemesis, drained)
}

impl<T: Target> Stage<'_, T> {
    fn now(&self) -> At {
        self.target.now()
    }

    async fn client(&self, mut process: Process) {
        let mut done = false;
        while !done && !self.over.load(Ordering::Relaxed) {
            let phase = match self.calm.load(Ordering::Relaxed) {
                true => Phase::Calm,
                false => Phase::Trouble,
            };
            match process.next(self.now(), phase) {
                Next::Ask(ask) => {
                    let operation = self.recorder.invoke(|| self.now(), process.name(), &ask);
                    let told = self.target.ask(&ask).await;
                    process.told(self.now(), &told);
                    self.recorder.told(|| self.now(), operation, told);
                }
                Next::Wait(until) => {
                    self.target.sleep(until.since(self.now()).min(LOOK)).await;
                }
                Next::Done => done = true,
            }
        }
        if done {
            self.submitting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn drain(&self, plan: &Plan, allowed: Duration) -> Drained {
        let until = self.now().after(allowed);
        while self.now() < until {
            let submitted = self.submitting.load(Ordering::Relaxed) == 0;
            if submitted && (plan.workers == 0 || self.all_ended().await) {
                return Drained::Yes;
            }
            self.target.sleep(LOOK).await;
        }
        Drained::TimeIsOver
    }

    async fn all_ended(&self) -> bool {
        let jobs = self.list(NodeId(1)).await;
        let ended =
            |job: &JobSeen| !matches!(job.state.as_str(), "pending" | "claimed" | "in_progress");
        jobs.is_ok_and(|jobs| jobs.iter().all(ended))
    }

    async fn list(&self, node: NodeId) -> Result<Vec<JobSeen>, Told> {
        let action = Action::List {
            consistency: Consistency::Linearizable,
        };
        match self.read(node, action).await {
            Told::Listed { jobs } => Ok(jobs),
            other => Err(other),
        }
    }

    /// Asks what does not belong into the history.
    async fn read(&self, node: NodeId, action: Action) -> Told {
        let ask = Ask {
            node,
            request: "observer".to_owned(),
            action,
        };
        self.target.ask(&ask).await
    }

    /// Records what a node tells; nothing if it does not within the time.
    async fn tell(&self, node: NodeId, allowed: Duration) {
        let telling = std::pin::pin!(self.told_by(node));
        let time = std::pin::pin!(self.target.sleep(allowed));
        if let futures_util::future::Either::Left((state, _)) = select(telling, time).await {
            self.recorder.finally(node, state);
        }
    }

    async fn told_by(&self, node: NodeId) -> FinalState {
        let jobs = loop {
            match self.list(node).await {
                Ok(jobs) => break jobs,
                Err(_) => self.target.sleep(LOOK).await,
            }
        };
        let mut state = FinalState {
            jobs,
            ..FinalState::default()
        };
        let claimed = state.jobs.iter().filter(|job| job.token.0 > 0);
        for id in claimed.map(|job| job.id.clone()).collect::<Vec<_>>() {
            let attempts = loop {
                match self.read(node, Action::Attempts { job: id.clone() }).await {
                    Told::Tried { attempts } => break attempts,
                    _ => self.target.sleep(LOOK).await,
                }
            };
            state.attempts.insert(id, attempts);
        }
        state
    }
}
