//! A program on a terminal of the test's, started by a shell as people do.

use std::{
    fs,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

/// Only a hang takes this long.
pub(crate) const HANG: Duration = Duration::from_secs(60);
const RETYPE_INTERVAL: Duration = Duration::from_secs(2);

/// The settings are told by the shell, since the kernel makes them new once the terminal's session is over.
const SHELL: &str =
    r#"echo "before:$(stty -g)."; "$@"; code=$?; echo "after:$(stty -g)."; exit $code"#;

/// A program under a shell, and the other side of the terminal that both are on.
pub(crate) struct Pty {
    side: OwnedFd,
    shell: Child,
    shown: Receiver<Vec<u8>>,
    /// What was shown and not looked for yet.
    screen: String,
    settings_before: String,
}

/// How a program left its terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) code: Option<i32>,
    /// Whether the terminal is set as it was before.
    pub(crate) restored: bool,
}

impl Pty {
    /// Starts a program on a new terminal of 80 by 24 characters. `base` has its environment and folder.
    pub(crate) fn start(mut base: Command, program: &[&str]) -> Pty {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let side = openpt(flags).unwrap();
        unlockpt(&side).unwrap();
        let its_side = ioctl_tiocgptpeer(&side, flags).unwrap();
        set_size(&side, 80, 24);
        let stdio = || Stdio::from(its_side.try_clone().unwrap());
        base.args(["--ctty", "sh", "-c", SHELL, "sh"]).args(program);
        base.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let shell = base.spawn().unwrap();
        let mut pty = Pty {
            shown: watch(side.try_clone().unwrap()),
            side,
            shell,
            screen: String::new(),
            settings_before: String::new(),
        };
        pty.see("before:");
        pty.settings_before = pty.see(".");
        pty
    }

    pub(crate) fn type_in(&self, text: &str) {
        let written = rustix::io::write(&self.side, text.as_bytes()).unwrap();
        assert_eq!(written, text.len());
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.side, columns, rows);
    }

    /// Waits until the text is shown, after what was waited for before; returns what is between the two.
    #[track_caller]
    pub(crate) fn see(&mut self, text: &str) -> String {
        let seen = self.look_for(text, HANG);
        seen.unwrap_or_else(|error| panic!("{error}: no {text:?} in {:?}", self.screen))
    }

    /// Types an end of input until the text is shown: one that comes before the program has the terminal set as it
    /// wants it is lost by the kernel.
    #[track_caller]
    pub(crate) fn end_input_until(&mut self, text: &str) {
        let deadline = Instant::now() + HANG;
        while Instant::now() < deadline {
            self.type_in("\x04");
            if self.look_for(text, RETYPE_INTERVAL).is_ok() {
                return;
            }
        }
        panic!("no {text:?} in {:?}", self.screen);
    }

    fn look_for(&mut self, text: &str, allowed: Duration) -> Result<String, RecvTimeoutError> {
        let deadline = Instant::now() + allowed;
        loop {
            if let Some(place) = self.screen.find(text) {
                let mut between: String = self.screen.drain(..place + text.len()).collect();
                between.truncate(place);
                return Ok(between);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.shown.recv_timeout(left)?;
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Sends a signal to the program alone.
    pub(crate) fn signal(&self, name: &str) {
        let shell = self.shell.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), children.trim()])
            .status();
        assert!(sent.unwrap().success(), "{children:?}");
    }

    /// Whether keys come to the program as they are.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.side).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Left {
        self.see("after:");
        let restored = self.see(".") == self.settings_before;
        let code = self.shell.wait().unwrap().code();
        Left { code, restored }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // What is on the terminal ends with it.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn set_size(side: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(side, size).unwrap();
}

/// Reads what is shown, in a thread that ends with the terminal.
fn watch(side: OwnedFd) -> Receiver<Vec<u8>> {
    let (outbox, shown) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(&side, &mut buffer) {
            if outbox.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    shown
}
