//! The page for people about one workflow, at `/workflows/{id}`: where it stands, what it did and what it logged, as this node's replica
//! has it. As [`super::page`], it is rendered here and loads nothing.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};
use mvm_flow::record::{Record, What, read};
use mvm_queue::{Answer, Execution, FLOW_KIND, FRAMES_BYTES_MAX, Job, JobId, Query};

use super::{
    App,
    asking::NamedJob,
    page::{self, escape},
    problem::Problem,
};
use crate::{
    consensus::{Barrier, Reading},
    flow::Payload,
    store::{Deadline, Store},
};

/// The latest records shown.
const RECORDS_SHOWN: usize = 500;
/// What is read of a journal, in answers of the store.
const READS_MAX: usize = 16;
/// A text is cut after so many characters.
const CHARS_SHOWN: usize = 400;

/// `GET /workflows/{id}`
pub(super) async fn page<S: Store>(
    State(app): State<Arc<App<S>>>,
    NamedJob(job): NamedJob,
) -> Result<Response, Problem> {
    let id = job.0.clone();
    let found = match ask(&app, Query::Job { job: job.clone() }).await? {
        Answer::Job { job: Some(job), .. } if job.spec.kind == FLOW_KIND => job,
        _ => {
            let shown: String = id.chars().take(CHARS_SHOWN).collect();
            return Err(
                Problem::not_found(format!("this node knows no workflow {shown:?}"))
                    .hint("its replica may lag; GET /api/v1/workflows on port 27288 lists them"),
            );
        }
    };
    let execution = match ask(&app, Query::Execution { job: job.clone() }).await? {
        Answer::Execution { execution } => execution,
        _ => None,
    };
    let journal = journal(&app, &job).await?;
    let body = render(&found, execution.as_ref(), &journal);
    Ok(html(&id, &body))
}

async fn ask<S: Store>(app: &App<S>, query: Query) -> Result<Answer, Problem> {
    let reading = app
        .store
        .read(Barrier::Local, query, Deadline::starting_now());
    match reading.await {
        Reading::Done { answer, .. } => Ok(answer),
        Reading::Unavailable { cause } => Err(Problem::unavailable(&cause)),
        Reading::Broken { detail } => Err(Problem::broken(detail)),
    }
}

/// What the journal says, or why nobody understands it.
async fn journal<S: Store>(
    app: &App<S>,
    job: &JobId,
) -> Result<Result<Vec<Record>, String>, Problem> {
    let mut frames = Vec::new();
    for _ in 0..READS_MAX {
        let query = Query::Frames {
            job: job.clone(),
            from: frames.len() as u64,
            bytes_max: FRAMES_BYTES_MAX,
        };
        match ask(app, query).await? {
            Answer::Frames { frames: more } if !more.is_empty() => {
                frames.extend(more.into_iter().map(|frame| frame.hex.bytes()));
            }
            _ => break,
        }
    }
    let records = read(&frames).map_err(|error| error.to_string());
    Ok(records.map(|records| records.into_iter().map(|(_, record)| record).collect()))
}

fn html(id: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>mvm-ci workflow {id}</title>\n<style>{style}</style></head>\n<body>\n\
         <header><h1>mvm-ci <span>workflow {id}</span></h1></header>\n{body}\n\
         <footer><a href=\"/\">the node</a></footer>\n</body>\n</html>\n",
        id = escape(id),
        style = page::STYLE,
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(text)).into_response()
}

fn render(
    job: &Job,
    execution: Option<&Execution>,
    journal: &Result<Vec<Record>, String>,
) -> String {
    let mut body = facts(job, execution);
    match journal {
        Err(why) => {
            let _ = write!(body, "<p class=\"bad\">{}</p>", escape(why));
        }
        Ok(records) => {
            body += &timeline(records);
            body += &logs(records);
        }
    }
    body
}

fn facts(job: &Job, execution: Option<&Execution>) -> String {
    let waits = job.waits_for.map_or(String::new(), |what| {
        let until = job
            .wakes_at_ms()
            .map_or(String::new(), |at| format!(" until {}", time(at.0)));
        format!(", waits for {}{until}", what.as_str())
    });
    let (what, input) = match Payload::of(&job.spec) {
        Ok(payload) => (
            format!(
                "{} of {} {}",
                payload.workflow,
                payload.module,
                payload.version.as_deref().unwrap_or_default()
            ),
            payload.input(),
        ),
        Err(why) => (why, String::new()),
    };
    let owner = job.claimed_by.as_deref().unwrap_or("nobody yet");
    let mut facts = format!(
        "<p><span class=\"state {state}\">{state}</span>{waits}</p>\n<table>\
         <tr><th>workflow<td>{what}</tr><tr><th>input<td><code>{input}</code></tr>\
         <tr><th>owner<td>{owner}, the {token}. one</tr>",
        state = job.state,
        what = escape(&what),
        input = escape(&cut(&input)),
        owner = escape(owner),
        token = job.token,
    );
    if let Some(error) = &job.error {
        let _ = write!(facts, "<tr><th>why<td>{}</tr>", escape(error));
    }
    if let Some(execution) = execution {
        let _ = write!(
            facts,
            "<tr><th>journal<td>{} frames, {} bytes</tr><tr><th>inbox<td>{} messages</tr>",
            execution.frames, execution.bytes, execution.messages
        );
    }
    facts + "</table>"
}

/// What it did, the latest last.
fn timeline(records: &[Record]) -> String {
    let mut table = String::from("<h2>Journal</h2>\n");
    let skipped = records.len().saturating_sub(RECORDS_SHOWN);
    if skipped > 0 {
        let _ = write!(table, "<p>{skipped} records before these are not shown</p>");
    }
    table += "<table><tr><th>at<th>what<th>with</tr>";
    for record in &records[skipped..] {
        let (at, what, with) = match record {
            Record::Began { .. } => continue,
            Record::Taken { epoch, by, at } => {
                (at, format!("taken by {by}"), format!("owner {}", epoch.0))
            }
            Record::Asked { what, at, .. } => (at, what.to_string(), "sent".into()),
            Record::Waiting {
                what, until, at, ..
            } => (at, what.to_string(), format!("until {}", time(until.0))),
            Record::Answered {
                what, answer, at, ..
            } => (
                at,
                what.as_ref().map(ToString::to_string).unwrap_or_default(),
                serde_json::to_string(answer).unwrap_or_default(),
            ),
        };
        let _ = write!(
            table,
            "<tr><td>{}<td>{}<td><code>{}</code></tr>",
            time(at.0),
            escape(&cut(&what)),
            escape(&cut(&with))
        );
    }
    table + "</table>"
}

fn logs(records: &[Record]) -> String {
    let mut list = String::new();
    for record in records {
        if let Record::Answered {
            what: Some(What::Log { level, text }),
            at,
            ..
        } = record
        {
            let _ = write!(
                list,
                "<tr><td>{}<td>{}<td>{}</tr>",
                time(at.0),
                escape(level),
                escape(text)
            );
        }
    }
    if list.is_empty() {
        return String::new();
    }
    format!("<h2>Log</h2>\n<table><tr><th>at<th>level<th>line</tr>{list}</table>")
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(CHARS_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('\u{2026}');
    }
    shown
}

fn time(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use mvm_flow::{
        abi::{Answer, Command, Line},
        id::{Epoch, UnixMillis},
        record::Digest,
    };
    use mvm_queue::{Change, JobSpec, Queue, RequestId};

    use super::*;

    #[test]
    fn nothing_a_workflow_said_becomes_markup() {
        let command = Command::Log(Line::Info("<script>".into()));
        let records = vec![
            Record::Taken {
                epoch: Epoch(1),
                by: "<b>".into(),
                at: UnixMillis(0),
            },
            Record::Answered {
                digest: Digest::of(&command, &[]),
                what: Some(What::of(&command)),
                answer: Answer::String("<i>".into()),
                secret: None,
                message: None,
                at: UnixMillis(7),
            },
        ];
        let mut queue = Queue::new();
        let payload = serde_json::json!({ "module": "<u>", "workflow": "<s>", "input": "<img>" });
        let submit = mvm_queue::Command {
            request: RequestId("r".into()),
            at: mvm_queue::UnixMillis(0),
            change: Change::Submit {
                job: JobId("wkf_0000000000001".into()),
                submitted_on: 1,
                spec: Box::new(JobSpec::new("flow", payload)),
                tick: None,
            },
        };
        queue.apply(&submit).unwrap();
        let job = queue.job(&JobId("wkf_0000000000001".into())).unwrap();
        let html = render(job, None, &Ok(records));
        for markup in ["<script>", "<b>", "<i>", "<u>", "<s>", "<img>"] {
            assert!(!html.contains(markup), "{markup} in {html}");
        }
        for shown in [
            "taken by &lt;b&gt;",
            "1970-01-01T00:00:00.007Z",
            "&lt;script&gt;",
        ] {
            assert!(html.contains(shown), "{shown} in {html}");
        }
    }
}
