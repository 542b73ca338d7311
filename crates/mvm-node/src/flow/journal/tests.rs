//! What is started on a node with room for it runs before the cluster knows of it; whatever becomes of its submission, no
//! two runs have the same token.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use mvm_flow::{
    id::{Epoch, ExecutionId, ModuleHash},
    journal::{Append, Claim, Journal, Order, Outcome, Refused, Start},
    limits::{Limits, ModuleLimits, Room},
};
use mvm_queue::{Answer, Change, Command, FLOW_KIND, Job, JobId, JobState, Query, RequestId};
use tokio::task::JoinHandle;

use super::FlowJournal;
use crate::{
    consensus::{Proposal, Unavailable},
    flow::FlowConfig,
    id,
    store::{MemoryStore, Outage, Store},
    worker::Control,
};

/// Long enough for whatever is to happen by itself; the clock is the test's.
const WHILE: Duration = Duration::from_secs(1);

struct Node {
    store: Arc<MemoryStore>,
    journal: Arc<FlowJournal<MemoryStore>>,
    room: Arc<Room>,
}

impl Node {
    fn new(limits: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("limits.toml");
        fs::write(&file, limits).unwrap();
        let limits = Limits::read(&file, ModuleLimits::default()).unwrap();
        let config = FlowConfig {
            node: 1,
            slots: 4,
            labels: BTreeSet::new(),
            lease: Duration::from_secs(10),
            cache: PathBuf::new(),
            secrets: None,
            limits: limits.clone(),
            stop_grace: Duration::ZERO,
        };
        let store = Arc::new(MemoryStore::new());
        let journal = FlowJournal::new(Arc::clone(&store), &config, Arc::new(Control::new(4)));
        Self {
            store,
            journal: Arc::new(journal),
            room: Arc::new(Room::new(limits)),
        }
    }

    /// The engine asks for work, with this many free slots.
    fn engine(&self, slots: usize) -> JoinHandle<Vec<Claim>> {
        let (journal, room) = (Arc::clone(&self.journal), Arc::clone(&self.room));
        tokio::spawn(async move { journal.claim(slots, &room).await.unwrap() })
    }

    fn start(&self, id: ExecutionId) -> JoinHandle<Result<(), Refused>> {
        self.start_of(None, id)
    }

    fn start_of(
        &self,
        parent: Option<ExecutionId>,
        id: ExecutionId,
    ) -> JoinHandle<Result<(), Refused>> {
        let journal = Arc::clone(&self.journal);
        let start = Start {
            id,
            module: "module".into(),
            version: "1.0.0".into(),
            hash: ModuleHash::of(b"module"),
            workflow: "workflow".into(),
            input: "[1]".into(),
            parent,
        };
        tokio::spawn(async move { journal.start(start).await })
    }

    /// The engine waits, a workflow is started, and the engine has it; nothing else happened.
    async fn started(&self) -> (ExecutionId, JoinHandle<Result<(), Refused>>, Claim) {
        let engine = self.engine(4);
        tokio::task::yield_now().await;
        let id = ExecutionId::random();
        let starter = self.start(id);
        let [claim] = engine.await.unwrap().try_into().unwrap();
        assert_eq!((claim.id, claim.epoch, claim.frames), (id, Epoch(1), 0));
        assert_eq!(claim.input, "[1]");
        assert!(self.job(id).is_none());
        assert_eq!(self.journal.order(&claim).await, Ok(Order::GoOn));
        (id, starter, claim)
    }

    async fn append(&self, claim: &Claim) -> Result<(), Refused> {
        self.journal.append(claim, frame(0)).await
    }

    async fn finish(&self, claim: &Claim, append: Append) {
        let ended = self.journal.finish(claim, Some(append), Outcome::Completed);
        ended.await.unwrap();
    }

    fn job(&self, id: ExecutionId) -> Option<Job> {
        let job = JobId(id.to_string());
        match self.store.answer(&Query::Job { job }) {
            Answer::Job { job, .. } => job.map(|job| *job),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, id: ExecutionId) -> (JobState, i64) {
        let job = self.job(id).unwrap();
        (job.state, job.token.0)
    }

    async fn frames(&self, id: ExecutionId) -> usize {
        self.journal.frames(id, 0).await.unwrap().len()
    }

    /// How many entries the log has.
    async fn entries(&self) -> u64 {
        self.store.status().await.last_log_index
    }

    fn apply(&self, change: Change) -> Proposal {
        self.store.apply(&Command {
            request: RequestId(ExecutionId::random().to_string()),
            at: id::now(),
            change,
        })
    }

    /// The run has lost the execution, which it is told and cannot write to.
    async fn assert_lost(&self, claim: &Claim) {
        let lost = Refused::Lost { id: claim.id };
        assert_eq!(self.journal.order(claim).await, Err(lost.clone()));
        assert_eq!(self.append(claim).await, Err(lost));
    }
}

/// One frame, of that number.
fn frame(first: u64) -> Append {
    Append {
        first,
        frames: vec![b"frame".to_vec()],
        ..Append::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_goes_with_what_its_run_writes_first() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    node.append(&claim).await.unwrap();
    starter.await.unwrap().unwrap();
    assert_eq!(node.entries().await, 1);
    assert_eq!(node.state(id), (JobState::InProgress, 1));
    assert_eq!(node.frames(id).await, 1);

    node.finish(&claim, frame(1)).await;
    assert_eq!(node.state(id), (JobState::Completed, 1));
    assert_eq!(node.entries().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_before_it_writes_is_one_entry() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    node.finish(&claim, frame(0)).await;
    starter.await.unwrap().unwrap();
    assert_eq!(node.state(id), (JobState::Completed, 1));
    assert_eq!(node.entries().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_starter_does_not_wait_for_long() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    starter.await.unwrap().unwrap();
    assert_eq!(node.state(id), (JobState::Claimed, 1));
    node.append(&claim).await.unwrap();
    assert_eq!(node.state(id), (JobState::InProgress, 1));
    assert_eq!(node.entries().await, 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_does_not_take_is_claimed_for_it() {
    let node = Node::new("");
    let engine = node.engine(1);
    tokio::task::yield_now().await;
    engine.abort();
    let id = ExecutionId::random();
    node.start(id).await.unwrap().unwrap();
    assert_eq!(node.state(id), (JobState::Claimed, 1));
    let [claim] = node.engine(1).await.unwrap().try_into().unwrap();
    assert_eq!(claim.id, id);
    node.append(&claim).await.unwrap();
    assert_eq!(node.entries().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_lost_when_the_slot_goes_to_what_waited_longer() {
    for writes in [true, false] {
        let node = Node::new("");
        let (id, starter, claim) = node.started().await;
        let payload = serde_json::json!({ "module": "module", "version": "1.0.0",
            "hash": ModuleHash::of(b"module"), "workflow": "workflow" });
        let older = ExecutionId::random();
        node.apply(Change::Submit {
            job: JobId(older.to_string()),
            submitted_on: 1,
            spec: Box::new(mvm_queue::JobSpec::new(FLOW_KIND, payload)),
            tick: None,
        });
        if writes {
            assert_eq!(node.append(&claim).await, Err(Refused::Lost { id }));
        }
        starter.await.unwrap().unwrap();
        assert_eq!(node.state(id), (JobState::Pending, 0));
        node.assert_lost(&claim).await;

        // What is started now has its turn after those that wait.
        let later = ExecutionId::random();
        node.start(later).await.unwrap().unwrap();
        assert_eq!(node.state(later), (JobState::Pending, 0));

        // The next run has the token that the lost one took for its own, on this node of all.
        let claimed = node.engine(4).await.unwrap();
        let ids: Vec<_> = claimed.iter().map(|claim| claim.id).collect();
        assert_eq!(ids, [older, id]);
        assert_eq!(claimed[1].epoch, claim.epoch);
        node.append(&claimed[1]).await.unwrap();
        assert_eq!(node.state(id), (JobState::InProgress, 1));
        node.assert_lost(&claim).await;
        assert_eq!(node.frames(id).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_submitted_is_not_run() {
    for writes in [true, false] {
        let node = Node::new("");
        let (id, starter, claim) = node.started().await;
        let outage = Outage::Unavailable(Unavailable::NoLeader);
        node.store.set_outage(Some(outage));
        if writes {
            assert_eq!(node.append(&claim).await, Err(Refused::Lost { id }));
        }
        let started = starter.await.unwrap();
        assert!(
            matches!(started, Err(Refused::Unavailable { .. })),
            "{started:?}"
        );
        node.store.set_outage(None);
        node.assert_lost(&claim).await;
        assert!(node.job(id).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_submission_nobody_knows_of_is_lost() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    node.store.set_outage(Some(Outage::AnswersLost));
    assert_eq!(node.append(&claim).await, Err(Refused::Lost { id }));
    let started = starter.await.unwrap();
    assert!(
        matches!(started, Err(Refused::Unknown { .. })),
        "{started:?}"
    );
    node.store.set_outage(None);
    node.assert_lost(&claim).await;
    // It was in the log, and is run again when its lease has ended.
    assert_eq!(node.state(id), (JobState::InProgress, 1));
}

#[tokio::test(start_paused = true)]
async fn a_starter_that_goes_away_takes_its_run_along() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    starter.abort();
    assert!(starter.await.unwrap_err().is_cancelled());
    node.assert_lost(&claim).await;
    tokio::time::sleep(WHILE).await;
    assert!(node.job(id).is_none());
    assert_eq!(node.entries().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_renewed_before_the_cluster_knows_of_it() {
    let node = Node::new("");
    let (id, starter, claim) = node.started().await;
    node.journal.renew().await;
    assert_eq!(node.entries().await, 0);
    node.append(&claim).await.unwrap();
    starter.await.unwrap().unwrap();
    node.journal.renew().await;
    assert_eq!(node.job(id).unwrap().renewals, 1);
}

/// A start whose workflow may not run yet must not use up the room for others.
#[tokio::test(start_paused = true)]
async fn slots_are_not_lost_to_starts_that_claim_nothing() {
    for parent in [None, Some(ExecutionId::random())] {
        let node = Node::new("[modules.module]\nruns = 1\n");
        let (first, starter, running) = node.started().await;
        starter.await.unwrap().unwrap();
        let mut engine = node.engine(3);
        tokio::task::yield_now().await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let id = ExecutionId::random();
            node.start_of(parent, id).await.unwrap().unwrap();
            waiting.push(id);
        }
        tokio::time::sleep(WHILE).await;
        if engine.is_finished() {
            // It was given one early that was not to run.
            for claim in engine.await.unwrap() {
                node.assert_lost(&claim).await;
            }
            engine = node.engine(3);
            tokio::time::sleep(WHILE).await;
        }
        assert!(!engine.is_finished());
        assert_eq!(node.state(first), (JobState::Claimed, 1));

        node.finish(&running, frame(0)).await;
        let [claim] = engine.await.unwrap().try_into().unwrap();
        assert!(waiting.contains(&claim.id));
        node.append(&claim).await.unwrap();
    }
}
