//! Passes on what is typed here and what is shown there, until there is an end.

use std::{io, process::ExitCode};

use mvm_lab::control::{
    client::{Attached, Input, Output},
    wire::{Ended, Frame},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    AttachError,
    keyboard::Keyboard,
    raw_mode::{RawMode, window_size},
};

/// Ctrl-], as of telnet: it has no meaning to shells and editors.
const LEAVE: u8 = 0x1d;
/// What a shell adds to the number of a signal that ended a program.
const SIGNALLED: i32 = 128;

/// What is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// A terminal, both ways.
    Terminal,
    /// Anything else.
    Pipes,
}

/// Why nothing is passed on any more.
enum End {
    Ended(Ended),
    /// The lab closed the connection.
    LabGone,
    /// Who is here wants no more.
    Left,
    /// This program is to end.
    Signalled(SignalKind),
    Broken(io::Error),
}

/// Relays until the program has ended, somebody has left, or either is gone. The terminal is as before after that.
pub(super) async fn relay(attached: Attached, stream: Stream) -> Result<ExitCode, AttachError> {
    let Attached { output, input } = attached;
    let end = match stream {
        Stream::Terminal => {
            let terminal = Terminal::enter().map_err(AttachError::Terminal)?;
            let end = tokio::select! {
                end = show(output) => end,
                end = terminal.pass_on(input) => end,
            };
            tell_leaving(&end);
            end
        }
        Stream::Pipes => {
            let keyboard = Keyboard::start().map_err(AttachError::Terminal)?;
            tokio::select! {
                end = show(output) => end,
                end = feed(keyboard, input) => end,
            }
        }
    };
    let code = match end {
        End::Ended(Ended::Code(code)) => code,
        End::Ended(Ended::Signal(number)) => SIGNALLED + number,
        End::Ended(Ended::Lost(why)) => return Err(AttachError::Lost(why)),
        End::LabGone => return Err(AttachError::Lost("the lab has ended".to_owned())),
        End::Left => 0,
        End::Signalled(kind) => SIGNALLED + kind.as_raw_value(),
        End::Broken(error) => return Err(AttachError::Lost(error.to_string())),
    };
    // As the kernel does, where a guest's program says more.
    Ok(ExitCode::from(code.to_le_bytes()[0]))
}

/// The cursor is somewhere in a line of the guest's.
fn tell_leaving(end: &End) {
    if matches!(end, End::Left) {
        #[expect(clippy::print_stderr, reason = "talk with who is at the terminal")]
        {
            eprintln!("\nleft the machine");
        }
    }
}

/// Writes what comes out, until the end.
async fn show(mut output: Output) -> End {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let written = match output.next().await {
            Ok(Some(Frame::Data(bytes))) => put(&mut stdout, &bytes).await,
            Ok(Some(Frame::Error(bytes))) => put(&mut stderr, &bytes).await,
            Ok(Some(Frame::Exit(ended))) => return End::Ended(ended),
            Ok(Some(Frame::End | Frame::Resize(_))) => Ok(()),
            Ok(None) => return End::LabGone,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {}
            // Who read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return End::Left,
            Err(error) => return End::Broken(error),
        }
    }
}

async fn put(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Passes standard input on to its end. The connection stays open for the output.
async fn feed(mut keyboard: Keyboard, mut input: Input) -> End {
    while let Some(bytes) = keyboard.next().await {
        if input.send(&Frame::Data(bytes)).await.is_err() {
            // Why is told by the other direction.
            return std::future::pending().await;
        }
    }
    let _ = input.send(&Frame::End).await;
    std::future::pending().await
}

/// This host's terminal while it is a machine's.
struct Terminal {
    keyboard: Keyboard,
    resized: Signal,
    stop: [(SignalKind, Signal); 3],
    /// Last, so that nobody reads the keyboard any more when it is as before.
    _raw: RawMode,
}

impl Terminal {
    fn enter() -> io::Result<Terminal> {
        let stop = |kind| Ok::<_, io::Error>((kind, signal(kind)?));
        Ok(Terminal {
            resized: signal(SignalKind::window_change())?,
            stop: [
                stop(SignalKind::interrupt())?,
                stop(SignalKind::terminate())?,
                stop(SignalKind::hangup())?,
            ],
            _raw: RawMode::enter()?,
            keyboard: Keyboard::start()?,
        })
    }

    async fn pass_on(mut self, mut input: Input) -> End {
        loop {
            let [first, second, third] = &mut self.stop;
            let frame = tokio::select! {
                typed = self.keyboard.next() => {
                    let Some(mut typed) = typed else { return End::Left };
                    match typed.iter().position(|byte| *byte == LEAVE) {
                        None => Frame::Data(typed),
                        Some(place) => {
                            typed.truncate(place);
                            let _ = input.send(&Frame::Data(typed)).await;
                            return End::Left;
                        }
                    }
                }
                _ = self.resized.recv() => match window_size() {
                    Ok(size) => Frame::Resize(size),
                    Err(_) => continue,
                },
                _ = first.1.recv() => return End::Signalled(first.0),
                _ = second.1.recv() => return End::Signalled(second.0),
                _ = third.1.recv() => return End::Signalled(third.0),
            };
            if input.send(&frame).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
