//! How bodies and parameters look, as JSON Schema: what [`super::routes`] names.
//!
//! Written by hand, since the crates that derive schemas turn on features of serde's. Tests hold it against the handlers:
//! requests have the fields that serde reads, and no answer of a run has one that is not here.

use mvm_queue::{
    ATTEMPTS_MAX, CONCURRENCY_MAX, DEPENDENCIES_MAX, ERROR_BYTES_MAX, JobState, KEY_BYTES_MAX,
    KINDS_MAX, LABELS_MAX, PAUSE_MS_MAX, SLOTS_MAX, WORD_BYTES_MAX,
};
use serde_json::{Map, Value, json};

use super::{
    asking::IDEMPOTENCY_KEY_BYTES_MAX,
    queue::{KIND_BYTES_MAX, URL_BYTES_MAX},
};

/// Fields of an object, in the order in which they are told.
type Fields = Vec<(&'static str, Value)>;

/// All that routes refer to by name.
pub(super) fn named() -> Map<String, Value> {
    let named = requests()
        .into_iter()
        .chain(jobs())
        .chain(reads())
        .chain(node());
    named
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

fn requests() -> Fields {
    let kinds = || list(kind(), KINDS_MAX);
    let spec = object(
        vec![("kind", kind()), ("payload", payload())],
        optional_spec(),
    );
    let publish = object(vec![("kind", kind())], vec![("payload", payload())]);
    let offer = vec![
        ("slots", integer(1, SLOTS_MAX.into())),
        ("labels", labels()),
        ("kinds", kinds()),
    ];
    let asked = ["in_progress", "completed", "failed", "cancelled"];
    let schedule = object(
        vec![("cron", text()), ("job", reference("JobSpec"))],
        vec![("missed", missed())],
    );
    vec![
        ("JobSpec", spec),
        ("SetSchedule", schedule),
        ("Drain", object(vec![("draining", boolean())], vec![])),
        (
            "NewJob",
            object(
                vec![(
                    "url",
                    json!({
                        "type": "string",
                        "maxLength": URL_BYTES_MAX,
                        "pattern": "^https?://[^/?#\\s\\u0000-\\u001f\\u007f-\\u009f][^\\s\\u0000-\\u001f\\u007f-\\u009f]*$",
                    }),
                )],
                vec![
                    ("kind", json!({ "enum": ["fetch", "flow"] })),
                    ("module", text()),
                    ("workflow", text()),
                ],
            ),
        ),
        ("Publish", publish),
        ("Offer", object(vec![("worker", key())], offer)),
        (
            "ShortOffer",
            object(vec![("worker", key())], vec![("kinds", kinds())]),
        ),
        ("Held", object(vec![("token", token())], vec![])),
        (
            "Finish",
            object(
                vec![("token", token()), ("report", reference("Report"))],
                vec![],
            ),
        ),
        ("Report", report()),
        (
            "SetStatus",
            object(
                vec![("state", words(&asked))],
                vec![("token", or_null(token()))],
            ),
        ),
    ]
}

fn report() -> Value {
    let bare = |word: &str| object(vec![("report", json!({"const": word}))], vec![]);
    let error = json!({"type": "string", "maxLength": ERROR_BYTES_MAX, "pattern": "^[^\\u0000]*$"});
    json!({"oneOf": [
        object(vec![("report", json!({"const": "succeeded"})), ("result", payload())], vec![]),
        object(vec![("report", json!({"const": "failed"})), ("error", error), ("permanent", boolean())], vec![]),
        bare("timed_out"),
        bare("lost"),
        bare("cancelled"),
    ]})
}

/// What a client may say of a job, and what is left out where it is not said.
fn optional_spec() -> Fields {
    let attempts = || integer(1, ATTEMPTS_MAX.into());
    let pause = || integer(0, PAUSE_MS_MAX);
    vec![
        ("labels", labels()),
        (
            "priority",
            json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        ),
        ("run_after_ms", or_null(time())),
        ("attempts_max", attempts()),
        ("losses_max", attempts()),
        (
            "backoff",
            object(vec![("base_ms", pause()), ("max_ms", pause())], vec![]),
        ),
        ("timeout_ms", or_null(integer(1, PAUSE_MS_MAX))),
        (
            "concurrency",
            or_null(object(
                vec![
                    ("key", key()),
                    ("limit", integer(1, CONCURRENCY_MAX.into())),
                ],
                vec![],
            )),
        ),
        ("dependencies", dependencies()),
        ("on_dependency_failure", words(&["cancel", "run"])),
        ("idempotency_key", or_null(key())),
    ]
}

fn jobs() -> Fields {
    let always = vec![
        ("id", id()),
        ("kind", word()),
        ("payload", payload()),
        ("state", state()),
        ("created_at_ms", time()),
        ("updated_at_ms", time()),
        ("submitted_on", node_number()),
        ("claimed_by", or_null(text())),
        ("attempts", token()),
    ];
    let mut sometimes = optional_spec();
    sometimes.extend([
        ("waits_for", waits_for()),
        ("finished_at_ms", time()),
        ("schedule", text()),
        ("claimed_on", node_number()),
        ("failures", count()),
        ("losses", count()),
        ("cancel_requested", boolean()),
        ("paused", text()),
        ("wakes_at_ms", time()),
        ("error", text()),
        ("result", payload()),
    ]);
    let job = object(always, sometimes);
    let claim = object(
        vec![
            ("id", id()),
            ("token", token()),
            ("submitted_on", node_number()),
            ("kind", word()),
            ("payload", payload()),
        ],
        optional_spec(),
    );
    let set = vec![("name", key()), ("revision", signed()), ("next_ms", time())];
    let mut schedule = set.clone();
    schedule.extend([
        ("cron", text()),
        ("missed", missed()),
        ("job", reference("JobSpec")),
    ]);
    vec![
        ("Job", job),
        ("Claim", claim),
        (
            "Submitted",
            object(
                vec![
                    ("id", id()),
                    ("state", state()),
                    ("waits_for", or_null(waits_for())),
                ],
                vec![],
            ),
        ),
        (
            "Moved",
            object(vec![("id", id()), ("state", state())], vec![]),
        ),
        (
            "Renewed",
            object(
                vec![
                    ("renewals", count()),
                    ("cancel", boolean()),
                    ("pause", boolean()),
                ],
                vec![],
            ),
        ),
        (
            "Claims",
            object(
                vec![("claims", list(reference("Claim"), SLOTS_MAX as usize))],
                vec![],
            ),
        ),
        (
            "ShortClaim",
            object(
                vec![("job", reference("Claim")), ("token", token())],
                vec![],
            ),
        ),
        ("End", object(vec![("state", state())], vec![])),
        ("Schedule", object(schedule, vec![])),
        ("ScheduleSet", object(set, vec![])),
    ]
}

fn reads() -> Fields {
    let read = |mut fields: Fields| {
        fields.extend([("consistency", consistency()), ("log_index", count())]);
        object(fields, vec![])
    };
    let many = |name| json!({"type": "array", "items": reference(name)});
    let counts = object(
        JobState::ALL
            .map(|state| (state.as_str(), count()))
            .to_vec(),
        vec![],
    );
    let outcomes = ["succeeded", "failed", "timed_out", "lost", "cancelled"];
    let attempt = object(
        vec![
            ("token", token()),
            ("worker", text()),
            ("node", node_number()),
            ("claimed_at_ms", time()),
            ("log_next", count()),
            ("log_bytes", count()),
            ("log_dropped_bytes", count()),
        ],
        vec![
            ("started_at_ms", or_null(time())),
            ("ended_at_ms", or_null(time())),
            ("outcome", or_null(words(&outcomes))),
            ("error", or_null(text())),
        ],
    );
    let chunk = vec![
        ("number", count()),
        ("stream", stream()),
        ("at_ms", time()),
        ("text", text()),
    ];
    vec![
        ("JobRead", read(vec![("job", reference("Job"))])),
        (
            "Jobs",
            read(vec![("jobs", many("Job")), ("next", or_null(cursor()))]),
        ),
        ("Attempt", attempt),
        ("Attempts", read(vec![("attempts", many("Attempt"))])),
        ("Chunk", object(chunk, vec![])),
        ("Schedules", read(vec![("schedules", many("Schedule"))])),
        ("Log", read(vec![("chunks", many("Chunk"))])),
        ("Stats", read(vec![("counts", counts), ("total", count())])),
    ]
}

fn node() -> Fields {
    let known = || or_null(node_number());
    let member = object(
        vec![
            ("id", node_number()),
            ("http", text()),
            ("raft", text()),
            ("store", text()),
            ("voter", boolean()),
        ],
        vec![],
    );
    let cluster = vec![
        ("node", node_number()),
        ("leader", known()),
        ("term", count()),
        ("last_log_index", count()),
        ("applied_index", count()),
        ("quorum", boolean()),
        ("reason", or_null(text())),
        ("members", json!({"type": "array", "items": member})),
    ];
    let backup = vec![
        ("name", text()),
        ("created_at_ms", time()),
        ("bytes", count()),
    ];
    let each = json!({"type": "array", "items": reference("Backup")});
    let backups = vec![("node", node_number()), ("backups", each)];
    let worker = vec![
        ("node", node_number()),
        ("slots", count()),
        ("busy", count()),
        ("draining", boolean()),
        ("labels", labels()),
        ("kinds", json!({"type": "array", "items": kind()})),
    ];
    let problem = vec![
        (
            "type",
            json!({"type": "string", "pattern": "^urn:mvm-ci:[a-z-]+$"}),
        ),
        ("title", text()),
        ("status", integer(400, 599)),
        ("detail", text()),
    ];
    vec![
        (
            "Health",
            object(
                vec![
                    ("status", json!({"const": "live"})),
                    ("node", node_number()),
                ],
                vec![],
            ),
        ),
        (
            "Ready",
            object(
                vec![
                    ("status", json!({"const": "ready"})),
                    ("node", node_number()),
                    ("leader", known()),
                ],
                vec![],
            ),
        ),
        ("Cluster", object(cluster, vec![])),
        ("Node", object(worker, vec![])),
        ("Backup", object(backup, vec![])),
        ("Backups", object(backups, vec![])),
        (
            "Document",
            json!({"type": "object", "required": ["openapi", "info", "paths"]}),
        ),
        (
            "Problem",
            object(problem, vec![("hint", text()), ("request_id", text())]),
        ),
    ]
}

/// An object that has these fields and no others.
fn object(always: Fields, sometimes: Fields) -> Value {
    let required: Vec<&str> = always.iter().map(|(name, _)| *name).collect();
    let fields = always.into_iter().chain(sometimes);
    let properties: Map<String, Value> = fields
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn list(items: Value, items_max: usize) -> Value {
    json!({"type": "array", "items": items, "maxItems": items_max})
}

fn dependencies() -> Value {
    let mut dependencies = list(word(), DEPENDENCIES_MAX);
    dependencies["uniqueItems"] = true.into();
    dependencies
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn text() -> Value {
    json!({"type": "string"})
}

/// Any JSON.
fn payload() -> Value {
    json!({})
}

pub(super) fn integer(minimum: u64, maximum: u64) -> Value {
    json!({"type": "integer", "minimum": minimum, "maximum": maximum})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn signed() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX})
}

pub(super) fn token() -> Value {
    signed()
}

pub(super) fn cursor() -> Value {
    signed()
}

/// Milliseconds since the Unix epoch.
pub(super) fn time() -> Value {
    signed()
}

pub(super) fn node_number() -> Value {
    integer(0, u64::MAX)
}

pub(super) fn chunk_number() -> Value {
    integer(0, u32::MAX.into())
}

/// As they are made here; others can be asked for.
fn id() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": WORD_BYTES_MAX})
}

pub(super) fn path_id() -> Value {
    text()
}

fn word() -> Value {
    json!({"type": "string", "pattern": format!("^[A-Za-z0-9._:/+=-]{{1,{WORD_BYTES_MAX}}}$")})
}

fn kind() -> Value {
    json!({"type": "string", "pattern": format!("^[a-z0-9._-]{{1,{KIND_BYTES_MAX}}}$")})
}

fn labels() -> Value {
    list(word(), LABELS_MAX)
}

/// A name without control characters.
pub(super) fn key() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
}

pub(super) fn idempotency_key() -> Value {
    json!({"type": "string", "pattern": format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$")})
}

pub(super) fn event_id() -> Value {
    json!({"type": "string", "pattern": "^[0-9]{1,19}:[0-9]{1,10}$"})
}

pub(super) fn backup_name() -> Value {
    text()
}

pub(super) fn stream() -> Value {
    words(&["stdout", "stderr"])
}

pub(super) fn state() -> Value {
    words(&JobState::ALL.map(JobState::as_str))
}

/// What becomes of ticks that nobody could fire.
fn missed() -> Value {
    words(&["once", "all", "skip"])
}

fn waits_for() -> Value {
    words(&[
        "dependencies",
        "run_after",
        "message",
        "paused",
        "backoff",
        "concurrency",
        "worker",
    ])
}

pub(super) fn consistency() -> Value {
    words(&["linearizable", "local"])
}

pub(super) fn order() -> Value {
    words(&["oldest_first", "newest_first"])
}
