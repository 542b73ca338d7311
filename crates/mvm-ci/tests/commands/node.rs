//! A node that is real but for its store, which is in this test's memory; what it streams is a script. And the program, as
//! a shell runs it against that node.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    sync::Arc,
};

use axum::{Router, http::header, routing::get};
use expect_test::Expect;
use mvm_node::{http::App, store::MemoryStore};
use mvm_queue::{Change, FencingToken, JobId, Report, RequestId, Stream, UnixMillis};
use serde_json::Value;

/// The program, as in a shell without settings.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
    for variable in ["MVM_CI_SERVER", "MVM_CI_TOKEN", "MVM_CI_LOG", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it; all that it said, and the exit code.
pub(crate) fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        text += &format!("! {line}\n");
    }
    text + &format!("exit {}\n", output.status.code().unwrap())
}

/// A node whose store is in memory.
pub(crate) struct Node {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    pub(crate) fn start() -> Node {
        Node::with(Router::new())
    }

    /// Streams this text as every job's output.
    pub(crate) fn streaming(text: String) -> Node {
        let events = move || async move { ([(header::CONTENT_TYPE, "text/event-stream")], text) };
        Node::with(Router::new().route("/api/v1/jobs/{id}/log/events", get(events)))
    }

    /// Answers some routes otherwise than a node does.
    pub(crate) fn with(routes: Router) -> Node {
        let store = Arc::new(MemoryStore::new());
        let router = routes.fallback_service(App::new(Arc::clone(&store), 1, "secret").router());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Node {
            store,
            url,
            _runtime: runtime,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("MVM_CI_SERVER", &self.url);
        command
    }

    /// Runs a command; what differs from run to run is replaced.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        said(self.command(arguments)).replace(&self.url, "NODE")
    }

    #[track_caller]
    pub(crate) fn check(&self, arguments: &[&str], ids: &[&str], expected: Expect) {
        let mut text = self.said(arguments);
        for (number, id) in ids.iter().enumerate() {
            // As wide, so that columns stay in line.
            text = text.replace(id, &format!("{:.<26}", format!("JOB{number}")));
        }
        // This may take some seconds on a busy machine.
        for seconds in 1..10 {
            text = text.replace(&format!("  {seconds} s  "), "  now  ");
        }
        expected.assert_eq(&without_times(&text));
    }

    pub(crate) fn submit(&self, arguments: &[&str]) -> String {
        let text = self.said(&[&["job", "submit"], arguments].concat());
        let id = text
            .strip_suffix("\nexit 0\n")
            .unwrap_or_else(|| panic!("{text}"));
        id.to_owned()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.said(arguments);
        serde_json::from_str(text.strip_suffix("exit 0\n").unwrap()).unwrap()
    }

    /// Makes a change, as a worker on node 1 does.
    fn change(&self, change: Change) {
        let command = mvm_queue::Command {
            request: RequestId(format!("{change:?}")),
            at: UnixMillis(1_763_916_000_000),
            change,
        };
        self.store.apply(&command);
    }

    /// Takes the first job that is ready.
    pub(crate) fn claim(&self, id: &str) {
        self.change(Change::Claim {
            node: 1,
            worker: "builder".into(),
            slots: 1,
            labels: [].into(),
            kinds: [].into(),
        });
        self.change(Change::Start {
            job: JobId(id.into()),
            token: FencingToken(1),
        });
    }

    pub(crate) fn output(&self, id: &str, number: u32, stream: Stream, text: &str) {
        self.change(Change::Log {
            job: JobId(id.into()),
            token: FencingToken(1),
            number,
            stream,
            bytes: text.into(),
        });
    }

    pub(crate) fn finish(&self, id: &str, report: Report) {
        self.change(Change::Finish {
            job: JobId(id.into()),
            token: FencingToken(1),
            report,
        });
    }
}

/// Times of today, however they are written.
fn without_times(text: &str) -> String {
    let word = |word: &str| match word.len() == 20 && word.ends_with('Z') && word.starts_with("20")
    {
        true => "TIME".to_owned(),
        false => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
