//! What the journal of an execution says, and how it is written.
//!
//! A journal is a list of records, in the order in which the guest asked. Stores keep it as *frames*: pieces of bounded
//! size, numbered from 0, which they need not understand. A record of which not all frames are there was never finished, and
//! what comes after it begins anew.
//!
//! ```text
//!   frame = flags (1: a record begins here, 2: it ends here) + a piece of the record's JSON
//! ```
//!
//! The first record names the version of the format ([`FORMAT`]). A reader ignores fields it does not know; a change that
//! an older reader would misunderstand needs a new version, and this module reads all versions that there were.

use serde::{Deserialize, Serialize};

use crate::{
    abi::{Answer, Command, Line},
    id::{Epoch, ExecutionId, ModuleHash, UnixMillis},
};

/// The version of the records written here.
pub const FORMAT: u32 = 1;

/// The largest frame. A store may have to put it into one entry of a replicated log, twice encoded.
pub const FRAME_BYTES_MAX: usize = 48 * 1024;

const BEGINS: u8 = 1;
const ENDS: u8 = 2;

/// One thing that happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The execution began.
    Began {
        /// [`FORMAT`] of all that follows.
        format: u32,
        /// The module's name.
        module: String,
        /// Its version.
        version: String,
        /// Its bytes.
        hash: ModuleHash,
        /// The workflow.
        workflow: String,
    },
    /// An owner took it over; also the first one.
    Taken {
        /// Its epoch.
        epoch: Epoch,
        /// Its name.
        by: String,
        /// When.
        at: UnixMillis,
    },
    /// A request is about to be sent. Without an answer after it nobody knows whether it was.
    Asked {
        /// Which command.
        digest: Digest,
        /// The command in short.
        what: What,
        /// When.
        at: UnixMillis,
    },
    /// The guest waits.
    Waiting {
        /// Which command.
        digest: Digest,
        /// The command in short.
        what: What,
        /// Until when, by the wall clock.
        until: UnixMillis,
        /// Since when.
        at: UnixMillis,
    },
    /// The guest was told something.
    Answered {
        /// Which command.
        digest: Digest,
        /// The command in short; left out where it stands in the record before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        what: Option<What>,
        /// What it was told. A secret is not in it, see `secret`.
        answer: Answer,
        /// The secret that belongs into the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<SecretReference>,
        /// The message that is in the answer, by its number in the inbox.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<u64>,
        /// When.
        at: UnixMillis,
    },
}

/// Names a command with all its parameters: the first 8 bytes of the BLAKE3 hash of its JSON, in hexadecimal. Secrets in it count
/// as their names, so that who has the journal and not the secrets can replay it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Digest(pub String);

impl Digest {
    /// The digest of a command of a guest that has these secrets, as names and values.
    pub fn of(command: &Command, secrets: &[(String, String)]) -> Self {
        // The types of the interface have no maps with odd keys, and no other reason to have no JSON form.
        let mut text = serde_json::to_string(command).unwrap_or_default();
        mask(&mut text, secrets);
        Self(blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
    }
}

/// A secret that is not written down: its name, and by what one sees whether it still is the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SecretReference {
    /// Its name.
    pub name: String,
    /// The first 8 bytes of the BLAKE3 hash of the execution's id and the value, in hexadecimal.
    pub digest: String,
}

impl SecretReference {
    /// Refers to a value.
    pub fn to(execution: ExecutionId, name: &str, value: &str) -> Self {
        let text = format!("{execution}\0{name}\0{value}");
        Self {
            name: name.to_owned(),
            digest: blake3::hash(text.as_bytes()).to_hex()[..16].to_owned(),
        }
    }
}

/// A command in short, for people and for the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are the parameters of the commands")]
pub enum What {
    Log {
        level: String,
        text: String,
    },
    Response {
        text: String,
    },
    Random {
        kind: String,
    },
    Sleep {
        ms: u64,
    },
    Http {
        method: String,
        url: String,
        body_bytes: usize,
        idempotent: bool,
    },
    Secret {
        name: String,
    },
    Time,
    Receive {
        types: Vec<String>,
        timeout_ms: Option<u64>,
    },
    Start {
        workflow: String,
        input: String,
    },
    Input,
    Debug,
}

impl What {
    /// A command in short.
    pub fn of(command: &Command) -> Self {
        let ms = |duration: &std::time::Duration| {
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
        };
        match command {
            Command::GetInput => Self::Input,
            Command::Log(line) => Self::log(line),
            Command::SendResponse(text) => Self::Response { text: text.clone() },
            Command::Random(number) => Self::Random {
                kind: kind_of(*number).into(),
            },
            Command::Sleep(duration) => Self::Sleep { ms: ms(duration) },
            Command::HttpRequest(request) => Self::Http {
                method: request.method.clone(),
                url: request.url.clone(),
                // Four digits of base64 are three bytes.
                body_bytes: request.body.trim_end_matches('=').len() * 3 / 4,
                idempotent: request.config.idempotent,
            },
            Command::GetSecret(name) => Self::Secret { name: name.clone() },
            Command::TimeNow => Self::Time,
            Command::RecvMessage(timeout, types) => Self::Receive {
                types: types.clone(),
                timeout_ms: timeout.as_ref().map(ms),
            },
            Command::StartWorkflow(workflow, input) => Self::Start {
                workflow: workflow.clone(),
                input: input.clone(),
            },
            Command::ReplayDebug(_) => Self::Debug,
        }
    }

    fn log(line: &Line) -> Self {
        let (level, text) = line.parts();
        Self::Log {
            level: level.into(),
            text: text.into(),
        }
    }

    /// Replaces each of these values by the name of the secret that it is.
    pub fn masked(mut self, secrets: &[(String, String)]) -> Self {
        match &mut self {
            Self::Log { text, .. } => mask(text, secrets),
            Self::Http { url, .. } => mask(url, secrets),
            Self::Response { .. }
            | Self::Random { .. }
            | Self::Sleep { .. }
            | Self::Secret { .. }
            | Self::Time
            | Self::Receive { .. }
            | Self::Start { .. }
            | Self::Input
            | Self::Debug => {}
        }
        self
    }
}

/// Replaces each of these values by its name.
fn mask(text: &mut String, secrets: &[(String, String)]) {
    for (name, value) in secrets {
        if text.contains(value.as_str()) {
            *text = text.replace(value.as_str(), &stand_in(name));
        }
    }
}

/// What stands for a secret where it must not be seen, or is not known.
pub fn stand_in(name: &str) -> String {
    format!("[{name}]")
}

const fn kind_of(number: crate::abi::Number) -> &'static str {
    use crate::abi::Number;
    match number {
        Number::Bool(_) => "bool",
        Number::I32(_) => "i32",
        Number::I64(_) => "i64",
        Number::F32(_) => "f32",
        Number::F64(_) => "f64",
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |text: &str| -> String { text.chars().take(120).collect() };
        match self {
            Self::Log { level, text } => write!(formatter, "log {level} {:?}", short(text)),
            Self::Response { text } => write!(formatter, "respond {}", short(text)),
            Self::Random { kind } => write!(formatter, "random {kind}"),
            Self::Sleep { ms } => write!(formatter, "sleep {ms} ms"),
            Self::Http {
                method,
                url,
                body_bytes,
                idempotent,
            } => {
                write!(formatter, "{} {}", short(method), short(url))?;
                if *body_bytes > 0 {
                    write!(formatter, ", {body_bytes} bytes")?;
                }
                if *idempotent {
                    write!(formatter, ", idempotent")?;
                }
                Ok(())
            }
            Self::Secret { name } => write!(formatter, "secret {:?}", short(name)),
            Self::Time => formatter.write_str("time"),
            Self::Receive { types, timeout_ms } => {
                write!(formatter, "receive {}", short(&types.join(" or ")))?;
                match timeout_ms {
                    Some(ms) => write!(formatter, " within {ms} ms"),
                    None => Ok(()),
                }
            }
            Self::Start { workflow, .. } => write!(formatter, "start {:?}", short(workflow)),
            Self::Input => formatter.write_str("input"),
            Self::Debug => formatter.write_str("replay debug"),
        }
    }
}

/// A journal cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadJournal {
    #[error("frame {frame} of the journal is damaged: {why}")]
    Frame { frame: u64, why: String },
    #[error("record {record} of the journal is not understood: {why}")]
    Record { record: usize, why: String },
    #[error(
        "the journal has format {found}, which a newer version writes; this one reads up to {FORMAT}"
    )]
    Newer { found: u32 },
    #[error("the journal does not begin with the beginning")]
    NoBeginning,
}

/// Cuts a record into frames.
pub fn frames(record: &Record) -> Vec<Vec<u8>> {
    // As for `Digest`: there is no record without a JSON form.
    let bytes = serde_json::to_vec(record).unwrap_or_default();
    let pieces = bytes.chunks(FRAME_BYTES_MAX - 1);
    let last = pieces.len().saturating_sub(1);
    pieces
        .enumerate()
        .map(|(index, piece)| {
            let mut frame = Vec::with_capacity(piece.len() + 1);
            let begins = if index == 0 { BEGINS } else { 0 };
            let ends = if index == last { ENDS } else { 0 };
            frame.push(begins | ends);
            frame.extend_from_slice(piece);
            frame
        })
        .collect()
}

/// Puts frames together, and says with which frame each record begins. Records that were never finished are left out.
pub fn read<F: AsRef<[u8]>>(
    frames: impl IntoIterator<Item = F>,
) -> Result<Vec<(u64, Record)>, BadJournal> {
    let mut records = Vec::new();
    let mut begun: Option<(u64, Vec<u8>)> = None;
    for (number, frame) in (0..).zip(frames) {
        let damaged = |why: &str| BadJournal::Frame {
            frame: number,
            why: why.into(),
        };
        let (flags, piece) = frame
            .as_ref()
            .split_first()
            .ok_or_else(|| damaged("it is empty"))?;
        if *flags > BEGINS | ENDS {
            return Err(damaged("its flags are unknown"));
        }
        if flags & BEGINS != 0 {
            begun = Some((number, Vec::new()));
        }
        let (_, record) = begun
            .as_mut()
            .ok_or_else(|| damaged("its record has no beginning"))?;
        record.extend_from_slice(piece);
        if flags & ENDS != 0
            && let Some((first, record)) = begun.take()
        {
            let parsed = serde_json::from_slice(&record).map_err(|error| BadJournal::Record {
                record: records.len(),
                why: error.to_string(),
            })?;
            records.push((first, parsed));
        }
    }
    match records.first() {
        None => Ok(records),
        Some((_, Record::Began { format, .. })) if *format <= FORMAT => Ok(records),
        Some((_, Record::Began { format, .. })) => Err(BadJournal::Newer { found: *format }),
        Some(_) => Err(BadJournal::NoBeginning),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{HttpResponse, Number};

    fn began(format: u32) -> Record {
        Record::Began {
            format,
            module: "shop".into(),
            version: "1.0.0".into(),
            hash: ModuleHash("00".into()),
            workflow: "order".into(),
        }
    }

    fn answered(body: String) -> Record {
        answered_by(Answer::HttpResponse(Ok(HttpResponse {
            status_code: 200,
            url: "http://a/".into(),
            headers: vec![],
            body,
        })))
    }

    fn answered_by(answer: Answer) -> Record {
        Record::Answered {
            digest: Digest("0123456789abcdef".into()),
            what: None,
            answer,
            secret: None,
            message: None,
            at: UnixMillis(7),
        }
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(length in 0..4 * FRAME_BYTES_MAX, lost in 0_usize..3) {
            let records = [began(FORMAT), answered("x".repeat(length))];
            let mut all: Vec<_> = records.iter().flat_map(frames).collect();
            prop_assert!(all.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
            let whole = read(&all).unwrap();
            prop_assert_eq!(&whole, &[(0, records[0].clone()), (1, records[1].clone())]);
            // Without its last frames, the last record was never finished, and another may come after it.
            let lost = lost.min(all.len() - 1);
            all.truncate(all.len() - lost);
            let next = all.len() as u64;
            all.extend(frames(&records[0]));
            let rest: Vec<_> = read(&all).unwrap().into_iter().map(|(first, _)| first).collect();
            prop_assert_eq!(rest, if lost == 0 { vec![0, 1, next] } else { vec![0, next] });
        }

        /// A guest that is told another number than before goes another way.
        #[test]
        fn floats_are_read_to_the_last_bit(double in prop::num::f64::ANY, single in prop::num::f32::ANY) {
            prop_assume!(double.is_finite() && single.is_finite());
            let numbers = [Number::F64(double), Number::F32(single)];
            let records = numbers.map(|number| answered_by(Answer::Value(number)));
            let all: Vec<_> = [began(FORMAT)].iter().chain(&records).flat_map(frames).collect();
            let read: Vec<_> = read(&all).unwrap().into_iter().map(|(_, record)| record).collect();
            prop_assert_eq!(&read[1..], &records);
        }

        #[test]
        fn no_bytes_make_it_panic(frames: Vec<Vec<u8>>) {
            let _ = read(&frames);
        }
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let check = |frames: &[&[u8]], expected: expect_test::Expect| {
            expected.assert_eq(&read(frames).unwrap_err().to_string());
        };
        check(
            &[b""],
            expect!["frame 0 of the journal is damaged: it is empty"],
        );
        check(
            &[b"\x04{}"],
            expect!["frame 0 of the journal is damaged: its flags are unknown"],
        );
        check(
            &[b"\x02{}"],
            expect!["frame 0 of the journal is damaged: its record has no beginning"],
        );
        check(
            &[b"\x03{}"],
            expect![
                "record 0 of the journal is not understood: missing field `record` at line 1 column 2"
            ],
        );
        check(
            &[&frames(&answered(String::new()))[0]],
            expect!["the journal does not begin with the beginning"],
        );
        check(
            &[&frames(&began(2))[0]],
            expect![
                "the journal has format 2, which a newer version writes; this one reads up to 1"
            ],
        );
    }

    /// The format on disk: a change here must not make old journals unreadable.
    #[test]
    fn the_format_stays() {
        let check = |record: Record, expected: expect_test::Expect| {
            let frames = frames(&record);
            assert_eq!(frames.len(), 1);
            expected.assert_eq(std::str::from_utf8(&frames[0][1..]).unwrap());
            let back: Record = serde_json::from_slice(&frames[0][1..]).unwrap();
            assert_eq!(back, record);
        };
        check(
            began(1),
            expect![[
                r#"{"record":"began","format":1,"module":"shop","version":"1.0.0","hash":"00","workflow":"order"}"#
            ]],
        );
        let command =
            Command::RecvMessage(Some(std::time::Duration::from_secs(2)), vec!["paid".into()]);
        check(
            Record::Waiting {
                digest: Digest::of(&command, &[]),
                what: What::of(&command),
                until: UnixMillis(9),
                at: UnixMillis(7),
            },
            expect![[
                r#"{"record":"waiting","digest":"1b5492953c4a746c","what":{"command":"receive","types":["paid"],"timeout_ms":2000},"until":9,"at":7}"#
            ]],
        );
        check(
            answered("eA==".into()),
            expect![[
                r#"{"record":"answered","digest":"0123456789abcdef","answer":{"HTTPResponse":{"Ok":{"status_code":200,"url":"http://a/","headers":[],"body":"eA=="}}},"at":7}"#
            ]],
        );
    }

    #[test]
    fn secrets_are_masked_where_people_read() {
        let secrets = [("TOKEN".to_owned(), "s3cret".to_owned())];
        let what = What::log(&Line::Info("the token is s3cret".into())).masked(&secrets);
        assert_eq!(what.to_string(), "log info \"the token is [TOKEN]\"");
    }
}
