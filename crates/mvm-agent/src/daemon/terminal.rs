//! Terminals: a program in a session of its own, on a pseudo-terminal whose other side is the host's.
//!
//! Commands with pipes are [`super::command`]'s.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, getuid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::services::Services;
use super::work::{Input, InputQueue, Kind, Outlet, Progress, Work, failure};
use super::{command, sys};
use crate::protocol::{
    DATA_BYTES_MAX, ExitStatus, Failure, Lane, Program, Reply, TerminalProgram, TerminalRun,
    ToHost, WindowSize,
};

/// A session on a terminal. Dropping it hangs up: the kernel sends `SIGHUP` to the session's leader and to the
/// group in its foreground.
#[derive(Debug)]
pub(super) struct TerminalWork {
    /// The session's leader.
    leader: Pid,
    /// The side of the terminal that people are at.
    terminal: OwnedFd,
    status: Option<ExitStatus>,
    announced: bool,
    /// Nobody has the other side open any more.
    output_over: bool,
    pending: InputQueue,
}

impl TerminalWork {
    /// Opens a terminal and starts the program on it. `base` is added to the program's environment before all
    /// else.
    pub(super) fn begin(run: &TerminalRun, base: &[(&str, &str)]) -> Result<Self, Failure> {
        let (program, as_login) = match &run.program {
            TerminalProgram::LoginShell => (login_shell(), true),
            TerminalProgram::Program(program) => (program.clone(), false),
        };
        let mut command = command::prepare_member(&program, base)?;
        command.env("TERM", &run.term);
        if as_login {
            // What tells a shell that this is a login.
            let name = Path::new(&program.name).file_name().unwrap_or_default();
            command.arg0(format!("-{}", name.to_string_lossy()));
        }
        let (terminal, leader) = start(command, run.size)
            .map_err(|error| failure(format!("run `{}` on a terminal", program.name), &error))?;
        Ok(Self {
            leader,
            terminal,
            status: None,
            announced: false,
            output_over: false,
            pending: InputQueue::default(),
        })
    }

    fn signal(&self, signal: i32) {
        // Once it is reaped, its number may be somebody else's.
        if self.status.is_none() {
            let _ = sys::signal_group(self.leader, signal);
        }
    }

    fn write_input(&mut self, outlet: &mut Outlet<'_>) {
        if self.pending.write_to(&self.terminal, outlet).is_err() {
            self.pending.discard(outlet);
        }
    }

    /// Sends one piece of what is shown; all there is once the leader has ended, which hung the terminal up.
    fn read_output(&mut self, outlet: &mut Outlet<'_>) {
        let mut buffer = [0; DATA_BYTES_MAX];
        while !self.output_over {
            let room = outlet.room();
            if room == 0 {
                return;
            }
            match rustix::io::read(&self.terminal, &mut buffer[..room]) {
                Ok(count) if count > 0 => outlet.data(Lane::Main, &buffer[..count]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if self.status.is_none() => {}
                Ok(_) | Err(_) => self.output_over = true,
            }
            if self.status.is_none() {
                return;
            }
        }
    }
}

/// Starts a program as the leader of a new session on a new terminal.
fn start(mut command: Command, size: WindowSize) -> io::Result<(OwnedFd, Pid)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags)?;
    unlockpt(&terminal)?;
    set_size(&terminal, size)?;
    ioctl_fionbio(&terminal, true)?;
    let theirs = ioctl_tiocgptpeer(&terminal, flags)?;
    command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    sys::lead_session(&mut command);
    // The daemon reaps all its children itself.
    let leader = Pid::from_child(&command.spawn()?);
    Ok((terminal, leader))
}

fn set_size(terminal: &OwnedFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// The shell of the user that the agent is.
fn login_shell() -> Program {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let login = Login::find(&passwd, getuid().as_raw());
    let home = Path::new(&login.home).is_dir();
    let variables = [
        ("HOME", &login.home),
        ("SHELL", &login.shell),
        ("USER", &login.user),
        ("LOGNAME", &login.user),
    ];
    Program {
        environment: variables
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .into(),
        directory: home.then(|| login.home.clone()),
        ..Program::new(&login.shell)
    }
}

/// What the user database says about a user.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    user: String,
    home: String,
    shell: String,
}

impl Login {
    /// Finds a user by number in the lines of `/etc/passwd`. One who is not there gets what every system has.
    fn find(passwd: &str, uid: u32) -> Self {
        let known = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields.as_slice() {
                [user, _, number, _, _, home, shell] if number.parse() == Ok(uid) => {
                    Some((*user, *home, *shell))
                }
                _ => None,
            }
        });
        let (user, home, shell) = known.unwrap_or(("root", "/", ""));
        Self {
            user: user.to_owned(),
            home: home.to_owned(),
            // An empty field means this one: passwd(5).
            shell: if shell.is_empty() { "/bin/sh" } else { shell }.to_owned(),
        }
    }
}

impl Work for TerminalWork {
    fn kind(&self) -> Kind {
        Kind::Terminal
    }

    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, may_send && !self.output_over);
        flags.set(PollFlags::OUT, !self.pending.is_empty());
        // A terminal that was hung up says so however little it is asked.
        if !flags.is_empty() {
            interests.push(PollFd::new(&self.terminal, flags));
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Data(chunk) => self.pending.push(chunk),
            // A terminal stays; its end of input is a character.
            Input::End => {}
            Input::Signal(signal) => self.signal(signal),
            // A kernel that makes terminals can change their size.
            Input::Resize(size) => drop(set_size(&self.terminal, size)),
            Input::Kill => self.signal(libc::SIGKILL),
        }
    }

    fn reaped(&mut self, ended: &[(Pid, ExitStatus)]) {
        if let Some((_, status)) = ended.iter().find(|(pid, _)| *pid == self.leader) {
            self.status.get_or_insert(*status);
        }
    }

    fn advance(
        &mut self,
        _now: std::time::Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        if !self.announced {
            self.announced = true;
            outlet.send(&ToHost::Started);
        }
        self.write_input(outlet);
        self.read_output(outlet);
        match self.status {
            Some(status) if self.output_over => {
                outlet.send(&ToHost::Exited(status));
                Ok(Progress::Done(Reply::Nothing))
            }
            Some(_) | None => Ok(Progress::Going),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(passwd: &str, uid: u32, expected: [&str; 3]) {
        let [user, home, shell] = expected.map(str::to_owned);
        assert_eq!(Login::find(passwd, uid), Login { user, home, shell });
    }

    #[test]
    fn a_user_has_a_home_and_a_shell() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbad line\nme:x:1000:1000:::\n\
            short:x:7:7:/short\n";
        check(passwd, 0, ["root", "/root", "/bin/bash"]);
        check(passwd, 1000, ["me", "", "/bin/sh"]);
        check(passwd, 7, ["root", "/", "/bin/sh"]);
        check("", 0, ["root", "/", "/bin/sh"]);
    }
}
