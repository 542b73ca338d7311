//! Events as JSON lines, the same as in the run folder.

use std::io::Write;

use serde::Serialize;

use crate::event::{Listener, Stamped};

/// Writes each event to `output` as one line of JSON, versioned by the first.
pub fn json_lines(output: impl Write + Send + 'static) -> Listener {
    lines(None, output)
}

/// As [`json_lines`], with a key `test` in each line, for runs that share an output.
pub fn json_lines_of(test: &str, output: impl Write + Send + 'static) -> Listener {
    lines(Some(test.to_owned()), output)
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<&'a str>,
    #[serde(flatten)]
    stamped: &'a Stamped,
}

fn lines(test: Option<String>, mut output: impl Write + Send + 'static) -> Listener {
    Box::new(move |stamped| {
        let test = test.as_deref();
        let mut line = serde_json::to_vec(&Line { test, stamped }).expect("events serialize");
        line.push(b'\n');
        // A reader that has gone away (a broken pipe) does not end the run.
        let _ = output.write_all(&line).and_then(|()| output.flush());
    })
}
