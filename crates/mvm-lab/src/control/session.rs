//! What follows an answer: frames both ways, until the program has ended or the client has left.

use std::io;

use mvm_agent::client::{self, AgentError, Event, ExitStatus, Running, Stdin, TerminalInput};
use mvm_machine::console::{Listener, Said};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{
    server::Machines,
    wire::{self, Answer, Ended, Frame, Refusal, RefusalKind, Size},
};
use crate::node::{NodeError, TerminalOptions, WindowSize};

/// How many of a console's last lines are shown first.
const CONSOLE_LINES: usize = 40;

/// Something that has an input and an output. The two are used at the same time.
pub(super) trait Session {
    type Input: Take;

    fn input(&mut self) -> Self::Input;

    /// Waits for the next frame; the last one is [`Frame::Exit`].
    async fn next(&mut self) -> Frame;
}

/// What frames from a client go to.
pub(super) trait Take {
    /// Takes a frame; what can no longer be taken is thrown away.
    async fn take(&mut self, frame: Frame);
}

/// Answers, and relays frames if the session could be started. Returns when either side has ended; dropping the session
/// then ends what runs.
pub(super) async fn serve<S: Session>(
    started: Result<S, Refusal>,
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    let mut session = match started {
        Ok(session) => session,
        Err(refusal) => {
            return wire::write_line(&mut writer, &Answer::<()>::Error(refusal)).await;
        }
    };
    wire::write_line(&mut writer, &Answer::Ok(())).await?;
    let mut input = session.input();
    let taking = async {
        while let Some(frame) = wire::read_frame(&mut reader).await? {
            input.take(frame).await;
        }
        Ok(())
    };
    let giving = async {
        loop {
            let frame = session.next().await;
            wire::write_frame(&mut writer, &frame).await?;
            if matches!(frame, Frame::Exit(_)) {
                return writer.shutdown().await;
            }
        }
    };
    tokio::select! {
        done = taking => done,
        done = giving => done,
    }
}

pub(super) struct Terminal(client::Terminal);

impl Terminal {
    pub(super) async fn start(
        machines: &Machines,
        machine: &str,
        command: Option<String>,
        size: Size,
        term: String,
    ) -> Result<Terminal, Refusal> {
        let options = TerminalOptions {
            command,
            size: window(size),
            term,
        };
        let started = machines.find(machine)?.terminal(options).await;
        Ok(Terminal(started.map_err(refusal)?))
    }
}

impl Session for Terminal {
    type Input = TerminalInput;

    fn input(&mut self) -> TerminalInput {
        self.0.input()
    }

    async fn next(&mut self) -> Frame {
        match self.0.output().await {
            Ok(Some(bytes)) => Frame::Data(bytes.into()),
            Ok(None) => Frame::Exit(self.0.wait().await.map_or_else(lost, ended)),
            Err(error) => Frame::Exit(lost(error)),
        }
    }
}

impl Take for TerminalInput {
    async fn take(&mut self, frame: Frame) {
        // That the program or its machine is gone shows where the output is waited for.
        match frame {
            Frame::Data(bytes) => drop(self.write_all(&bytes).await),
            Frame::Resize(size) => drop(self.resize(window(size))),
            Frame::Error(_) | Frame::End | Frame::Exit(_) => {}
        }
    }
}

pub(super) struct Command {
    running: Running,
    status: Option<ExitStatus>,
}

impl Command {
    pub(super) async fn start(
        machines: &Machines,
        machine: &str,
        line: Option<String>,
    ) -> Result<Command, Refusal> {
        let started = machines.find(machine)?.piped(line).await;
        Ok(Command {
            running: started.map_err(refusal)?,
            status: None,
        })
    }
}

impl Session for Command {
    type Input = Option<Stdin>;

    fn input(&mut self) -> Option<Stdin> {
        self.running.take_stdin()
    }

    async fn next(&mut self) -> Frame {
        loop {
            match self.running.next_event().await {
                Ok(Some(Event::Stdout(bytes))) => return Frame::Data(bytes.into()),
                Ok(Some(Event::Stderr(bytes))) => return Frame::Error(bytes.into()),
                Ok(Some(Event::StdoutClosed)) => {}
                Ok(Some(Event::Exit(status))) => self.status = Some(status),
                Ok(None) => {
                    let status = self.status.unwrap_or(ExitStatus::TimedOut);
                    return Frame::Exit(ended(status));
                }
                Err(error) => return Frame::Exit(lost(error)),
            }
        }
    }
}

impl Take for Option<Stdin> {
    async fn take(&mut self, frame: Frame) {
        match (frame, self.as_mut()) {
            (Frame::Data(bytes), Some(stdin)) => drop(stdin.write_all(&bytes).await),
            (Frame::End, _) => *self = None,
            (Frame::Data(_) | Frame::Error(_) | Frame::Resize(_) | Frame::Exit(_), _) => {}
        }
    }
}

pub(super) struct Console {
    console: mvm_machine::console::Console,
    listener: Listener,
    /// The last lines, until they are shown.
    before: Option<Vec<String>>,
}

impl Console {
    pub(super) fn start(machines: &Machines, machine: &str) -> Result<Console, Refusal> {
        let console = machines.find(machine)?.console();
        Ok(Console {
            listener: console.listen(),
            before: Some(console.tail(CONSOLE_LINES)),
            console,
        })
    }
}

impl Session for Console {
    type Input = mvm_machine::console::Console;

    fn input(&mut self) -> Self::Input {
        self.console.clone()
    }

    async fn next(&mut self) -> Frame {
        if let Some(lines) = self.before.take() {
            let lines = lines.into_iter().map(|line| line + "\r\n");
            return Frame::Data(lines.collect::<String>().into_bytes());
        }
        match self.listener.next().await {
            Some(Said::Bytes(bytes)) => Frame::Data(bytes.to_vec()),
            Some(Said::Missed(pieces)) => {
                let text = format!("\r\n[{pieces} pieces came too fast to be shown]\r\n");
                Frame::Data(text.into_bytes())
            }
            None => Frame::Exit(Ended::Lost("the lab has ended".to_owned())),
        }
    }
}

impl Take for mvm_machine::console::Console {
    async fn take(&mut self, frame: Frame) {
        match frame {
            // A machine that is off hears nothing.
            Frame::Data(bytes) => drop(self.write(&bytes).await),
            Frame::Error(_) | Frame::End | Frame::Resize(_) | Frame::Exit(_) => {}
        }
    }
}

fn window(size: Size) -> WindowSize {
    WindowSize {
        columns: size.columns,
        rows: size.rows,
    }
}

fn ended(status: ExitStatus) -> Ended {
    match status {
        ExitStatus::Code(code) => Ended::Code(code),
        ExitStatus::Signal(signal) => Ended::Signal(signal),
        ExitStatus::TimedOut => Ended::Lost("nobody told how it ended".to_owned()),
    }
}

fn lost(error: AgentError) -> Ended {
    Ended::Lost(error.to_string())
}

fn refusal(error: NodeError) -> Refusal {
    let kind = match &error {
        NodeError::Off { .. } | NodeError::Paused { .. } => RefusalKind::Off,
        _ => RefusalKind::Failed,
    };
    Refusal {
        kind,
        message: error.to_string(),
    }
}
