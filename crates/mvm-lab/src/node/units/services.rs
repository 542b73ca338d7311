//! The agent's services as if systemd had them: enough for scripts that start, stop and watch
//! their services.

use std::{collections::BTreeMap, time::Duration};

use mvm_agent::client::{ExitStatus, Output};

use super::{SERVICE_SUFFIX, UnitState};
use crate::{
    node::{Node, NodeError},
    service::Service,
};

/// systemd's own default for `TimeoutStopSec`, after which it kills.
const STOP_ALLOWED: Duration = Duration::from_secs(90);
/// Exit codes of systemctl (its manual page), beside 0 for success.
const FAILED: i32 = 1;
const NOT_ACTIVE: i32 = 3;
const NO_SUCH_UNIT: i32 = 5;

/// What is left of a unit's name where it may be a service of the agent's.
pub(super) fn service_name(unit: &str) -> &str {
    unit.strip_suffix(SERVICE_SUFFIX).unwrap_or(unit)
}

impl Node {
    /// The state of a service, or of a target: those are reached in a machine that answers. Users have none.
    pub(super) async fn service_unit(
        &self,
        name: &str,
        user: Option<&str>,
    ) -> Result<UnitState, NodeError> {
        self.agent()?;
        if name.ends_with(".target") && user.is_none() {
            return Ok(state(name, "loaded", "active", "active"));
        }
        let name = service_name(name);
        let id = format!("{name}{SERVICE_SUFFIX}");
        if user.is_some() || !self.has_service(name) {
            return Ok(state(&id, "not-found", "inactive", "dead"));
        }
        let services = self.services.lock().await;
        let success = ExitStatus::Code(0).to_string();
        let (active, sub) = match services.get(name).map(Service::ended) {
            None => ("inactive", "dead"),
            Some(None) => ("active", "running"),
            Some(Some(how)) if how == success => ("inactive", "dead"),
            Some(Some(_)) => ("failed", "failed"),
        };
        Ok(state(&id, "loaded", active, sub))
    }

    /// Does what `systemctl` would with these words, as far as services of the agent know it.
    pub(super) async fn services_control(&self, words: &[String]) -> Result<Output, NodeError> {
        self.agent()?;
        let mut words = words.iter().map(|word| word.trim_matches(['"', '\'']));
        let verb = words.by_ref().find(|word| !word.starts_with('-'));
        let units: Vec<&str> = words.filter(|word| !word.starts_with('-')).collect();
        let mut answer = Answer::default();
        match verb {
            Some("daemon-reload" | "reset-failed" | "daemon-reexec") => {}
            Some("is-system-running") => answer.say("running"),
            Some("list-jobs") => answer.say("No jobs running."),
            Some(verb @ ("start" | "stop" | "restart" | "is-active" | "is-failed" | "show")) => {
                for unit in units {
                    self.control(verb, unit, &mut answer).await?;
                }
            }
            verb => answer.fail(
                FAILED,
                &format!(
                    "{} is not known to machines without systemd; an image of kind debian has it",
                    verb.unwrap_or("no verb")
                ),
            ),
        }
        Ok(answer.into())
    }

    async fn control(&self, verb: &str, unit: &str, answer: &mut Answer) -> Result<(), NodeError> {
        let UnitState {
            active_state,
            properties,
            ..
        } = self.service_unit(unit, None).await?;
        let name = service_name(unit);
        let is_known = self.has_service(name);
        match verb {
            "show" => {
                for (key, value) in properties {
                    answer.say(&format!("{key}={value}"));
                }
            }
            "is-active" | "is-failed" => {
                answer.say(&active_state);
                let wanted = verb.strip_prefix("is-").unwrap_or(verb);
                if active_state != wanted {
                    answer.code = NOT_ACTIVE;
                }
            }
            _ if !is_known => {
                let told = format!("Failed to {verb} {unit}: Unit {name}.service not found.");
                answer.fail(NO_SUCH_UNIT, &told);
            }
            "start" if active_state == "active" => {}
            "start" => self.start_service(name).await?,
            _ => {
                if active_state == "active" {
                    self.stop_service(name, STOP_ALLOWED).await?;
                }
                if verb == "restart" {
                    self.start_service(name).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn has_service(&self, name: &str) -> bool {
        let mut services = self.member.config.services.iter();
        services.any(|service| service.name == name)
    }
}

fn state(id: &str, load: &str, active: &str, sub: &str) -> UnitState {
    let properties = [
        ("Id", id),
        ("LoadState", load),
        ("ActiveState", active),
        ("SubState", sub),
    ];
    let owned = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    UnitState {
        name: id.to_owned(),
        active_state: active.to_owned(),
        properties: BTreeMap::from(owned),
        has_job: false,
    }
}

/// What systemctl would have said.
#[derive(Default)]
struct Answer {
    code: i32,
    said: String,
    complained: String,
}

impl Answer {
    fn say(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }

    fn fail(&mut self, code: i32, line: &str) {
        self.code = code;
        self.complained.push_str(line);
        self.complained.push('\n');
    }
}

impl From<Answer> for Output {
    fn from(answer: Answer) -> Output {
        Output {
            status: ExitStatus::Code(answer.code),
            stdout: answer.said.into_bytes(),
            stderr: answer.complained.into_bytes(),
            stdout_truncated: false,
            stderr_truncated: false,
            duration: Duration::ZERO,
        }
    }
}
