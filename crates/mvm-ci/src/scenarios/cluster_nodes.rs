//! The machines of a cluster scenario with a node of mvm-ci in each, and what they agree on.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use mvm_lab::{
    lab::Lab,
    node::Node,
    scenario::{Failure, Outcome, Preparation, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::{MachineConfig, Topology},
    wait::{self, Seen},
};
use serde_json::Value;

use super::{
    api::{self, Answer, Submitted},
    ledger::Ledger,
};

/// The service's name in the machines.
pub(super) const SERVICE: &str = "mvm-ci";
/// Where the program is found in the machines.
pub(super) const PROGRAM: &str = "/usr/bin/mvm-ci";
/// A translated guest runs hiqlite at a tenth of the host's speed; formation alone sleeps 9 s.
pub(super) const FORM_ALLOWED: Duration = Duration::from_secs(120);
/// Replication takes milliseconds; a rejoining node may need an election and a snapshot first.
pub(super) const AGREE_ALLOWED: Duration = Duration::from_secs(60);
/// hiqlite's shutdown sleeps 9.5 s in a cluster.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(40);
/// A page of a listing; every scenario's jobs fit into one.
const LIST_LIMIT: usize = 500;

/// What a node says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterView {
    pub(super) leader: Option<String>,
    pub(super) term: u64,
    pub(super) quorum: bool,
}

/// A scenario that begins with three nodes that have formed a cluster.
pub(super) fn three_nodes(
    program: &Path,
    name: &'static str,
    about: &'static str,
    run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
) -> Scenario {
    Scenario {
        name: name.into(),
        about: about.into(),
        topology: topology(program, &["node1", "node2", "node3"]),
        prepare: Some(formed()),
        run: Box::new(run),
    }
}

/// How long a lease lasts in [`three_with_workers`]: longer than any election, shorter than anybody's patience.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// Jobs that each worker of [`three_with_workers`] runs at once.
pub(super) const SLOTS: usize = 4;

/// As [`three_nodes`]; node2 and node3 run jobs, node1 only takes them, and leases are short.
pub(super) fn three_with_workers(
    program: &Path,
    name: &'static str,
    about: &'static str,
    run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
) -> Scenario {
    let mut scenario = three_nodes(program, name, about, run);
    for machine in &mut scenario.topology.machines {
        let slots = if machine.name == "node1" { 0 } else { SLOTS };
        for service in &mut machine.services {
            let lease_ms = LEASE.as_millis().to_string();
            let settings = [
                ("MVM_CI_SLOTS", slots.to_string()),
                ("MVM_CI_LEASE_MS", lease_ms),
            ];
            let settings = settings.map(|(key, value)| (key.to_owned(), value));
            service.environment.extend(settings);
        }
    }
    scenario
}

/// Returns a topology of `names`, each machine with a node that knows all the others.
pub(super) fn topology(program: &Path, names: &[&str]) -> Topology {
    let members: Vec<String> = names
        .iter()
        .zip(1..)
        .map(|(name, id)| format!("{id}={name}"))
        .collect();
    let machines = names.iter().zip(1..).map(|(name, id)| MachineConfig {
        memory_mib: 384,
        data_disk: true,
        services: vec![node_service(id, &members.join(","))],
        ..MachineConfig::new(*name)
    });
    let mut topology = Topology::new(machines.collect());
    topology
        .image
        .renamed_programs
        .push((program.to_owned(), PROGRAM.to_owned()));
    topology
}

/// All machines up, a node in each, one leader on whom all agree.
pub(super) fn formed() -> Preparation {
    Preparation {
        name: "formed",
        run: |run| -> ScenarioFuture<'_> { Box::pin(form(run)) },
    }
}

async fn form(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    run.step("the machines boot, a node starts in each", async {
        Ok(run.lab.start_all().await?)
    })
    .await?;
    run.step("the cluster forms, one leader, all agree", async {
        let started = Instant::now();
        let view = cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
        run.note(format!(
            "{} leads in term {}, {:.1} s after the last machine was up; most of that is hiqlite's own fixed waits",
            view.leader.unwrap_or_default(),
            view.term,
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    })
    .await
}

/// A node that lets everybody in, as the lab's network is the lab's own.
fn node_service(id: u64, members: &str) -> ServiceSpec {
    let environment = BTreeMap::from([
        ("MVM_CI_NODE_ID".to_owned(), id.to_string()),
        ("MVM_CI_MEMBERS".to_owned(), members.to_owned()),
        ("MVM_CI_LISTEN".to_owned(), format!("0.0.0.0:{}", api::PORT)),
        ("MVM_CI_AUTH".to_owned(), "none".to_owned()),
        ("MVM_CI_DATA_DIR".to_owned(), "/data/mvm-ci".to_owned()),
        (
            "MVM_CI_SECRET_RAFT".to_owned(),
            "raft-secret-of-the-lab".to_owned(),
        ),
        (
            "MVM_CI_SECRET_STORE".to_owned(),
            "store-secret-of-the-lab".to_owned(),
        ),
    ]);
    ServiceSpec {
        environment,
        ..ServiceSpec::new(SERVICE, [PROGRAM, "serve"])
    }
}

/// The cluster under test and what it was told.
pub(super) struct Cluster<'a> {
    lab: &'a Lab,
    names: Vec<String>,
    ledger: Mutex<Ledger>,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(lab: &'a Lab) -> Cluster<'a> {
        let names = lab.nodes().map(|node| node.name().to_owned());
        // Other machines are not of the cluster.
        let names = names.filter(|name| name.starts_with("node")).collect();
        Cluster {
            lab,
            names,
            ledger: Mutex::default(),
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    pub(super) fn others(&self, name: &str) -> Vec<&str> {
        self.names()
            .into_iter()
            .filter(|other| *other != name)
            .collect()
    }

    pub(super) fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// Node ids count from 1 in the order of names.
    pub(super) fn id_of(&self, name: &str) -> u64 {
        let place = self.names.iter().position(|known| known == name);
        place.map_or(0, |place| place as u64 + 1)
    }

    /// Waits until every one of `names` is ready and all name the same leader in the same term.
    pub(super) async fn agree(&self, names: &[&str], allowed: Duration) -> Outcome<ClusterView> {
        let condition = format!("{} agree on a leader", names.join(", "));
        let view = wait::until(&condition, allowed, || self.look_at_agreement(names)).await?;
        for name in names {
            let role = if view.leader.as_deref() == Some(*name) {
                "leader"
            } else {
                "follower"
            };
            self.node(name).set_role(role);
        }
        Ok(view)
    }

    pub(super) async fn look_at_agreement(&self, names: &[&str]) -> Seen<ClusterView> {
        let mut views = Vec::new();
        for name in names {
            match self.view(name).await {
                Ok(view) => views.push(view),
                Err(seen) => return Seen::NotYet(seen),
            }
        }
        let first = views[0].clone();
        let led = first
            .leader
            .as_deref()
            .is_some_and(|leader| names.contains(&leader));
        if led && views.iter().all(|view| *view == first && view.quorum) {
            Seen::Done(first)
        } else {
            Seen::NotYet(format!("{views:?}"))
        }
    }

    /// Asks one node for its own view of the cluster; the error is an observation.
    pub(super) async fn view(&self, name: &str) -> Result<ClusterView, String> {
        if let Some(how) = self.node(name).service_ended(SERVICE).await {
            let log = self.node(name).service_log(SERVICE);
            return Err(format!(
                "the service on {name} has ended ({how}); see {}",
                log.display()
            ));
        }
        let answer = api::get(self.node(name), "/cluster")
            .await
            .map_err(|error| error.to_string())?;
        let text = || format!("{name} answered {}: {}", answer.status, answer.body);
        if answer.status != 200 {
            return Err(text());
        }
        let leader = answer.body["leader"].as_u64().map(|id| self.name_of(id));
        let term = answer.body["term"].as_u64().ok_or_else(text)?;
        let quorum = answer.body["quorum"].as_bool().ok_or_else(text)?;
        Ok(ClusterView {
            leader,
            term,
            quorum,
        })
    }

    /// Node ids count from 1 in the order of names.
    pub(super) fn name_of(&self, id: u64) -> String {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        index
            .and_then(|index| self.names.get(index))
            .cloned()
            .unwrap_or_else(|| format!("unknown node {id}"))
    }

    /// Submits a job on a node and notes what it was told.
    pub(super) async fn submit(&self, name: &str, url: &str) -> Outcome<(Submitted, Answer)> {
        let (submitted, answer) = api::submit(self.node(name), url)
            .await
            .map_err(|error| Failure::broken(error.to_string()))?;
        self.ledger
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .record(url.to_owned(), submitted.clone());
        Ok((submitted, answer))
    }

    /// Submits a job that must be accepted.
    pub(super) async fn accept(&self, name: &str, url: &str) -> Outcome {
        match self.submit(name, url).await? {
            (Submitted::Accepted, _) => Ok(()),
            (submitted, answer) => Err(Failure::broken(format!(
                "{name} did not accept {url} but answered {} ({submitted:?}): {}",
                answer.status, answer.body
            ))),
        }
    }

    /// Submits a job again and again, under the same idempotency key, until it is accepted.
    pub(super) async fn accept_soon(&self, name: &str, url: &str, allowed: Duration) -> Outcome {
        let condition = format!("{name} accepts {url}");
        let accepted = wait::until(&condition, allowed, || async {
            match self.submit(name, url).await {
                Ok((Submitted::Accepted, _)) => Seen::Done(()),
                Ok((_, answer)) => Seen::NotYet(format!(
                    "{name} answered {}: {}",
                    answer.status, answer.body
                )),
                Err(failure) => Seen::NotYet(failure.message),
            }
        });
        Ok(accepted.await?)
    }

    /// Waits until each of `names` lists what was promised, by a linearizable read.
    pub(super) async fn all_list_the_same(&self, names: &[&str]) -> Outcome {
        for name in names {
            let condition = format!("{name} list exactly the jobs that were accepted");
            wait::until(&condition, AGREE_ALLOWED, || async {
                match self
                    .listed(name)
                    .await
                    .and_then(|listed| self.compare(&listed))
                {
                    Ok(()) => Seen::Done(()),
                    Err(seen) => Seen::NotYet(seen),
                }
            })
            .await?;
        }
        Ok(())
    }

    fn compare(&self, listed: &[String]) -> Result<(), String> {
        self.ledger
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .check(listed)
    }

    pub(super) fn told(&self, kind: &Submitted) -> usize {
        self.ledger
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .count(kind)
    }

    /// The URLs of the jobs that a node lists, by a linearizable read.
    pub(super) async fn listed(&self, name: &str) -> Result<Vec<String>, String> {
        let path = format!("/queue/list?limit={LIST_LIMIT}");
        let answer = api::get(self.node(name), &path)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!(
                "{name} answered {}: {}",
                answer.status, answer.body
            ));
        }
        let jobs = answer.body["jobs"]
            .as_array()
            .ok_or_else(|| format!("no jobs in {}", answer.body))?;
        let url = |job: &Value| job["payload"]["url"].as_str().map(str::to_owned);
        jobs.iter()
            .map(url)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("a job without a url in {}", answer.body))
    }
}
