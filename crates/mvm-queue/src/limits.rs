//! What the queue accepts, and how much of it. Checked once, at the edge, before a command is made: the core and the
//! SQL behind it take accepted values for granted.

use std::collections::BTreeSet;

use crate::{command::Report, id::JobId, job::JobSpec};

/// A job's payload, as JSON text.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// A job's kind, a label, a worker's name.
pub const WORD_BYTES_MAX: usize = 128;
/// Labels of one job, or offered by one worker.
pub const LABELS_MAX: usize = 32;
/// Kinds one worker names.
pub const KINDS_MAX: usize = 32;
/// Jobs that one job may wait for.
pub const DEPENDENCIES_MAX: usize = 64;
/// Attempts, failed or lost, of one job.
pub const ATTEMPTS_MAX: u32 = 100;
/// A concurrency key's limit. Each claim and each ending of such a job looks at so many others at most.
pub const CONCURRENCY_MAX: u32 = 100;
/// The longest pause between attempts, and the longest timeout: thirty days.
pub const PAUSE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// An idempotency key, a concurrency key, a schedule's name.
pub const KEY_BYTES_MAX: usize = 128;
/// Jobs given to a worker by one claim.
pub const SLOTS_MAX: u32 = 64;
/// Distinct pairs of kind and label set among unfinished jobs: the `S` in a claim's cost of `S log n`.
pub const LANES_MAX: usize = 512;
/// Schedules.
pub const SCHEDULES_MAX: usize = 1_000;
/// One log chunk.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Log of one attempt that the store keeps.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// A result, as JSON text.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;
/// An error text.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;
/// Steps of one housekeeping command (due jobs, settled dependencies, removed jobs).
pub const STEPS_MAX: u32 = 64;
/// Frames that one append adds.
pub const APPEND_FRAMES_MAX: usize = 1_024;
/// The frames of one append, together.
pub const APPEND_BYTES_MAX: usize = 64 * 1024;
/// Frames of one journal.
pub const JOURNAL_FRAMES_MAX: u64 = 100_000;
/// The frames of one journal, together.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A message, as JSON text.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Messages that wait in one inbox.
pub const INBOX_MESSAGES_MAX: u64 = 1_000;
/// The messages of one inbox, together.
pub const INBOX_BYTES_MAX: u64 = 1024 * 1024;
/// A module.
pub const MODULE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Chunks of one module: twice as many as it needs if all but the last are full.
pub const MODULE_CHUNKS_MAX: u32 = 512;
/// Modules.
pub const MODULES_MAX: usize = 1_000;
/// Frames of a removed job, and chunks of no module, that one step of a prune removes.
pub(crate) const PRUNE_FRAMES: usize = 64;
/// See [`PRUNE_FRAMES`].
pub(crate) const PRUNE_CHUNKS: usize = 64;

/// How many steps a housekeeping command takes that asks for so many.
pub(crate) fn steps_of(asked: u32) -> u32 {
    asked.clamp(1, STEPS_MAX)
}

/// Requests that the store remembers. Counted, not timed: replicas must agree on what to forget.
pub const REQUESTS_KEPT: i64 = 100_000;

/// Why something is not accepted. Nothing was proposed then.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which.
        what: &'static str,
    },
    /// Something is too long or too many.
    #[error("{what} has {found}; at most {allowed} are allowed")]
    TooLarge {
        /// Which, with its unit.
        what: &'static str,
        /// How much came.
        found: usize,
        /// How much may come.
        allowed: usize,
    },
    /// A number is out of its range.
    #[error("{what} is {found}; it must be from {lowest} to {highest}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What came.
        found: u64,
        /// The least.
        lowest: u64,
        /// The most.
        highest: u64,
    },
    /// A word has a character that words do not have.
    #[error("{what} {word:?} has other characters than letters, digits and . _ - : / + =")]
    BadWord {
        /// Which.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// A text has a control character.
    #[error("{what} {word:?} has a control character")]
    Control {
        /// Which.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// A module's hash is none.
    #[error("the module's hash {hash:?} is not 64 lower-case hexadecimal digits")]
    BadHash {
        /// What came instead.
        hash: String,
    },
    /// A dependency is named twice.
    #[error("the dependency {job} is named twice")]
    DependencyTwice {
        /// Which.
        job: JobId,
    },
    /// A schedule's job has something that only a single job can have.
    #[error("the job of a schedule has no {what}")]
    NotInSchedule {
        /// What.
        what: &'static str,
    },
    /// The cron line is not understood.
    #[error("the cron line {line:?} is not understood: {why}")]
    BadCron {
        /// The line.
        line: String,
        /// What the parser says.
        why: String,
    },
    /// The cron line is understood, and its time never comes.
    #[error("the cron line {line:?} never fires")]
    NeverFires {
        /// The line.
        line: String,
    },
}

impl JobSpec {
    /// Says whether the queue accepts this.
    pub fn validate(&self) -> Result<(), Invalid> {
        word("the kind", &self.kind)?;
        at_most(
            "the payload in bytes",
            self.payload.to_string().len(),
            PAYLOAD_BYTES_MAX,
        )?;
        labels("the list of labels", &self.labels)?;
        range(
            "attempts_max",
            self.attempts_max.into(),
            1,
            ATTEMPTS_MAX.into(),
        )?;
        range("losses_max", self.losses_max.into(), 1, ATTEMPTS_MAX.into())?;
        range(
            "the backoff's base_ms",
            self.backoff.base_ms,
            0,
            PAUSE_MS_MAX,
        )?;
        range("the backoff's max_ms", self.backoff.max_ms, 0, PAUSE_MS_MAX)?;
        if let Some(timeout_ms) = self.timeout_ms {
            range("timeout_ms", timeout_ms, 1, PAUSE_MS_MAX)?;
        }
        if let Some(concurrency) = &self.concurrency {
            key("the concurrency key", &concurrency.key)?;
            range(
                "the concurrency limit",
                concurrency.limit.into(),
                1,
                CONCURRENCY_MAX.into(),
            )?;
        }
        if let Some(idempotency_key) = &self.idempotency_key {
            key("the idempotency key", idempotency_key)?;
        }
        at_most(
            "the list of dependencies",
            self.dependencies.len(),
            DEPENDENCIES_MAX,
        )?;
        let mut named = BTreeSet::new();
        for job in &self.dependencies {
            word("a dependency", &job.0)?;
            if !named.insert(job) {
                return Err(Invalid::DependencyTwice { job: job.clone() });
            }
        }
        Ok(())
    }
}

impl Report {
    /// Says whether the queue accepts this.
    pub fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Succeeded { result } => at_most(
                "the result in bytes",
                result.to_string().len(),
                RESULT_BYTES_MAX,
            ),
            Self::Failed { error, .. } => text("the error", "the error in bytes", error),
            Self::TimedOut | Self::Lost | Self::Cancelled => Ok(()),
        }
    }
}

impl Report {
    /// A failure that the queue accepts whatever the text: cut to its limit, and without NULs.
    pub fn failed(error: &str, permanent: bool) -> Self {
        let mut error = error.replace('\0', "\u{fffd}");
        if error.len() > ERROR_BYTES_MAX {
            error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        }
        Self::Failed { error, permanent }
    }
}

/// Says whether a worker may offer this.
pub fn validate_offer(
    worker: &str,
    slots: u32,
    offered: &BTreeSet<String>,
    kinds: &BTreeSet<String>,
) -> Result<(), Invalid> {
    key("the worker's name", worker)?;
    range("the number of slots", slots.into(), 1, SLOTS_MAX.into())?;
    labels("the list of offered labels", offered)?;
    at_most("the list of kinds", kinds.len(), KINDS_MAX)?;
    kinds.iter().try_for_each(|kind| word("a kind", kind))
}

/// Says whether a reason to cancel or to pause is accepted.
pub fn validate_reason(reason: &str) -> Result<(), Invalid> {
    text("the reason", "the reason in bytes", reason)
}

/// Says whether an append is accepted. The response, if there is one, begins within the journal or these frames.
pub fn validate_append(
    first: u64,
    frames: &[Vec<u8>],
    consumed: &[u64],
    response: Option<u64>,
) -> Result<(), Invalid> {
    at_most("the list of frames", frames.len(), APPEND_FRAMES_MAX)?;
    let bytes = frames.iter().map(Vec::len).sum();
    at_most("the frames in bytes", bytes, APPEND_BYTES_MAX)?;
    range("the first frame", first, 0, JOURNAL_FRAMES_MAX)?;
    let inbox = usize::try_from(INBOX_MESSAGES_MAX).unwrap_or(usize::MAX);
    at_most("the list of consumed messages", consumed.len(), inbox)?;
    if let Some(response) = response {
        let next = first + frames.len() as u64;
        range("the response's frame", response, 0, next.saturating_sub(1))?;
    }
    Ok(())
}

/// Says whether a message is accepted.
pub fn validate_message(kind: &str, data: &serde_json::Value) -> Result<(), Invalid> {
    word("the message's type", kind)?;
    let bytes = data.to_string().len();
    at_most("the message in bytes", bytes, MESSAGE_BYTES_MAX)
}

/// Says whether a piece of a module is accepted.
pub fn validate_module_chunk(hash: &str, number: u32, bytes: &[u8]) -> Result<(), Invalid> {
    module_hash(hash)?;
    let highest = MODULE_CHUNKS_MAX - 1;
    range("the chunk's number", number.into(), 0, highest.into())?;
    let length = bytes.len() as u64;
    range("the chunk's length", length, 1, CHUNK_BYTES_MAX as u64)
}

/// Says whether a module is accepted.
pub fn validate_module(
    name: &str,
    version: &str,
    hash: &str,
    bytes: u64,
    chunks: u32,
) -> Result<(), Invalid> {
    word("the module's name", name)?;
    word("the module's version", version)?;
    module_hash(hash)?;
    range("the module's length", bytes, 1, MODULE_BYTES_MAX)?;
    let most = MODULE_CHUNKS_MAX.into();
    range("the number of chunks", chunks.into(), 1, most)
}

fn module_hash(hash: &str) -> Result<(), Invalid> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if hash.len() == 64 && hash.bytes().all(digit) {
        Ok(())
    } else {
        Err(Invalid::BadHash {
            hash: hash.chars().take(80).collect(),
        })
    }
}

/// What people or workers write; SQLite's text functions end at a NUL.
fn text(what: &'static str, unit: &'static str, text: &str) -> Result<(), Invalid> {
    at_most(unit, text.len(), ERROR_BYTES_MAX)?;
    if text.contains('\0') {
        return Err(Invalid::Control {
            what,
            word: text.to_owned(),
        });
    }
    Ok(())
}

/// Says whether a log chunk of that size is accepted.
pub fn validate_chunk(bytes: &[u8]) -> Result<(), Invalid> {
    at_most("the log chunk in bytes", bytes.len(), CHUNK_BYTES_MAX)
}

fn labels(what: &'static str, labels: &BTreeSet<String>) -> Result<(), Invalid> {
    at_most(what, labels.len(), LABELS_MAX)?;
    labels.iter().try_for_each(|label| word("a label", label))
}

fn word(what: &'static str, word: &str) -> Result<(), Invalid> {
    key(what, word)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/+=".contains(&byte);
    if word.bytes().all(fits) {
        Ok(())
    } else {
        Err(Invalid::BadWord {
            what,
            word: word.to_owned(),
        })
    }
}

pub(crate) fn key(what: &'static str, key: &str) -> Result<(), Invalid> {
    if key.is_empty() {
        return Err(Invalid::Empty { what });
    }
    at_most(what, key.len(), KEY_BYTES_MAX.min(WORD_BYTES_MAX))?;
    // SQLite's text functions end at a NUL, and the others take six bytes each in JSON.
    if key.contains(char::is_control) {
        return Err(Invalid::Control {
            what,
            word: key.to_owned(),
        });
    }
    Ok(())
}

const fn at_most(what: &'static str, found: usize, allowed: usize) -> Result<(), Invalid> {
    if found > allowed {
        return Err(Invalid::TooLarge {
            what,
            found,
            allowed,
        });
    }
    Ok(())
}

const fn range(what: &'static str, found: u64, lowest: u64, highest: u64) -> Result<(), Invalid> {
    if found < lowest || found > highest {
        return Err(Invalid::OutOfRange {
            what,
            found,
            lowest,
            highest,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backoff::Backoff, job::Concurrency};

    #[track_caller]
    fn check(change: impl FnOnce(&mut JobSpec), expected: &str) {
        let mut spec = JobSpec::new("build", serde_json::json!({ "commit": "c633108" }));
        change(&mut spec);
        let found = spec
            .validate()
            .map_or_else(|invalid| invalid.to_string(), |()| "accepted".into());
        assert_eq!(found, expected);
    }

    #[test]
    fn a_spec_is_accepted_or_told_what_is_wrong() {
        check(|_| {}, "accepted");
        check(|spec| spec.kind = String::new(), "the kind is empty");
        check(
            |spec| spec.kind = "a b".into(),
            "the kind \"a b\" has other characters than letters, digits and . _ - : / + =",
        );
        check(
            |spec| spec.kind = "k".repeat(129),
            "the kind has 129; at most 128 are allowed",
        );
        check(
            |spec| spec.payload = "x".repeat(PAYLOAD_BYTES_MAX).into(),
            "the payload in bytes has 65538; at most 65536 are allowed",
        );
        check(
            |spec| spec.attempts_max = 0,
            "attempts_max is 0; it must be from 1 to 100",
        );
        check(
            |spec| spec.losses_max = 101,
            "losses_max is 101; it must be from 1 to 100",
        );
        check(
            |spec| {
                spec.backoff = Backoff {
                    base_ms: 0,
                    max_ms: u64::MAX,
                };
            },
            "the backoff's max_ms is 18446744073709551615; it must be from 0 to 2592000000",
        );
        check(
            |spec| {
                spec.concurrency = Some(Concurrency {
                    key: "deploy".into(),
                    limit: 0,
                });
            },
            "the concurrency limit is 0; it must be from 1 to 100",
        );
        check(
            |spec| spec.idempotency_key = Some("a\0".into()),
            "the idempotency key \"a\\0\" has a control character",
        );
        check(
            |spec| spec.dependencies = vec![JobId("j".into()), JobId("j".into())],
            "the dependency j is named twice",
        );
        check(
            |spec| spec.labels = (0..33).map(|label| format!("l{label}")).collect(),
            "the list of labels has 33; at most 32 are allowed",
        );
    }

    #[test]
    fn what_workflows_write_is_accepted_or_told_what_is_wrong() {
        let check = |found: Result<(), Invalid>, expected: &str| {
            let found = found.map_or_else(|invalid| invalid.to_string(), |()| "accepted".into());
            assert_eq!(found, expected);
        };
        let frames = vec![vec![0; APPEND_BYTES_MAX]];
        check(validate_append(0, &frames, &[], Some(0)), "accepted");
        check(validate_append(7, &[], &[1], None), "accepted");
        check(
            validate_append(0, &[frames[0].clone(), vec![0]], &[], None),
            "the frames in bytes has 65537; at most 65536 are allowed",
        );
        check(
            validate_append(4, &frames, &[], Some(5)),
            "the response's frame is 5; it must be from 0 to 4",
        );
        check(validate_message("approval", &true.into()), "accepted");
        check(
            validate_message("", &true.into()),
            "the message's type is empty",
        );
        let hash = "0f".repeat(32);
        check(validate_module_chunk(&hash, 0, &[0]), "accepted");
        check(
            validate_module_chunk(&hash, 512, &[0]),
            "the chunk's number is 512; it must be from 0 to 511",
        );
        check(
            validate_module("m", "1", &hash.to_uppercase(), 1, 1),
            &format!(
                "the module's hash {:?} is not 64 lower-case hexadecimal digits",
                hash.to_uppercase()
            ),
        );
        check(validate_module("m", "1.0", &hash, 1, 1), "accepted");
        check(
            validate_module("m", "1.0", &hash, MODULE_BYTES_MAX + 1, 257),
            "the module's length is 16777217; it must be from 1 to 16777216",
        );
        check(
            validate_reason("a\0"),
            "the reason \"a\\0\" has a control character",
        );
    }

    #[test]
    fn any_error_text_makes_a_report_that_is_accepted() {
        for text in ["", "a\0b", &"\u{1F600}".repeat(ERROR_BYTES_MAX)] {
            assert_eq!(Report::failed(text, false).validate(), Ok(()));
        }
        let raw = Report::Failed {
            error: "\0".into(),
            permanent: false,
        };
        assert!(raw.validate().is_err());
    }
}
