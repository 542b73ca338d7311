//! `mvm-ci flow`: a real engine in a process of its own, which is killed and asked to stop, and the commands that speak to it.

// Helpers of tests may unwrap and print as tests do.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::{Router, extract::State};
use expect_test::{Expect, expect};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::sync::watch;

#[path = "../../mvm-node/tests/support/ports.rs"]
mod ports;

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// The program, as in a shell without settings.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
    for variable in [
        "MVM_CI_FLOW_SERVER",
        "MVM_CI_FLOW_TOKEN",
        "MVM_CI_LOG",
        "MVM_CI_LOG_FORMAT",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command.arg("flow").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it; all that it said, and the exit code.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        text += &format!("! {line}\n");
    }
    text + &format!("exit {}\n", output.status.code().unwrap())
}

/// A module of the repository's.
fn guest(name: &str) -> String {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/built");
    built.join(format!("{name}.wasm")).display().to_string()
}

/// An engine in a process of its own.
struct Engine {
    process: Child,
    url: String,
    log: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts one that listens on any port of loopback.
    fn start(directory: &Path) -> Self {
        Self::with(directory, &["--bind", "127.0.0.1:0"])
    }

    fn with(directory: &Path, arguments: &[&str]) -> Self {
        let mut process = program(&["up", "--log-format", "json"])
            .arg("--working-dir")
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let url = address(&mut log);
        // Captured by the test, and read on, lest the engine wait for somebody to do it.
        let log = std::thread::spawn(move || log.lines().for_each(|line| eprintln!("{line:?}")));
        Self {
            process,
            url,
            log: Some(log),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("MVM_CI_FLOW_SERVER", &self.url);
        command
    }

    /// Runs a command; what differs from run to run is replaced.
    fn said(&self, arguments: &[&str]) -> String {
        said(self.command(arguments)).replace(&self.url, "ENGINE")
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], expected: Expect) {
        let host = rustix::system::uname();
        let host = format!("by {},", host.nodename().to_string_lossy());
        let mut text = self.said(arguments).replace(&host, "by HOST,");
        // This may take some seconds on a busy machine.
        for seconds in 1..10 {
            text = text.replace(&format!("  {seconds} s"), "  now");
        }
        expected.assert_eq(&without_names(&text));
    }

    /// What a command that succeeds writes to standard output.
    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {talk}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.told(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn begin(&self, workflow: &str, input: &Value) -> String {
        self.told(&["start", "compat", workflow, "--input", &input.to_string()])
    }

    #[track_caller]
    fn until_state(&self, id: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.json(&["show", id]);
            if shown["state"] == state {
                return shown;
            }
            assert!(began.elapsed() < HANG, "{shown}");
            std::thread::sleep(LOOK);
        }
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// As an operator does.
    fn terminate(&mut self) -> ExitStatus {
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::TERM).unwrap();
        let began = Instant::now();
        loop {
            match self.process.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(began.elapsed() < HANG, "it does not stop"),
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// Where an engine says that it listens.
fn address(log: &mut BufReader<ChildStderr>) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        let bytes = log.read_line(&mut line).unwrap();
        assert!(bytes > 0, "the engine ended: {all}");
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["fields"]["message"] == "running workflows" {
            return format!("http://{}", event["fields"]["address"].as_str().unwrap());
        }
        all += &line;
    }
}

/// Ids and times are others each time, and hashes with each change of the modules.
fn without_names(text: &str) -> String {
    let word = |word: &str| {
        let is_time = word.len() >= 20 && word.starts_with("20") && word.ends_with('Z');
        let is_hash = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        match word {
            _ if is_hash => "HASH".to_owned(),
            _ if word.len() == 17 && word.starts_with("wkf_") => "ID".to_owned(),
            _ if is_time => "TIME".to_owned(),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A server that counts what it is asked for, and keeps those waiting who ask for `/b`.
struct Counting {
    url: String,
    seen: Seen,
    hold: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

impl Counting {
    fn start() -> Self {
        async fn answer(
            State((seen, mut held)): State<(Seen, watch::Receiver<bool>)>,
            request: axum::extract::Request,
        ) -> String {
            let path = request.uri().path().to_owned();
            *seen.lock().unwrap().entry(path.clone()).or_default() += 1;
            if path == "/b" {
                let _ = held.wait_for(|held| !held).await;
            }
            path
        }
        let seen = Seen::default();
        let (hold, held) = watch::channel(false);
        let routes = Router::new()
            .fallback(answer)
            .with_state((Arc::clone(&seen), held));
        let (url, runtime) = serve(routes);
        Self {
            url,
            seen,
            hold,
            _runtime: runtime,
        }
    }

    fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    fn until(&self, path: &str, count: usize) {
        let began = Instant::now();
        while self.count(path) < count {
            assert!(began.elapsed() < HANG, "{:?}", self.seen.lock().unwrap());
            std::thread::sleep(LOOK);
        }
    }
}

/// Serves on a port of loopback while the runtime lives.
fn serve(routes: Router) -> (String, tokio::runtime::Runtime) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, routes).await.unwrap();
    });
    (url, runtime)
}

/// The public crash test and its twin: A, B held open, C; the engine is killed during B, and somebody waits for the response.
#[test]
fn an_engine_that_is_killed_goes_on_where_it_was() {
    let directory = tempdir().unwrap();
    let bind = format!("127.0.0.1:{}", ports::free_ports(1)[0]);
    let [twice, once] = [Counting::start(), Counting::start()];
    let mut engine = Engine::with(directory.path(), &["--bind", &bind]);
    engine.told(&["deploy", &guest("compat")]);
    let ids = [(&twice, true), (&once, false)].map(|(server, idempotent)| {
        server.hold.send_replace(true);
        engine.begin(
            "crash",
            &json!({ "url": server.url, "idempotent": idempotent }),
        )
    });
    for server in [&twice, &once] {
        server.until("/b", 1);
    }
    let waiting = engine
        .command(&["response", &ids[0]])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    engine.kill();
    for server in [&twice, &once] {
        server.hold.send_replace(false);
    }
    let engine = Engine::with(directory.path(), &["--bind", &bind]);

    let [first, second] = ids
        .each_ref()
        .map(|id| engine.json(&["response", id])["response"].clone());
    assert_eq!(first["b"], "200", "{first}");
    assert_eq!(second["b"], "RequestInterrupted", "{second}");
    assert!(twice.count("/b") >= 2);
    assert_eq!(once.count("/b"), 1);
    for server in [&twice, &once] {
        assert_eq!((server.count("/a"), server.count("/c")), (1, 1));
    }
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success());
    assert_eq!(
        serde_json::from_slice::<Value>(&waited.stdout).unwrap(),
        first
    );
    let journal = engine.told(&["journal", &ids[1]]);
    assert!(
        journal.contains("RequestInterrupted: the engine stopped while"),
        "{journal}"
    );
    assert!(journal.contains("owner 2"), "{journal}");
}

#[test]
fn an_engine_that_is_asked_to_stop_gives_its_workflows_back() {
    let directory = tempdir().unwrap();
    let mut engine = Engine::start(directory.path());
    engine.told(&["deploy", &guest("compat")]);
    let input = json!({ "timeout_ms": 3_600_000 });
    let id = engine.begin("waits", &input);
    // Whoever waits for a response does not hold the engine up.
    let waiting = engine
        .command(&["response", &id])
        .stderr(Stdio::null())
        .spawn();
    let mut waiting = waiting.unwrap();
    assert!(engine.terminate().success());
    waiting.kill().unwrap();
    waiting.wait().unwrap();

    let engine = Engine::start(directory.path());
    engine.told(&["send", &id, "apple", r#"{"weight": 1}"#]);
    engine.told(&["send", &id, "pear", r#"{"weight": 2}"#]);
    let response = engine.json(&["response", &id]);
    let fruit = json!({ "first": { "kind": "pear", "weight": 2 }, "second": { "kind": "apple", "weight": 1 } });
    assert_eq!(response, json!({ "id": id, "response": fruit }));
}

#[test]
fn commands_tell_what_workflows_do() {
    let directory = tempdir().unwrap();
    let engine = Engine::start(directory.path());
    let list = ["list", "--state", "completed"];
    engine.check(
        &list,
        expect![[r#"
            ID  STATE  MODULE  WORKFLOW  AGE  ABOUT
            exit 0
        "#]],
    );
    engine.check(
        &["deploy", &guest("compat")],
        expect![[r#"
        compat:1.0.0
        exit 0
    "#]],
    );
    // The same again is no error.
    let deployed = engine.json(&["deploy", &guest("compat")]);
    assert_eq!(deployed["version"], "1.0.0", "{deployed}");
    let modules = engine.told(&["modules"]);
    let columns: Vec<_> = modules.lines().nth(1).unwrap().split_whitespace().collect();
    let bytes = fs::metadata(guest("compat")).unwrap().len().to_string();
    assert_eq!(columns[..3], ["compat", "1.0.0", &bytes], "{modules}");

    engine.check(
        &[
            "run",
            "compat:1.0.0",
            "echo",
            "--input",
            r#"{"a": [1, "b"]}"#,
        ],
        expect![[r#"
            {"a":[1,"b"]}
            ! mvm-ci: workflow ID
            exit 0
        "#]],
    );
    let started = engine.json(&["start", "compat", "echo", "--input", "1"]);
    let id = started["id"].as_str().unwrap();
    assert_eq!(engine.told(&["response", id]), "1");
    engine.until_state(id, "completed");
    let bytes = engine.json(&["show", id])["journal_bytes"].to_string();
    let shown = engine.said(&["show", id]).replace(&bytes, "MANY");
    expect![[r#"
        id         ID
        state      completed
        module     compat:1.0.0
        hash       HASH
        workflow   echo
        input      1
        started    TIME
        changed    TIME
        ended      TIME
        owners     1
        journal    3 frames, MANY bytes
        responded  at frame 2
        exit 0
    "#]]
    .assert_eq(&without_names(&shown));
    engine.check(
        &["journal", id],
        expect![[r#"
        FRAME  AT                        RECORD    WHAT
        0                                began     echo of compat:1.0.0, format 1
        1      TIME  taken     by HOST, owner 1
        2      TIME  answered  respond 1: taken
        exit 0
    "#]],
    );
    assert_eq!(engine.told(&list).lines().count(), 3);
    engine.check(
        &["list", "--limit", "1", "--module", "compat"],
        expect![[r#"
            ID                 STATE      MODULE        WORKFLOW  AGE  ABOUT
            ID  completed  compat:1.0.0  echo      now
            ! mvm-ci: there are more; see --limit and --all
            exit 0
        "#]],
    );

    let listens = engine.begin("listens", &Value::Null);
    engine.told(&["send", &listens, "pear", r#"{"weight": 3}"#]);
    engine.told(&["send", &listens, "stop"]);
    engine.until_state(&listens, "completed");
    engine.check(
        &["logs", &listens],
        expect![[r#"
        TIME info  a pear of 3
        TIME info  stopped after 1
        exit 0
    "#]],
    );
    engine.check(
        &["send", &listens, "stop"],
        expect![[r#"
        ! mvm-ci: ENGINE refused: workflow ID has ended (completed)
        exit 5
    "#]],
    );

    let sleeps = engine.begin("sleeps", &json!({ "ms": 3_600_000 }));
    engine.until_state(&sleeps, "waiting");
    engine.check(
        &["pause", &sleeps],
        expect![[r#"
        ID paused
        exit 0
    "#]],
    );
    engine.told(&["resume", &sleeps]);
    engine.until_state(&sleeps, "waiting");
    engine.told(&["cancel", &sleeps, "--reason", "enough"]);
    let cancelled = engine.until_state(&sleeps, "cancelled");
    assert_eq!(cancelled["reason"], "enough");
    engine.check(
        &["response", &sleeps],
        expect![[r#"
        ! mvm-ci: workflow ID was cancelled: enough
        exit 1
    "#]],
    );

    let input = r#"{"text": "no more"}"#;
    let failed = engine.said(&["run", "compat", "panics", "--input", input]);
    assert!(
        failed.contains("panicked at 'no more'") && failed.ends_with("exit 1\n"),
        "{failed}"
    );
    let failed = engine.json(&["list", "--state", "failed"]);
    let id = failed["id"].as_str().unwrap();
    engine.told(&["retry", id]);
    let again = engine.until_state(id, "failed");
    assert_ne!(again["epoch"], failed["epoch"]);
    engine.check(
        &["retry", id, "--from", "100"],
        expect![[r#"
        ! mvm-ci: ENGINE refused: frame 100 is not where a record begins; see the journal
        exit 5
    "#]],
    );

    for (arguments, code, word) in [
        (&["start", "shop", "order"][..], 5, "there is no module"),
        (&["start", "compat:2", "echo"], 5, "no version \"2\""),
        (&["start", "compat", "order"], 5, "no workflow \"order\""),
        (&["start", "a/b", "order"], 2, "MODULE:VERSION"),
        (
            &["start", "compat", "echo", "--input", "{"],
            2,
            "the input as JSON",
        ),
        (
            &["start", "compat", "echo", "--input", "@absent"],
            2,
            "absent",
        ),
        (&["show", "wkf_0000000000000"], 5, "there is no workflow"),
        (&["show", "one"], 2, "looks like wkf_"),
        (&["list", "--state", "odd"], 2, "states are ready, running"),
        (&["deploy", "absent.wasm"], 2, "absent.wasm"),
        (&["deploy", "/dev/null"], 5, "the file is empty"),
    ] {
        let text = engine.said(arguments);
        let ends = format!("exit {code}\n");
        assert!(
            text.contains(word) && text.ends_with(&ends),
            "{arguments:?}: {text}"
        );
    }
}

/// A module of which one workflow does what that of `compat` does, and says so to who watches a replay; and another does not.
const PATCHED: &str = r##"
    (module
      (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 2)
      (data (i32.const 0) "{\"ReplayDebug\":\"patched\"}{\"Log\":{\"Info\":\"another\"}}")
      (func (export "wasabi::alloc") (param i32) (result i32) (i32.const 65536))
      (func (export "#flawless#module#patched%_#_%1.0.0"))
      (func $init (export "#flawless#workflow#init#silent") (result i32) (i32.const 0))
      (export "#flawless#workflow#init#echo" (func $init))
      (func (export "#flawless#workflow#run#silent")
        (drop (call $submit (i32.const 0) (i32.const 25) (i32.const 100) (i32.const 104))))
      (func (export "#flawless#workflow#run#echo")
        (drop (call $submit (i32.const 25) (i32.const 26) (i32.const 100) (i32.const 104)))))
"##;

#[test]
fn a_replay_tells_what_happened_and_where_a_patch_departs() {
    let directory = tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let patched = file("patched.wasm", &wat::parse_str(PATCHED).unwrap());
    let secrets = file("secrets", b"# For tests.\nPASSWORD = correct horse\n");
    let server = Counting::start();
    let state = directory.path().join("state");
    let arguments = ["--bind", "127.0.0.1:0", "--secrets", &secrets];
    let engine = Engine::with(&state, &arguments);
    engine.told(&["deploy", &guest("compat")]);

    let input = json!({ "url": server.url, "secret": "PASSWORD", "sleep_ms": 1, "wait_ms": 1 });
    let everything = engine.begin("everything", &input);
    let seen = engine.json(&["response", &everything])["response"].clone();
    assert_eq!(seen["secret"], "correct horse");
    engine.until_state(&everything, "completed");
    let journal = engine.told(&["journal", &everything]);
    assert!(
        journal.contains("secret \"PASSWORD\": given, not written down"),
        "{journal}"
    );
    let requests = server.count("/");
    let replay = ["replay", &everything, "--secrets", &secrets];
    engine.check(
        &replay,
        expect![[r#"
        apple None, pear None
        ! mvm-ci: the module returned where the journal ends
        exit 0
    "#]],
    );
    assert_eq!(server.count("/"), requests, "a replay has no effects");

    let silent = engine.begin("silent", &Value::Null);
    engine.until_state(&silent, "completed");
    let with = |id: &str, module: &str| engine.said(&["replay", id, "--patch-module", module]);
    expect![[r#"
        patched
        ! mvm-ci: the module returned where the journal ends
        exit 0
    "#]]
    .assert_eq(&with(&silent, &patched));
    let echo = engine.begin("echo", &json!("word"));
    engine.until_state(&echo, "completed");
    engine.check(
        &["replay", &echo],
        expect![[r#"
        ! mvm-ci: the module returned where the journal ends
        exit 0
    "#]],
    );
    expect![[r#"
        ! mvm-ci: the module diverged from its journal at step 0: it asked for `log info "another"`, the journal has `respond "word"`
        exit 1
    "#]].assert_eq(&with(&echo, &patched));
    engine.check(
        &["replay", &echo, "--patch-module", &patched, "--json"],
        expect![[r#"
            {"event":"end","faithful":false,"how":"the module diverged from its journal at step 0: it asked for `log info \"another\"`, the journal has `respond \"word\"`"}
            exit 1
        "#]],
    );
    // A module that cannot stand in is wrong usage.
    let sleeps = engine.begin("sleeps", &json!({ "ms": 3_600_000 }));
    let other = with(&sleeps, &patched).replace(&patched, "PATCHED");
    expect![[r#"
        ! mvm-ci: could not use PATCHED: it has no workflow "sleeps"
        exit 2
    "#]]
    .assert_eq(&other);
    engine.until_state(&sleeps, "waiting");
    // One that is under way stands where its journal ends.
    engine.check(
        &["replay", &sleeps],
        expect![[r#"
        ! mvm-ci: the journal ends, and the module goes on with `sleep 3600000 ms`
        exit 0
    "#]],
    );
    let none = with(&sleeps, &secrets);
    assert!(
        none.contains("it is not a WebAssembly module") && none.ends_with("exit 2\n"),
        "{none}"
    );
}

#[test]
fn an_engine_lets_in_who_shows_its_token() {
    let directory = tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (token, other) = (file("token", "open-sesame\n"), file("other", "sesame"));
    let state = directory.path().join("state");
    let arguments = ["--bind", "127.0.0.1:0", "--token-file", &token];
    let engine = Engine::with(&state, &arguments);
    engine.check(&["list"], expect![[r#"
        ! mvm-ci: ENGINE refused: this engine wants a token; send it as `Authorization: Bearer TOKEN`
        exit 5
    "#]]);
    engine.check(
        &["list", "--token-file", &other],
        expect![[r#"
        ! mvm-ci: ENGINE refused: the token is not the one of this engine
        exit 5
    "#]],
    );
    engine.told(&["list", "--token-file", &token]);
    let mut by_variable = engine.command(&["list"]);
    by_variable.env("MVM_CI_FLOW_TOKEN", "open-sesame");
    assert!(said(by_variable).ends_with("exit 0\n"));

    // A second engine must not have the directory, nor the port.
    let up = |arguments: &[&str]| {
        let mut command = program(&["up", "--log", "off"]);
        command.args(arguments);
        said(command)
            .replace(&directory.path().display().to_string(), "DIR")
            .replace(engine.url.trim_start_matches("http://"), "ENGINE")
    };
    let state = state.display().to_string();
    expect![[r#"
        ! mvm-ci: another engine works in DIR/state; stop it, or give this one a directory of its own
        exit 4
    "#]].assert_eq(&up(&["--bind", "127.0.0.1:0", "--working-dir", &state]));
    let elsewhere = directory.path().join("elsewhere").display().to_string();
    let taken = engine.url.trim_start_matches("http://");
    expect![[r#"
        ! mvm-ci: could not listen on ENGINE: Address already in use (os error 98)
        exit 4
    "#]]
    .assert_eq(&up(&["--bind", taken, "--working-dir", &elsewhere]));
    // It has left nothing behind.
    assert!(!Path::new(&elsewhere).exists());
    expect![[r#"
        ! mvm-ci: others reach 0.0.0.0:0, and nothing says who may come in: give --token-file FILE, or say --no-token to let everybody in
        exit 2
    "#]].assert_eq(&up(&["--bind", "0.0.0.0:0", "--working-dir", &elsewhere]));
    let empty = file("empty", "\n");
    let no_runs = file("no-runs", "[modules.a]\nruns = 0\n");
    for (arguments, word) in [
        (["--token-file", &empty], "the token"),
        (["--token-file", "absent"], "absent"),
        (["--secrets", &other], "is not NAME=VALUE"),
        (["--secrets", "absent"], "absent"),
        (["--limits", &no_runs], "modules.a runs = 0"),
        (["--limits", "absent"], "absent"),
        (["--memory", "much"], "512M"),
        (["--slots", "0"], "slots"),
        (["--bind", "localhost"], "bind"),
    ] {
        let text = up(&arguments);
        assert!(
            text.contains(word) && text.ends_with("exit 2\n"),
            "{arguments:?}: {text}"
        );
    }
    let in_file = up(&[
        "--bind",
        "127.0.0.1:0",
        "--working-dir",
        &format!("{empty}/x"),
    ]);
    assert!(in_file.ends_with("exit 4\n"), "{in_file}");
}

#[test]
fn who_is_no_engine_is_told_apart() {
    let ask = |url: &str| said(program(&["list", "--server", url])).replace(url, "URL");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let refused = ask(&url);
    assert!(
        refused.contains("could not reach an engine at URL: ")
            && refused.contains("`mvm-ci flow up` starts one")
            && refused.ends_with("exit 4\n"),
        "{refused}"
    );
    let (url, _runtime) = serve(Router::new().fallback(|| async { "hello" }));
    expect![[r#"
        ! mvm-ci: URL does not answer as an engine does: expected value at line 1 column 1
        exit 3
    "#]]
    .assert_eq(&ask(&url));
    let no_url = ask("engine:1");
    assert!(no_url.contains("it must begin with http://"), "{no_url}");
}

/// The vendor's own client crate, in a program that is built as others build it.
#[test]
fn the_public_client_speaks_to_it() {
    let directory: TempDir = tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "open-sesame").unwrap();
    let token = token.display().to_string();
    let state = directory.path().join("state");
    let engine = Engine::with(&state, &["--bind", "127.0.0.1:0", "--token-file", &token]);
    let client = |arguments: &[&str]| {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
        // Where `cargo xtask guests` builds as well.
        let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../guests");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["run", "--quiet", "--locked", "--package", "client", "--"])
            .args([&engine.url, &guest("compat")])
            .args(arguments)
            .current_dir(guests)
            .env("CARGO_TARGET_DIR", target);
        cargo.output().unwrap()
    };
    let spoke = client(&["open-sesame"]);
    let talk = String::from_utf8_lossy(&spoke.stderr);
    assert!(spoke.status.success(), "{talk}");
    let id = String::from_utf8(spoke.stdout).unwrap();
    let with_token =
        |arguments: &[&str]| engine.told(&[arguments, &["--token-file", &token]].concat());
    let began = Instant::now();
    while !with_token(&["logs", id.trim()]).contains("stopped after 1") {
        assert!(began.elapsed() < HANG, "it got no messages");
        std::thread::sleep(LOOK);
    }
    let logs = with_token(&["logs", id.trim()]);
    assert!(logs.contains("a pear of 3"), "{logs}");

    let stranger = client(&["sesame"]);
    let talk = String::from_utf8_lossy(&stranger.stderr);
    assert!(
        talk.contains("the token is not the one of this engine"),
        "{talk}"
    );
}
