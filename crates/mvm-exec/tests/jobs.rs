//! Real jobs under real supervisors, each test under every isolation this host has.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use mvm_exec::{
    DiskPriority, Event, Isolation, Job, Kind, MemoryControl, Outcome, OutputLimits, Priority,
    Spec, Stream,
};
use support::{Mark, Run, isolations, run, subreaper};

const SECOND: Duration = Duration::from_secs(1);

/// What a job prints to standard output, once it has ended with 0.
#[track_caller]
fn printed(run: Run) -> String {
    assert_eq!(run.outcome, Outcome::Exited(0), "{run:?}");
    run.stdout
}

#[tokio::test]
async fn codes_and_signals_are_told_apart() {
    for isolation in isolations() {
        for code in [0, 1, 42, 255] {
            let ended = run(&isolation, Spec::script(format!("exit {code}"))).await;
            assert_eq!(ended.outcome, Outcome::Exited(code));
        }
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV] {
            let ended = run(&isolation, Spec::script(format!("kill -{signal} $$"))).await;
            assert_eq!(ended.outcome, Outcome::Signalled(signal));
        }
    }
}

#[tokio::test]
async fn output_is_live_ordered_and_separate() {
    for isolation in isolations() {
        let folder = tempfile::tempdir().unwrap();
        let script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done; \
                      while ! test -e go; do sleep 0.01; done; echo last";
        let spec = Spec::script(script).directory(folder.path());
        let mut job = Job::start(&isolation, spec).unwrap();
        let mut run = Run::default();
        // What was printed arrives while the job still runs.
        while !(run.stdout.ends_with("out5\n") && run.stderr.ends_with("err5\n")) {
            assert!(run.take(job.next_event().await), "{run:?}");
        }
        fs::write(folder.path().join("go"), "").unwrap();
        while run.take(job.next_event().await) {}
        let lines = |word: &str| (1..=5).map(|i| format!("{word}{i}\n")).collect::<String>();
        assert_eq!(run.stdout, lines("out") + "last\n");
        assert_eq!(run.stderr, lines("err"));
        assert_eq!(run.outcome, Outcome::Exited(0));
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    for isolation in isolations() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plain"), "text").unwrap();
        support::write_script(&path("orphan"), "#!/no/such/interpreter\n");
        let cases = [
            (
                Spec::program("no-such-program"),
                "does not exist in any folder of PATH",
            ),
            (
                Spec::program("/no/such/program"),
                "`/no/such/program` does not exist",
            ),
            (Spec::program(""), "no program was named"),
            (Spec::program(path("plain")), "not an executable file"),
            (Spec::program(folder.path()), "not an executable file"),
            (
                Spec::program(path("orphan")),
                "its interpreter does not exist",
            ),
            (
                Spec::program("true").directory("/no/such"),
                "directory /no/such does not exist",
            ),
            (
                Spec::program("true").directory(path("plain")),
                "is not a directory",
            ),
            (
                Spec::program("true").private_directory_under("/no/such"),
                "could not make a private directory under /no/such",
            ),
            (Spec::program("true").arguments(["a\0b"]), "nul byte"),
            (
                Spec::program("true").arguments(["x".repeat(200_000)]),
                "too long",
            ),
        ];
        for (spec, expected) in cases {
            let ended = run(&isolation, spec).await;
            let Outcome::CouldNotStart { reason } = &ended.outcome else {
                panic!("{expected}: {ended:?}");
            };
            assert!(reason.contains(expected), "{reason}");
            assert!(!ended.started);
        }
    }
}

#[tokio::test]
async fn a_program_may_be_named_relative_to_the_directory() {
    for isolation in isolations() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        support::write_script(&file, "#!/bin/sh\necho \"$0 $1\"\n");
        let spec = Spec::program("./tool")
            .arguments(["a b"])
            .directory(folder.path());
        assert!(printed(run(&isolation, spec).await).ends_with("/./tool a b\n"));
    }
}

#[tokio::test]
async fn time_runs_out_on_who_ignores_the_signal() {
    for isolation in isolations() {
        let mark = Mark::new();
        let spec = mark
            .on(Spec::script("trap '' TERM; while :; do sleep 0.01; done"))
            .time_limit(SECOND / 10)
            .kill_grace(SECOND / 10);
        let begin = Instant::now();
        assert_eq!(run(&isolation, spec).await.outcome, Outcome::TimedOut);
        let took = begin.elapsed();
        assert!(took >= SECOND / 5 && took < 5 * SECOND, "{took:?}");
        mark.assert_nobody();
    }
}

#[tokio::test]
async fn time_that_runs_out_is_told_whatever_the_job_returns() {
    for isolation in isolations() {
        let spec = Spec::script("trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done");
        let ended = run(&isolation, spec.time_limit(SECOND / 5)).await;
        assert_eq!(ended.outcome, Outcome::TimedOut);
        assert_eq!(ended.stdout, "bye\n");
    }
}

#[tokio::test]
async fn cancelling_asks_first() {
    for isolation in isolations() {
        let spec = Spec::script(
            "trap 'echo cleaned up; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
        );
        let mut job = Job::start(&isolation, spec.kill_grace(60 * SECOND)).unwrap();
        let mut run = Run::default();
        run.until_printed(&mut job, "ready\n").await;
        job.cancel();
        job.cancel();
        while run.take(job.next_event().await) {}
        assert_eq!(run.outcome, Outcome::Cancelled);
        assert_eq!(run.stdout, "ready\ncleaned up\n");
        // The end is told for ever.
        assert_eq!(job.wait().await, Outcome::Cancelled);
    }
}

#[tokio::test]
async fn cancelling_wakes_who_is_stopped() {
    for isolation in isolations() {
        let spec = Spec::script("echo ready; kill -STOP $$").kill_grace(60 * SECOND);
        let mut job = Job::start(&isolation, spec).unwrap();
        Run::default().until_printed(&mut job, "ready\n").await;
        job.cancel();
        assert_eq!(job.wait().await, Outcome::Cancelled);
    }
}

#[tokio::test]
async fn cancelling_ends_in_killing() {
    for isolation in isolations() {
        let mark = Mark::new();
        let spec = mark
            .on(Spec::script(support::STUBBORN))
            .kill_grace(SECOND / 10);
        let mut job = Job::start(&isolation, spec).unwrap();
        Run::default().until_printed(&mut job, "ready\n").await;
        job.cancel();
        assert_eq!(job.wait().await, Outcome::Cancelled);
        mark.assert_nobody();

        let spec = mark
            .on(Spec::script(support::STUBBORN))
            .kill_grace(600 * SECOND);
        let mut job = Job::start(&isolation, spec).unwrap();
        Run::default().until_printed(&mut job, "ready\n").await;
        job.cancel();
        job.kill();
        assert_eq!(job.wait().await, Outcome::Cancelled);
        mark.assert_nobody();
    }
}

#[tokio::test]
async fn nothing_survives_the_jobs_own_end() {
    for isolation in isolations() {
        let mark = Mark::new();
        // The daemon keeps the output open, and is not waited for.
        let spec = mark.on(Spec::script(format!("{}\nexit 4", support::DAEMONS)));
        let begin = Instant::now();
        let ended = run(&isolation, spec).await;
        assert_eq!(ended.outcome, Outcome::Exited(4), "{ended:?}");
        assert!(begin.elapsed() < 5 * SECOND);
        mark.assert_nobody();
    }
}

#[tokio::test]
async fn who_keeps_changing_its_number_is_caught() {
    // A process that forks and ends, over and over, in a new session each time.
    let script = "(setsid sh -c 'hop() { : > go; hop & }; hop' &)
        while ! test -e go; do sleep 0.01; done; sleep 0.1";
    for isolation in isolations() {
        let mark = Mark::new();
        let ended = run(&isolation, mark.on(Spec::script(script))).await;
        assert_eq!(ended.outcome, Outcome::Exited(0), "{ended:?}");
        mark.assert_nobody();
    }
}

#[tokio::test]
async fn a_wide_and_deep_family_is_killed() {
    let script =
        "family() { test $1 = 0 || { family $(($1 - 1)) & family $(($1 - 1)) & }; sleep 600; }
        trap '' TERM; family 6 & echo ready; wait";
    for isolation in isolations() {
        let mark = Mark::new();
        let mut job = Job::start(&isolation, mark.on(Spec::script(script))).unwrap();
        Run::default().until_printed(&mut job, "ready\n").await;
        support::wait_until("all are born", || mark.count() >= 128).await;
        job.kill();
        assert_eq!(job.wait().await, Outcome::Cancelled);
        mark.assert_nobody();
    }
}

#[tokio::test]
async fn the_last_lines_of_a_pipeline_are_not_lost() {
    for isolation in isolations() {
        let script = "{ sleep 0.1; cat; } < /etc/hostname & echo done";
        let hostname = fs::read_to_string("/etc/hostname").unwrap();
        let begin = Instant::now();
        let ended = run(&isolation, Spec::script(script).linger(60 * SECOND)).await;
        assert_eq!(printed(ended), format!("done\n{hostname}"));
        assert!(
            begin.elapsed() < 30 * SECOND,
            "lingered though nobody was left"
        );
    }
}

#[tokio::test]
async fn dropping_a_job_kills_all_of_it() {
    for isolation in isolations() {
        let mark = Mark::new();
        let spec = mark.on(Spec::script(support::STUBBORN));
        let mut job = Job::start(&isolation, spec).unwrap();
        let mut run = Run::default();
        run.until_printed(&mut job, "ready\n").await;
        assert!(mark.count() >= 3);
        let supervisor = job.supervisor_id();
        drop(job);
        mark.await_nobody().await;
        // Neither a zombie nor the private directory.
        support::wait_until("the supervisor is reaped", || !support::exists(supervisor)).await;
        assert!(!run.directory.unwrap().exists());
    }
}

#[tokio::test]
async fn a_dropped_runtime_kills_all_of_its_jobs() {
    for isolation in isolations() {
        let mark = Mark::new();
        let spec = mark.on(Spec::script(support::STUBBORN));
        let body = move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let mut job = Job::start(&isolation, spec).unwrap();
                Run::default().until_printed(&mut job, "ready\n").await;
                std::mem::forget(job);
            });
        };
        std::thread::spawn(body).join().unwrap();
        mark.await_nobody().await;
    }
}

#[tokio::test]
async fn who_kills_the_supervisor_wins_nothing() {
    for isolation in isolations() {
        let mark = Mark::new();
        let spec = mark.on(Spec::script(support::STUBBORN));
        let mut job = Job::start(&isolation, spec).unwrap();
        let mut run = Run::default();
        run.until_printed(&mut job, "ready\n").await;
        let supervisor = i32::try_from(job.supervisor_id()).unwrap();
        let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
        let Outcome::Lost { reason } = job.wait().await else {
            panic!("not lost");
        };
        assert!(reason.contains("signal: 9"), "{reason}");
        mark.await_nobody().await;
        assert!(!run.directory.unwrap().exists());
    }
}

#[tokio::test]
async fn the_environment_is_clean() {
    // The test's own environment is full of what must not leak.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    for isolation in isolations() {
        let spec = Spec::program("env")
            .env("GREETING", "hello\nworld")
            .env("LANG", "C");
        let text = printed(run(&isolation, spec).await);
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["GREETING", "HOME", "LANG", "MVM_EXEC_JOB", "PATH"],
            "{text}"
        );
        assert!(text.contains("LANG=C\n") && text.contains("GREETING=hello\nworld\n"));

        // Nor can it be seen at the supervisor's.
        let script = "cat /proc/$PPID/environ | tr '\\0' '\\n'";
        let text = printed(run(&isolation, Spec::script(script)).await);
        assert!(!text.contains("CARGO"), "{text}");
    }
}

#[tokio::test]
async fn descriptors_signals_and_session_are_clean() {
    // A descriptor that this process would leak to any child.
    let leak = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for isolation in isolations() {
        // The fourth is the folder that `ls` itself reads.
        let text = printed(run(&isolation, Spec::program("ls").arguments(["/proc/self/fd"])).await);
        assert_eq!(text, "0\n1\n2\n3\n");
        let text = printed(
            run(
                &isolation,
                Spec::script("readlink /proc/self/fd/0; umask; ulimit -c"),
            )
            .await,
        );
        assert_eq!(text, "/dev/null\n0022\n0\n");

        let text = printed(
            run(
                &isolation,
                Spec::program("cat").arguments(["/proc/self/status"]),
            )
            .await,
        );
        for field in ["SigBlk", "SigIgn", "SigCgt"] {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .unwrap();
            assert_eq!(line, ":\t0000000000000000", "{field}");
        }
        // Its own process group and session, and no terminal: fields 1, 5, 6 and 7.
        let stat = printed(
            run(
                &isolation,
                Spec::program("cat").arguments(["/proc/self/stat"]),
            )
            .await,
        );
        let fields: Vec<_> = stat.split_ascii_whitespace().collect();
        let own_proc = matches!(isolation.kind(), Kind::PidNamespace { own_proc: true, .. });
        assert!(
            fields[0] == fields[4] && fields[4] == fields[5] && fields[6] == "0",
            "{stat}"
        );
        assert_eq!(fields[0] == "2", own_proc, "{stat}");
        let ended = run(&isolation, Spec::script(": < /dev/tty")).await;
        assert_ne!(ended.outcome, Outcome::Exited(0));
    }
}

#[tokio::test]
async fn priority_is_lowered() {
    for isolation in isolations() {
        let priority = Priority {
            nice: 7,
            disk: DiskPriority::Idle,
        };
        let own = rustix::process::nice(0).unwrap();
        let spec = Spec::script("nice; ionice -p $$").priority(priority);
        let expected = format!("{}\nidle\n", (own + 7).min(19));
        assert_eq!(printed(run(&isolation, spec).await), expected);
    }
}

#[tokio::test]
async fn a_private_directory_is_ours_alone_and_removed() {
    for isolation in isolations() {
        let under = tempfile::tempdir().unwrap();
        let script = "pwd; stat -c %a .; mkdir -p a/b; touch a/b/c; chmod -R a-w a; echo $HOME";
        let spec = Spec::script(script).private_directory_under(under.path());
        let ended = run(&isolation, spec).await;
        let directory = ended.directory.clone().unwrap();
        let shown = directory.display();
        assert_eq!(printed(ended), format!("{shown}\n700\n{shown}\n"));
        assert_eq!(fs::read_dir(under.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_given_directory_is_left_alone() {
    for isolation in isolations() {
        let folder = tempfile::tempdir().unwrap();
        let spec = Spec::script("echo x > kept").directory(folder.path());
        printed(run(&isolation, spec).await);
        assert_eq!(
            fs::read_to_string(folder.path().join("kept")).unwrap(),
            "x\n"
        );
    }
}

#[tokio::test]
async fn memory_is_limited() {
    for isolation in isolations() {
        let script = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}";
        let spec = Spec::script(script).memory_limit(50_000_000);
        let ended = run(&isolation, spec).await;
        match isolation.memory() {
            MemoryControl::ControlGroup { .. } => assert_eq!(ended.outcome, Outcome::OutOfMemory),
            // The shell cannot have the memory and says so.
            MemoryControl::PerProcess { .. } => {
                assert!(!ended.outcome.is_success(), "{ended:?}");
                assert!(!ended.stdout.contains("200000000"));
            }
        }
        let spec = Spec::script("x=$(head -c 2000000 /dev/zero | tr '\\0' x); echo ${#x}");
        assert_eq!(
            printed(run(&isolation, spec.memory_limit(50_000_000)).await),
            "2000000\n"
        );
    }
}

#[tokio::test]
async fn nobody_reading_does_not_stop_a_job() {
    for isolation in isolations() {
        let limits = OutputLimits {
            first_bytes: 10,
            last_bytes: 5,
        };
        let spec = Spec::script("head -c 10000000 /dev/zero | tr '\\0' x; echo >> done; echo end");
        let folder = tempfile::tempdir().unwrap();
        let mut job = Job::start(&isolation, spec.directory(folder.path()).output(limits)).unwrap();
        support::wait_until("the job is through", || folder.path().join("done").exists()).await;
        let mut run = Run::default();
        while run.take(job.next_event().await) {}
        assert_eq!(run.stdout, "x".repeat(10) + "xend\n");
        assert_eq!(run.omitted, [(Stream::Stdout, 10_000_004 - 15)]);
    }
}

#[tokio::test]
async fn a_program_that_is_no_supervisor_is_told() {
    let error = Isolation::probe_with("/bin/true").unwrap_err().to_string();
    assert!(error.contains("supervise_if_asked"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("liar");
    // Too long a frame, an unknown tag, an answer without a greeting.
    for says in ["garbage", "\\1\\0\\0\\0?", "\\5\\0\\0\\0s\\0\\0\\0\\0"] {
        support::write_script(&liar, &format!("#!/bin/sh\nprintf '{says}' >&0\n"));
        let error = Isolation::probe_with(&liar).unwrap_err().to_string();
        assert!(error.contains("did not answer as a supervisor"), "{error}");
    }
    let error = Isolation::probe_with("/no/such").unwrap_err().to_string();
    assert!(
        error.contains("could not start a supervisor from /no/such"),
        "{error}"
    );
}

#[tokio::test]
async fn the_isolation_says_what_applies() {
    let text = subreaper().to_string();
    assert!(
        text.contains("under a subreaper") && text.contains("a test"),
        "{text}"
    );
    let forced = subreaper();
    let mut job = Job::start(&forced, Spec::program("true")).unwrap();
    loop {
        match job.next_event().await {
            Event::Ended(outcome) => break assert_eq!(outcome, Outcome::Exited(0)),
            Event::Started { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
