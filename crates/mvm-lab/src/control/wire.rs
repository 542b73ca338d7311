//! What goes over a control socket: a line of JSON each way, then frames.
//!
//! A frame is its kind (one byte), the length of its payload (four bytes, the most significant first) and its payload,
//! of at most [`FRAME_BYTES_MAX`] bytes:
//!
//! | kind | name | from | payload |
//! |---|---|---|---|
//! | 1 | data | both | what is typed; what is shown, or a command's standard output |
//! | 2 | error | lab | a command's standard error |
//! | 3 | end | client | none: a command's standard input ends |
//! | 4 | resize | client | a [`Size`] as JSON |
//! | 5 | exit | lab | an [`Ended`] as JSON; the last one |

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};

/// The longest payload of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// The longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 256 * 1024;

const DATA: u8 = 1;
const ERROR: u8 = 2;
const END: u8 = 3;
const RESIZE: u8 = 4;
const EXIT: u8 = 5;

/// Where a lab's socket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The socket.
    pub socket: PathBuf,
    /// The process whose lab it is.
    pub pid: u32,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Which machines there are. Answered with a [`Listing`]; no frames follow.
    Machines,
    /// A terminal in a machine.
    Terminal {
        /// Which.
        machine: String,
        /// A line for its shell; without one the shell runs, as at a login.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// How large the terminal is at first.
        size: Size,
        /// What `TERM` is.
        term: String,
    },
    /// A command in a machine, with pipes.
    Command {
        /// Which.
        machine: String,
        /// A line for its shell; without one the shell reads its standard input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// The serial console of a machine, across its restarts. Its last lines come first.
    Console {
        /// Which.
        machine: String,
    },
}

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Characters in a row.
    pub columns: u16,
    /// How many rows.
    pub rows: u16,
}

/// What the lab answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// It is granted.
    Ok(T),
    /// It is not.
    Error(Refusal),
}

/// Why a request is not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
}

/// What sort of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The line is no request.
    Malformed,
    /// The lab has no such machine.
    UnknownMachine,
    /// The machine is not on.
    Off,
    /// It was tried and did not work.
    Failed,
}

/// The machines of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The run's folder.
    pub folder: PathBuf,
    /// Sorted by name.
    pub machines: Vec<Machine>,
}

/// A machine of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Whether it is on.
    pub power: Power,
}

/// Whether a machine is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It is not.
    Off,
    /// It starts or ends.
    Changing,
    /// It answers.
    On,
    /// Its processors are stopped.
    Paused,
}

/// How a terminal, command or console ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows; why.
    Lost(String),
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What is typed, shown or written to standard output.
    Data(Vec<u8>),
    /// What is written to standard error.
    Error(Vec<u8>),
    /// The input ends.
    End,
    /// The terminal has another size.
    Resize(Size),
    /// The last frame.
    Exit(Ended),
}

/// Reads one line of JSON; `None` at the end of the stream.
///
/// # Errors
///
/// Those of the stream, and [`io::ErrorKind::InvalidData`] for what is no such line.
pub async fn read_line<T: DeserializeOwned>(
    reader: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line).map_err(invalid)?))
}

/// Writes one line of JSON.
///
/// # Errors
///
/// Those of the stream.
pub async fn write_line(
    writer: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Reads one frame; `None` at the end of the stream. A frame is lost when the future is dropped.
///
/// # Errors
///
/// Those of the stream, and [`io::ErrorKind::InvalidData`] for what is no frame.
pub async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let kind = match reader.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        kind => kind?,
    };
    let length = reader.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Some(match kind {
        DATA => Frame::Data(payload),
        ERROR => Frame::Error(payload),
        END => Frame::End,
        RESIZE => Frame::Resize(serde_json::from_slice(&payload).map_err(invalid)?),
        EXIT => Frame::Exit(serde_json::from_slice(&payload).map_err(invalid)?),
        other => return Err(invalid(format!("a frame of kind {other}"))),
    }))
}

/// Writes one frame, or several where the bytes do not fit one.
///
/// # Errors
///
/// Those of the stream.
pub async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::new();
    match frame {
        Frame::Data(data) => put_pieces(&mut bytes, DATA, data),
        Frame::Error(data) => put_pieces(&mut bytes, ERROR, data),
        Frame::End => put(&mut bytes, END, &[]),
        Frame::Resize(size) => put(&mut bytes, RESIZE, &serde_json::to_vec(size)?),
        Frame::Exit(ended) => put(&mut bytes, EXIT, &serde_json::to_vec(ended)?),
    }
    writer.write_all(&bytes).await
}

fn put_pieces(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) {
    for piece in data.chunks(FRAME_BYTES_MAX) {
        put(bytes, kind, piece);
    }
}

fn put(bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("payloads are short");
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[tokio::test]
    async fn frames_read_back() {
        let size = Size {
            columns: 132,
            rows: 50,
        };
        let frames = [
            Frame::Data(b"typed".to_vec()),
            Frame::Error(vec![0, 255]),
            Frame::End,
            Frame::Resize(size),
            Frame::Exit(Ended::Code(7)),
            Frame::Exit(Ended::Lost("why".to_owned())),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            write_frame(&mut bytes, frame).await.unwrap();
        }
        let mut rest = bytes.as_slice();
        for frame in frames {
            assert_eq!(read_frame(&mut rest).await.unwrap(), Some(frame));
        }
        assert_eq!(read_frame(&mut rest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn much_goes_in_several_frames_and_nothing_in_none() {
        let much = vec![7; FRAME_BYTES_MAX + 1];
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Frame::Data(much)).await.unwrap();
        write_frame(&mut bytes, &Frame::Data(Vec::new()))
            .await
            .unwrap();
        let mut rest = bytes.as_slice();
        for length in [FRAME_BYTES_MAX, 1] {
            let frame = read_frame(&mut rest).await.unwrap();
            assert_eq!(frame, Some(Frame::Data(vec![7; length])));
        }
        assert_eq!(read_frame(&mut rest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let long = [&[DATA][..], &u32::MAX.to_be_bytes()].concat();
        let cases: [&[u8]; 4] = [
            &long,
            &[9, 0, 0, 0, 0],
            &[RESIZE, 0, 0, 0, 2, b'{', b'}'],
            &[DATA, 0, 0, 0, 2, b'x'],
        ];
        for mut bytes in cases {
            read_frame(&mut bytes).await.unwrap_err();
        }
        read_line::<Request>(&mut &b"{\"verb\": \"dance\"}\n"[..])
            .await
            .unwrap_err();
        assert_eq!(read_line::<Request>(&mut &b""[..]).await.unwrap(), None);
    }

    #[test]
    fn the_lines() {
        let size = Size {
            columns: 80,
            rows: 24,
        };
        let machine = || "node1".to_owned();
        let requests = [
            Request::Machines,
            Request::Terminal {
                machine: machine(),
                command: None,
                size,
                term: "xterm".to_owned(),
            },
            Request::Command {
                machine: machine(),
                command: Some("true".to_owned()),
            },
            Request::Console { machine: machine() },
        ];
        let listing = Answer::Ok(Listing {
            folder: "/runs/up".into(),
            machines: vec![Machine {
                name: machine(),
                power: Power::On,
            }],
        });
        let refusal: Answer<()> = Answer::Error(Refusal {
            kind: RefusalKind::UnknownMachine,
            message: "why".to_owned(),
        });
        let ends = [Ended::Code(7), Ended::Signal(9), Ended::Lost("why".into())];
        let mut lines: Vec<_> = requests.iter().map(serde_json::to_string).collect();
        lines.push(serde_json::to_string(&listing));
        lines.push(serde_json::to_string(&refusal));
        lines.push(serde_json::to_string(&Answer::Ok(())));
        lines.extend(ends.iter().map(serde_json::to_string));
        let lines: Result<Vec<_>, _> = lines.into_iter().collect();
        expect![[r#"
            {"verb":"machines"}
            {"verb":"terminal","machine":"node1","size":{"columns":80,"rows":24},"term":"xterm"}
            {"verb":"command","machine":"node1","command":"true"}
            {"verb":"console","machine":"node1"}
            {"ok":{"folder":"/runs/up","machines":[{"name":"node1","power":"on"}]}}
            {"error":{"kind":"unknown_machine","message":"why"}}
            {"ok":null}
            {"code":7}
            {"signal":9}
            {"lost":"why"}"#]]
        .assert_eq(&lines.unwrap().join("\n"));
    }
}
