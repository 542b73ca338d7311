//! Terminals, with the real daemon.

#![cfg(all(feature = "client", feature = "daemon"))]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use mvm_agent::client::{
    Agent, AgentError, ExitStatus, Terminal, TerminalInput, TerminalOptions, WindowSize,
};
use support::{Guest, HANG, wait_gone};

const SIZE: WindowSize = WindowSize {
    columns: 80,
    rows: 24,
};

/// A terminal and what it has shown.
struct Screen {
    terminal: Terminal,
    input: TerminalInput,
    shown: String,
}

impl Screen {
    async fn start(agent: &Agent, command: &str) -> Self {
        let options = TerminalOptions {
            command: Some(command.to_owned()),
            size: SIZE,
            term: "vt100".to_owned(),
        };
        let terminal = agent.terminal(options).await.unwrap();
        Self {
            input: terminal.input(),
            terminal,
            shown: String::new(),
        }
    }

    async fn type_in(&self, text: &str) {
        assert!(self.input.write_all(text.as_bytes()).await.unwrap());
    }

    /// Waits until the text was shown, and returns what was shown after it so far.
    async fn see(&mut self, text: &str) -> String {
        loop {
            if let Some((_, after)) = self.shown.split_once(text) {
                return after.to_owned();
            }
            assert!(
                self.more().await,
                "ended without {text:?}; showed {:?}",
                self.shown
            );
        }
    }

    /// Waits for more; false after the end.
    async fn more(&mut self) -> bool {
        let output = tokio::time::timeout(HANG, self.terminal.output()).await;
        match output.expect("something is shown").unwrap() {
            Some(bytes) => {
                self.shown.push_str(&String::from_utf8_lossy(&bytes));
                true
            }
            None => false,
        }
    }

    /// Waits for the end, and returns all that was shown and how it ended.
    async fn end(mut self) -> (String, ExitStatus) {
        while self.more().await {}
        (self.shown, self.terminal.wait().await.unwrap())
    }
}

#[tokio::test]
async fn a_program_has_a_terminal_and_its_status_is_told() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let command = "tty; stty size; echo $TERM; ps -o sid= -p $$ | tr -d ' '; echo $$; exit 7";
    let (shown, status) = Screen::start(&agent, command).await.end().await;
    assert_eq!(status, ExitStatus::Code(7));
    let lines: Vec<&str> = shown.split("\r\n").collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{shown:?}");
    assert_eq!(lines[1..3], ["24 80", "vt100"]);
    assert_eq!(lines[3], lines[4], "it leads its session");

    let command = "kill -9 $$";
    let (_, status) = Screen::start(&agent, command).await.end().await;
    assert_eq!(status, ExitStatus::Signal(9));
}

#[tokio::test]
async fn programs_hear_of_another_size() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let command = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut screen = Screen::start(&agent, command).await;
    screen.see("ready").await;
    let size = WindowSize {
        columns: 132,
        rows: 50,
    };
    assert!(screen.input.resize(size).unwrap());
    screen.see("50 132").await;
    let input = screen.input.clone();
    let (_, status) = screen.end().await;
    assert_eq!(status, ExitStatus::Code(0));
    assert!(!input.resize(size).unwrap(), "it has ended");
    assert!(!input.write_all(b"x").await.unwrap(), "it has ended");
}

#[tokio::test]
async fn ctrl_c_interrupts_what_runs_and_the_shell_lives_on() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let mut screen = Screen::start(&agent, "PS1='prompt> ' exec sh -i").await;
    screen.see("prompt> ").await;
    // What is typed is shown too, so what is waited for is not what was typed. Said by what runs in the foreground, which the
    // shell itself is until then.
    let command = "sh -c 'echo run$((1 + 1)); exec sleep 1000'\r";
    screen.type_in(command).await;
    screen.see("run2\r\n").await;
    screen.type_in("\x03").await;
    screen.type_in("echo still $((40 + 2))\r").await;
    screen.see("still 42").await;
    screen.type_in("exit 3\r").await;
    assert_eq!(screen.end().await.1, ExitStatus::Code(3));
}

#[tokio::test]
async fn a_host_that_leaves_hangs_up() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let mut screen = Screen::start(&agent, "echo pid=$$.; exec sleep 1000").await;
    screen.see(".\r\n").await;
    let (_, rest) = screen.shown.split_once("pid=").unwrap();
    let pid: i32 = rest.split_once('.').unwrap().0.parse().unwrap();
    let refused = agent.part().await.unwrap_err().to_string();
    assert!(refused.contains("1 terminal"), "{refused}");
    drop(screen);
    wait_gone(pid).await;
    agent.part().await.unwrap();
}

#[tokio::test]
async fn much_passes_whole_both_ways() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let (shown, status) = Screen::start(&agent, "seq 200000").await.end().await;
    assert_eq!(status, ExitStatus::Code(0));
    let lines: Vec<&str> = shown.split_terminator("\r\n").collect();
    assert_eq!((lines.len(), lines[199_999]), (200_000, "200000"));

    let command = "stty raw -echo; echo ready; head -c 1000000 | cksum";
    let mut screen = Screen::start(&agent, command).await;
    screen.see("ready").await;
    let pasted = "0123456789".repeat(100_000);
    screen.type_in(&pasted).await;
    let sum = agent
        .command("cksum")
        .stdin_bytes(pasted)
        .output()
        .await
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    screen.see(sum.trim()).await;
}

#[tokio::test]
async fn a_flood_that_nobody_reads_fills_a_window_and_no_more() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let before = guest.resident_bytes();
    let flood = Screen::start(&agent, "yes").await;
    for _ in 0..50 {
        agent.ping(HANG).await.unwrap();
    }
    let grown = guest.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "the daemon grew by {grown} bytes");
    drop(flood);
    agent.ping(HANG).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let options = TerminalOptions {
        command: Some("x".repeat(1 << 20)),
        size: SIZE,
        term: "vt100".to_owned(),
    };
    let error = agent.terminal(options).await.unwrap_err();
    assert!(matches!(error, AgentError::RequestTooLarge(_)), "{error:?}");
    let (shown, status) = Screen::start(&agent, "no-such-program").await.end().await;
    assert!(shown.contains("no-such-program"), "{shown:?}");
    assert_eq!(status, ExitStatus::Code(127));
}
