//! An engine with its interface, and a server that counts.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    response::IntoResponse,
};
use mvm_flow::{Engine, Settings, SqliteJournal, api};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// A wait that ends a test which hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An engine of a directory, and its interface on a port of loopback. Dropped, it dies without a farewell.
pub(crate) struct Flow {
    pub(crate) url: String,
    pub(crate) client: Client,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Flow {
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::with(directory, settings()).await
    }

    pub(crate) async fn with(directory: &Path, settings: Settings) -> Self {
        let journal = Arc::new(SqliteJournal::open(directory).unwrap());
        let engine = Arc::new(Engine::new(journal, settings).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let router = api::router(Arc::clone(&engine));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        tasks.spawn(async move { engine.run(stopped).await });
        Self {
            url,
            client: Client::new(),
            stop,
            tasks,
        }
    }

    /// Ends the engine as a loss of power would: nothing more is done, and the file is free for the next one.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends the engine as an operator would.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        // The interface goes on; the engine ends first.
        self.tasks.join_next().await;
        self.tasks.shutdown().await;
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        json_of(answer).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.url));
        json_of(request.body(body.to_string()).send().await.unwrap()).await
    }

    /// Deploys a module of the repository's.
    pub(crate) async fn deploy(&self, name: &str) {
        let deployed = self.deploy_bytes(guest(name)).await;
        assert_eq!(deployed["ok"]["name"], name, "{deployed}");
    }

    pub(crate) async fn deploy_bytes(&self, bytes: Vec<u8>) -> Value {
        let url = format!("{}/api/module/deploy", self.url);
        let boundary = "a-boundary-that-no-module-has";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"module\"\r\nContent-Type: application/wasm\r\n\r\n"
        )
        .into_bytes();
        body.extend(bytes);
        body.extend(format!("\r\n--{boundary}--\r\n").bytes());
        let request = self.client.post(url).body(body);
        let request = request.header(
            "content-type",
            format!("multipart/form-data; boundary={boundary}"),
        );
        json_of(request.send().await.unwrap()).await
    }

    /// Starts a workflow of the module `compat`, and returns its id.
    pub(crate) async fn begin(&self, workflow: &str, input: Value) -> String {
        let start = json!({ "module": "compat", "workflow": workflow, "input": input });
        let started = self.post("/api/v1/workflows", start).await;
        started["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{started}"))
            .to_owned()
    }

    /// Starts a workflow of the module `compat` as the public clients do, and returns its response.
    pub(crate) async fn call(&self, workflow: &str, input: Value) -> Value {
        let start = json!({ "module": "compat", "version": "1.0.0", "workflow": workflow, "input": input.to_string() });
        let started = self.post("/api/workflow/start", start).await;
        match &started["ok"]["response"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            Value::Null if started["error"].is_null() => Value::Null,
            _ => started,
        }
    }

    /// Waits until an execution is as it should be.
    pub(crate) async fn until(&self, id: &str, what: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/v1/workflows/{id}");
        let mut shown = Value::Null;
        let waiting = async {
            loop {
                shown = self.get(&path).await;
                if what(&shown) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        assert!(waited.is_ok(), "{shown}");
        shown
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, |shown| shown["state"] == state).await
    }
}

async fn json_of(answer: reqwest::Response) -> Value {
    let text = answer.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Small and impatient.
pub(crate) fn settings() -> Settings {
    Settings {
        name: "test".into(),
        patience: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// A module of the repository's.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/built");
    std::fs::read(path.join(format!("{name}.wasm"))).unwrap()
}

/// A server that counts what it is asked for, and keeps those waiting who ask for certain paths.
pub(crate) struct Counting {
    pub(crate) url: String,
    seen: Seen,
    hold: watch::Sender<Option<String>>,
    _task: JoinSet<()>,
}

type Seen = Arc<Mutex<Vec<String>>>;

impl Counting {
    pub(crate) async fn start() -> Self {
        let seen = Seen::default();
        let (hold, held) = watch::channel(None);
        let routes = Router::new()
            .fallback(answer)
            .with_state((Arc::clone(&seen), held));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            url,
            seen,
            hold,
            _task: task,
        }
    }

    /// Keeps those waiting who ask for this path from now on; or nobody, and those who wait get their answers.
    pub(crate) fn hold(&self, path: Option<&str>) {
        self.hold.send_replace(path.map(str::to_owned));
    }

    /// How often each path was asked for.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for path in self.seen.lock().unwrap().iter() {
            *counts.entry(path.clone()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.counts().get(path).copied().unwrap_or(0)
    }

    /// Waits until a path was asked for so often.
    pub(crate) async fn until(&self, path: &str, count: usize) {
        let waiting = async {
            while self.count(path) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        assert!(waited.is_ok(), "{:?}", self.counts());
    }
}

async fn answer(
    State((seen, mut held)): State<(Seen, watch::Receiver<Option<String>>)>,
    request: Request,
) -> impl IntoResponse {
    let path = request.uri().to_string();
    seen.lock().unwrap().push(path.clone());
    let free = |held: &Option<String>| held.as_ref() != Some(&path);
    let _ = held.wait_for(free).await;
    format!("{path}\n")
}
