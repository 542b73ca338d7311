//! Whatever a guest hands to the host, and wherever it says that its commands and answers are: it ends in a defined way, and the
//! host keeps its feet.
//!
//! A case is what a guest does: calls, some with their pointers anywhere, and the text of its commands. The guest is a module that does
//! as it is told (`guest.wat`), run as workflows are; the host here answers every command at once. How the engine goes on
//! from there is tested by `tests/flow/border.rs` of `mvm-flow`.

#![no_main]

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use arbitrary::Arbitrary;
use futures_util::{FutureExt as _, future::BoxFuture};
use libfuzzer_sys::fuzz_target;
use mvm_flow::{
    abi::{
        Answer, Command, HttpConfig, HttpError, HttpErrorKind, HttpRequest, HttpTransportError,
        Line, Number,
    },
    guest::{CannotRun, End, Guests, Host, Limits, Runnable, Stopped},
    id::ModuleHash,
};

/// Where the guest has what it is told.
const TOLD: u32 = 65536;
const CALL_BYTES: u32 = 20;
const CALLS_MAX: usize = 8;
const LIMITS: Limits = Limits {
    memory_bytes: 1 << 20,
    instructions: 4_000_000,
};

#[derive(Arbitrary, Debug)]
struct Case {
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Call {
    said: Said,
    /// Where it says that this is, if that is not there.
    elsewhere: Option<(u32, u32)>,
    /// Where the answer is wanted, if not where there is room for it.
    answer: Option<(u32, u32, u32)>,
}

#[derive(Arbitrary, Debug)]
enum Said {
    Bytes(Vec<u8>),
    /// A command, of which some bytes may be others.
    Command {
        which: u8,
        text: String,
        more: Vec<String>,
        number: u64,
        changes: Vec<(u16, u8)>,
    },
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        let (which, text, more, number, changes) = match self {
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Command {
                which,
                text,
                more,
                number,
                changes,
            } => (which, text, more, *number, changes),
        };
        let texts = || (text.clone(), more.concat());
        let duration = Duration::new(number >> 3, number as u32 % 1_000_000_000);
        let commands: [&dyn Fn() -> Command; 15] = [
            &|| Command::GetInput,
            &|| Command::TimeNow,
            &|| Command::Log(Line::Warn(text.clone())),
            &|| Command::SendResponse(text.clone()),
            &|| Command::GetSecret(text.clone()),
            &|| Command::ReplayDebug(text.clone()),
            &|| Command::StartWorkflow(texts().0, texts().1),
            &|| Command::Random(Number::F64(f64::from_bits(number))),
            &|| Command::Random(Number::F32(f32::from_bits(number as u32))),
            &|| Command::Random(Number::I64(number.cast_signed())),
            &|| Command::Random(Number::Bool(number.is_multiple_of(2))),
            &|| Command::Sleep(duration),
            &|| Command::RecvMessage(None, more.clone()),
            &|| Command::RecvMessage(Some(duration), more.clone()),
            &|| {
                Command::HttpRequest(HttpRequest {
                    config: HttpConfig {
                        idempotent: number.is_multiple_of(2),
                        timeout: duration,
                        response_body_limit: number,
                    },
                    method: texts().1,
                    url: text.clone(),
                    headers: more.iter().map(|name| (name.clone(), texts().0)).collect(),
                    body: texts().1,
                })
            },
        ];
        let command = commands[usize::from(*which) % commands.len()]();
        let mut bytes = serde_json::to_vec(&command).unwrap();
        for (place, byte) in changes {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *byte;
        }
        bytes
    }
}

impl Case {
    /// The bytes that tell the guest so.
    fn told(&self) -> Vec<u8> {
        let calls = &self.calls[..self.calls.len().min(CALLS_MAX)];
        let mut at = TOLD + 4 + calls.len() as u32 * CALL_BYTES;
        let (mut words, mut commands) = (vec![calls.len() as u32], Vec::<u8>::new());
        for call in calls {
            let said = call.said.bytes();
            let length = said.len() as u32;
            let (pointer, length) = call.elsewhere.unwrap_or((at, length));
            at += said.len() as u32;
            let (place, size, room) = call.answer.unwrap_or((16, 20, 2 * TOLD));
            words.extend([pointer, length, place, size, room]);
            commands.extend(said);
        }
        let mut told: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        told.extend(commands);
        told
    }
}

/// Answers everything at once, and remembers what it was asked.
struct Answering {
    input: String,
    asked: Arc<Mutex<Vec<Command>>>,
}

impl Host for Answering {
    fn submit(&mut self, command: Command) -> BoxFuture<'_, Result<Answer, Stopped>> {
        self.asked.lock().unwrap().push(command.clone());
        let answer = match command {
            Command::GetInput => Answer::String(self.input.clone()),
            Command::Random(number) => Answer::Value(number),
            Command::SendResponse(_) => Answer::ResponseSent(false),
            Command::HttpRequest(request) => {
                Answer::HttpResponse(Err(HttpError::Transport(HttpTransportError {
                    kind: HttpErrorKind::InvalidUrl,
                    message: Some(request.url),
                    url: None,
                })))
            }
            Command::GetSecret(name) => Answer::Secret(Some(name)),
            Command::TimeNow => Answer::Time(SystemTime::UNIX_EPOCH),
            Command::RecvMessage(Some(Duration::ZERO), _) => Answer::Timeout,
            Command::RecvMessage(_, types) => Answer::Message(types.concat(), "null".into()),
            Command::StartWorkflow(..)
            | Command::Log(_)
            | Command::Sleep(_)
            | Command::ReplayDebug(_) => Answer::Unit,
        };
        async move { Ok(answer) }.boxed()
    }
}

static GUEST: LazyLock<Runnable<Answering>> = LazyLock::new(|| {
    let module = wat::parse_str(include_str!("guest.wat")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let compiled = async {
        let guests = Guests::new(None).unwrap();
        let hash = ModuleHash::of(&module);
        let bytes = async { Ok::<_, CannotRun>(module.clone()) };
        guests.module(&hash, bytes).await.unwrap()
    };
    runtime.block_on(compiled)
});

fuzz_target!(|case: Case| {
    let told = case.told();
    let digits: String = told.iter().map(|byte| format!("{byte:02x}")).collect();
    let asked = Arc::<Mutex<Vec<Command>>>::default();
    let host = Answering {
        input: format!("\"{digits}\""),
        asked: Arc::clone(&asked),
    };
    let (end, _) = futures_executor::block_on(GUEST.run("main", host, LIMITS));
    match end {
        End::Returned | End::Stopped(Stopped::Misbehaved(_)) => {}
        // Its pointers are in no wasm instruction's way, but its own tables of them may be.
        End::Trapped { trap, .. } => assert!(!trap.is_empty()),
        End::Stopped(stopped) => panic!("nobody stopped it: {stopped}"),
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.first(), Some(&Command::GetInput));
    for command in asked.iter() {
        // What was understood is said the same way again: it is compared so. A number beyond its type is none in JSON.
        let text = serde_json::to_vec(command).unwrap();
        if let Ok(again) = serde_json::from_slice::<Command>(&text) {
            assert_eq!(text, serde_json::to_vec(&again).unwrap());
        }
    }
});
