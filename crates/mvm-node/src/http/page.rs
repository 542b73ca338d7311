//! The page for people at `/`: the cluster and the latest jobs as this node sees them.
//!
//! Rendered here, without scripts or anything fetched from elsewhere, so that it shows on a
//! machine without internet and on a node that is cut off.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse},
};

use super::{App, redact};
use mvm_queue::{Answer, FLOW_KIND, Filter, Job, Order, Query, UnixMillis};

use crate::{
    consensus::{Barrier, Reading},
    id,
    store::{Deadline, Status, Store},
};

/// The latest jobs shown.
const JOBS_SHOWN: u32 = 20;

/// A payload is cut after so many characters.
const PAYLOAD_CHARS_SHOWN: usize = 120;

/// Nothing may be loaded, whatever a job's payload contains.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) const STYLE: &str = include_str!("page.css");

/// `GET /`
pub(super) async fn page<S: Store>(State(app): State<Arc<App<S>>>) -> impl IntoResponse {
    let status = app.store.status().await;
    let query = Query::List {
        after: None,
        limit: JOBS_SHOWN,
        order: Order::NewestFirst,
        filter: Filter::default(),
    };
    let reading = app
        .store
        .read(Barrier::Local, query, Deadline::starting_now())
        .await;
    let html = render(&status, &reading, id::now());
    (
        [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Html(html),
    )
}

fn render(status: &Status, reading: &Reading, now: UnixMillis) -> String {
    let (class, word) = match &status.unavailable {
        None => ("good", "has a quorum".to_owned()),
        Some(cause) => ("bad", cause.to_string()),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>mvm-ci node {node}</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <header><h1>mvm-ci <span>node {node}</span></h1><p class=\"{class}\">{word}</p></header>\n\
         <h2>Cluster</h2>\n<p>term {term}, log {last}, applied {applied}</p>\n{members}\n\
         <h2>Latest jobs</h2>\n<p>as this node's replica has them, newest first</p>\n{jobs}\n\
         <footer><a href=\"/cluster\">/cluster</a> <a href=\"/queue/list\">/queue/list</a> \
         <a href=\"/queue/stats\">/queue/stats</a> <a href=\"/ready\">/ready</a></footer>\n</body>\n</html>\n",
        node = status.node,
        word = escape(&word),
        term = status.term,
        last = status.last_log_index,
        applied = status.applied_index,
        members = members(status),
        jobs = jobs(reading, now),
    )
}

fn members(status: &Status) -> String {
    let mut table = String::from("<table><tr><th>node<th>address<th>role</tr>");
    for member in &status.members {
        let role = match (status.leader == Some(member.id), member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "not joined",
        };
        let own = if member.id == status.node {
            " (this one)"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = write!(
            table,
            "<tr><td>{}{own}<td>{}<td>{role}</tr>",
            member.id,
            escape(&member.http)
        );
    }
    table + "</table>"
}

fn jobs(reading: &Reading, now: UnixMillis) -> String {
    let jobs = match reading {
        Reading::Done {
            answer: Answer::Jobs { jobs, .. },
            ..
        } => jobs,
        Reading::Done { .. } => {
            return "<p class=\"bad\">the store answered another question</p>".into();
        }
        Reading::Unavailable { cause } => {
            return format!("<p class=\"bad\">{}</p>", escape(&cause.to_string()));
        }
        Reading::Broken { detail } => return format!("<p class=\"bad\">{}</p>", escape(detail)),
    };
    if jobs.is_empty() {
        return "<p>none yet</p>".into();
    }
    let rows: String = jobs.iter().map(|job| row(job, now)).collect();
    format!(
        "<table><tr><th>id<th>kind<th>state<th>node<th>worker<th>age<th>payload</tr>{rows}</table>"
    )
}

fn row(job: &Job, now: UnixMillis) -> String {
    let payload: String = redact::shown(&job.spec)
        .payload
        .to_string()
        .chars()
        .take(PAYLOAD_CHARS_SHOWN)
        .collect();
    let id = escape(&job.id.0);
    let id = match job.spec.kind == FLOW_KIND {
        true => format!("<a href=\"/workflows/{id}\">{id}</a>"),
        false => id,
    };
    format!(
        "<tr><td><code>{id}</code><td>{kind}<td><span class=\"state {state}\">{state}</span><td>{node}<td>{worker}\
         <td>{age}<td><code>{payload}</code></tr>",
        kind = escape(&job.spec.kind),
        state = job.state,
        node = job.submitted_on,
        worker = escape(job.claimed_by.as_deref().unwrap_or("")),
        age = age(now.0.saturating_sub(job.created_at_ms.0)),
        payload = escape(&payload),
    )
}

/// A duration as one would say it. Clocks of two nodes may disagree, so it may be below zero.
fn age(millis: i64) -> String {
    match millis / 1_000 {
        ..1 => "now".into(),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn escape(text: &str) -> String {
    text.chars().fold(
        String::with_capacity(text.len()),
        |mut escaped, character| {
            match character {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '"' => escaped.push_str("&quot;"),
                '\'' => escaped.push_str("&#39;"),
                other => escaped.push(other),
            }
            escaped
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvm_queue::{Change, Command, FencingToken, JobId, JobSpec, Queue, RequestId};

    use crate::consensus::Unavailable;

    fn status(unavailable: Option<Unavailable>) -> Status {
        Status {
            node: 2,
            members: vec![],
            leader: None,
            term: 3,
            last_log_index: 5,
            applied_index: 4,
            unavailable,
        }
    }

    #[test]
    fn nothing_a_client_sent_becomes_markup() {
        let mut queue = Queue::new();
        let changes = [
            Change::Submit {
                job: JobId("<i>".into()),
                submitted_on: 1,
                spec: Box::new(JobSpec::new(
                    "<b>",
                    serde_json::json!({ "x": "<script>'\"&" }),
                )),
                tick: None,
            },
            Change::Claim {
                node: 1,
                worker: "<img>".into(),
                slots: 1,
                labels: std::collections::BTreeSet::new(),
                kinds: std::collections::BTreeSet::new(),
            },
        ];
        for (request, change) in changes.into_iter().enumerate() {
            let command = Command {
                request: RequestId(request.to_string()),
                at: UnixMillis(0),
                change,
            };
            queue.apply(&command).unwrap();
        }
        let job = queue.job(&JobId("<i>".into())).unwrap().clone();
        assert_eq!(job.token, FencingToken(1));
        let reading = Reading::Done {
            answer: Answer::Jobs {
                jobs: vec![job],
                next: None,
            },
            log_index: 1,
        };
        let html = render(&status(None), &reading, UnixMillis(90_000));
        for markup in ["<i>", "<b>", "<script>", "<img>"] {
            assert!(!html.contains(markup), "{markup} in {html}");
        }
        assert!(
            html.contains("&lt;img&gt;") && html.contains("90 s"),
            "{html}"
        );
    }

    #[test]
    fn a_node_that_is_cut_off_says_so() {
        let reading = Reading::Unavailable {
            cause: Unavailable::Forming,
        };
        let html = render(
            &status(Some(Unavailable::NoLeader)),
            &reading,
            UnixMillis(0),
        );
        assert!(
            html.contains("knows no leader") && html.contains("still forming"),
            "{html}"
        );
    }

    #[test]
    fn ages_are_rounded_down() {
        for (millis, expected) in [
            (-5, "now"),
            (999, "now"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(age(millis), expected);
        }
    }
}
