//! What clients ask of an engine, checked before the journal hears of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    abi::Answer,
    callers::Response,
    engine::Engine,
    guest::CannotRun,
    id::ExecutionId,
    journal::{
        INPUT_BYTES_MAX, Journal, MESSAGE_TYPE_BYTES_MAX, Module, REASON_BYTES_MAX, Refused, Start,
        State, Watch,
    },
    module::{Description, NotAModule, describe},
    record::{Record, What, read},
};

/// Why a client does not get what it asks for.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Denied {
    #[error("this cannot be deployed: {0}")]
    Module(#[from] NotAModule),
    #[error("this cannot be deployed: {0}")]
    CannotRun(#[from] CannotRun),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("there is no module {module:?}{deployed}")]
    NoModule { module: String, deployed: String },
    #[error("module {module:?} has no version {version:?}; it has {versions}")]
    NoVersion {
        module: String,
        version: String,
        versions: String,
    },
    #[error("module {module:?} {version} has no workflow {workflow:?}; it has {workflows}")]
    NoWorkflow {
        module: String,
        version: String,
        workflow: String,
        workflows: String,
    },
    #[error("the {what} has {found} bytes; at most {allowed} are allowed")]
    TooLarge {
        what: &'static str,
        found: usize,
        allowed: usize,
    },
    #[error("the {what} is no JSON text: {why}")]
    NoJson { what: &'static str, why: String },
    #[error("the message has no type")]
    NoType,
    #[error("frame {0} is not where a record begins; see the journal")]
    NoRecord(u64),
}

/// What came of a start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Started {
    /// The response; JSON text.
    Response(String),
    /// The workflow returned, and never responded.
    Silent,
    /// It ended otherwise, and never responded.
    Ended {
        /// How, for people.
        reason: String,
    },
}

impl<J: Journal> Engine<J> {
    /// Deploys a module, which is compiled for that.
    pub async fn deploy(&self, bytes: Vec<u8>) -> Result<Description, Denied> {
        let module = describe(&bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        let given = Arc::clone(&bytes);
        self.rim
            .guests
            .module(&module.hash, async move { Ok::<_, Denied>(given.to_vec()) })
            .await?;
        self.journal().deploy(&module, bytes).await?;
        let key = (module.name.clone(), module.version.clone());
        self.described().insert(key, Arc::new(module.clone()));
        tracing::info!(module = module.name, version = module.version, hash = %module.hash, "deployed");
        Ok(module)
    }

    /// The version of a module that was deployed last.
    pub async fn newest(&self, module: &str) -> Result<String, Denied> {
        let modules = self.journal().modules().await?;
        let of_name = modules.iter().filter(|known| known.name == module);
        let newest = of_name.max_by_key(|known| known.deployed_at);
        newest
            .map(|known| known.version.clone())
            .ok_or_else(|| no_module(module, &modules))
    }

    /// Starts a workflow.
    pub async fn start(
        &self,
        module: &str,
        version: &str,
        workflow: &str,
        input: String,
    ) -> Result<ExecutionId, Denied> {
        let id = ExecutionId::random();
        self.start_as(id, module, version, workflow, input).await?;
        Ok(id)
    }

    /// Starts a workflow, and waits for its response as its starter: dropped before that, the workflow hears that nobody
    /// listens.
    pub async fn call(
        &self,
        module: &str,
        version: &str,
        workflow: &str,
        input: String,
    ) -> Result<(ExecutionId, Started), Denied> {
        let id = ExecutionId::random();
        let (mut response, mut news) = self.awaited(id);
        self.start_as(id, module, version, workflow, input).await?;
        let caller = self.callers().wait(id);
        let told = async {
            news.changed().await;
            self.told(id, &mut news).await
        };
        let started = either(&mut response, told).await?;
        caller.answered();
        Ok((id, started))
    }

    async fn start_as(
        &self,
        id: ExecutionId,
        module: &str,
        version: &str,
        workflow: &str,
        input: String,
    ) -> Result<(), Denied> {
        check("input", &input)?;
        let description = self.description(module, version).await?;
        if !description.workflows.contains(workflow) {
            return Err(Denied::NoWorkflow {
                module: module.into(),
                version: version.into(),
                workflow: workflow.chars().take(100).collect(),
                workflows: listed(description.workflows.iter().map(String::as_str)),
            });
        }
        let start = Start {
            id,
            module: module.into(),
            version: version.into(),
            hash: description.hash.clone(),
            workflow: workflow.into(),
            input,
            parent: None,
        };
        self.journal().start(start).await?;
        self.metrics().started();
        Ok(())
    }

    /// What a deployed module is; told once from its bytes, which never change.
    async fn description(&self, module: &str, version: &str) -> Result<Arc<Description>, Denied> {
        let key = (module.to_owned(), version.to_owned());
        let known = || self.described().get(&key).map(Arc::clone);
        if let Some(known) = known() {
            return Ok(known);
        }
        // One looks; who comes meanwhile waits for what it finds.
        let _looking = self.describing.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        let modules = self.journal().modules().await?;
        let of_name: BTreeMap<&str, &Module> = modules
            .iter()
            .filter(|known| known.name == module)
            .map(|known| (known.version.as_str(), known))
            .collect();
        if of_name.is_empty() {
            return Err(no_module(module, &modules));
        }
        let known = of_name.get(version).ok_or_else(|| Denied::NoVersion {
            module: module.into(),
            version: version.chars().take(100).collect(),
            versions: listed(of_name.keys().copied()),
        })?;
        let bytes = self.journal().module_bytes(&known.hash).await?;
        let description = Arc::new(describe(&bytes)?);
        self.described().insert(key, Arc::clone(&description));
        Ok(description)
    }

    /// Waits for the response of an execution, or for its end.
    pub async fn response(&self, id: ExecutionId) -> Result<Started, Denied> {
        let (mut response, mut news) = self.awaited(id);
        either(&mut response, self.told(id, &mut news)).await
    }

    /// Whatever comes of an execution after this comes here: its response by way of this process, and all else by way of
    /// the store.
    fn awaited(&self, id: ExecutionId) -> (Response, Watch) {
        (self.callers().response(id), self.journal().watch(id))
    }

    /// Looks at the store, again at each news, until there is a response, or an end without one.
    async fn told(&self, id: ExecutionId, news: &mut Watch) -> Result<Started, Denied> {
        loop {
            let held = self.journal().is_held_here(id);
            let shown = self.journal().show(id).await?;
            if let Some(frame) = shown.response {
                return Ok(Started::Response(self.response_at(id, frame).await?));
            }
            let reason = shown.reason.unwrap_or_default();
            match shown.state {
                State::Completed => return Ok(Started::Silent),
                State::Failed => {
                    let reason = format!("workflow {id} failed: {reason}");
                    return Ok(Started::Ended { reason });
                }
                State::Cancelled => {
                    let reason = format!("workflow {id} was cancelled: {reason}");
                    return Ok(Started::Ended { reason });
                }
                State::Ready | State::Running | State::Waiting | State::Paused => {}
            }
            loop {
                news.changed().await;
                // A response that was there before this process had it has been looked for since.
                if !(held && self.journal().is_held_here(id)) {
                    break;
                }
            }
        }
    }

    async fn response_at(&self, id: ExecutionId, frame: u64) -> Result<String, Denied> {
        let records = self.records(id).await?;
        let response = records.into_iter().find(|(first, _)| *first == frame);
        match response {
            Some((
                _,
                Record::Answered {
                    what: Some(What::Response { text }),
                    ..
                },
            )) => Ok(text),
            _ => Err(broken(format!(
                "there is no response at frame {frame} of {id}"
            ))),
        }
    }

    /// Sends a message to an execution.
    pub async fn send(&self, id: ExecutionId, kind: String, data: String) -> Result<(), Denied> {
        if kind.is_empty() {
            return Err(Denied::NoType);
        }
        if kind.len() > MESSAGE_TYPE_BYTES_MAX {
            return Err(Denied::TooLarge {
                what: "message's type",
                found: kind.len(),
                allowed: MESSAGE_TYPE_BYTES_MAX,
            });
        }
        check("message", &data)?;
        Ok(self.journal().send(id, kind, data).await?)
    }

    /// Ends an execution.
    pub async fn cancel(&self, id: ExecutionId, reason: Option<String>) -> Result<(), Denied> {
        let reason = reason.unwrap_or_else(|| "no reason was given".into());
        if reason.len() > REASON_BYTES_MAX {
            return Err(Denied::TooLarge {
                what: "reason",
                found: reason.len(),
                allowed: REASON_BYTES_MAX,
            });
        }
        Ok(self.journal().cancel(id, reason).await?)
    }

    /// Lets an execution that failed or was cancelled go on, from the record that begins at a frame, or from where it went wrong.
    pub async fn retry(&self, id: ExecutionId, from: Option<u64>) -> Result<(), Denied> {
        let records = self.records(id).await?;
        let from = match from {
            Some(from) if records.iter().any(|(frame, _)| *frame == from) => from,
            Some(from) => return Err(Denied::NoRecord(from)),
            None => where_it_went_wrong(&records),
        };
        // The beginning stays.
        Ok(self.journal().retry(id, from.max(1)).await?)
    }

    /// What the journal of an execution says, with the frame at which each record begins.
    pub async fn records(&self, id: ExecutionId) -> Result<Vec<(u64, Record)>, Denied> {
        // Also says whether there is such an execution.
        let count = self.journal().show(id).await?.frames;
        let mut frames = Vec::new();
        while (frames.len() as u64) < count {
            let more = self.journal().frames(id, frames.len() as u64).await?;
            if more.is_empty() {
                break;
            }
            frames.extend(more);
        }
        read(&frames).map_err(|error| broken(error.to_string()))
    }
}

/// The frame from which on a failed execution is done again: that of the last request that had no good answer, else that of the
/// line which a panic logs.
fn where_it_went_wrong(records: &[(u64, Record)]) -> u64 {
    let failed_request = records.iter().rposition(|(_, record)| {
        matches!(
            record,
            Record::Answered {
                answer: Answer::HttpResponse(Err(_)),
                ..
            }
        )
    });
    if let Some(answer) = failed_request {
        let before = records[..answer].iter().rev();
        let asked = before.take_while(|(_, record)| {
            matches!(record, Record::Asked { .. } | Record::Taken { .. })
        });
        return asked.last().map_or(records[answer].0, |(frame, _)| *frame);
    }
    let is_error = |record: &Record| matches!(record, Record::Answered { what: Some(What::Log { level, .. }), .. } if level == "error");
    match records.last() {
        Some((frame, record)) if is_error(record) => *frame,
        Some(_) => u64::MAX,
        None => 1,
    }
}

/// Whether this is a JSON text of a size that is taken.
fn check(what: &'static str, text: &str) -> Result<(), Denied> {
    if text.len() > INPUT_BYTES_MAX {
        return Err(Denied::TooLarge {
            what,
            found: text.len(),
            allowed: INPUT_BYTES_MAX,
        });
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| Denied::NoJson {
            what,
            why: error.to_string(),
        })
}

fn no_module(module: &str, modules: &[Module]) -> Denied {
    let mut names: Vec<_> = modules.iter().map(|known| known.name.as_str()).collect();
    names.dedup();
    let deployed = if names.is_empty() {
        "; nothing is deployed here".into()
    } else {
        format!("; deployed are {}", listed(names.into_iter()))
    };
    Denied::NoModule {
        module: module.chars().take(100).collect(),
        deployed,
    }
}

/// Words in a row, as many as people read.
fn listed<'a>(mut words: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<_> = words
        .by_ref()
        .take(20)
        .map(|word| format!("{word:?}"))
        .collect();
    let more = words.count();
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", shown.join(", "))
}

/// Waits for a response by way of this process, or for what the store tells. The former is there first, and spares the look
/// into the store.
async fn either(
    response: &mut Response,
    told: impl Future<Output = Result<Started, Denied>>,
) -> Result<Started, Denied> {
    tokio::select! {
        biased;
        text = response.come() => Ok(Started::Response(text)),
        told = told => told,
    }
}

const fn broken(why: String) -> Denied {
    Denied::Refused(Refused::Broken { why })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::callers::Callers;

    fn response() -> Started {
        Started::Response("17".into())
    }

    #[tokio::test]
    async fn a_response_by_way_of_this_process_spares_the_look_into_the_store() {
        let (callers, id) = (Callers::default(), ExecutionId::random());
        let mut coming = callers.response(id);
        callers.respond(id, "17".into());
        let looked = async { panic!("it looked into the store") };
        assert_eq!(either(&mut coming, looked).await.unwrap(), response());
    }

    #[tokio::test]
    async fn a_response_that_comes_during_a_look_is_not_kept_waiting_by_it() {
        let (callers, id) = (Callers::default(), ExecutionId::random());
        let mut coming = callers.response(id);
        let looking = async {
            callers.respond(id, "17".into());
            pending().await
        };
        assert_eq!(either(&mut coming, looking).await.unwrap(), response());
    }

    #[tokio::test]
    async fn what_comes_by_way_of_the_store_alone_is_taken_from_there() {
        let mut never = Callers::default().response(ExecutionId::random());
        let silent = either(&mut never, ready(Ok(Started::Silent))).await;
        assert_eq!(silent.unwrap(), Started::Silent);
    }
}
