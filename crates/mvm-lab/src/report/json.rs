//! Events as JSON lines, the same as in the run folder.

use std::io::Write;

use crate::event::Listener;

/// Writes each event to `output` as one line of JSON, versioned by the first.
pub fn json_lines(mut output: impl Write + Send + 'static) -> Listener {
    Box::new(move |stamped| {
        let mut line = serde_json::to_vec(stamped).expect("events serialize");
        line.push(b'\n');
        // A reader that has gone away (a broken pipe) does not end the run.
        let _ = output.write_all(&line).and_then(|()| output.flush());
    })
}
