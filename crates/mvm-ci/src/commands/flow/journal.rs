//! `mvm-ci flow journal` and `logs`: what a workflow did and said.

use std::io::{self, Write as _};

use jiff::Timestamp;
use mvm_flow::{
    abi::{Answer, HttpError, Number},
    api::Entry,
    id::UnixMillis,
    record::{Record, What},
};

use super::client::Client;
use crate::{
    cli::OneFlowArgs,
    commands::output::{self, Cell, Meaning, printable},
};

/// Longer texts are cut.
const TEXT_CHARS_MAX: usize = 120;

pub(super) async fn journal(arguments: &OneFlowArgs) -> anyhow::Result<()> {
    let entries = Client::new(&arguments.engine)?
        .journal(arguments.id)
        .await?;
    let mut output = io::stdout().lock();
    if arguments.engine.json {
        for entry in &entries {
            output::json_line(&mut output, entry)?;
        }
        return Ok(());
    }
    let titles = ["FRAME", "AT", "RECORD", "WHAT"];
    let mut rows = vec![titles.map(Cell::plain).to_vec()];
    rows.extend(entries.iter().map(row));
    Ok(output::table(&mut output, &rows)?)
}

pub(super) async fn logs(arguments: &OneFlowArgs) -> anyhow::Result<()> {
    let lines = Client::new(&arguments.engine)?.logs(arguments.id).await?;
    let mut output = io::stdout().lock();
    for line in &lines {
        if arguments.engine.json {
            output::json_line(&mut output, line)?;
        } else {
            let (at, text) = (time(line.at), printable(&line.text));
            writeln!(output, "{at} {:<5} {text}", printable(&line.level))?;
        }
    }
    Ok(())
}

fn row(entry: &Entry) -> Vec<Cell> {
    let (at, record, what) = told(&entry.record);
    let meaning = match &entry.record {
        Record::Answered {
            answer: Answer::HttpResponse(Err(_)) | Answer::Timeout,
            ..
        } => Meaning::Doubtful,
        Record::Answered {
            what: Some(What::Log { level, .. }),
            ..
        } if level == "error" => Meaning::Bad,
        _ => Meaning::Plain,
    };
    vec![
        Cell::plain(entry.frame.to_string()),
        Cell::plain(at.map_or_else(String::new, time)),
        Cell::plain(record),
        Cell::new(what, meaning),
    ]
}

/// When, what sort of record it is, and what it says.
fn told(record: &Record) -> (Option<UnixMillis>, &'static str, String) {
    match record {
        Record::Began {
            format,
            module,
            version,
            hash: _,
            workflow,
        } => {
            let what = format!("{workflow} of {module}:{version}, format {format}");
            (None, "began", what)
        }
        Record::Taken { epoch, by, at } => {
            (Some(*at), "taken", format!("by {by}, owner {}", epoch.0))
        }
        Record::Asked { what, at, .. } => (Some(*at), "asked", what.to_string()),
        Record::Waiting {
            what, until, at, ..
        } => {
            let what = format!("{what}, until {}", time(*until));
            (Some(*at), "waiting", what)
        }
        Record::Answered {
            what,
            answer,
            secret,
            at,
            ..
        } => {
            let answer = match secret {
                Some(_) => "given, not written down".to_owned(),
                None => answered(answer),
            };
            let what = match what {
                Some(What::Log { level, text }) => format!("log {level}: {}", short(text)),
                Some(what) => format!("{what}: {answer}"),
                None => answer,
            };
            (Some(*at), "answered", what)
        }
    }
}

fn answered(answer: &Answer) -> String {
    match answer {
        Answer::Unit => "done".into(),
        Answer::Value(Number::Bool(value)) => value.to_string(),
        Answer::Value(Number::I32(value)) => value.to_string(),
        Answer::Value(Number::I64(value)) => value.to_string(),
        Answer::Value(Number::F32(value)) => value.to_string(),
        Answer::Value(Number::F64(value)) => value.to_string(),
        Answer::String(text) => short(text),
        Answer::ResponseSent(true) => "taken".into(),
        Answer::ResponseSent(false) => "nobody was there to take it".into(),
        Answer::HttpResponse(Ok(response)) => format!("status {}", response.status_code),
        Answer::HttpResponse(Err(HttpError::Status(status, _))) => format!("status {status}"),
        Answer::HttpResponse(Err(HttpError::Transport(error))) => {
            let message = error.message.as_deref().unwrap_or_default();
            format!("{:?}: {}", error.kind, short(message))
        }
        Answer::Time(time) => self::time(UnixMillis::of(*time)),
        Answer::Message(kind, data) => format!("{} {}", short(kind), short(data)),
        Answer::Timeout => "nothing came in time".into(),
        Answer::Secret(_) => "there is none".into(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// A time of RFC 3339, to the millisecond.
fn time(at: UnixMillis) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{} ms", at.0),
    }
}
