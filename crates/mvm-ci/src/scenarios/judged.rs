//! A workload on the nodes in the machines, with a history that is judged and left in the run folder.

use std::{
    fs::File,
    io::BufWriter,
    time::{Duration, Instant},
};

use mvm_check::{
    Ask, At, Class, Fault, History, NodeId, Plan, Recorder, Rules, Target, Told,
    http::{self, Wire},
    judge,
};
use mvm_lab::scenario::{Failure, Outcome, Run};
use serde_json::Value;

use super::{api, cluster_nodes::Cluster};

/// Only a hang takes this long, or a cluster that its nemesis did not leave whole.
const DRAIN_ALLOWED: Duration = Duration::from_secs(60);
/// What a message shows of many violations; the history has them all.
const VIOLATIONS_SHOWN: usize = 5;

/// A cluster whose clients are listened to.
pub(super) struct Judged<'a> {
    pub(super) run: &'a Run,
    pub(super) cluster: &'a Cluster<'a>,
    machines: Machines<'a>,
    recorder: Recorder,
}

/// The nodes as clients on the host see them, through the agents.
struct Machines<'a> {
    cluster: &'a Cluster<'a>,
    began: Instant,
}

impl<'a> Judged<'a> {
    pub(super) fn new(run: &'a Run, cluster: &'a Cluster<'a>) -> Judged<'a> {
        Judged {
            run,
            cluster,
            machines: Machines {
                cluster,
                began: Instant::now(),
            },
            recorder: Recorder::new(run.lab.network().seed().0),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.run.lab.network().seed().0
    }

    pub(super) fn node(&self, name: &str) -> NodeId {
        NodeId(self.cluster.id_of(name))
    }

    /// Asks as a client does, and notes it.
    pub(super) async fn ask(&self, process: &str, ask: Ask) -> Told {
        let now = || self.machines.now();
        let operation = self.recorder.invoke(now, process, &ask);
        let told = self.machines.ask(&ask).await;
        self.recorder.told(now, operation, told.clone());
        told
    }

    /// Asks what does not belong into the history.
    pub(super) async fn observe(&self, ask: &Ask) -> Told {
        self.machines.ask(ask).await
    }

    /// Notes that a node has just been cut off from the majority.
    pub(super) fn is_cut_off(&self, name: &str) {
        self.fault(Fault::CutOff {
            node: self.node(name),
        });
    }

    /// Notes that a node is about to be healed.
    pub(super) fn is_healing(&self, name: &str) {
        self.fault(Fault::Healing {
            node: self.node(name),
        });
    }

    /// Notes what is done to the cluster, for people.
    pub(super) fn happens(&self, what: impl Into<String>) {
        self.fault(Fault::Other { what: what.into() });
    }

    fn fault(&self, fault: Fault) {
        self.recorder.fault(|| self.machines.now(), fault);
    }

    /// Runs a workload while a nemesis is at work, which must leave the cluster whole, and judges what clients saw.
    pub(super) async fn during<T: Send>(
        &self,
        plan: &Plan,
        rules: Rules,
        nemesis: impl Future<Output = Outcome<T>> + Send,
    ) -> Outcome<(T, History)> {
        let running = mvm_check::run(&self.machines, &self.recorder, plan, nemesis, DRAIN_ALLOWED);
        let (done, drained) = running.await;
        let history = self.recorder.history();
        self.keep(&history)?;
        self.run.note(told(&history));
        let done = done?;
        let violations = judge(&history, rules);
        if violations.is_empty() && drained == mvm_check::Drained::Yes {
            return Ok((done, history));
        }
        let shown = violations.iter().take(VIOLATIONS_SHOWN);
        let shown: Vec<String> = shown.map(ToString::to_string).collect();
        Err(Failure::broken(format!(
            "{} violations; all jobs ended in time: {drained:?}; {}",
            violations.len(),
            shown.join("; ")
        )))
    }

    fn keep(&self, history: &History) -> Outcome {
        let path = self.run.folder.path().join("history.jsonl");
        let written = File::create(&path).and_then(|file| history.write(&mut BufWriter::new(file)));
        written.map_err(|error| Failure::trouble(&error))
    }
}

/// How many writes were told what.
fn told(history: &History) -> String {
    let operations = history.operations();
    let count = |class: Class| {
        let of_class = operations
            .iter()
            .filter(|operation| operation.action.is_write() && operation.class() == class);
        of_class.count()
    };
    format!(
        "writes: {} acknowledged, {} refused, {} of unknown outcome, {} rejected",
        count(Class::Acknowledged),
        count(Class::Refused),
        count(Class::Unknown),
        count(Class::Rejected)
    )
}

impl Wire for Machines<'_> {
    async fn send(
        &self,
        node: NodeId,
        request: http::Request,
        id: Option<&str>,
    ) -> Result<(u16, Value), String> {
        let machine = self.cluster.node(&self.cluster.name_of(node.0));
        let json = request.body.zip(id);
        let answer = api::call(machine, request.method, &request.path, json).await;
        answer
            .map(|answer| (answer.status, answer.body))
            .map_err(|error| error.to_string())
    }
}

impl Target for Machines<'_> {
    async fn ask(&self, ask: &Ask) -> Told {
        http::ask(self, ask).await
    }

    fn now(&self) -> At {
        At::from(self.began.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
