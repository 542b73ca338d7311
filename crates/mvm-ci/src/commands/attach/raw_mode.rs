//! This host's terminal: its size, and the mode in which every key comes as it is.

use std::io;

use mvm_lab::control::wire::Size;
use rustix::{
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

/// Returns how large the terminal is.
pub(super) fn window_size() -> io::Result<Size> {
    let size = tcgetwinsize(stdout())?;
    Ok(Size {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// The terminal passes every key on and shows none. Dropping this makes it as it was.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(super) fn enter() -> io::Result<RawMode> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}
