//! What the automation says. Talk goes to stderr, data to stdout; a reader that has gone is not an error.

use std::fmt::Display;
use std::io::{self, Write};

/// Says one line to the person at the terminal.
pub(crate) fn say(line: impl Display) {
    // Nobody listens: the work is worth doing all the same.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes data to stdout.
pub(crate) fn data(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
