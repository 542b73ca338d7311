//! A node that runs jobs on its host, as a user meets it: `mvm-ci serve --slots`, and HTTP.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::ports::free_ports;

/// Only a hang takes this long.
const ALLOWED: Duration = Duration::from_secs(60);

pub(crate) struct Served {
    pub(crate) process: Child,
    pub(crate) port: u16,
    pub(crate) folder: Option<tempfile::TempDir>,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start_in(folder: tempfile::TempDir) -> Self {
        let ports = free_ports(3);
        let [http, raft, store] = [ports[0], ports[1], ports[2]];
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(["serve", "--slots", "2"])
            .arg("--members")
            .arg(format!("1=127.0.0.1:{http}:{raft}:{store}"))
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .env("MVM_CI_SECRET_RAFT", "raft-secret-for-tests")
            .env("MVM_CI_LABELS", "linux,big")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let node = Self {
            process,
            port: http,
            folder: Some(folder),
        };
        node.wait("the node is ready", || {
            match node.ask("GET", "/ready", &Value::Null) {
                Some((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        node
    }

    /// Sends a request; nothing if nobody answers.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let (status, body) = self.ask_for_text(method, path, body)?;
        Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    pub(crate) fn ask_for_text(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, String)> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    pub(crate) fn submit(&self, spec: &Value) -> String {
        let (status, job) = self.ask("POST", "/api/v1/jobs", spec).unwrap();
        assert_eq!(status, 201, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn script(&self, script: &str) -> String {
        self.submit(&json!({"kind": "process", "payload": {"script": script}}))
    }

    /// Runs a command of the program against this node: exit code, standard output and error.
    pub(crate) fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(arguments)
            .env("MVM_CI_SERVER", format!("http://127.0.0.1:{}", self.port))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        let (_, answer) = self
            .ask("GET", &format!("/api/v1/jobs/{id}"), &Value::Null)
            .unwrap();
        answer["job"].clone()
    }

    /// Waits until a job is in a state; returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, state: &str) -> Value {
        self.wait(state, || {
            let job = self.job(id);
            if job["state"] == state {
                Ok(job)
            } else {
                Err(job.to_string())
            }
        })
    }

    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            let seen = match probe() {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            let log = || {
                let folder = self.folder.as_ref().unwrap();
                std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
            };
            assert!(began.elapsed() < ALLOWED, "{what}: {seen}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self, id: &str, attempt: i64, stream: &str) -> String {
        let path = format!("/api/v1/jobs/{id}/log?attempt={attempt}");
        let (_, answer) = self.ask("GET", &path, &Value::Null).unwrap();
        let chunks = answer["chunks"].as_array().unwrap().iter();
        chunks
            .filter(|chunk| chunk["stream"] == stream)
            .map(|chunk| chunk["text"].as_str().unwrap())
            .collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a process runs that was given this argument.
pub(crate) fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines =
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}
