//! `mvm-ci job wait`: the ends of jobs, and the exit code that tells them.

use std::{
    io::{self, Write as _},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use mvm_client::{Cause, Client, ClientError, Consistency, FollowJob, JobEvent, JobView};
use mvm_queue::JobId;
use serde_json::json;

use crate::{
    commands::output::{self, Cell},
    exit_codes,
};

/// The pause before a job is looked at again; it doubles.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Waits until jobs have ended, and tells how.
pub(super) async fn wait(client: &Client, ids: &[JobId], json: bool) -> anyhow::Result<ExitCode> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut worst = 0;
    for id in ids {
        let job = tokio::select! {
            job = ended(client, id) => job?,
            _ = &mut interrupt => return interrupted(id),
        };
        tell_end(&job, json)?;
        worst = worst.max(exit_codes::of_state(job.state));
    }
    Ok(ExitCode::from(worst))
}

/// The job when it has ended: its events tell when to look, or the clock where there are no events.
async fn ended(client: &Client, id: &JobId) -> Result<JobView, ClientError> {
    let mut streams = true;
    let mut pause = Duration::ZERO;
    loop {
        let job = client.job(id, Consistency::Linearizable).await?;
        if job.state.is_finished() {
            return Ok(job);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        if streams {
            match until_end(client.follow_job(id)).await {
                Ok(()) => {}
                Err(error) if is_silence(&error) => return Err(error),
                // As all streams are taken, or something between us and the node lets none through.
                Err(_) => streams = false,
            }
        }
    }
}

/// No node says anything, so that looking at the job would be in vain as well.
fn is_silence(error: &ClientError) -> bool {
    let answered = |cause: &Cause| matches!(cause, Cause::Unavailable(_) | Cause::StreamEnded);
    match error {
        ClientError::Unreachable { causes, .. } => !causes.iter().any(|of| answered(&of.cause)),
        ClientError::OutcomeUnknown { .. }
        | ClientError::Refused { .. }
        | ClientError::Violation { .. } => false,
    }
}

/// Who tells of the end may be behind, or know of one that a retry undid.
async fn until_end(mut events: FollowJob) -> Result<(), ClientError> {
    while let JobEvent::Job(_) = events.next().await? {}
    Ok(())
}

/// Says, beside a job's own output, how it ended.
pub(super) fn tell(job: &JobView, json: bool) -> anyhow::Result<ExitCode> {
    match json {
        true => tell_end(job, json)?,
        false => output::say(&sentence(job))?,
    }
    Ok(ExitCode::from(exit_codes::of_state(job.state)))
}

fn tell_end(job: &JobView, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if json {
        return output::json_line(&mut output, &json!({ "event": "end", "job": job }));
    }
    let row = vec![
        Cell::plain(&*job.id.0),
        Cell::state(job.state),
        Cell::plain(job.error.as_deref().unwrap_or_default()),
    ];
    output::table(&mut output, &[row])?;
    output.flush()
}

fn sentence(job: &JobView) -> String {
    let error = job.error.as_deref().map(output::printable);
    let error = error.map_or_else(String::new, |error| format!(": {error}"));
    format!("job {} is {}{error}", job.id, job.state)
}

/// Nobody waits any more.
pub(super) fn interrupted(id: &JobId) -> anyhow::Result<ExitCode> {
    output::say(&format!(
        "job {id} goes on; see it by `mvm-ci job logs --follow {id}`, stop it by `mvm-ci job cancel {id}`"
    ))?;
    Ok(ExitCode::from(exit_codes::INTERRUPTED))
}
