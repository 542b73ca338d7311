//! The procedures of workflows and their modules.

use super::{
    ELIGIBLE, JOB, NEXT_RUN_AFTER, NOTE_DEPENDENTS, ONCE, Procedure, decide, decide_held, unless,
};
use crate::{
    job::FLOW_KIND,
    limits::{
        INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, JOURNAL_BYTES_MAX, JOURNAL_FRAMES_MAX, MODULES_MAX,
    },
};

/// Cuts the journal of a job that is retried, if that is asked for.
pub(super) const CUT: &str = "
    DELETE FROM frames WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND number >= NEW.keep_frames;
    UPDATE executions SET
        (frames, bytes) = (SELECT count(*), coalesce(sum(length(frames.bytes)), 0) FROM frames
            WHERE frames.job_seq = executions.job_seq),
        response = iif(response < NEW.keep_frames, response, NULL)
        WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND NEW.keep_frames IS NOT NULL;";

fn not_a_workflow() -> String {
    format!("WHEN job.kind <> '{FLOW_KIND}' THEN 'not_a_workflow'")
}

pub(super) fn append() -> Procedure {
    let of = |column: &str| format!("(SELECT {column} FROM executions WHERE job_seq = job.seq)");
    let (next, bytes) = (of("frames"), of("bytes"));
    Procedure {
        name: "call_append",
        arguments: &[
            "job", "token", "first", "places", "bytes", "consumed", "response",
        ],
        body: format!(
            "{ONCE} {decide} {unless}
            INSERT INTO frames (job_seq, number, bytes)
                SELECT {JOB}, NEW.first + place.key, coalesce(
                    substr(NEW.bytes, 1 + json_extract(place.value, '$[0]'), json_extract(place.value, '$[1]')), x'')
                FROM json_each(NEW.places) AS place ORDER BY place.key;
            DELETE FROM messages WHERE job_seq = {JOB} AND number IN (SELECT value FROM json_each(NEW.consumed));
            UPDATE executions SET frames = frames + json_array_length(NEW.places), bytes = bytes + length(NEW.bytes),
                response = coalesce(response, NEW.response) WHERE job_seq = {JOB};
            UPDATE requests SET number = number + json_array_length(NEW.places) WHERE id = NEW.request;",
            decide = decide_held(
                &format!(
                    "{not_a_workflow}
                    WHEN {next} <> NEW.first THEN 'journal_gap'
                    WHEN {bytes} + length(NEW.bytes) > {JOURNAL_BYTES_MAX}
                        OR {next} + json_array_length(NEW.places) > {JOURNAL_FRAMES_MAX} THEN 'journal_full'
                    ELSE 'appended'",
                    not_a_workflow = not_a_workflow(),
                ),
                ", number",
                &format!(", {next}")
            ),
            unless = unless("appended"),
        ),
    }
}

pub(super) fn send() -> Procedure {
    let length = "length(CAST(NEW.data AS BLOB))";
    Procedure {
        name: "call_send",
        arguments: &["job", "type", "data"],
        body: format!(
            "{ONCE} {decide} {unless}
            INSERT INTO messages (job_seq, number, type, data, bytes, sent_at_ms)
                SELECT job_seq, last_message + 1, NEW.type, NEW.data, {length}, NEW.at
                FROM executions WHERE job_seq = {JOB};
            UPDATE jobs SET waits_for = {ELIGIBLE}, updated_at_ms = NEW.at
                WHERE id = NEW.job AND waits_for = 'message';
            UPDATE requests SET (number, waits_for) = (SELECT last_message, waits_for
                    FROM jobs CROSS JOIN executions ON job_seq = jobs.seq WHERE jobs.id = NEW.job)
                WHERE id = NEW.request;",
            decide = decide(&format!(
                "{not_a_workflow}
                WHEN job.finished_at_ms IS NOT NULL THEN 'finished'
                WHEN EXISTS (SELECT 1 FROM executions WHERE job_seq = job.seq
                    AND (messages >= {INBOX_MESSAGES_MAX} OR message_bytes + {length} > {INBOX_BYTES_MAX}))
                    THEN 'inbox_full'
                ELSE 'sent'",
                not_a_workflow = not_a_workflow(),
            )),
            unless = unless("sent"),
        ),
    }
}

/// The attempt goes without a trace, unless the job was to be cancelled.
pub(super) fn park() -> Procedure {
    let of_attempt = format!("job_seq = {JOB} AND token = NEW.token");
    let pending = "(SELECT state FROM requests WHERE id = NEW.request) = 'pending'";
    Procedure {
        name: "call_park",
        arguments: &["job", "token", "until_ms", "seen", "reason"],
        body: format!(
            "{ONCE} {decide} {unless}
            DELETE FROM logs WHERE {of_attempt} AND {pending};
            DELETE FROM attempts WHERE {of_attempt} AND {pending};
            UPDATE attempts SET outcome = 'cancelled', ended_at_ms = NEW.at WHERE {of_attempt};
            UPDATE jobs SET run_after_ms = NEW.until_ms, updated_at_ms = NEW.at,
                state = iif(cancel_requested, 'cancelled', 'pending'),
                waits_for = CASE
                    WHEN cancel_requested THEN NULL
                    WHEN paused IS NOT NULL THEN 'paused'
                    WHEN NEW.seen IS NULL AND NEW.until_ms IS NOT NULL THEN 'run_after'
                    WHEN NEW.seen IS NULL OR EXISTS (SELECT 1 FROM messages
                        WHERE job_seq = jobs.seq AND number > NEW.seen) THEN {ELIGIBLE}
                    ELSE 'message' END,
                finished_at_ms = iif(cancel_requested, NEW.at, NULL),
                paused = iif(cancel_requested, NULL, paused),
                error = iif(cancel_requested, error, NEW.reason)
                WHERE id = NEW.job;
            UPDATE requests SET waits_for = (SELECT waits_for FROM jobs WHERE id = NEW.job) WHERE id = NEW.request;
            {NOTE_DEPENDENTS}",
            decide = decide_held(
                &format!("{} ELSE 'parked'", not_a_workflow()),
                ", state",
                ", iif(job.cancel_requested, 'cancelled', 'pending')"
            ),
            unless = unless("parked"),
        ),
    }
}

pub(super) fn pause() -> Procedure {
    Procedure {
        name: "call_pause",
        arguments: &["job", "reason"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE jobs SET paused = NEW.reason, waits_for = iif(state = 'pending', 'paused', NULL),
                updated_at_ms = NEW.at WHERE id = NEW.job;",
            decide = decide(&format!(
                "WHEN job.finished_at_ms IS NOT NULL OR (job.state <> 'pending' AND job.kind <> '{FLOW_KIND}')
                    THEN 'cannot_pause' ELSE 'paused'"
            )),
            unless = unless("paused"),
        ),
    }
}

pub(super) fn resume() -> Procedure {
    Procedure {
        name: "call_resume",
        arguments: &["job"],
        body: format!(
            "{ONCE} {decide} {unless}
            UPDATE jobs SET paused = NULL, updated_at_ms = NEW.at, waits_for = CASE
                    WHEN state <> 'pending' THEN NULL
                    WHEN dependencies_open > 0 THEN 'dependencies'
                    WHEN token = 0 AND run_after_ms IS NOT NULL THEN 'run_after'
                    ELSE {ELIGIBLE} END
                WHERE id = NEW.job;
            UPDATE requests SET waits_for = (SELECT waits_for FROM jobs WHERE id = NEW.job), flag = {NEXT_RUN_AFTER}
                WHERE id = NEW.request;",
            decide = decide("WHEN job.paused IS NULL THEN 'not_paused' ELSE 'resumed'"),
            unless = unless("resumed"),
        ),
    }
}

pub(super) fn put_chunk() -> Procedure {
    let stray = "NOT EXISTS (SELECT 1 FROM modules WHERE hash = NEW.hash)";
    Procedure {
        name: "call_put_chunk",
        arguments: &["hash", "number", "bytes"],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict) VALUES (NEW.request, NEW.digest, 'chunk_put');
            INSERT INTO strays (hash, at_ms) SELECT NEW.hash, NEW.at WHERE {stray}
                ON CONFLICT (hash) DO UPDATE SET at_ms = excluded.at_ms;
            INSERT INTO chunks (hash, number, bytes) SELECT NEW.hash, NEW.number, NEW.bytes WHERE {stray}
                ON CONFLICT (hash, number) DO UPDATE SET bytes = excluded.bytes;"
        ),
    }
}

pub(super) fn deploy() -> Procedure {
    Procedure {
        name: "call_deploy",
        arguments: &["name", "version", "hash", "bytes", "chunks"],
        body: format!(
            "{ONCE}
            INSERT INTO requests (id, digest, verdict, number, flag)
                SELECT NEW.request, NEW.digest, CASE
                    WHEN known.hash = NEW.hash THEN 'deployed_before'
                    WHEN known.seq IS NOT NULL THEN 'version_taken'
                    WHEN (SELECT count(*) FROM modules) >= {MODULES_MAX} THEN 'too_many_modules'
                    WHEN (stored.chunks, stored.bytes) <> (NEW.chunks, NEW.bytes) THEN 'module_incomplete'
                    ELSE 'deployed' END, stored.chunks, stored.bytes
                FROM (SELECT count(*) AS chunks, coalesce(sum(length(bytes)), 0) AS bytes FROM chunks
                    WHERE hash = NEW.hash AND number < NEW.chunks) AS stored
                LEFT JOIN modules AS known ON known.name = NEW.name AND known.version = NEW.version;
            {unless}
            DELETE FROM strays WHERE hash = NEW.hash;
            INSERT INTO modules (name, version, hash, bytes, chunks, deployed_at_ms)
                VALUES (NEW.name, NEW.version, NEW.hash, NEW.bytes, NEW.chunks, NEW.at);",
            unless = unless("deployed"),
        ),
    }
}
