//! What the tests share: the isolations of this host, running a job to its end, finding its processes.

// Not every test uses all of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mvm_exec::{Event, Isolation, Job, Kind, Outcome, Spec, Stream};

/// How long to wait for a condition before the test fails.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Leaves daemons behind: forked twice, in sessions of their own, deaf to SIGTERM and SIGHUP, one of them
/// holding the output.
pub(crate) const DAEMONS: &str = "
    (setsid sh -c 'trap \"\" TERM HUP; echo > d1; while :; do sleep 0.05; done' &)
    (setsid sh -c 'trap \"\" TERM HUP; exec > /dev/null 2>&1 < /dev/null; (while :; do sleep 0.05; done) & echo > d2; wait' &)
    while ! test -e d1 || ! test -e d2; do sleep 0.01; done";

/// Leaves daemons behind and goes on itself, as deaf as they are.
pub(crate) const STUBBORN: &str = "
    trap '' TERM HUP INT
    (setsid sh -c 'trap \"\" TERM HUP; echo > d1; while :; do sleep 0.05; done' &)
    (setsid sh -c 'trap \"\" TERM HUP; exec > /dev/null 2>&1 < /dev/null; (while :; do sleep 0.05; done) & echo > d2; wait' &)
    while ! test -e d1 || ! test -e d2; do sleep 0.01; done
    echo ready
    while :; do sleep 0.05; done";

/// The program that is node and supervisor.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mvm-exec-run");

fn probed() -> &'static Isolation {
    static PROBED: OnceLock<Isolation> = OnceLock::new();
    PROBED.get_or_init(|| Isolation::probe_with(PROGRAM).unwrap())
}

/// The isolation that works everywhere.
pub(crate) fn subreaper() -> Isolation {
    probed().clone().without_namespace("a test")
}

/// All isolations this host has.
pub(crate) fn isolations() -> Vec<Isolation> {
    let best = probed().clone();
    match best.kind() {
        Kind::PidNamespace { .. } => vec![best, subreaper()],
        Kind::Subreaper { .. } => vec![best],
    }
}

/// What a job did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) started: bool,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) omitted: Vec<(Stream, u64)>,
    pub(crate) outcome: Outcome,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            started: false,
            directory: None,
            stdout: String::new(),
            stderr: String::new(),
            omitted: Vec::new(),
            outcome: Outcome::Lost {
                reason: "the test has not seen the end".to_owned(),
            },
        }
    }
}

impl Run {
    /// Takes an event; returns whether there is more to come.
    pub(crate) fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Started { directory } => {
                self.started = true;
                self.directory = Some(directory);
            }
            Event::Output(output) => {
                let text = String::from_utf8(output.bytes).unwrap();
                match output.stream {
                    Stream::Stdout => self.stdout += &text,
                    Stream::Stderr => self.stderr += &text,
                }
            }
            Event::Omitted { stream, bytes } => self.omitted.push((stream, bytes)),
            Event::Ended(outcome) => {
                self.outcome = outcome;
                return false;
            }
        }
        true
    }

    pub(crate) async fn until_printed(&mut self, job: &mut Job, text: &str) {
        while !self.stdout.ends_with(text) {
            let event = tokio::time::timeout(TIMEOUT, job.next_event())
                .await
                .unwrap();
            assert!(self.take(event), "{self:?}");
        }
    }
}

/// Runs a job to its end.
pub(crate) async fn run(isolation: &Isolation, spec: Spec) -> Run {
    let mut job = Job::start(isolation, spec).unwrap();
    let mut run = Run::default();
    while run.take(job.next_event().await) {}
    run
}

/// Writes an executable script. A program of its own does it: a descriptor of ours, open for writing and for
/// a moment in the fork of another test's thread, would make the script `busy`.
pub(crate) fn write_script(path: &Path, text: &str) {
    let status = Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .args([path.as_os_str(), text.as_ref()])
        .status();
    assert!(status.unwrap().success());
}

/// A variable by which a job's processes are found, wherever they hide.
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
        Self(format!("{:016x}", u64::from_ne_bytes(random)))
    }

    pub(crate) fn value(&self) -> &str {
        &self.0
    }

    pub(crate) fn on(&self, spec: Spec) -> Spec {
        spec.env("TEST_MARK", &self.0)
    }

    pub(crate) fn count(&self) -> usize {
        let wanted = format!("TEST_MARK={}", self.0);
        let marked = |pid: &String| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
                all.split(|byte| *byte == 0)
                    .any(|each| each == wanted.as_bytes())
            })
        };
        processes().filter(marked).count()
    }

    #[track_caller]
    pub(crate) fn assert_nobody(&self) {
        assert_eq!(self.count(), 0, "survivors");
    }

    pub(crate) async fn await_nobody(&self) {
        wait_until("nobody of the job is left", || self.count() == 0).await;
    }
}

fn processes() -> impl Iterator<Item = String> {
    let names = fs::read_dir("/proc").unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The children of this process, zombies included.
pub(crate) fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let is_child = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split(' ').nth(2));
        parent == Some(own.as_str())
    };
    processes().filter(is_child).collect()
}

/// Whether there is such a process, be it a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Waits for a condition.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
