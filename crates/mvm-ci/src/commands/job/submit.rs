//! `mvm-ci job submit`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use jiff::Timestamp;
use mvm_client::{Client, LogPlace, Submitted};
use mvm_queue::{FencingToken, JobSpec, UnixMillis};
use serde_json::json;

use super::{end, logs};
use crate::{
    cli::{SubmitArgs, When},
    commands::{connect::InputError, output, work},
};

pub(super) async fn submit(
    client: &Client,
    arguments: SubmitArgs,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (wait, follow) = (arguments.wait, arguments.follow);
    let submitted = client.submit(&spec(arguments)?).await?;
    tell(&submitted, json, follow)?;
    if follow {
        let beginning = LogPlace::beginning_of(FencingToken(1));
        return logs::follow(client, &submitted.id, beginning, json).await;
    }
    if wait {
        return end::wait(client, &[submitted.id], json).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// The id is data, except where the job's own output is.
fn tell(submitted: &Submitted, json: bool, follow: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if json {
        let mut event = json!(submitted);
        event["event"] = "submitted".into();
        return output::json_line(&mut output, &event);
    }
    match follow {
        true => output::say(&format!("job {}", submitted.id)),
        false => writeln!(output, "{}", submitted.id),
    }
}

/// The job that the flags describe. Whether it is accepted is the node's to say.
fn spec(arguments: SubmitArgs) -> Result<JobSpec, InputError> {
    let mut spec = work::spec(arguments.work)?;
    spec.run_after_ms = arguments.run_after.map(later).transpose()?;
    spec.dependencies = arguments.after;
    spec.idempotency_key = arguments.idempotency_key;
    Ok(spec)
}

fn later(when: When) -> Result<UnixMillis, InputError> {
    let time = match when {
        When::At(time) => Ok(time),
        When::Distance(distance) => Timestamp::now().checked_add(distance),
    };
    let time = time.map_err(|_| InputError::Time)?;
    Ok(UnixMillis(time.as_millisecond()))
}
