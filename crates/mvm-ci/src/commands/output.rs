//! How answers of nodes look: tables, colours by meaning, times; and lines of JSON.

use std::{
    io::{self, IsTerminal as _, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use mvm_queue::{JobState, UnixMillis};
use serde::Serialize;

use super::no_colour;

/// What a colour says. It never says it alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    Good,
    Bad,
    Doubtful,
    Moving,
    Plain,
}

impl Meaning {
    pub(super) const fn of(state: JobState) -> Self {
        match state {
            JobState::Completed => Self::Good,
            JobState::Failed | JobState::Dead => Self::Bad,
            JobState::Cancelled => Self::Doubtful,
            JobState::Claimed | JobState::InProgress => Self::Moving,
            JobState::Pending => Self::Plain,
        }
    }

    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Doubtful => Some("33"),
            Self::Moving => Some("36"),
            Self::Plain => None,
        }
    }
}

/// A piece of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    meaning: Meaning,
}

impl Cell {
    /// Text without a colour.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Meaning::Plain)
    }

    /// Text of a meaning. Control characters, which may come from anywhere, do not reach the terminal.
    pub(super) fn new(text: impl Into<String>, meaning: Meaning) -> Self {
        Self {
            text: printable(&text.into()),
            meaning,
        }
    }

    /// A state's word.
    pub(super) fn state(state: JobState) -> Self {
        Self::new(state.as_str(), Meaning::of(state))
    }
}

/// Text in one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = text.trim().chars();
    shown
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}

/// Writes rows in columns, with colours if standard output is a terminal that may have them.
pub(super) fn table(output: &mut impl Write, rows: &[Vec<Cell>]) -> io::Result<()> {
    let coloured = io::stdout().is_terminal() && !no_colour();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.text.chars().count() + 2);
            match cell.meaning.code().filter(|_| coloured) {
                Some(code) => line += &format!("\u{1b}[{code}m{}\u{1b}[0m{padding}", cell.text),
                None => line += &(cell.text.clone() + &padding),
            }
        }
        writeln!(output, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes a line of JSON.
pub(super) fn json_line(output: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")
}

/// Says something to people, beside the data.
pub(super) fn say(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "mvm-ci: {text}")
}

/// A time of RFC 3339, to the second.
pub(super) fn time(at: UnixMillis) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => format!("{} ms", at.0),
    }
}

/// How long ago that was, to the unit that tells enough.
pub(super) fn age(at: UnixMillis) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    match now.saturating_sub(at.0) / 1_000 {
        ..1 => "now".into(),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_terminals_are_safe() {
        let rows = [
            vec![Cell::plain("id"), Cell::plain("why")],
            vec![Cell::plain("caf\u{e9}"), Cell::plain("\u{1b}[2Jgone\nby")],
        ];
        let mut written = Vec::new();
        table(&mut written, &rows).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "id    why\ncaf\u{e9}   [2Jgone by\n"
        );
        assert_eq!(time(UnixMillis(1_763_916_000_999)), "2025-11-23T16:40:00Z");
    }
}
