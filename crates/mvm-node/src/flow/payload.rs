//! What a job of kind `flow` is told: which workflow to run, with what.

use mvm_flow::{
    id::{ExecutionId, ModuleHash},
    limits::Limits,
};
use mvm_queue::{Answer, Concurrency, FLOW_KIND, JobSpec, Module, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    consensus::{Barrier, Reading},
    store::{Deadline, Store},
};

/// Of an execution's job: it may lose its machine many times before it is given up.
pub(super) const LOSSES_MAX: u32 = mvm_queue::ATTEMPTS_MAX;

/// A workflow to run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    /// The module.
    pub(crate) module: String,
    /// Its version; where a client leaves it out, the one deployed last, from when the job is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Its bytes. Clients need not name them; from when the job is submitted it is pinned to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<ModuleHash>,
    /// The workflow.
    pub(crate) workflow: String,
    /// Its input.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) input: Value,
    /// The same as text, to the letter; wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input_text: Option<String>,
    /// The workflow that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ExecutionId>,
}

impl Payload {
    /// Reads the payload of a job.
    pub(crate) fn of(spec: &JobSpec) -> Result<Self, String> {
        Self::deserialize(&spec.payload).map_err(|error| {
            format!(
                "the payload of a job of kind {FLOW_KIND} is {{\"module\": ..., \"workflow\": ..., \"input\": ...}}: {error}"
            )
        })
    }

    /// The input, as JSON text.
    pub(crate) fn input(&self) -> String {
        self.input_text
            .clone()
            .unwrap_or_else(|| self.input.to_string())
    }

    /// A job that runs it.
    pub(super) fn job(&self, limits: &Limits) -> JobSpec {
        // Our own types have no maps with odd keys, so they always have a JSON form.
        let payload = serde_json::to_value(self).unwrap_or_default();
        let mut spec = JobSpec::new(FLOW_KIND, payload);
        spec.losses_max = LOSSES_MAX;
        spec.concurrency = self.concurrency(limits);
        spec
    }

    /// How many of its module run at once, on all nodes together.
    fn concurrency(&self, limits: &Limits) -> Option<Concurrency> {
        let limit = limits.of(&self.module).runs?;
        Some(Concurrency {
            key: format!("module/{}", self.module),
            limit,
        })
    }
}

/// Pins the workflow of a job that a client submits to a module that is deployed.
///
/// What a client says of concurrency stands, unless the operator limits the module.
pub(crate) async fn pin<S: Store>(
    store: &S,
    spec: &mut JobSpec,
    limits: &Limits,
) -> Result<(), String> {
    let mut payload = Payload::of(spec)?;
    let reading = store
        .read(
            Barrier::Linearizable,
            Query::Modules,
            Deadline::starting_now(),
        )
        .await;
    let modules = match reading {
        Reading::Done {
            answer: Answer::Modules { modules },
            ..
        } => modules,
        Reading::Done { .. } => Vec::new(),
        Reading::Unavailable { cause } => return Err(cause.to_string()),
        Reading::Broken { detail } => return Err(detail),
    };
    let fits = |module: &&Module| {
        module.name == payload.module
            && payload
                .version
                .as_ref()
                .is_none_or(|version| module.version == *version)
    };
    // They come in the order of their deployment.
    let Some(module) = modules.iter().rfind(fits) else {
        let version = payload
            .version
            .map(|version| format!(" {version}"))
            .unwrap_or_default();
        return Err(format!(
            "there is no module {:?}{version}; `mvm-ci flow deploy` deploys one",
            payload.module
        ));
    };
    payload.version = Some(module.version.clone());
    payload.hash = Some(ModuleHash(module.hash.clone()));
    let pinned = payload.job(limits);
    spec.payload = pinned.payload;
    spec.losses_max = pinned.losses_max;
    spec.concurrency = pinned.concurrency.or(spec.concurrency.take());
    Ok(())
}

#[cfg(test)]
mod tests {
    use mvm_flow::limits::{Limits, ModuleLimits};
    use mvm_queue::FLOW_KIND;
    use serde_json::json;

    use super::Payload;

    #[test]
    fn a_module_whose_runs_are_limited_has_a_key_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("limits.toml");
        std::fs::write(&file, "[modules.crawler]\nruns = 3\n").unwrap();
        let limits = Limits::read(&file, ModuleLimits::default()).unwrap();
        let job = |module: &str| {
            let payload = json!({ "module": module, "workflow": "w" });
            let spec = mvm_queue::JobSpec::new(FLOW_KIND, payload);
            let job = Payload::of(&spec).unwrap().job(&limits);
            job.validate().unwrap();
            job.concurrency.map(|of| (of.key, of.limit))
        };
        assert_eq!(job("crawler"), Some(("module/crawler".to_owned(), 3)));
        assert_eq!(job("other"), None);
    }
}
