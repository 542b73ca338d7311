//! A small typed QMP client: the dozen commands we use, with bounded waits and bounded lines.
//!
//! Our own rather than a crate: the protocol is JSON lines with stable commands, while the generated
//! clients pin one QEMU schema, and we need the deadlines and the events anyway. Which machine the
//! commands concern is `machine`'s business.
//!
//! Source: QEMU, "QEMU Machine Protocol Specification" (docs/interop/qmp-spec).

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, RawFd},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::Interest,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// QEMU's longest lines are schema dumps, which we never ask for; this is ample for the rest.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Events a slow listener may miss before it is told that it lagged.
const EVENTS_BUFFERED: usize = 64;

/// Between two looks for something of which no event tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Names the disk that replaces another, and the job that does it.
const REPLACING: &str = "replacing";
/// Nothing is copied, so the smallest that QEMU takes, one cluster, is enough.
const REPLACING_BUFFER_BYTES: u64 = 64 << 10;

/// Why a QMP conversation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused the command.
    #[error("could not run the QMP command {command}: {description} ({class})")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's own words.
        description: String,
    },
    /// No answer came in time.
    #[error("could not get an answer to the QMP command {command} within {allowed:?}")]
    TimedOut {
        /// The command's name, or `greeting`.
        command: String,
        /// How long we waited.
        allowed: Duration,
    },
    /// QEMU has closed the monitor.
    #[error("could not run the QMP command {command}: QEMU has closed the monitor")]
    Closed {
        /// The command's name, or `greeting`.
        command: String,
    },
    /// QEMU gave up saving or loading the machine's state.
    #[error("could not {operation}: QEMU gave up: {description}")]
    Migration {
        /// What was tried, as an infinitive.
        operation: &'static str,
        /// QEMU's own words, where it had any.
        description: String,
    },
    /// QEMU gave up something that it does beside its commands.
    #[error("could not {operation}: {description}")]
    Job {
        /// What was tried, as an infinitive.
        operation: &'static str,
        /// QEMU's own words, where it had any.
        description: String,
    },
    /// What arrived is not QMP.
    #[error("could not read QMP: {found:?} is not an expected message")]
    Malformed {
        /// The beginning of the line.
        found: String,
    },
}

/// An event QEMU sent by itself, such as `SHUTDOWN` or `STOP`.
#[derive(Clone, Debug)]
pub struct QmpEvent {
    /// The event's name.
    pub name: String,
    /// All of the message: `event`, `data` where there are any, `timestamp`.
    pub message: Value,
}

/// Whether the guest's processors run, as QEMU calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStatus {
    /// The processors execute.
    pub running: bool,
    /// The state is being written; the processors cannot run on yet.
    pub migrating: bool,
}

/// Where a machine's memory is while its state is saved or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateMemory {
    /// In a file that both sides map: it is no part of the state.
    InSharedFile,
    /// In the state itself.
    InState,
}

/// What QEMU calls the descriptor a state is written to.
const STATE_NAME: &str = "state";
/// Bytes per second; as good as no bound, and within what every version takes.
const BANDWIDTH_MAX: u64 = 1 << 40;

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, (String, String)>>>>>>;

/// A negotiated monitor connection. Dropping it closes the monitor.
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next_id: AtomicU64,
    events: broadcast::Sender<QmpEvent>,
    reader: JoinHandle<()>,
    allowed: Duration,
}

impl Qmp {
    /// Awaits the greeting and negotiates capabilities; `allowed` bounds each step and each later command.
    pub async fn connect(stream: UnixStream, allowed: Duration) -> Result<Qmp, QmpError> {
        let (read_half, write_half) = stream.into_split();
        let mut reader = BufReader::new(read_half);
        let greeting = timeout(allowed, next_message(&mut reader))
            .await
            .map_err(|_| QmpError::TimedOut {
                command: "greeting".into(),
                allowed,
            })??;
        match greeting {
            Some(message) if message.get("QMP").is_some() => {}
            Some(message) => {
                return Err(QmpError::Malformed {
                    found: shorten(&message.to_string()),
                });
            }
            None => {
                return Err(QmpError::Closed {
                    command: "greeting".into(),
                });
            }
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (events, _) = broadcast::channel(EVENTS_BUFFERED);
        let task = tokio::spawn(read_messages(reader, Arc::clone(&waiting), events.clone()));
        let qmp = Qmp {
            writer: tokio::sync::Mutex::new(write_half),
            waiting,
            next_id: AtomicU64::new(1),
            events,
            reader: task,
            allowed,
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Stops the guest's processors; returns once they have stopped.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.execute("stop", json!({})).await.map(drop)
    }

    /// Lets the guest's processors run on.
    pub async fn resume(&self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).await.map(drop)
    }

    /// Returns whether the guest's processors run.
    pub async fn run_status(&self) -> Result<RunStatus, QmpError> {
        let answer = self.execute("query-status", json!({})).await?;
        match (answer["running"].as_bool(), answer["status"].as_str()) {
            (Some(running), Some(status)) => Ok(RunStatus {
                running,
                migrating: status == "finish-migrate",
            }),
            _ => Err(QmpError::Malformed {
                found: shorten(&answer.to_string()),
            }),
        }
    }

    /// Writes the machine's state to `file`, without the memory that lies in a shared file if `memory` says
    /// so; returns once it is written. The processors must be stopped, and stay so.
    pub async fn save(&self, file: BorrowedFd<'_>, memory: StateMemory) -> Result<(), QmpError> {
        self.set_capabilities(memory).await?;
        // The default is a bound that suits a busy network.
        self.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": BANDWIDTH_MAX }),
        )
        .await?;
        let mut events = self.events();
        self.execute_with("getfd", json!({ "fdname": STATE_NAME }), Some(file))
            .await?;
        self.execute("migrate", json!({ "uri": format!("fd:{STATE_NAME}") }))
            .await?;
        let saved = self.migrated("save the machine's state", &mut events).await;
        self.left_migration().await?;
        saved
    }

    /// Loads the machine's state from a descriptor that QEMU inherited under this number; returns once it is
    /// loaded. QEMU must have been started with `-incoming defer`.
    ///
    /// A state that does not fit the machine ends QEMU in most versions: also await its exit.
    pub async fn load(&self, descriptor: RawFd, memory: StateMemory) -> Result<(), QmpError> {
        self.set_capabilities(memory).await?;
        // Else the cards tell everybody where they are now, five times over and with the addresses that they had at
        // first: in a crowd of machines that come up, each one is woken by all others.
        self.execute("migrate-set-parameters", json!({ "announce-rounds": 0 }))
            .await?;
        let mut events = self.events();
        self.execute(
            "migrate-incoming",
            json!({ "uri": format!("fd:{descriptor}") }),
        )
        .await?;
        self.migrated("load the machine's state", &mut events).await
    }

    /// Puts a new, empty disk over the one behind `drive`, whose file does not change any more.
    pub async fn put_overlay(&self, drive: &str, overlay: &Path) -> Result<(), QmpError> {
        let arguments = json!({
            "device": drive,
            "snapshot-file": overlay.to_string_lossy(),
            "format": "qcow2",
        });
        self.execute("blockdev-snapshot-sync", arguments)
            .await
            .map(drop)
    }

    /// Has the guest's disk behind `drive` be the file at `disk` from now on. What the guest had written before stays where
    /// it was written; its processors must be stopped.
    ///
    /// QEMU has no word for this. It has one that copies a disk to another and changes over to that; told to copy
    /// only what is written meanwhile, it copies nothing. Source: QEMU, "Live Block Device Operations".
    pub(crate) async fn replace_disk(&self, drive: &str, disk: &Path) -> Result<(), QmpError> {
        let mut events = self.events();
        let node = json!({
            "driver": "qcow2",
            "node-name": REPLACING,
            "discard": "unmap",
            "file": { "driver": "file", "filename": disk.to_string_lossy(), "discard": "unmap" },
        });
        self.execute("blockdev-add", node).await?;
        let mirror = json!({
            "job-id": REPLACING,
            "device": drive,
            "target": REPLACING,
            "sync": "none",
            "buf-size": REPLACING_BUFFER_BYTES,
        });
        self.execute("blockdev-mirror", mirror).await?;
        self.job("BLOCK_JOB_READY", &mut events).await?;
        self.execute("block-job-complete", json!({ "device": REPLACING }))
            .await?;
        self.job("BLOCK_JOB_COMPLETED", &mut events).await
    }

    /// Waits until the job that replaces a disk got as far as `wanted`.
    async fn job(
        &self,
        wanted: &str,
        events: &mut broadcast::Receiver<QmpEvent>,
    ) -> Result<(), QmpError> {
        let failed = |description: &str| QmpError::Job {
            operation: "replace the machine's disk",
            description: description.to_owned(),
        };
        let reached = async {
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(QmpError::Closed {
                            command: wanted.into(),
                        });
                    }
                };
                match (event.name.as_str(), event.message["data"]["error"].as_str()) {
                    ("BLOCK_JOB_COMPLETED" | "BLOCK_JOB_READY", Some(error)) => {
                        return Err(failed(error));
                    }
                    ("BLOCK_JOB_ERROR" | "BLOCK_JOB_CANCELLED", _) => {
                        return Err(failed(&event.name));
                    }
                    (name, None) if name == wanted => return Ok(()),
                    ("BLOCK_JOB_COMPLETED", None) => return Err(failed("it ended too early")),
                    _ => {}
                }
            }
        };
        timeout(self.allowed, reached).await.unwrap_or_else(|_| {
            Err(QmpError::TimedOut {
                command: wanted.into(),
                allowed: self.allowed,
            })
        })
    }

    /// Has the human monitor carry out a command; returns what it printed.
    pub async fn human_monitor(&self, command: &str) -> Result<String, QmpError> {
        let arguments = json!({ "command-line": command });
        let printed = self.execute("human-monitor-command", arguments).await?;
        Ok(printed.as_str().unwrap_or_default().to_owned())
    }

    /// Has QEMU end in order.
    pub async fn quit(&self) -> Result<(), QmpError> {
        self.execute("quit", json!({})).await.map(drop)
    }

    async fn set_capabilities(&self, memory: StateMemory) -> Result<(), QmpError> {
        let capabilities = json!([
            { "capability": "events", "state": true },
            { "capability": "x-ignore-shared", "state": memory == StateMemory::InSharedFile },
        ]);
        let arguments = json!({ "capabilities": capabilities });
        self.execute("migrate-set-capabilities", arguments)
            .await
            .map(drop)
    }

    /// Waits for the end of a migration that was begun after `events`.
    async fn migrated(
        &self,
        operation: &'static str,
        events: &mut broadcast::Receiver<QmpEvent>,
    ) -> Result<(), QmpError> {
        let ended = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "MIGRATION" => {
                        match event.message["data"]["status"].as_str() {
                            Some("completed") => return Ok(()),
                            Some("failed" | "cancelled") => return Err(true),
                            _ => {}
                        }
                    }
                    // A listener that lagged may have missed the end; the query tells.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(false),
                }
            }
        };
        match timeout(self.allowed, ended).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(true)) => {
                let told = self.execute("query-migrate", json!({})).await?;
                Err(QmpError::Migration {
                    operation,
                    description: text_of(Some(&told), "error-desc"),
                })
            }
            Ok(Err(false)) => Err(QmpError::Closed {
                command: operation.into(),
            }),
            Err(_) => Err(QmpError::TimedOut {
                command: operation.into(),
                allowed: self.allowed,
            }),
        }
    }

    /// Waits until QEMU would let the processors run on: a thread of its own tells of the end of a migration, and it takes
    /// QEMU a moment more to be over it.
    async fn left_migration(&self) -> Result<(), QmpError> {
        let left = async {
            while self.run_status().await?.migrating {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Ok(())
        };
        timeout(self.allowed, left).await.unwrap_or_else(|_| {
            Err(QmpError::TimedOut {
                command: "migrate".into(),
                allowed: self.allowed,
            })
        })
    }

    /// Returns a stream of the events from now on.
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        self.events.subscribe()
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None).await
    }

    /// Runs a command, with a descriptor sent along where it needs one.
    async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let closed = || QmpError::Closed {
            command: command.into(),
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        lock(&self.waiting)
            .as_mut()
            .ok_or_else(closed)?
            .insert(id, reply);
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.write(line.as_bytes(), descriptor)
            .await
            .map_err(|_| closed())?;
        match timeout(self.allowed, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err((class, description)))) => Err(QmpError::Refused {
                command: command.into(),
                class,
                description,
            }),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                if let Some(waiting) = lock(&self.waiting).as_mut() {
                    waiting.remove(&id);
                }
                Err(QmpError::TimedOut {
                    command: command.into(),
                    allowed: self.allowed,
                })
            }
        }
    }
}

impl Qmp {
    async fn write(&self, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let sent = match descriptor {
            // The descriptor travels with the first byte that is taken.
            Some(descriptor) => send_with(writer.as_ref(), line, descriptor).await?,
            None => 0,
        };
        writer.write_all(&line[sent..]).await
    }
}

/// Sends some of `bytes` and `descriptor` with them; returns how many bytes were taken.
async fn send_with(
    socket: &UnixStream,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let descriptors = [descriptor];
    socket
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::Error::other("no room for a descriptor"));
            }
            let bytes = [IoSlice::new(bytes)];
            Ok(sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?)
        })
        .await
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Delivers answers and events until QEMU hangs up, then lets every waiter know.
async fn read_messages(
    mut reader: BufReader<OwnedReadHalf>,
    waiting: Waiting,
    events: broadcast::Sender<QmpEvent>,
) {
    loop {
        match next_message(&mut reader).await {
            Ok(Some(message)) => deliver(message, &waiting, &events),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the monitor is given up");
                break;
            }
        }
    }
    lock(&waiting).take();
}

fn deliver(message: Value, waiting: &Waiting, events: &broadcast::Sender<QmpEvent>) {
    if let Some(name) = message["event"].as_str().map(str::to_owned) {
        // Nobody listening is the usual case.
        let _ = events.send(QmpEvent { name, message });
        return;
    }
    let Some(id) = message.get("id").and_then(Value::as_u64) else {
        return;
    };
    let Some(reply) = lock(waiting)
        .as_mut()
        .and_then(|waiting| waiting.remove(&id))
    else {
        return;
    };
    let answer = match (message.get("return"), message.get("error")) {
        (Some(value), _) => Ok(value.clone()),
        (None, error) => Err((text_of(error, "class"), text_of(error, "desc"))),
    };
    // The requester may have timed out just now.
    let _ = reply.send(answer);
}

fn text_of(error: Option<&Value>, key: &str) -> String {
    error
        .and_then(|error| error.get(key))
        .and_then(Value::as_str)
        .unwrap_or("not stated")
        .to_owned()
}

async fn next_message(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Value>, QmpError> {
    let mut line = Vec::new();
    let read = reader
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await;
    match read {
        Ok(0) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(QmpError::Malformed {
            found: error.to_string(),
        }),
        Ok(_) => serde_json::from_slice(&line)
            .map(Some)
            .map_err(|_| QmpError::Malformed {
                found: shorten(&String::from_utf8_lossy(&line)),
            }),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_millis(300);

    /// Plays QEMU: greets, then answers each line with what `answer` makes of it.
    async fn fake(
        greeting: &str,
        answer: impl Fn(Value) -> Vec<String> + Send + 'static,
    ) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let greeting = format!("{greeting}\n");
        tokio::spawn(async move {
            let (read_half, mut write_half) = theirs.into_split();
            write_half.write_all(greeting.as_bytes()).await.unwrap();
            let mut lines = BufReader::new(read_half).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                for reply in answer(serde_json::from_str(&line).unwrap()) {
                    write_half
                        .write_all(format!("{reply}\n").as_bytes())
                        .await
                        .unwrap();
                }
            }
        });
        ours
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    fn ok(request: &Value, value: Value) -> String {
        json!({ "return": value, "id": request["id"] }).to_string()
    }

    #[tokio::test]
    async fn answers_errors_and_events_reach_their_callers() {
        let stream = fake(GREETING, |request| match request["execute"].as_str().unwrap() {
            "query-status" => vec![ok(&request, json!({ "running": true, "status": "running" }))],
            "cont" => vec![
                json!({ "error": { "class": "GenericError", "desc": "no" }, "id": request["id"] }).to_string(),
            ],
            "stop" => vec![json!({ "event": "STOP", "timestamp": {} }).to_string(), ok(&request, json!({}))],
            _ => vec![ok(&request, json!({}))],
        })
        .await;
        let qmp = Qmp::connect(stream, ALLOWED).await.unwrap();
        let mut events = qmp.events();
        assert!(qmp.run_status().await.unwrap().running);
        assert_eq!(
            qmp.resume().await.unwrap_err().to_string(),
            "could not run the QMP command cont: no (GenericError)"
        );
        qmp.stop().await.unwrap();
        assert_eq!(events.recv().await.unwrap().name, "STOP");
    }

    #[tokio::test]
    async fn silence_and_hang_up_end_the_wait() {
        let silent = fake(GREETING, |request| {
            match request["execute"].as_str().unwrap() {
                "qmp_capabilities" => vec![ok(&request, json!({}))],
                _ => vec![],
            }
        })
        .await;
        let qmp = Qmp::connect(silent, ALLOWED).await.unwrap();
        assert!(matches!(qmp.stop().await, Err(QmpError::TimedOut { .. })));

        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(
            Qmp::connect(ours, ALLOWED).await,
            Err(QmpError::Closed { .. })
        ));
    }

    #[tokio::test]
    async fn what_is_not_qmp_is_refused() {
        for greeting in ["hello", "{}", "[1]"] {
            let stream = fake(greeting, |_| vec![]).await;
            assert!(
                matches!(
                    Qmp::connect(stream, ALLOWED).await,
                    Err(QmpError::Malformed { .. })
                ),
                "{greeting}"
            );
        }
    }
}
