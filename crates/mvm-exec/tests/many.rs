//! Many jobs at once leave nothing. Alone in its file, because it counts its own process's belongings.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use mvm_exec::{Job, Outcome, Spec};
use support::{DAEMONS, Mark, STUBBORN, children, isolations, run};

const JOBS: usize = 50;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_leave_nothing() {
    for isolation in isolations() {
        // What the runtime opens for its first child stays open.
        run(&isolation, Spec::program("true")).await;
        let (mark, under) = (Mark::new(), tempfile::tempdir().unwrap());
        let (before, begin) = (descriptors(), Instant::now());
        // Of five jobs one goes on until it is cancelled, one is dropped at once, the others end.
        let spec = |code: usize| {
            let script = match code % 5 {
                0 => STUBBORN.to_owned(),
                _ => format!("{DAEMONS}\necho {code}; exit {code}"),
            };
            mark.on(Spec::script(script))
                .private_directory_under(under.path())
                .kill_grace(Duration::ZERO)
        };
        let start = |code| Job::start(&isolation, spec(code)).unwrap();
        let jobs: Vec<_> = (0..JOBS).map(|code| (code, start(code))).collect();
        for (code, mut job) in jobs {
            let expected = match code % 5 {
                0 => {
                    job.cancel();
                    Outcome::Cancelled
                }
                1 => continue,
                _ => Outcome::Exited(i32::try_from(code).unwrap()),
            };
            assert_eq!(job.wait().await, expected);
        }
        mark.await_nobody().await;
        support::wait_until("no child is left", || children().is_empty()).await;
        assert_eq!(fs::read_dir(under.path()).unwrap().count(), 0);
        // The task behind a job lets go of the last descriptors just after telling the end.
        support::wait_until("descriptors are closed", || descriptors() == before).await;
        println!(
            "{:?}: {JOBS} jobs in {:?}",
            isolation.kind(),
            begin.elapsed()
        );

        let begin = Instant::now();
        for _ in 0..JOBS {
            assert!(
                run(&isolation, Spec::program("true"))
                    .await
                    .outcome
                    .is_success()
            );
        }
        println!(
            "one after the other: {:?} each",
            begin.elapsed() / JOBS as u32
        );
    }
}
