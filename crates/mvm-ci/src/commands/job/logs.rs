//! `mvm-ci job logs`: output, all there is or as it comes.

use std::{
    io::{self, Write as _},
    pin::pin,
    process::ExitCode,
};

use mvm_client::{Chunk, Client, Consistency, LogEvent, LogPlace};
use mvm_queue::{FencingToken, JobId, Stream};
use serde_json::json;

use super::end;
use crate::{
    cli::LogsArgs,
    commands::output::{self, json_line},
};

pub(super) async fn logs(
    client: &Client,
    arguments: &LogsArgs,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let id = &arguments.id;
    // Asked in any case: of a job that does not exist there would only be silence.
    let latest = client.job(id, Consistency::Linearizable).await?.attempts;
    let attempt = arguments.attempt.map_or(latest, FencingToken);
    if arguments.follow {
        // Before the first claim, that is the one to come.
        let beginning = LogPlace::beginning_of(attempt.max(FencingToken(1)));
        return follow(client, id, beginning, json).await;
    }
    if attempt > latest || attempt == FencingToken(0) {
        output::say(&format!("job {id} has been tried {latest} times"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut next = 0;
    loop {
        let chunks = client.log(id, attempt, next).await?;
        let Some(last) = chunks.last() else {
            break;
        };
        next = last.number.saturating_add(1);
        for chunk in &chunks {
            write(attempt, chunk, json)?;
        }
    }
    tell_dropped(client, id, attempt).await?;
    Ok(ExitCode::SUCCESS)
}

/// Writes output as it comes until the job has ended, and tells how; or until Ctrl-C.
pub(super) async fn follow(
    client: &Client,
    id: &JobId,
    from: LogPlace,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut follow = client.follow_log(id, from);
    let job = loop {
        let event = tokio::select! {
            event = follow.next() => event?,
            _ = &mut interrupt => return end::interrupted(id),
        };
        match event {
            LogEvent::Chunk { attempt, chunk } => write(attempt, &chunk, json)?,
            LogEvent::End { .. } => {
                // The server that told it may be behind.
                let job = client.job(id, Consistency::Linearizable).await?;
                if job.state.is_finished() {
                    break job;
                }
                tokio::time::sleep(end::PAUSE_MIN).await;
                follow = client.follow_log(id, follow.place());
            }
        }
    };
    tell_dropped(client, id, follow.place().attempt).await?;
    end::tell(&job, json)
}

fn write(attempt: FencingToken, chunk: &Chunk, json: bool) -> io::Result<()> {
    if json {
        let mut event = json!(chunk);
        event["event"] = "chunk".into();
        event["attempt"] = json!(attempt);
        return json_line(&mut io::stdout().lock(), &event);
    }
    match chunk.stream {
        Stream::Stdout => {
            let mut output = io::stdout().lock();
            output.write_all(chunk.text.as_bytes())?;
            // A line that is not ended yet shows as well.
            output.flush()
        }
        Stream::Stderr => io::stderr().write_all(chunk.text.as_bytes()),
    }
}

async fn tell_dropped(client: &Client, id: &JobId, attempt: FencingToken) -> anyhow::Result<()> {
    let attempts = client.attempts(id).await?;
    let found = attempts.iter().find(|found| found.token == attempt);
    let dropped = found.map_or(0, |attempt| attempt.log_dropped_bytes);
    if dropped > 0 {
        output::say(&format!(
            "{dropped} bytes of output of attempt {attempt} were beyond the limit and not kept"
        ))?;
    }
    Ok(())
}
