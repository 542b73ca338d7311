//! A server that does what a script says, down to the bytes and the ends of connections.

// Helpers of tests may unwrap as tests do. Not every test file uses all of them.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use mvm_client::{Client, Options, ServerUrl};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What becomes of one request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// These bytes, then the connection ends.
    Send(Vec<u8>),
    /// The connection ends.
    Cut,
    /// Nothing, for ever.
    Hang,
    /// These bytes, then nothing, for ever.
    SendAndHang(Vec<u8>),
    /// The first bytes, then the second ones over and over.
    Flood(Vec<u8>, Vec<u8>),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    /// Method and path.
    pub(crate) fn line(&self) -> &str {
        self.head
            .lines()
            .next()
            .unwrap()
            .trim_end_matches(" HTTP/1.1")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// The last act of a script is repeated.
pub(crate) struct Server {
    pub(crate) url: ServerUrl,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self {
            url: url.parse().unwrap(),
            seen,
            task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| seen.line().to_owned())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Act>>>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let Some(seen) = request(&mut stream).await else {
        return;
    };
    let act = {
        // What was seen and what is done keep their order.
        let mut script = script.lock().unwrap();
        log.lock().unwrap().push(seen);
        let act = script.pop_front().unwrap();
        if script.is_empty() {
            script.push_back(act.clone());
        }
        act
    };
    match act {
        Act::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Act::Cut => {}
        Act::Hang => std::future::pending().await,
        Act::SendAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Act::Flood(first, more) => {
            let _ = stream.write_all(&first).await;
            while stream.write_all(&more).await.is_ok() {}
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut seen = Seen {
                head: head.to_owned(),
                body: body.to_owned(),
            };
            let length = seen
                .header("content-length")
                .map_or(0, |text| text.parse().unwrap());
            if body.len() >= length {
                seen.body.truncate(length);
                return Some(seen);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Act {
    let length = body.len();
    Act::Send(
        format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// The beginning of a stream of events, and what it sends.
pub(crate) fn events(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n{text}")
        .into_bytes()
}

/// 503, as nodes say it.
pub(crate) fn unavailable() -> Act {
    answer(
        503,
        "",
        r#"{"title": "the cluster cannot serve this now", "detail": "no leader"}"#,
    )
}

/// 504, as nodes say it.
pub(crate) fn unknown() -> Act {
    answer(504, "", r#"{"title": "the outcome is not known"}"#)
}

/// The answer to a submission.
pub(crate) fn submitted(status: u16) -> Act {
    answer(
        status,
        "",
        r#"{"id": "J1", "state": "pending", "waits_for": "worker"}"#,
    )
}

/// Where nobody listens.
pub(crate) async fn nobody() -> ServerUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    url.parse().unwrap()
}

/// The patience of tests that expect an end by a deadline. All others wait as users do.
pub(crate) fn impatient(servers: Vec<ServerUrl>) -> Options {
    Options {
        deadline: Duration::from_millis(700),
        answer_timeout: Duration::from_millis(200),
        ..Options::new(servers)
    }
}

pub(crate) fn client(servers: &[&Server]) -> Client {
    let urls = servers.iter().map(|server| server.url.clone());
    Client::new(Options::new(urls.collect())).unwrap()
}
