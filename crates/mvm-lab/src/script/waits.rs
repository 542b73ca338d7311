//! What scripts wait for on a machine: commands, units, ports and the console.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    commands::Ended,
    machine::Driven,
    session::Session,
    wire::{Done, Limit, Refusal},
};
use crate::{
    event::Event,
    node::{Node, UnitState},
    scenario::milliseconds,
    wait::{self, POLL_INTERVAL, Seen, WaitError},
};

/// How much of an output a message shows.
const SHOWN_CHARACTERS: usize = 500;

impl Session<'_> {
    /// Runs a command again and again until it ends as wanted. To succeed, each run has the time that is left. To fail, each
    /// has all of it, since one that is killed when its time is up has failed, as everywhere in scripts.
    pub(super) async fn wait_until(
        &self,
        machine: &Driven,
        command: String,
        succeeds: bool,
        timeout: Limit,
    ) -> Done {
        let node = machine.up().await?;
        let began = Instant::now();
        let allowed = timeout.get();
        let wanted = if succeeds { "succeed" } else { "fail" };
        let ended = loop {
            let each = match succeeds {
                true => allowed.saturating_sub(began.elapsed()),
                false => allowed,
            };
            let ended = self.run_command(node, &command, Some(each)).await?;
            if (ended.status == 0) == succeeds {
                break ended;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            let elapsed = began.elapsed();
            if elapsed >= allowed {
                return Err(Refusal::from(WaitError {
                    condition: format!("{command:?} on {} {wanted}", node.name()),
                    elapsed,
                    allowed,
                    observation: shown(&ended),
                }));
            }
        };
        self.run.recorder.record(Event::Command {
            machine: node.name().to_owned(),
            told_as: format!("waited until it {wanted}s"),
            command,
            status: ended.status,
            duration_ms: milliseconds(began.elapsed()),
        });
        Ok(ended.stdout.into())
    }

    pub(super) async fn wait_for_port(
        &self,
        machine: &Driven,
        address: &str,
        port: u16,
        open: bool,
        timeout: Limit,
    ) -> Done {
        let node = machine.up().await?;
        let agent = node.agent()?;
        if open {
            let waited = agent.wait_for_port(address, port, timeout.get()).await;
            waited.map_err(|source| node.agent_error(source))?;
            return Ok(Value::Null);
        }
        let probe = || async {
            match agent.wait_for_port(address, port, Duration::ZERO).await {
                Ok(()) => Seen::NotYet("a connection was accepted".to_owned()),
                Err(mvm_agent::client::AgentError::PortClosed { .. }) => Seen::Done(Ok(())),
                Err(error) => Seen::Done(Err(node.agent_error(error))),
            }
        };
        let condition = format!("port {port} of {address} closed on {}", node.name());
        wait::until(&condition, timeout.get(), probe).await??;
        Ok(Value::Null)
    }

    pub(super) async fn systemctl(
        &self,
        machine: &Driven,
        arguments: &str,
        user: Option<&str>,
    ) -> Done {
        let output = machine.up().await?.systemctl(arguments, user).await?;
        Ok(json!({
            "status": match output.status {
                mvm_agent::client::ExitStatus::Code(code) => code,
                _ => -1,
            },
            "stdout": String::from_utf8_lossy(&output.stdout),
        }))
    }

    pub(super) async fn unit(&self, machine: &Driven, unit: &str, user: Option<&str>) -> Done {
        let state = machine.up().await?.unit(unit, user).await?;
        Ok(json!({
            "active_state": state.active_state,
            "has_job": state.has_job,
            "properties": state.properties,
        }))
    }

    /// Waits until a unit is active. One that failed, or is inactive with nothing under way, will not become so.
    pub(super) async fn wait_for_unit(
        &self,
        machine: &Driven,
        unit: &str,
        user: Option<&str>,
        timeout: Limit,
    ) -> Done {
        let node = machine.up().await?;
        let probe = || async {
            match node.unit(unit, user).await {
                Ok(state) => verdict(node, unit, &state),
                Err(error) => Seen::Done(Err(error.into())),
            }
        };
        let condition = format!("unit {unit} active on {}", node.name());
        let waited: Result<(), Refusal> = wait::until(&condition, timeout.get(), probe).await?;
        waited.map(|()| Value::Null)
    }

    /// The console's lines from one of them on, and what is begun of the next; waits for a while for one of both
    /// to be new.
    pub(super) async fn console(
        &self,
        machine: &Driven,
        start: usize,
        known: &str,
        wait: Limit,
    ) -> Value {
        let began = Instant::now();
        let allowed = wait.get();
        loop {
            let begun = machine.node.console().begun();
            let lines = console_lines(machine.node.console_log().as_path(), start).await;
            if !lines.is_empty() || begun != known || began.elapsed() >= allowed {
                let waited = began.elapsed().as_secs_f64();
                return json!({ "lines": lines, "begun": begun, "waited": waited });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn verdict(node: &Node, unit: &str, state: &UnitState) -> Seen<Result<(), Refusal>> {
    let name = node.name();
    match state.active_state.as_str() {
        "active" => Seen::Done(Ok(())),
        "failed" => Seen::Done(Err(Refusal::assertion(format!(
            "unit {unit} on {name} reached state \"failed\""
        )))),
        "inactive" if !state.has_job => Seen::Done(Err(Refusal::assertion(format!(
            "unit {unit} on {name} is inactive and there are no pending jobs"
        )))),
        other => Seen::NotYet(format!("it is {other}")),
    }
}

fn shown(ended: &Ended) -> String {
    let how = match ended.timed_out {
        true => "it ran until the time was up".to_owned(),
        false => format!("exit code {}", ended.status),
    };
    let output = format!("{}{}", ended.stdout, ended.stderr);
    let output = output.trim();
    let start = output.chars().count().saturating_sub(SHOWN_CHARACTERS);
    let tail: String = output.chars().skip(start).collect();
    match tail.is_empty() {
        true => how,
        false => format!("{how}, {tail:?}"),
    }
}

/// The lines of a recorded console, without their stamps.
async fn console_lines(path: &std::path::Path, start: usize) -> Vec<String> {
    let recorded = tokio::fs::read(path).await.unwrap_or_default();
    let recorded = String::from_utf8_lossy(&recorded);
    let whole = recorded.rfind('\n').map_or(0, |end| end + 1);
    recorded[..whole]
        .lines()
        .skip(start)
        .map(|line| {
            line.split_once("] ")
                .map_or(line, |(_, text)| text)
                .to_owned()
        })
        .collect()
}
