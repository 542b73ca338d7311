//! One conversation with the Python side: requests are read, carried out side by side, and answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex as StdMutex, atomic::AtomicU64},
    time::Instant,
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable, Aborted},
    stream::FuturesUnordered,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
};

use super::{
    commands::Started,
    firewall::Firewalls,
    machine::Driven,
    wire::{Answer, Done, End, Line, MachineTold, Refusal, TestVerb, Told, What, World},
};
use crate::{
    event::{Event, StepOutcome},
    network::Capture,
    node::{NodeError, lock},
    scenario::{Run, milliseconds},
    verdict::Verdict,
};

/// A script is ours to run, but what it sends is bounded all the same: a line holds one command.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a script said last.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) end: End,
    pub(super) message: Option<String>,
}

/// A script's view of a run.
pub(super) struct Session<'r> {
    pub(super) run: &'r Run,
    pub(super) machines: BTreeMap<String, Arc<Driven>>,
    /// Commands that run beside the script, by number.
    pub(super) started: StdMutex<HashMap<u64, Arc<Started>>>,
    pub(super) numbers: AtomicU64,
    /// Starts of machines that nobody waits for yet, and commands whose outputs outlive them.
    pub(super) background: StdMutex<JoinSet<()>>,
    pub(super) captures: StdMutex<BTreeMap<String, Capture>>,
    pub(super) forwards: StdMutex<Vec<mvm_agent::client::Forward>>,
    pub(super) firewalls: StdMutex<Firewalls>,
    /// Machines that were warned of what is shaped in vain.
    pub(super) shaped: StdMutex<BTreeSet<String>>,
    subtests: StdMutex<Vec<(String, Instant)>>,
    finished: StdMutex<Option<Finished>>,
}

impl<'r> Session<'r> {
    pub(super) fn new(run: &'r Run) -> Session<'r> {
        let machines = run.lab.nodes().map(|node| {
            (
                node.name().to_owned(),
                Arc::new(Driven::new(Arc::clone(node))),
            )
        });
        Session {
            run,
            machines: machines.collect(),
            started: StdMutex::default(),
            numbers: AtomicU64::new(1),
            background: StdMutex::default(),
            captures: StdMutex::default(),
            forwards: StdMutex::default(),
            firewalls: StdMutex::default(),
            shaped: StdMutex::default(),
            subtests: StdMutex::default(),
            finished: StdMutex::default(),
        }
    }

    /// Answers until the other side closes; returns what it said last, if it did. Lines that are to be shown there are
    /// sent along.
    pub(super) async fn serve(
        &self,
        stream: UnixStream,
        mut shown: Option<UnboundedReceiver<String>>,
    ) -> std::io::Result<Option<Finished>> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        let mut at_work = FuturesUnordered::new();
        let mut calls: HashMap<u64, AbortHandle> = HashMap::new();
        loop {
            tokio::select! {
                read = reader.read_until(b'\n', &mut line) => {
                    if read? == 0 {
                        break;
                    }
                    if line.len() > LINE_BYTES_MAX {
                        return Err(std::io::Error::other("a request is too long"));
                    }
                    match serde_json::from_slice(&line).map_err(std::io::Error::other)? {
                        Line::Cancel { cancel } => {
                            if let Some(call) = calls.remove(&cancel) {
                                call.abort();
                            }
                        }
                        Line::Request { id, what } => {
                            let (call, registration) = AbortHandle::new_pair();
                            calls.insert(id, call);
                            let work = Abortable::new(self.answer(what), registration);
                            at_work.push(async move { (id, work.await) });
                        }
                    }
                    line.clear();
                }
                Some((id, result)) = at_work.next(), if !at_work.is_empty() => {
                    calls.remove(&id);
                    let result = match result {
                        Ok(Ok(value)) => Told::Value(value),
                        Ok(Err(refusal)) => Told::Error(refusal),
                        Err(Aborted) => continue,
                    };
                    write(&mut writer, &Answer { id, result }).await?;
                }
                Some(line) = next(&mut shown) => {
                    write(&mut writer, &json!({ "event": { "line": line } })).await?;
                }
            }
        }
        Ok(lock(&self.finished).take())
    }

    /// Why a machine did not start, if the script has not come to hear of it.
    pub(super) fn failed_start(&self) -> Option<NodeError> {
        let mut machines = self.machines.values();
        machines.find_map(|machine| machine.failed_start())
    }

    async fn answer(&self, what: What) -> Done {
        match what {
            What::Machine(name, verb) => {
                let machine = self.machines.get(&name).ok_or_else(|| {
                    let known: Vec<&String> = self.machines.keys().collect();
                    Refusal::value(format!("there is no machine {name:?}, there are {known:?}"))
                })?;
                self.machine_verb(machine, verb).await
            }
            What::Network(verb) => self.network_verb(verb).await,
            What::Test(verb) => Ok(self.test_verb(verb)),
        }
    }

    fn test_verb(&self, verb: TestVerb) -> Value {
        match verb {
            TestVerb::Hello => {
                return serde_json::to_value(self.world()).expect("the world serializes");
            }
            TestVerb::Log {
                level,
                text,
                machine,
            } => self.run.recorder.record(Event::Log {
                level,
                machine,
                text,
            }),
            TestVerb::LogConsoles { on } => self.run.recorder.log_consoles(on),
            TestVerb::SubtestBegan { name } => {
                lock(&self.subtests).push((name.clone(), Instant::now()));
                self.run.recorder.record(Event::StepStarted { step: name });
            }
            TestVerb::SubtestEnded { name, error } => self.subtest_ended(name, error),
            TestVerb::Finished { verdict, message } => {
                *lock(&self.finished) = Some(Finished {
                    end: verdict,
                    message,
                });
            }
        }
        Value::Null
    }

    fn subtest_ended(&self, name: String, error: Option<String>) {
        let began = lock(&self.subtests).pop().map(|(_, began)| began);
        let outcome = match error {
            None => StepOutcome::Passed,
            Some(message) => StepOutcome::Failed {
                verdict: Verdict::Failed,
                message,
            },
        };
        self.run.recorder.record(Event::StepEnded {
            step: name,
            outcome,
            duration_ms: began.map_or(0, |began| milliseconds(began.elapsed())),
        });
    }

    fn world(&self) -> World {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let folder = text(self.run.folder.path());
        let shared = text(&self.run.folder.shared());
        let members = self.run.lab.nodes().map(|node| node.member());
        let mut segments: Vec<u8> = members
            .flat_map(|member| member.cards.iter().map(|card| card.segment))
            .collect();
        segments.sort_unstable();
        segments.dedup();
        World {
            machines: self
                .machines
                .keys()
                .map(|name| MachineTold {
                    name: name.clone(),
                    out_dir: folder.clone(),
                    shared_dir: shared.clone(),
                })
                .collect(),
            segments,
            out_dir: folder,
        }
    }
}

/// The next line to be shown; never one where none are.
async fn next(shown: &mut Option<UnboundedReceiver<String>>) -> Option<String> {
    match shown {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

async fn write(writer: &mut OwnedWriteHalf, message: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(message).expect("messages serialize");
    text.push(b'\n');
    writer.write_all(&text).await
}
