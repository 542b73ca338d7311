//! Round after round of fork, use, end and restore: nothing may pile up.
//!
//! One test alone in its program, since it counts what its process has. What a green run does not prove: that the page
//! cache is given back (the kernel's matter), and anything about processes of other users of the cache.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    lab::Lab,
    scenario::{Failure, Outcome, Run},
    topology::MemoryPlan,
};
use mvm_machine::cache::Cache;

/// Enough to tell a leak from a beginning; a soak says how many in [`ROUNDS_VARIABLE`].
const ROUNDS: usize = 6;
const ROUNDS_VARIABLE: &str = "MVM_CI_ROUNDS";
/// Threads and sockets go a moment after what they served.
const SETTLE_ALLOWED: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What the allocator may keep; a leaked machine memory would be more in one round.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Files of running machines: overlays that differ in what the guests wrote meanwhile, by a few MiB.
const FILES_GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What this process has, by kind: it must be the same after as before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    children: usize,
    descriptors: BTreeMap<String, usize>,
    /// But for the runtime's own, which come and go.
    threads: BTreeMap<String, usize>,
    /// In the folders of running machines.
    files: usize,
    /// Held by this process or its children without a name.
    nameless: usize,
    /// Lock files that nobody holds.
    abandoned_locks: usize,
    unfinished_entries: usize,
}

/// What may vary within a bound.
#[derive(Debug)]
struct Sizes {
    resident: u64,
    files: u64,
}

impl Counts {
    fn take(cache: &Cache) -> Counts {
        let children = children();
        let processes = children.iter().copied().chain([std::process::id()]);
        let nameless = processes.map(|pid| {
            let held = links(&PathBuf::from(format!("/proc/{pid}/fd")));
            held.iter()
                .filter(|target| target.ends_with(" (deleted)"))
                .count()
        });
        let ours = format!("-{}", std::process::id());
        let unfinished = listed(&cache.root().join("checkpoints"));
        Counts {
            children: children.len(),
            descriptors: by_kind(links(Path::new("/proc/self/fd")), |target| {
                match target.split_once(":[") {
                    Some((kind, _)) => kind.to_owned(),
                    None if target.starts_with("anon_inode") => target.to_owned(),
                    None => "file".to_owned(),
                }
            }),
            threads: by_kind(threads(), |name| name.trim().replace(char::is_numeric, "")),
            files: running_files(cache).len(),
            nameless: nameless.sum(),
            abandoned_locks: abandoned_locks(cache),
            unfinished_entries: unfinished
                .iter()
                .filter(|path| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.starts_with(".unfinished-") && name.ends_with(&ours)
                })
                .count(),
        }
    }

    /// Waits until there is no more than `before`.
    async fn expect(before: &Counts, cache: &Cache) -> Outcome {
        let deadline = Instant::now() + SETTLE_ALLOWED;
        loop {
            let now = Counts::take(cache);
            let as_before = Counts {
                // Others may remove what they had abandoned.
                abandoned_locks: now.abandoned_locks.min(before.abandoned_locks),
                ..before.clone()
            };
            if now == as_before {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "something was left behind:\n before {before:?}\n after  {now:?}\n files {:?}",
                running_files(cache)
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Sizes {
    fn take(cache: &Cache) -> Sizes {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let files = running_files(cache);
        let blocks = files
            .iter()
            .filter_map(|path| Some(path.metadata().ok()?.blocks()));
        Sizes {
            resident: kib * 1024,
            files: blocks.sum::<u64>() * 512,
        }
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn links(folder: &Path) -> Vec<String> {
    let targets = listed(folder)
        .into_iter()
        .filter_map(|path| fs::read_link(path).ok());
    targets
        .map(|target| target.to_string_lossy().into_owned())
        // The listing's own.
        .filter(|target| *target != format!("/proc/{}/fd", std::process::id()))
        .collect()
}

fn by_kind(names: Vec<String>, kind: impl Fn(&str) -> String) -> BTreeMap<String, usize> {
    names.iter().fold(BTreeMap::new(), |mut counted, name| {
        *counted.entry(kind(name)).or_default() += 1;
        counted
    })
}

fn threads() -> Vec<String> {
    let names = listed(Path::new("/proc/self/task"))
        .into_iter()
        .filter_map(|task| fs::read_to_string(task.join("comm")).ok());
    names.filter(|name| !name.starts_with("tokio-")).collect()
}

/// Children that have not been awaited count too.
fn children() -> Vec<u32> {
    let us = std::process::id().to_string();
    let parent = |process: &Path| {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        Some(after_name.split_ascii_whitespace().nth(1)? == us)
    };
    listed(Path::new("/proc"))
        .into_iter()
        .filter(|process| parent(process).unwrap_or(false))
        .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
        .collect()
}

fn running_files(cache: &Cache) -> Vec<PathBuf> {
    let ours = format!("mvm-ci-{}-", std::process::id());
    let folders = listed(&cache.root().join("running"))
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&ours)
        });
    folders
        .flat_map(|folder| {
            let files = listed(&folder);
            files.into_iter().chain([folder])
        })
        .collect()
}

fn abandoned_locks(cache: &Cache) -> usize {
    let held = fs::read_to_string("/proc/locks").unwrap();
    let held: BTreeSet<u64> = held
        .lines()
        .filter_map(|line| {
            let place = line
                .split_ascii_whitespace()
                .find(|word| word.contains(':') && !word.ends_with(':'))?;
            place.rsplit(':').next()?.parse().ok()
        })
        .collect();
    listed(&cache.root().join("locks"))
        .iter()
        // Boot tokens' files stay.
        .filter(|path| {
            !path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .starts_with("boot-")
        })
        .filter_map(|path| path.metadata().ok())
        .filter(|metadata| !held.contains(&metadata.ino()))
        .count()
}

async fn round(lab: &Lab) -> Outcome {
    let forks = lab.fork("base", 1, WallClock::Now).await?;
    for fork in &forks {
        answers(fork, "fork").await?;
        fork.end().await;
    }
    drop(forks);
    lab.restore("base", WallClock::Now).await?;
    answers(lab, "restored").await
}

/// It is as it was at the checkpoint, and its network works.
async fn answers(lab: &Lab, who: &str) -> Outcome {
    let node2 = lab.node("node2");
    let mark = node2
        .succeed(&format!("cat /data/mark; echo {who} > /data/mark; sync"))
        .await?;
    ensure!(mark.trim() == "base", "the disk of {who} says {mark:?}");
    node2
        .wait_until_succeeds("ping -c 1 -W 5 node1", support::ALLOWED)
        .await?;
    Ok(())
}

async fn nothing_piles_up(run: &Run) -> Outcome {
    let rounds = match std::env::var(ROUNDS_VARIABLE) {
        Ok(told) => told
            .parse()
            .map_err(|_| Failure::broken(format!("{ROUNDS_VARIABLE}={told} is no number")))?,
        Err(_) => ROUNDS,
    };
    let cache = Cache::for_user().map_err(|error| Failure::trouble(&error))?;
    let lab = &run.lab;
    lab.start_all().await?;
    lab.node("node2")
        .succeed("echo base > /data/mark && sync")
        .await?;
    lab.checkpoint("base").await?;
    // What is made once and kept, such as threads, is made now.
    round(lab).await?;
    let (counts, sizes) = (Counts::take(&cache), Sizes::take(&cache));
    let began = Instant::now();
    for _ in 0..rounds {
        round(lab).await?;
    }
    let took = began.elapsed();
    Counts::expect(&counts, &cache).await?;
    let after = Sizes::take(&cache);
    run.note(format!(
        "{rounds} rounds in {:.1} s; before and after: {counts:?}; resident {} and {} KiB; files of running machines {} \
         and {} KiB",
        took.as_secs_f64(),
        sizes.resident >> 10,
        after.resident >> 10,
        sizes.files >> 10,
        after.files >> 10,
    ));
    ensure!(
        after.resident < sizes.resident + GROWTH_BYTES_MAX
            && after.files < sizes.files + FILES_GROWTH_BYTES_MAX,
        "it grew: {sizes:?}, then {after:?}"
    );
    Ok(())
}

#[test]
fn nothing_piles_up_over_rounds_of_fork_and_restore() {
    let topology = support::two_machines(MemoryPlan::Own);
    support::check("rounds", topology, |run| Box::pin(nothing_piles_up(run)));
}
