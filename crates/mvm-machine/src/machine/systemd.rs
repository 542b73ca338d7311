//! How far a machine's systemd has come, heard through its agent, which answers long before.

use std::{fmt, time::Duration};

use mvm_agent::client::{Agent, AgentError, Output};
use tokio::time::Instant;

use crate::debian::HELD_TARGET;

/// Told about a boot that failed; a machine in trouble may not answer.
const EVIDENCE_ALLOWED: Duration = Duration::from_secs(10);

/// Between two questions of which systemd did not hear the first.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What systemd came to instead of the state in which a machine is frozen.
#[derive(Debug)]
pub struct SystemState {
    /// In systemd's word, or what kept it from saying one.
    said: String,
    /// The units that failed, one a line.
    failed: Vec<String>,
    /// The jobs that were not done.
    jobs: Vec<String>,
}

impl fmt::Display for SystemState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "its systemd is not up ({})", self.said)?;
        for line in &self.failed {
            write!(formatter, "\n  failed unit: {line}")?;
        }
        for line in &self.jobs {
            write!(formatter, "\n  waiting job: {line}")?;
        }
        Ok(())
    }
}

/// Waits until systemd has nothing left to start, and has executed itself again, so that it remembers nothing of who the
/// machine is; at most `allowed`: packages' services are not among what it starts by
/// then. Units that failed are told and no obstacle, as long as the system is usable.
pub(super) async fn wait_until_held(agent: &Agent, allowed: Duration) -> Result<(), SystemState> {
    let said = match wait_until_up(agent, allowed).await {
        Ok(()) => match agent.renew_system().await {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Err(said) => said,
    };
    Err(SystemState {
        said,
        failed: list(agent, &["--failed"]).await,
        jobs: list(agent, &["list-jobs"]).await,
    })
}

/// The error is what systemd said instead.
async fn wait_until_up(agent: &Agent, allowed: Duration) -> Result<(), String> {
    let deadline = Instant::now() + allowed;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = systemctl(agent, &["is-system-running", "--wait"], left).await;
        let output = told.map_err(|error| error.to_string())?;
        match &*text(&output.stdout) {
            "running" => return Ok(()),
            "degraded" => {
                let failed = list(agent, &["--failed"]).await;
                if !reached(agent).await {
                    return Err(format!("{HELD_TARGET} was not reached"));
                }
                tracing::warn!(?failed, "units failed while a machine booted");
                return Ok(());
            }
            // On a loaded host it does not hear its client in the time that clients give it.
            "unknown" if Instant::now() + ASK_AGAIN < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            "" => {
                let said = format!("{}: {}", output.status, text(&output.stderr));
                return Err(said.trim_end_matches([':', ' ']).to_owned());
            }
            word => return Err(word.to_owned()),
        }
    }
}

/// Whether what failed was nothing that others count on.
async fn reached(agent: &Agent) -> bool {
    let told = systemctl(agent, &["is-active", HELD_TARGET], EVIDENCE_ALLOWED).await;
    told.is_ok_and(|output| output.success())
}

/// Asks for a list, which is empty where nobody answers.
async fn list(agent: &Agent, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["--no-pager", "--no-legend", "--plain"], arguments].concat();
    let told = systemctl(agent, &arguments, EVIDENCE_ALLOWED).await;
    let told = told.map(|output| text(&output.stdout)).unwrap_or_default();
    told.lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && line != "No jobs running.")
        .collect()
}

async fn systemctl(
    agent: &Agent,
    arguments: &[&str],
    allowed: Duration,
) -> Result<Output, AgentError> {
    let command = agent.command("systemctl").args(arguments.iter().copied());
    command.timeout(allowed).output().await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
