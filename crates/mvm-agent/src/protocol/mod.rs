//! What host and guest say to each other: packets, frames of a conversation, requests and answers.
//!
//! `docs/design/agent-channel.md` draws the exchanges. In short: the host opens a *conversation* with a
//! [`Hello`] carrying a fresh nonce; every [`Frame`] of it carries that nonce, a sequence number per
//! direction and a stream. A stream is one request: the host opens it with [`ToGuest::Open`], data flows
//! under credit, and the guest ends it with exactly one [`ToHost::Done`] or [`ToHost::Failed`].
//!
//! Nothing here does I/O; how packets travel on bytes is [`crate::wire`]. What can be asked and answered
//! is in `request.rs`; the folder in common has a port of its own, see `shared.rs`.

mod request;
mod shared;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::request::{
    BACKLOG_BYTES_MAX, Cause, ExitStatus, Failure, Identity, Interface, Layers, Lifetime,
    MachineEnd, Program, Reply, Request, Run, SERVICE_NAME_BYTES_MAX, SERVICES_MAX, ServiceInfo,
    ServiceState, StdinSource, TerminalProgram, TerminalRun, WindowSize, is_service_name,
};
pub use self::shared::{
    SHARED_DATA_BYTES_MAX, SHARED_FOLDER, SHARED_MESSAGE_BYTES_MAX, read_shared, write_shared,
};
use crate::wire;

/// The version both sides must share. The layouts of [`Hello`] and [`HelloBack`] up to the nonce are the
/// same in every version, so that two versions can tell that they differ.
pub const VERSION: u16 = 7;

/// How much a side may send on one stream before the other grants more, in [`cost`] units.
pub const WINDOW: u32 = 256 * 1024;

/// How much a receiver consumes before it grants it back: rarely enough to be cheap, often enough that a
/// sender with work never runs dry.
pub const GRANT_AT: u32 = WINDOW / 4;

/// The largest payload of one data frame, in bytes.
pub const DATA_BYTES_MAX: usize = 16 * 1024;

/// What a data frame costs beyond its bytes, so that a window also bounds the *number* of frames queued.
pub const FRAME_COST: u32 = 64;

/// How many streams a conversation may have open at once.
pub const STREAMS_MAX: usize = 1024;

/// What a data frame of `payload_bytes` takes from the sender's window.
pub fn cost(payload_bytes: usize) -> u32 {
    u32::try_from(payload_bytes)
        .unwrap_or(u32::MAX)
        .saturating_add(FRAME_COST)
}

/// Identifies a conversation. Unique with overwhelming probability, not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce(pub u64);

/// Identifies a stream within a conversation. Chosen by the host, ascending from 1, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// Opens a conversation; understood by the guest in any state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The host's [`VERSION`].
    pub version: u16,
    /// The new conversation.
    pub nonce: Nonce,
}

/// The guest's answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloBack {
    /// The guest's [`VERSION`].
    pub version: u16,
    /// The conversation answered.
    pub nonce: Nonce,
    /// Who answers; absent when the versions differ.
    pub guest: Option<GuestInfo>,
}

/// What a guest tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    /// The kernel release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel's random id of this boot. A machine restored from a snapshot keeps it.
    pub boot_id: String,
    /// Whether the agent is the machine's PID 1.
    pub is_init: bool,
}

/// One message of a conversation, with the raw bytes that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<M> {
    /// The conversation.
    pub nonce: Nonce,
    /// Counts the frames of this direction from 0; a gap means that bytes were lost.
    pub sequence: u32,
    /// The stream the message belongs to.
    pub stream: StreamId,
    /// The message.
    pub message: M,
    /// The bytes of a data message, else empty.
    pub payload: Vec<u8>,
}

/// Everything that can be in a packet. `M` is [`ToGuest`] or [`ToHost`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<M> {
    /// The host opens a conversation.
    Hello(Hello),
    /// The guest accepts it.
    HelloBack(HelloBack),
    /// The guest has no such conversation (any more); `None` is said once, by an agent that just started.
    Gone(Option<Nonce>),
    /// A message of a conversation.
    Frame(Frame<M>),
}

/// What the host says on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Opens the stream.
    Open(Request),
    /// Bytes for standard input, a terminal, a file or a socket; at least one.
    Data,
    /// No more bytes will come.
    End,
    /// The host consumed this much of what the guest sent.
    Grant(u32),
    /// Sends a signal to the command's process group.
    Signal(i32),
    /// The terminal has another size now.
    Resize(WindowSize),
    /// Kills the command's process group and ends the stream without waiting for whoever still holds its
    /// output.
    Kill,
    /// The host has no more interest: the guest drops the stream, kills its command or hangs up its terminal,
    /// and answers nothing.
    Close,
    /// Says nothing; a guest that lost the conversation answers [`Packet::Gone`].
    KeepAlive,
}

/// What the guest says on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The command runs, or the connection stands.
    Started,
    /// The output of a service follows without a gap from this byte of it on. Said once, first.
    Following {
        /// Counted from the service's first byte.
        offset: u64,
    },
    /// Bytes of an output; at least one.
    Data(Lane),
    /// The guest consumed this much of what the host sent.
    Grant(u32),
    /// The reader of the host's bytes is gone; what is still sent is thrown away.
    InputClosed,
    /// The peer of a connection finished sending; the stream is still open the other way. Or a command's standard
    /// output is closed; its standard error may still be open.
    End,
    /// The process ended; output of a command may follow, of a service none.
    Exited(ExitStatus),
    /// The request is done. Last message of its stream.
    Done(Reply),
    /// The request failed. Last message of its stream.
    Failed(Failure),
}

/// Which of a stream's outputs a piece of data belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    /// Standard output, both outputs of a service, what a terminal shows, the content of a file, the bytes of a
    /// connection.
    Main,
    /// Standard error.
    Error,
}

/// A packet whose content is intact but means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

const MAGIC: [u8; 8] = *b"mvm-agnt";
const KIND_HELLO: u8 = 1;
const KIND_HELLO_BACK: u8 = 2;
const KIND_GONE: u8 = 3;
const KIND_FRAME: u8 = 4;

/// The part of a frame before its payload, as postcard writes it.
#[derive(Serialize, Deserialize)]
struct Header<M> {
    nonce: Nonce,
    sequence: u32,
    stream: StreamId,
    message: M,
}

/// A message too large for one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes do not fit a packet of {} bytes",
    wire::CONTENT_BYTES_MAX
)]
pub struct TooLarge {
    /// Its size, in bytes.
    pub bytes: usize,
}

/// Appends a packet opening a conversation. It begins with a delimiter, so that it is understood whatever
/// half packet came before it.
pub fn write_hello(hello: &Hello, packet: &mut Vec<u8>) {
    packet.push(wire::DELIMITER);
    wire::encode(&greeting(KIND_HELLO, hello.version, hello.nonce), packet);
}

/// Appends a packet accepting a conversation. It begins with a delimiter for the same reason.
pub fn write_hello_back(back: &HelloBack, packet: &mut Vec<u8>) {
    let mut content = greeting(KIND_HELLO_BACK, back.version, back.nonce);
    if let Some(guest) = &back.guest
        && let Ok(encoded) = postcard::to_stdvec(guest)
    {
        content.extend_from_slice(&encoded);
    }
    packet.push(wire::DELIMITER);
    wire::encode(&content, packet);
}

/// Appends a packet telling that a conversation is not known here.
pub fn write_gone(nonce: Option<Nonce>, packet: &mut Vec<u8>) {
    let mut content = vec![KIND_GONE];
    if let Some(Nonce(nonce)) = nonce {
        content.extend_from_slice(&nonce.to_le_bytes());
    }
    packet.push(wire::DELIMITER);
    wire::encode(&content, packet);
}

/// Appends a frame.
///
/// # Errors
///
/// [`TooLarge`] when it does not fit a packet; nothing is appended then.
pub fn write_frame<M: Serialize>(
    nonce: Nonce,
    sequence: u32,
    stream: StreamId,
    message: &M,
    payload: &[u8],
    packet: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    let header = Header {
        nonce,
        sequence,
        stream,
        message,
    };
    // Serialising plain data into memory fails only for lengths that no memory holds.
    let mut content = postcard::to_extend(&header, vec![KIND_FRAME])
        .map_err(|_| TooLarge { bytes: usize::MAX })?;
    content.extend_from_slice(payload);
    if content.len() > wire::CONTENT_BYTES_MAX {
        return Err(TooLarge {
            bytes: content.len(),
        });
    }
    wire::encode(&content, packet);
    Ok(())
}

/// Checks that a message fits a packet, whatever conversation and stream it goes to.
///
/// # Errors
///
/// [`TooLarge`].
pub fn check_size<M: Serialize>(message: &M) -> Result<(), TooLarge> {
    write_frame(
        Nonce(u64::MAX),
        u32::MAX,
        StreamId(u32::MAX),
        message,
        &[],
        &mut Vec::new(),
    )
}

/// Reads the content of a packet.
///
/// # Errors
///
/// [`Malformed`] for anything that no [`write_frame`] and its siblings wrote.
pub fn read_packet<M: DeserializeOwned>(content: &[u8]) -> Result<Packet<M>, Malformed> {
    let (kind, rest) = content.split_first().ok_or(Malformed)?;
    match *kind {
        KIND_HELLO => {
            let (version, nonce, _) = read_greeting(rest)?;
            Ok(Packet::Hello(Hello { version, nonce }))
        }
        KIND_HELLO_BACK => {
            let (version, nonce, info) = read_greeting(rest)?;
            // Nothing follows what a guest says to a host of another version.
            let guest = if version == VERSION && !info.is_empty() {
                Some(read_guest(info)?)
            } else {
                None
            };
            Ok(Packet::HelloBack(HelloBack {
                version,
                nonce,
                guest,
            }))
        }
        KIND_GONE if rest.is_empty() => Ok(Packet::Gone(None)),
        KIND_GONE => Ok(Packet::Gone(Some(Nonce(u64::from_le_bytes(
            rest.try_into().map_err(|_| Malformed)?,
        ))))),
        KIND_FRAME => {
            let (header, payload) =
                postcard::take_from_bytes::<Header<M>>(rest).map_err(|_| Malformed)?;
            let Header {
                nonce,
                sequence,
                stream,
                message,
            } = header;
            Ok(Packet::Frame(Frame {
                nonce,
                sequence,
                stream,
                message,
                payload: payload.to_vec(),
            }))
        }
        _ => Err(Malformed),
    }
}

fn greeting(kind: u8, version: u16, Nonce(nonce): Nonce) -> Vec<u8> {
    let mut content = vec![kind];
    content.extend_from_slice(&MAGIC);
    content.extend_from_slice(&version.to_le_bytes());
    content.extend_from_slice(&nonce.to_le_bytes());
    content
}

fn read_greeting(rest: &[u8]) -> Result<(u16, Nonce, &[u8]), Malformed> {
    let rest = rest.strip_prefix(&MAGIC).ok_or(Malformed)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let (nonce, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
    Ok((
        u16::from_le_bytes(*version),
        Nonce(u64::from_le_bytes(*nonce)),
        rest,
    ))
}

fn read_guest(info: &[u8]) -> Result<GuestInfo, Malformed> {
    postcard::from_bytes(info).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::boot::{Mount, MountSource};

    /// Writes with `write`, passes the bytes through the wire, and reads the one packet back.
    #[track_caller]
    fn through_the_wire<M: DeserializeOwned>(write: impl FnOnce(&mut Vec<u8>)) -> Packet<M> {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let mut rest = bytes.as_slice();
        let content = wire::Decoder::new().next(&mut rest).expect("a packet");
        read_packet(&content).expect("a known packet")
    }

    fn request() -> impl Strategy<Value = Request> {
        let program = (
            "\\PC{0,20}",
            proptest::collection::vec("\\PC{0,9}", 0..4),
            proptest::option::of("/[a-z]{1,8}"),
        )
            .prop_map(|(name, arguments, output)| {
                let program = Program {
                    name,
                    environment: arguments
                        .iter()
                        .map(|value| ("KEY".to_owned(), value.clone()))
                        .collect(),
                    arguments,
                    directory: output.clone(),
                };
                (program, output)
            });
        let service = ("[a-z.@_-]{1,9}", program.clone())
            .prop_map(|(name, (program, _))| Request::StartService { name, program });
        let run = program.clone().prop_map(|(program, output)| {
            Request::Run(Run {
                program,
                stdin: StdinSource::Stream,
                lifetime: Lifetime::Detached { output },
            })
        });
        let size =
            (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| WindowSize { columns, rows });
        let terminal = prop_oneof![
            Just(TerminalProgram::LoginShell),
            program
                .clone()
                .prop_map(|(program, _)| TerminalProgram::Program(program)),
        ];
        let terminal = (terminal, "\\PC{0,9}", size).prop_map(|(program, term, size)| {
            Request::Terminal(TerminalRun {
                program,
                term,
                size,
            })
        });
        prop_oneof![
            run,
            terminal,
            // IPv6 scopes and flow labels, which only the host knows, do not travel.
            (any::<IpAddr>(), any::<u16>())
                .prop_map(|(ip, port)| Request::Dial(SocketAddr::new(ip, port))),
            (any::<String>(), any::<u32>()).prop_map(|(path, mode)| Request::Upload { path, mode }),
            service,
            ("[a-z]{1,9}", any::<u64>())
                .prop_map(|(name, offset)| Request::FollowService { name, offset }),
            ("[a-z]{1,9}", any::<i32>())
                .prop_map(|(name, signal)| Request::SignalService { name, signal }),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Request::SetClock {
                since_epoch: Duration::new(seconds, nanos)
            }),
            proptest::collection::vec(any::<u8>(), 0..70)
                .prop_map(|entropy| Request::Reseed { entropy }),
            Just(Request::Renew),
            Just(Request::Release),
            Just(Request::Services),
            Just(Request::Part),
            identity().prop_map(|identity| Request::Configure {
                identity,
                entropy: vec![1, 0, 2],
            }),
        ]
    }

    fn identity() -> impl Strategy<Value = Identity> {
        let interface = (
            any::<[u8; 6]>(),
            any::<Option<[u8; 6]>>(),
            any::<IpAddr>(),
            any::<u8>(),
        )
            .prop_map(|(mac, new_address, ip, prefix)| Interface {
                mac,
                address: new_address,
                name: None,
                addresses: vec![(ip, prefix)],
                gateways: vec![ip],
                announce: true,
            });
        let mount = (any::<Option<String>>(), any::<bool>()).prop_map(|(serial, flag)| Mount {
            source: serial.map_or(MountSource::Virtual, |serial| MountSource::Disk { serial }),
            target: "/data".to_owned(),
            filesystem: "ext4".to_owned(),
            read_only: flag,
            optional: !flag,
        });
        (
            proptest::collection::vec(interface, 0..3),
            proptest::option::of("[0-9a-f]{32}"),
            proptest::collection::vec(mount, 0..3),
        )
            .prop_map(|(interfaces, machine_id, mounts)| Identity {
                hostname: "node1".to_owned(),
                hosts: interfaces
                    .iter()
                    .map(|interface| (interface.addresses[0].0, "node1".to_owned()))
                    .collect(),
                name_servers: interfaces
                    .iter()
                    .map(|interface| interface.addresses[0].0)
                    .collect(),
                interfaces,
                machine_id,
                layers: mounts.first().cloned().map(|disk| {
                    Box::new(Layers {
                        disk,
                        folders: vec!["/var".to_owned()],
                    })
                }),
                mounts,
            })
    }

    fn answer() -> impl Strategy<Value = ToHost> {
        let status = prop_oneof![
            any::<i32>().prop_map(ExitStatus::Code),
            any::<i32>().prop_map(ExitStatus::Signal),
        ];
        let state = prop_oneof![
            Just(ServiceState::Running),
            status.clone().prop_map(ServiceState::Ended),
        ];
        let info = ("[a-z]{1,9}", any::<i32>(), state, any::<u64>()).prop_map(
            |(name, pid, state, output_offset)| ServiceInfo {
                name,
                pid,
                state,
                output_offset,
            },
        );
        prop_oneof![
            any::<u64>().prop_map(|offset| ToHost::Following { offset }),
            any::<u32>().prop_map(ToHost::Grant),
            Just(ToHost::Data(Lane::Main)),
            status.prop_map(ToHost::Exited),
            any::<i32>().prop_map(|pid| ToHost::Done(Reply::Service { pid })),
            proptest::collection::vec(info, 0..SERVICES_MAX)
                .prop_map(|infos| ToHost::Done(Reply::Services(infos))),
            Just(ToHost::Done(Reply::Parted)),
            ("\\PC{0,20}", any::<i32>()).prop_map(|(operation, errno)| {
                ToHost::Failed(Failure {
                    operation,
                    cause: Cause::Os(errno),
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn frames_read_back(
            nonce: u64, sequence: u32, stream: u32, request in request(), answer in answer(),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = ToGuest::Open(request);
            let read = through_the_wire(|bytes| {
                write_frame(Nonce(nonce), sequence, StreamId(stream), &message, &payload, bytes).expect("fits");
            });
            let payload_again = payload.clone();
            let expected = Frame { nonce: Nonce(nonce), sequence, stream: StreamId(stream), message, payload };
            prop_assert_eq!(read, Packet::Frame(expected));
            let read = through_the_wire(|bytes| {
                write_frame(Nonce(nonce), sequence, StreamId(stream), &answer, &payload_again, bytes).expect("fits");
            });
            let expected = Frame {
                nonce: Nonce(nonce), sequence, stream: StreamId(stream), message: answer, payload: payload_again,
            };
            prop_assert_eq!(read, Packet::Frame(expected));
        }

        #[test]
        fn sizes_read_back(columns: u16, rows: u16) {
            let message = ToGuest::Resize(WindowSize { columns, rows });
            let read = through_the_wire(|bytes| {
                write_frame(Nonce(1), 2, StreamId(3), &message, &[], bytes).expect("fits");
            });
            let expected = Frame { nonce: Nonce(1), sequence: 2, stream: StreamId(3), message, payload: vec![] };
            prop_assert_eq!(read, Packet::Frame(expected));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_packet::<ToGuest>(&content);
            let _ = read_packet::<ToHost>(&content);
        }
    }

    #[test]
    fn a_greeting_of_another_version_is_still_understood() {
        let back = HelloBack {
            version: VERSION + 1,
            nonce: Nonce(9),
            guest: None,
        };
        assert_eq!(
            through_the_wire::<ToHost>(|bytes| write_hello_back(&back, bytes)),
            Packet::HelloBack(back)
        );
    }

    #[test]
    fn a_message_larger_than_a_packet_is_refused() {
        let message = ToGuest::Open(Request::Download {
            path: "x".repeat(wire::CONTENT_BYTES_MAX),
        });
        let mut bytes = Vec::new();
        assert!(write_frame(Nonce(1), 0, StreamId(1), &message, &[], &mut bytes).is_err());
        assert!(bytes.is_empty());
    }
}
