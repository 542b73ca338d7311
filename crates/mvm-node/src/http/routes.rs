//! The one list of public routes: the router, the document at `/api/openapi.json` and the help texts are made from it.
//!
//! What a route does is its handler's; how bodies look is in [`super::schema`].

use std::sync::Arc;

use axum::{
    handler::Handler,
    routing::{MethodFilter, MethodRouter, on},
};
use mvm_queue::PAGE_MAX;
use serde_json::{Value, json};

use super::{
    App, backups, cluster, events, host, metrics, openapi, output, page, queue, schedules, schema,
    v1, workflow,
};
use crate::{auth::Scope, store::Store};

/// One public route, for help texts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path; `{id}` stands for a job's id, other words in braces for what they say.
    pub path: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What a client's token must allow, where the node asks for tokens; nothing where everybody may come in.
    pub scope: Option<Scope>,
}

/// A route with all that is known of it.
pub(super) struct Endpoint<S> {
    pub(super) route: Route,
    pub(super) handler: MethodRouter<Arc<App<S>>>,
    pub(super) operation: Operation,
}

/// What a route takes and answers, as the document tells it.
#[derive(Default)]
pub(super) struct Operation {
    pub(super) parameters: Vec<Parameter>,
    /// By content type: the name of a schema, and an example.
    pub(super) takes: Vec<(&'static str, &'static str, Value)>,
    pub(super) answers: Vec<Reply>,
    /// The answers that are problems.
    pub(super) problems: Vec<u16>,
}

pub(super) struct Parameter {
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) about: &'static str,
    pub(super) schema: Value,
}

/// An answer that is success.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Content,
}

pub(super) enum Content {
    Nothing,
    Html,
    /// As a job wrote them.
    Bytes,
    /// Of SQLite.
    Database,
    /// In a format of Prometheus.
    Metrics,
    /// By the name of its schema.
    Json(&'static str),
    /// Events by name, with the names of their data's schemas.
    Events(&'static [(&'static str, &'static str)]),
}

const OPEN: Option<Scope> = None;
const READ: Option<Scope> = Some(Scope::Read);
const SUBMIT: Option<Scope> = Some(Scope::Submit);
const WORKER: Option<Scope> = Some(Scope::Worker);
const ADMIN: Option<Scope> = Some(Scope::Admin);

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The public routes, in the order in which one gets to know them.
pub(super) fn endpoints<S: Store>() -> Vec<Endpoint<S>> {
    let mut endpoints = jobs();
    endpoints.extend(schedules());
    endpoints.extend(work());
    endpoints.extend(short_forms());
    endpoints.extend(node());
    endpoints
}

fn jobs<S: Store>() -> Vec<Endpoint<S>> {
    let submit = "submit a job (JSON: kind, payload, labels, priority ...)";
    vec![
        Endpoint::post(SUBMIT, "/api/v1/jobs", submit, v1::submit_job::<S>)
            .takes("JobSpec", json!({"kind": "build", "payload": {"commit": "c633108"}, "labels": ["linux"], "priority": 1}))
            .submits(),
        Endpoint::get(READ, "/api/v1/jobs", "jobs by page (limit, after, order, state, label ...)", v1::jobs::<S>).lists_jobs(),
        Endpoint::get(READ, "/api/v1/jobs/{id}", "one job", v1::job::<S>)
            .reads()
            .answers(200, "JobRead", "the job"),
        Endpoint::get(READ, "/api/v1/jobs/{id}/events", "its changes as they come (server-sent events)", events::job::<S>)
            .streams(&[("job", "Job"), ("end", "End")]),
        Endpoint::get(READ, "/api/v1/jobs/{id}/attempts", "the attempts at a job", v1::attempts::<S>)
            .reads()
            .answers(200, "Attempts", "the first one first; none before the first claim"),
        Endpoint::get(READ, "/api/v1/jobs/{id}/attempts/{attempt}/{stream}", "output beyond the log, from the disk of its node", output::output::<S>)
            .parameter("path", "attempt", true, "the attempt's token", schema::token())
            .parameter("path", "stream", true, "which of its two streams", schema::stream())
            .problem(503)
            .reply(200, "the first 32 MiB and the end of what it wrote", Content::Bytes)
            .reply(307, "another node has it", Content::Nothing),
        Endpoint::get(READ, "/api/v1/jobs/{id}/log", "the output of an attempt (attempt, from)", v1::log::<S>)
            .reads()
            .required_query("attempt", "the attempt's token", schema::token())
            .query("from", "the number of the first chunk", schema::chunk_number())
            .answers(200, "Log", "a page of chunks; none if there is no such attempt"),
        Endpoint::get(READ, "/api/v1/jobs/{id}/log/events", "its output as it comes (server-sent events)", events::log::<S>)
            .query("attempt", "follow this attempt only; else the latest, and those after it", schema::token())
            .query("from", "the number of the first chunk", schema::chunk_number())
            .header("Last-Event-ID", "the id of the last event that came: ATTEMPT:NEXT", schema::event_id())
            .streams(&[("chunk", "Chunk"), ("end", "End")]),
        Endpoint::post(SUBMIT, "/api/v1/jobs/{id}/cancel", "cancel a job", v1::cancel::<S>).moves(),
        Endpoint::post(SUBMIT, "/api/v1/jobs/{id}/retry", "try a failed or dead job again", v1::retry::<S>).moves(),
    ]
}

fn schedules<S: Store>() -> Vec<Endpoint<S>> {
    let example = || json!({"cron": "30 2 * * *", "job": {"kind": "report", "payload": {}}});
    vec![
        Endpoint::get(
            READ,
            "/api/v1/schedules",
            "what submits jobs at times",
            schedules::list::<S>,
        )
        .reads()
        .answers(200, "Schedules", "all of them, by name"),
        Endpoint::put(
            SUBMIT,
            "/api/v1/schedules/{name}",
            "submit a job at times (JSON: cron, job, missed)",
            schedules::set::<S>,
        )
        .named()
        .takes("SetSchedule", example())
        .changes()
        .answers(200, "ScheduleSet", "the schedule is in force"),
        Endpoint::delete(
            SUBMIT,
            "/api/v1/schedules/{name}",
            "submit it no more",
            schedules::remove::<S>,
        )
        .named()
        .changes()
        .problem(404)
        .reply(
            204,
            "there is no such schedule any more; jobs that it submitted stay",
            Content::Nothing,
        ),
    ]
}

fn work<S: Store>() -> Vec<Endpoint<S>> {
    vec![
        Endpoint::post(WORKER, "/api/v1/claims", "take jobs (JSON: worker, slots, labels, kinds)", v1::claim::<S>)
            .takes("Offer", json!({"worker": "builder-1", "slots": 2, "labels": ["linux"], "kinds": ["build"]}))
            .changes()
            .answers(200, "Claims", "the jobs that the worker has now"),
        Endpoint::post(WORKER, "/api/v1/jobs/{id}/start", "the worker begins (JSON: token)", v1::start::<S>)
            .takes("Held", json!({"token": 1}))
            .moves(),
        Endpoint::post(WORKER, "/api/v1/jobs/{id}/renew", "the worker lives (JSON: token)", v1::renew::<S>)
            .takes("Held", json!({"token": 1}))
            .changes()
            .problem(409)
            .answers(200, "Renewed", "the worker goes on holding the job"),
        Endpoint::post(WORKER, "/api/v1/jobs/{id}/finish", "the worker is done (JSON: token, report)", v1::finish::<S>)
            .takes("Finish", json!({"token": 1, "report": {"report": "failed", "error": "no space left", "permanent": false}}))
            .moves(),
        Endpoint::get(READ, "/api/v1/stats", "number of jobs in each state", v1::stats::<S>)
            .reads()
            .answers(200, "Stats", "every state with its number of jobs"),
    ]
}

fn short_forms<S: Store>() -> Vec<Endpoint<S>> {
    let fetch = || json!({"url": "https://example.org/"});
    vec![
        Endpoint::post(
            SUBMIT,
            "/new-job",
            "submit a job that fetches a URL, or with kind=flow runs a workflow with it (form or JSON: url, kind, module, workflow)",
            queue::new_job::<S>,
        )
        .takes("NewJob", fetch())
        .takes_as(FORM, "NewJob", fetch())
        .submits(),
        Endpoint::post(
            SUBMIT,
            "/queue/publish",
            "submit a job of any kind (JSON: kind, payload)",
            queue::publish::<S>,
        )
        .takes(
            "Publish",
            json!({"kind": "report", "payload": {"week": 47}}),
        )
        .submits(),
        Endpoint::post(
            WORKER,
            "/queue/claim",
            "take one job (JSON: worker, kinds)",
            queue::claim::<S>,
        )
        .takes(
            "ShortOffer",
            json!({"worker": "reporter", "kinds": ["report"]}),
        )
        .changes()
        .answers(200, "ShortClaim", "the job that the worker has now")
        .reply(204, "there is nothing to claim", Content::Nothing),
        Endpoint::post(
            WORKER,
            "/queue/status/{id}",
            "move a job on (JSON: state, token)",
            queue::set_status::<S>,
        )
        .takes("SetStatus", json!({"state": "in_progress", "token": 1}))
        .moves(),
        Endpoint::get(READ, "/queue/status/{id}", "one job", queue::status::<S>)
            .reads()
            .answers(200, "JobRead", "the job"),
        Endpoint::get(READ, "/queue/list", "as /api/v1/jobs", queue::list::<S>).lists_jobs(),
        Endpoint::get(READ, "/queue/stats", "as /api/v1/stats", queue::stats::<S>)
            .reads()
            .answers(200, "Stats", "every state with its number of jobs"),
    ]
}

fn node<S: Store>() -> Vec<Endpoint<S>> {
    vec![
        Endpoint::get(
            READ,
            "/api/v1/node",
            "this node's worker: slots, busy, draining",
            host::node::<S>,
        )
        .answers(200, "Node", "the worker of the node that answers"),
        Endpoint::post(
            ADMIN,
            "/api/v1/backups",
            "back up the queue, on every node",
            backups::make::<S>,
        )
        .problem(503)
        .problem(504)
        .problem(507)
        .answers(
            201,
            "Backup",
            "every node has a backup of this name but for its number",
        )
        .answers(200, "Backup", "there is one of this second"),
        Endpoint::get(
            ADMIN,
            "/api/v1/backups",
            "this node's backups",
            backups::list::<S>,
        )
        .problem(503)
        .answers(200, "Backups", "the newest first"),
        Endpoint::get(
            ADMIN,
            "/api/v1/backups/{backup}",
            "fetch a backup of this node",
            backups::fetch::<S>,
        )
        .parameter(
            "path",
            "backup",
            true,
            "the backup's name",
            schema::backup_name(),
        )
        .problem(404)
        .problem(503)
        .reply(200, "a database of SQLite", Content::Database),
        Endpoint::post(
            ADMIN,
            "/api/v1/node/drain",
            "take no more jobs, or take them again (JSON: draining)",
            host::drain::<S>,
        )
        .takes("Drain", json!({"draining": true}))
        .answers(200, "Node", "the worker of the node that answers"),
        Endpoint::get(
            OPEN,
            "/health",
            "200 while the process lives",
            cluster::health::<S>,
        )
        .answers(200, "Health", "the process lives"),
        Endpoint::get(
            OPEN,
            "/ready",
            "200 while this node reaches a leader with a quorum",
            cluster::ready::<S>,
        )
        .problem(503)
        .answers(200, "Ready", "a linearizable request would be served now"),
        Endpoint::get(
            READ,
            "/metrics",
            "what the node counts, for Prometheus",
            metrics::metrics::<S>,
        )
        .reply(
            200,
            "text of the format that Accept asks for",
            Content::Metrics,
        ),
        Endpoint::get(
            READ,
            "/cluster",
            "members, leader, term, log",
            cluster::cluster::<S>,
        )
        .answers(
            200,
            "Cluster",
            "what this node knows, also when it is cut off",
        ),
        Endpoint::get(
            READ,
            "/api/openapi.json",
            "all this, as an OpenAPI document",
            openapi::openapi::<S>,
        )
        .answers(200, "Document", "OpenAPI 3.1"),
        Endpoint::get(READ, "/", "a page for people", page::page::<S>).reply(
            200,
            "the page",
            Content::Html,
        ),
        Endpoint::get(
            READ,
            "/workflows/{id}",
            "a page for people about one workflow",
            workflow::page::<S>,
        )
        .reply(200, "the page", Content::Html)
        .problem(404)
        .problem(503),
    ]
}

impl<S: Store> Endpoint<S> {
    fn get<H: Handler<T, Arc<App<S>>>, T: 'static>(
        scope: Option<Scope>,
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(scope, "GET", path, summary, on(MethodFilter::GET, handler))
    }

    fn post<H: Handler<T, Arc<App<S>>>, T: 'static>(
        scope: Option<Scope>,
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(
            scope,
            "POST",
            path,
            summary,
            on(MethodFilter::POST, handler),
        )
    }

    fn put<H: Handler<T, Arc<App<S>>>, T: 'static>(
        scope: Option<Scope>,
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(scope, "PUT", path, summary, on(MethodFilter::PUT, handler))
    }

    fn delete<H: Handler<T, Arc<App<S>>>, T: 'static>(
        scope: Option<Scope>,
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(
            scope,
            "DELETE",
            path,
            summary,
            on(MethodFilter::DELETE, handler),
        )
    }

    fn new(
        scope: Option<Scope>,
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        handler: MethodRouter<Arc<App<S>>>,
    ) -> Self {
        let route = Route {
            method,
            path,
            summary,
            scope,
        };
        let endpoint = Self {
            route,
            handler,
            operation: Operation::default(),
        };
        // Whoever sends too much is told so, everywhere. A token of any scope may read.
        let guarded = match scope {
            None => endpoint.problem(429),
            Some(Scope::Read) => endpoint.problem(429).problem(401),
            Some(_) => endpoint.problem(429).problem(401).problem(403),
        };
        match path.contains("{id}") {
            true => guarded
                .parameter("path", "id", true, "the job's id", schema::path_id())
                .problem(404),
            false => guarded,
        }
    }

    fn parameter(
        mut self,
        place: &'static str,
        name: &'static str,
        required: bool,
        about: &'static str,
        schema: Value,
    ) -> Self {
        self.operation.parameters.push(Parameter {
            place,
            name,
            required,
            about,
            schema,
        });
        self.problem(400)
    }

    fn query(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter("query", name, false, about, schema)
    }

    fn required_query(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter("query", name, true, about, schema)
    }

    fn header(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter("header", name, false, about, schema)
    }

    fn reply(mut self, status: u16, about: &'static str, content: Content) -> Self {
        self.operation.answers.push(Reply {
            status,
            about,
            content,
        });
        self
    }

    fn answers(self, status: u16, schema: &'static str, about: &'static str) -> Self {
        self.reply(status, about, Content::Json(schema))
    }

    fn problem(mut self, status: u16) -> Self {
        if !self.operation.problems.contains(&status) {
            self.operation.problems.push(status);
        }
        self
    }

    fn takes(self, schema: &'static str, example: Value) -> Self {
        self.takes_as(JSON, schema, example)
    }

    fn takes_as(
        mut self,
        content_type: &'static str,
        schema: &'static str,
        example: Value,
    ) -> Self {
        self.operation.takes.push((content_type, schema, example));
        self.problem(400).problem(408).problem(413).problem(415)
    }

    /// Its path has a schedule's name.
    fn named(self) -> Self {
        self.parameter("path", "name", true, "the schedule's name", schema::key())
    }

    /// It reads with a barrier.
    fn reads(self) -> Self {
        self.query(
            "consistency",
            "local reads what this node has",
            schema::consistency(),
        )
        .problem(503)
    }

    /// It proposes a change.
    fn changes(self) -> Self {
        self.header(
            "Idempotency-Key",
            "names the request, which may then be repeated",
            schema::idempotency_key(),
        )
        .problem(422)
        .problem(503)
        .problem(504)
    }

    fn submits(self) -> Self {
        self.changes()
            .answers(201, "Submitted", "on the disks of a majority")
            .answers(200, "Submitted", "there was a job of that idempotency key")
    }

    /// It moves one job on.
    fn moves(self) -> Self {
        self.changes()
            .problem(409)
            .answers(200, "Moved", "the state that the job is in now")
    }

    fn lists_jobs(self) -> Self {
        self.reads()
            .query(
                "limit",
                "jobs on the page at most",
                schema::integer(1, PAGE_MAX.into()),
            )
            .query("after", "the next of the page before", schema::cursor())
            .query("order", "by submission", schema::order())
            .query("state", "only those in this state", schema::state())
            .query(
                "label",
                "only those that need this label",
                json!({"type": "string"}),
            )
            .query(
                "submitted_on",
                "only those that this node took",
                schema::node_number(),
            )
            .query(
                "claimed_on",
                "only those that a worker of this node claimed last",
                schema::node_number(),
            )
            .query(
                "created_from_ms",
                "only those submitted at this time or later",
                schema::time(),
            )
            .query(
                "created_before_ms",
                "only those submitted before this time",
                schema::time(),
            )
            .answers(
                200,
                "Jobs",
                "a page; it may be short, even empty, while there is a next",
            )
    }

    /// It answers with events until there are no more to come.
    fn streams(self, events: &'static [(&'static str, &'static str)]) -> Self {
        self.problem(503).reply(
            200,
            "events, from this node's replica",
            Content::Events(events),
        )
    }
}
