//! The procedures: one view with an `INSTEAD OF` trigger for each command. [`crate::sql`] tells how they work.
//!
//! `SELECT RAISE(IGNORE) WHERE ...` leaves a procedure and keeps what it has written.

mod flow;

use super::schema::{NEXT_RUN_AFTER, log_bytes_max};
use crate::{
    job::FLOW_KIND,
    limits::{LANES_MAX, PRUNE_CHUNKS, PRUNE_FRAMES, SCHEDULES_MAX},
};

/// A procedure.
pub(super) struct Procedure {
    /// The name of its view.
    pub(super) name: &'static str,
    /// What it is called with, after `request`, `digest` and `at`.
    pub(super) arguments: &'static [&'static str],
    body: String,
}

/// What every procedure is called with.
pub(super) const COMMON: [&str; 3] = ["request", "digest", "at"];

impl Procedure {
    fn create(&self) -> [String; 2] {
        let Self {
            name,
            arguments,
            body,
        } = self;
        let columns = [&COMMON[..], arguments].concat();
        let names = columns.join(", ");
        let nulls = vec!["NULL"; columns.len()].join(", ");
        [
            format!("CREATE VIEW {name} ({names}) AS SELECT {nulls}"),
            format!("CREATE TRIGGER {name}_do INSTEAD OF INSERT ON {name} BEGIN {body} END"),
        ]
    }
}

/// The statements that create all procedures.
pub(super) fn all() -> Vec<String> {
    list().iter().flat_map(Procedure::create).collect()
}

/// Every procedure.
pub(super) fn list() -> Vec<Procedure> {
    let mut procedures = vec![
        submit(),
        claim(),
        start(),
        renew(),
        log(),
        finish(),
        cancel(),
        retry(),
        ready(),
        due(),
        settle(),
        prune(),
        set_schedule(),
        skip_tick(),
        remove_schedule(),
        flow::append(),
        flow::send(),
        flow::park(),
        flow::pause(),
        flow::resume(),
        flow::put_chunk(),
        flow::deploy(),
    ];
    procedures.extend(of_version_2());
    procedures
}

/// What nodes of version 2 call while they may lead: they do not know the last argument.
fn of_version_2() -> [Procedure; 3] {
    let without_last = |name, arguments: &'static [&'static str]| {
        let columns = [&COMMON[..], arguments].concat();
        let values: Vec<String> = columns.iter().map(|name| format!("NEW.{name}")).collect();
        Procedure {
            name,
            arguments,
            body: format!("INSERT INTO {name}_3 VALUES ({}, NULL);", values.join(", ")),
        }
    };
    [
        without_last("call_cancel", &["job"]),
        without_last("call_retry", &["job"]),
        without_last("call_prune", &["step", "keep", "before_ms"]),
    ]
}

/// Leaves if the request was applied before.
const ONCE: &str =
    "SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request);";

/// Leaves if the decision was a refusal.
fn unless(verdict: &str) -> String {
    format!(
        "SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> '{verdict}');"
    )
}

/// Opens a request whose procedure is called in steps, and leaves unless this is its next step.
fn step(verdict: &str) -> String {
    format!(
        "INSERT INTO requests (id, digest, verdict, step, number, claims)
            SELECT NEW.request, NEW.digest, '{verdict}', 0, 0, '[]' WHERE NEW.step = 0
            ON CONFLICT (id) DO NOTHING;
         SELECT RAISE(IGNORE) WHERE NOT EXISTS (SELECT 1 FROM requests
            WHERE id = NEW.request AND digest = NEW.digest AND verdict = '{verdict}' AND step = NEW.step);"
    )
}

const PICKED: &str = "(SELECT picked FROM requests WHERE id = NEW.request)";
const JOB: &str = "(SELECT seq FROM jobs WHERE id = NEW.job)";

/// Where a job goes that nothing but its key may keep back.
const ELIGIBLE: &str = "iif(concurrency_key IS NULL, 'worker', 'concurrency')";

/// Decides about a job whose worker shows a token: the verdicts that all such commands share, then `cases`.
fn decide_held(cases: &str, columns: &str, values: &str) -> String {
    format!(
        "INSERT INTO requests (id, digest, job, before, verdict{columns})
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.state NOT IN ('claimed', 'in_progress') THEN 'lease_ended'
                {cases} END{values}
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job;"
    )
}

/// Decides about a job that is named without a token.
fn decide(cases: &str) -> String {
    format!(
        "INSERT INTO requests (id, digest, job, before, verdict)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                {cases} END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job;"
    )
}

/// Notes whether an end is to be told.
const NOTE_DEPENDENTS: &str = "UPDATE requests SET flag =
    EXISTS (SELECT 1 FROM settling WHERE on_seq = (SELECT seq FROM jobs WHERE id = NEW.job)) WHERE id = NEW.request;";

/// Whether the tick of the arguments is not the one that its schedule waits for.
const TICK_TAKEN: &str = "NOT EXISTS (SELECT 1 FROM schedules
    WHERE name = NEW.schedule AND revision = NEW.revision AND next_ms = NEW.tick_ms)";

const MOVE_TICK: &str = "UPDATE schedules SET next_ms = NEW.next_ms WHERE name = NEW.schedule;";

fn submit() -> Procedure {
    Procedure {
        name: "call_submit",
        arguments: &[
            "job",
            "submitted_on",
            "spec",
            "spec_digest",
            "kind",
            "labels",
            "priority",
            "run_after_ms",
            "attempts_max",
            "losses_max",
            "backoff",
            "timeout_ms",
            "concurrency_key",
            "concurrency_limit",
            "dependencies",
            "on_dependency_failure",
            "idempotency_key",
            "schedule",
            "revision",
            "tick_ms",
            "next_ms",
        ],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict, job, state, waits_for, detail)
                SELECT NEW.request, NEW.digest, CASE
                    WHEN known.spec_digest = NEW.spec_digest THEN 'existing'
                    WHEN known.seq IS NOT NULL THEN 'key_reused'
                    WHEN NEW.schedule IS NOT NULL AND {TICK_TAKEN} THEN 'tick_taken'
                    WHEN EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job) THEN 'id_taken'
                    WHEN missing IS NOT NULL THEN 'unknown_dependency'
                    WHEN NOT EXISTS (SELECT 1 FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels)
                        AND (SELECT count(*) FROM lanes) >= {LANES_MAX} THEN 'too_many_label_sets'
                    ELSE 'submitted' END,
                    coalesce(known.id, NEW.job), known.state, known.waits_for, missing
                FROM (SELECT (SELECT named.value FROM json_each(NEW.dependencies) AS named
                        WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = named.value)
                        ORDER BY named.key LIMIT 1) AS missing)
                LEFT JOIN jobs AS known ON known.idempotency_key = NEW.idempotency_key;
            {unless_submitted}
            INSERT INTO lanes (kind, labels, ready, unfinished) VALUES (NEW.kind, NEW.labels, 0, 0)
                ON CONFLICT (kind, labels) DO NOTHING;
            INSERT INTO jobs (id, spec, spec_digest, kind, labels, lane, priority, run_after_ms, attempts_max,
                    losses_max, backoff, timeout_ms, concurrency_key, concurrency_limit, on_dependency_failure,
                    dependencies_open, idempotency_key, schedule, submitted_on, created_at_ms, updated_at_ms,
                    finished_at_ms, state, waits_for, token, failures, losses, renewals, cancel_requested, error)
                SELECT NEW.job, NEW.spec, NEW.spec_digest, NEW.kind, NEW.labels,
                    (SELECT id FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels),
                    NEW.priority, NEW.run_after_ms, NEW.attempts_max, NEW.losses_max, NEW.backoff, NEW.timeout_ms,
                    NEW.concurrency_key, NEW.concurrency_limit, NEW.on_dependency_failure,
                    iif(doom IS NULL, open, 0), NEW.idempotency_key, NEW.schedule, NEW.submitted_on, NEW.at, NEW.at,
                    iif(doom IS NULL, NULL, NEW.at), iif(doom IS NULL, 'pending', 'cancelled'),
                    CASE WHEN doom IS NOT NULL THEN NULL
                        WHEN open > 0 THEN 'dependencies'
                        WHEN NEW.run_after_ms IS NOT NULL THEN 'run_after'
                        WHEN NEW.concurrency_key IS NOT NULL THEN 'concurrency'
                        ELSE 'worker' END,
                    0, 0, 0, 0, 0, doom
                FROM (SELECT
                    (SELECT count(*) FROM json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                        WHERE it.finished_at_ms IS NULL) AS open,
                    (SELECT 'dependency ' || it.id || ' ended as ' || it.state
                        FROM json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                        WHERE NEW.on_dependency_failure = 'cancel'
                            AND it.state IN ('failed', 'cancelled', 'dead')
                        ORDER BY named.key LIMIT 1) AS doom);
            INSERT INTO dependencies (on_seq, waiting)
                SELECT it.seq, added.seq FROM jobs AS added
                    JOIN json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                WHERE added.id = NEW.job AND added.state = 'pending' AND it.finished_at_ms IS NULL;
            DELETE FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels AND unfinished = 0;
            UPDATE requests SET (state, waits_for) = (SELECT state, waits_for FROM jobs WHERE id = NEW.job)
                WHERE id = NEW.request;
            {MOVE_TICK}",
            unless_submitted = unless("submitted"),
        ),
    }
}

fn claim() -> Procedure {
    let permitted = "lane.ready > 0
        AND (NEW.kinds IS NULL OR lane.kind IN (SELECT value FROM json_each(NEW.kinds)))
        AND NOT EXISTS (SELECT 1 FROM json_each(lane.labels) AS need
            WHERE need.value NOT IN (SELECT value FROM json_each(NEW.labels)))";
    Procedure {
        name: "call_claim",
        arguments: &["step", "node", "worker", "labels", "kinds"],
        body: format!(
            "{step}
            UPDATE requests SET picked = (
                SELECT seq FROM (
                    SELECT job.seq AS seq, job.priority AS priority, job.submitted_on = NEW.node AS own
                    FROM lanes AS lane CROSS JOIN jobs AS job ON job.seq = (
                        SELECT first.seq FROM jobs AS first
                        WHERE first.lane = lane.id AND first.waits_for = 'worker'
                        ORDER BY first.priority DESC, first.seq LIMIT 1)
                    WHERE {permitted}
                    UNION ALL
                    SELECT job.seq, job.priority, 1
                    FROM lanes AS lane CROSS JOIN jobs AS job ON job.seq = (
                        SELECT first.seq FROM jobs AS first
                        WHERE first.lane = lane.id AND first.submitted_on = NEW.node AND first.waits_for = 'worker'
                        ORDER BY first.priority DESC, first.seq LIMIT 1)
                    WHERE {permitted})
                ORDER BY priority DESC, own DESC, seq LIMIT 1)
                WHERE id = NEW.request;
            UPDATE requests SET step = iif(picked IS NULL, -1, step + 1) WHERE id = NEW.request;
            SELECT RAISE(IGNORE) WHERE {PICKED} IS NULL;
            UPDATE jobs SET state = 'claimed', waits_for = NULL, token = token + 1, renewals = 0,
                claimed_by = NEW.worker, claimed_on = NEW.node, updated_at_ms = NEW.at
                WHERE seq = {PICKED};
            INSERT INTO attempts (job_seq, token, worker, node, claimed_at_ms, log_next, log_bytes, log_dropped_bytes)
                SELECT seq, token, NEW.worker, NEW.node, NEW.at, 0, 0, 0 FROM jobs WHERE seq = {PICKED};
            UPDATE requests SET claims = json_insert(claims, '$[#]',
                    json_array(picked, (SELECT token FROM jobs WHERE seq = picked)))
                WHERE id = NEW.request;",
            step = step("claimed"),
        ),
    }
}

fn start() -> Procedure {
    Procedure {
        name: "call_start",
        arguments: &["job", "token"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE attempts SET started_at_ms = NEW.at WHERE job_seq = {JOB} AND token = NEW.token;
            UPDATE jobs SET state = 'in_progress', updated_at_ms = NEW.at WHERE id = NEW.job;",
            decide = decide_held(
                "WHEN job.state <> 'claimed' THEN 'illegal_transition' ELSE 'started'",
                "",
                ""
            ),
            unless = unless("started"),
        ),
    }
}

fn renew() -> Procedure {
    Procedure {
        name: "call_renew",
        arguments: &["job", "token"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE jobs SET renewals = renewals + 1 WHERE id = NEW.job;",
            decide = decide_held(
                "ELSE 'renewed'",
                ", number, flag",
                ", job.renewals + 1, job.cancel_requested + 2 * (job.paused IS NOT NULL)"
            ),
            unless = unless("renewed"),
        ),
    }
}

fn log() -> Procedure {
    // Within statements about the attempt.
    let kept = format!(
        "min(length(NEW.bytes), max(0, {} - log_bytes))",
        log_bytes_max()
    );
    let attempt = format!("job_seq = {JOB} AND token = NEW.token");
    let next = "(SELECT log_next FROM attempts WHERE job_seq = job.seq AND token = job.token)";
    Procedure {
        name: "call_log",
        arguments: &["job", "token", "number", "stream", "bytes"],
        body: format!(
            "{ONCE} {decide}
            UPDATE requests SET flag = (SELECT log_dropped_bytes FROM attempts WHERE {attempt}) WHERE id = NEW.request;
            {unless}
            INSERT INTO logs (job_seq, token, number, stream, at_ms, bytes)
                SELECT job_seq, token, NEW.number, NEW.stream, NEW.at, substr(NEW.bytes, 1, {kept})
                FROM attempts WHERE {attempt} AND {kept} > 0;
            UPDATE attempts SET log_next = log_next + 1, log_bytes = log_bytes + {kept},
                    log_dropped_bytes = log_dropped_bytes + length(NEW.bytes) - {kept}
                WHERE {attempt};
            UPDATE requests SET (number, flag) = (SELECT log_next, log_dropped_bytes FROM attempts WHERE {attempt})
                WHERE id = NEW.request;",
            decide = decide_held(
                &format!(
                    "WHEN NEW.number > {next} THEN 'log_gap' WHEN NEW.number < {next} THEN 'log_repeated' ELSE 'logged'"
                ),
                ", number",
                &format!(", {next}")
            ),
            unless = unless("logged"),
        ),
    }
}

/// Ends an attempt, for its worker and for the leader, which gives a cause.
fn finish() -> Procedure {
    let next = "CASE
        WHEN NEW.outcome = 'succeeded' THEN 'completed'
        WHEN job.cancel_requested OR NEW.outcome = 'cancelled' THEN 'cancelled'
        WHEN NEW.outcome = 'lost' THEN iif(job.losses + 1 >= job.losses_max, 'dead', 'pending')
        WHEN NEW.permanent THEN 'failed'
        WHEN job.failures + 1 < job.attempts_max THEN 'pending'
        ELSE iif(job.attempts_max = 1, 'failed', 'dead') END";
    Procedure {
        name: "call_finish",
        arguments: &["job", "token", "outcome", "permanent", "error", "result", "cause", "renewals"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE attempts SET outcome = NEW.outcome, ended_at_ms = NEW.at, error = NEW.error
                WHERE job_seq = {JOB} AND token = NEW.token;
            UPDATE jobs SET
                failures = failures + (NEW.outcome IN ('failed', 'timed_out')),
                losses = losses + (NEW.outcome = 'lost'),
                result = NEW.result,
                updated_at_ms = NEW.at,
                (state, waits_for, finished_at_ms, paused, error) = (SELECT ended.state,
                    CASE WHEN ended.state <> 'pending' THEN NULL
                        WHEN paused IS NOT NULL THEN 'paused'
                        WHEN NEW.outcome = 'lost' THEN {ELIGIBLE}
                        ELSE 'backoff' END,
                    iif(ended.state = 'pending', NULL, NEW.at),
                    iif(ended.state = 'pending', paused, NULL),
                    coalesce(iif(ended.state = 'cancelled' AND cancel_requested, jobs.error, NULL), NEW.error)
                    FROM requests AS ended WHERE ended.id = NEW.request)
                WHERE id = NEW.job;
            UPDATE requests SET (waits_for, number, detail) =
                (SELECT waits_for, failures, json_object('token', token, 'backoff', json(backoff))
                    FROM jobs WHERE id = NEW.job)
                WHERE id = NEW.request;
            {NOTE_DEPENDENTS}",
            decide = decide_held(
                "WHEN NEW.cause = 'lease' AND job.renewals <> NEW.renewals THEN 'renewed_since'
                WHEN NEW.cause = 'timeout' AND (job.state <> 'in_progress' OR job.timeout_ms IS NULL) THEN 'not_due'
                WHEN NEW.cause = 'cancel' AND NOT job.cancel_requested THEN 'not_due'
                WHEN NEW.cause IS NULL AND NEW.outcome IN ('succeeded', 'timed_out') AND job.state = 'claimed'
                    THEN 'illegal_transition'
                ELSE 'ended'",
                ", state",
                &format!(", {next}")
            ),
            unless = unless("ended"),
        ),
    }
}

fn cancel() -> Procedure {
    Procedure {
        name: "call_cancel_3",
        arguments: &["job", "reason"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE jobs SET updated_at_ms = NEW.at, cancel_requested = iif(state = 'pending', 0, 1),
                error = coalesce(NEW.reason, iif(state = 'pending' OR cancel_requested, error, NULL)),
                paused = iif(state = 'pending', NULL, paused),
                waits_for = NULL, finished_at_ms = iif(state = 'pending', NEW.at, NULL),
                state = iif(state = 'pending', 'cancelled', state)
                WHERE id = NEW.job;
            UPDATE requests SET state = (SELECT state FROM jobs WHERE id = NEW.job) WHERE id = NEW.request;
            {NOTE_DEPENDENTS}",
            decide = decide(
                "WHEN job.finished_at_ms IS NOT NULL THEN 'illegal_transition' ELSE 'cancelled'"
            ),
            unless = unless("cancelled"),
        ),
    }
}

fn retry() -> Procedure {
    Procedure {
        name: "call_retry_3",
        arguments: &["job", "keep_frames"],
        body: format!(
            "{ONCE} {decide} {unless} {cut}
            INSERT INTO lanes (kind, labels, ready, unfinished)
                SELECT kind, labels, 0, 0 FROM jobs WHERE id = NEW.job
                ON CONFLICT (kind, labels) DO NOTHING;
            DELETE FROM settling WHERE on_seq = {JOB};
            UPDATE jobs SET state = 'pending', waits_for = {ELIGIBLE}, failures = 0, losses = 0, cancel_requested = 0,
                error = NULL, finished_at_ms = NULL, updated_at_ms = NEW.at,
                lane = (SELECT lanes.id FROM lanes WHERE lanes.kind = jobs.kind AND lanes.labels = jobs.labels)
                WHERE id = NEW.job;",
            decide = decide(&format!(
                "WHEN job.state NOT IN ('failed', 'dead') THEN 'illegal_transition'
                WHEN NEW.keep_frames IS NOT NULL AND job.kind <> '{FLOW_KIND}' THEN 'not_a_workflow'
                WHEN NOT EXISTS (SELECT 1 FROM lanes WHERE kind = job.kind AND labels = job.labels)
                    AND (SELECT count(*) FROM lanes) >= {LANES_MAX} THEN 'too_many_label_sets'
                ELSE 'retried'"
            )),
            unless = unless("retried"),
            cut = flow::CUT,
        ),
    }
}

fn ready() -> Procedure {
    Procedure {
        name: "call_ready",
        arguments: &["job", "token"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE jobs SET waits_for = {ELIGIBLE}, updated_at_ms = NEW.at WHERE id = NEW.job;",
            decide = decide(
                "WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.waits_for IS NOT 'backoff' THEN 'not_due' ELSE 'ready'"
            ),
            unless = unless("ready"),
        ),
    }
}

fn due() -> Procedure {
    Procedure {
        name: "call_due",
        arguments: &["step", "now_ms"],
        body: format!(
            "{step}
            UPDATE requests SET step = step + 1, picked = (SELECT seq FROM jobs
                WHERE waits_for IN ('run_after', 'message') AND run_after_ms <= NEW.now_ms
                ORDER BY run_after_ms, seq LIMIT 1)
                WHERE id = NEW.request;
            UPDATE jobs SET waits_for = {ELIGIBLE}, updated_at_ms = NEW.at WHERE seq = {PICKED};
            UPDATE requests SET number = number + (picked IS NOT NULL),
                flag = {NEXT_RUN_AFTER}
                WHERE id = NEW.request;",
            step = step("due"),
        ),
    }
}

/// Tells one end to one that waits: `picked` is who waits, and the first of `settling` is what has ended.
fn settle() -> Procedure {
    let on = "(SELECT min(on_seq) FROM settling)";
    let helps = format!(
        "((SELECT state FROM jobs WHERE seq = {on}) = 'completed' OR on_dependency_failure = 'run')"
    );
    Procedure {
        name: "call_settle",
        arguments: &["step"],
        body: format!(
            "{step}
            UPDATE requests SET step = step + 1, picked = (SELECT waiting FROM dependencies
                WHERE on_seq = {on} ORDER BY waiting LIMIT 1)
                WHERE id = NEW.request;
            UPDATE jobs SET
                dependencies_open = dependencies_open - {helps},
                error = iif({helps}, error,
                    (SELECT 'dependency ' || it.id || ' ended as ' || it.state FROM jobs AS it WHERE it.seq = {on})),
                finished_at_ms = iif({helps}, NULL, NEW.at),
                updated_at_ms = iif({helps} AND dependencies_open > 1, updated_at_ms, NEW.at),
                state = iif({helps}, 'pending', 'cancelled'),
                paused = iif({helps}, paused, NULL),
                waits_for = CASE WHEN NOT {helps} THEN NULL
                    WHEN dependencies_open > 1 OR paused IS NOT NULL THEN waits_for
                    WHEN run_after_ms IS NOT NULL THEN 'run_after'
                    ELSE {ELIGIBLE} END
                WHERE seq = {PICKED} AND state = 'pending';
            DELETE FROM dependencies WHERE on_seq = {on} AND waiting = {PICKED};
            DELETE FROM settling WHERE on_seq = {on}
                AND NOT EXISTS (SELECT 1 FROM dependencies WHERE dependencies.on_seq = settling.on_seq);
            UPDATE requests SET number = number + (picked IS NOT NULL), flag = EXISTS (SELECT 1 FROM settling),
                detail = CAST({NEXT_RUN_AFTER} AS TEXT)
                WHERE id = NEW.request;",
            step = step("settled"),
        ),
    }
}

/// Removes, in one step: a finished job, some of the frames that are left of a removed one, or some chunks of no module.
fn prune() -> Procedure {
    let stray =
        "(SELECT hash FROM strays WHERE at_ms < NEW.chunks_before_ms ORDER BY at_ms, hash LIMIT 1)";
    Procedure {
        name: "call_prune_3",
        arguments: &["step", "keep", "before_ms", "chunks_before_ms"],
        body: format!(
            "{step}
            UPDATE requests SET step = step + 1, picked = coalesce((SELECT min(job_seq) FROM leftovers),
                (SELECT seq FROM (
                    SELECT seq, finished_at_ms AS ended FROM jobs
                    WHERE finished_at_ms IS NOT NULL
                        AND NOT EXISTS (SELECT 1 FROM settling WHERE on_seq = jobs.seq)
                    ORDER BY finished_at_ms, seq LIMIT 1)
                WHERE ended < NEW.before_ms OR NEW.keep < (SELECT sum(number) FROM state_counts
                    WHERE state IN ('completed', 'failed', 'cancelled', 'dead'))))
                WHERE id = NEW.request;
            DELETE FROM logs WHERE job_seq = {PICKED};
            DELETE FROM attempts WHERE job_seq = {PICKED};
            DELETE FROM messages WHERE job_seq = {PICKED};
            DELETE FROM executions WHERE job_seq = {PICKED};
            DELETE FROM dependencies WHERE waiting = {PICKED};
            DELETE FROM jobs WHERE seq = {PICKED};
            DELETE FROM frames WHERE job_seq = {PICKED} AND number IN (SELECT number FROM frames
                WHERE job_seq = {PICKED} ORDER BY number DESC LIMIT {PRUNE_FRAMES});
            DELETE FROM leftovers WHERE job_seq = {PICKED};
            INSERT INTO leftovers (job_seq) SELECT {PICKED}
                WHERE EXISTS (SELECT 1 FROM frames WHERE job_seq = {PICKED});
            UPDATE requests SET number = number + 1 WHERE id = NEW.request AND picked IS NOT NULL;
            SELECT RAISE(IGNORE) WHERE {PICKED} IS NOT NULL;
            UPDATE requests SET number = number + 1 WHERE id = NEW.request AND {stray} IS NOT NULL;
            DELETE FROM chunks WHERE hash = {stray} AND number IN (SELECT number FROM chunks
                WHERE hash = {stray} ORDER BY number LIMIT {PRUNE_CHUNKS});
            DELETE FROM strays WHERE hash = {stray}
                AND NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.hash = strays.hash);",
            step = step("pruned"),
        ),
    }
}

fn set_schedule() -> Procedure {
    Procedure {
        name: "call_set_schedule",
        arguments: &["schedule", "cron", "missed", "spec", "next_ms"],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict) SELECT NEW.request, NEW.digest, iif(
                NOT EXISTS (SELECT 1 FROM schedules WHERE name = NEW.schedule)
                    AND (SELECT count(*) FROM schedules) >= {SCHEDULES_MAX},
                'too_many_schedules', 'schedule_set');
            {unless}
            INSERT INTO schedules (name, revision, cron, missed, spec, next_ms)
                SELECT NEW.schedule, seq, NEW.cron, NEW.missed, NEW.spec, NEW.next_ms
                FROM requests WHERE id = NEW.request
                ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, cron = excluded.cron,
                    missed = excluded.missed, spec = excluded.spec, next_ms = excluded.next_ms;
            UPDATE requests SET number = seq WHERE id = NEW.request;",
            unless = unless("schedule_set"),
        ),
    }
}

fn skip_tick() -> Procedure {
    Procedure {
        name: "call_skip_tick",
        arguments: &["schedule", "revision", "tick_ms", "next_ms"],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict)
                SELECT NEW.request, NEW.digest, iif({TICK_TAKEN}, 'tick_taken', 'tick_skipped');
            {unless}
            {MOVE_TICK}",
            unless = unless("tick_skipped"),
        ),
    }
}

fn remove_schedule() -> Procedure {
    Procedure {
        name: "call_remove_schedule",
        arguments: &["schedule"],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict) SELECT NEW.request, NEW.digest,
                iif(EXISTS (SELECT 1 FROM schedules WHERE name = NEW.schedule), 'schedule_removed', 'unknown_schedule');
            DELETE FROM schedules WHERE name = NEW.schedule;"
        ),
    }
}
