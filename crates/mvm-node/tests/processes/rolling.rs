//! All three nodes are restarted in order, one after the other, under readers and a writer.
//!
//! What a green run does not prove: that two builds understand one another; both are this one.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::{
    cluster::Cluster,
    support::{get, new_job},
};

/// One election (0.8 s here) and 3 s are promised; a loaded host gets more.
const REFUSAL_MAX: Duration = Duration::from_secs(15);

#[test]
fn a_rolling_restart_refuses_no_local_read() {
    let mut cluster = Cluster::formed(3);
    let addresses: Vec<SocketAddr> = (1..=3).map(|id| cluster.address(id)).collect();
    let clients = Clients {
        addresses,
        restarting: AtomicUsize::new(0),
        done: AtomicBool::new(false),
        local_reads: AtomicU32::new(0),
    };
    let (reads, writes) = std::thread::scope(|scope| {
        let local = scope.spawn(|| clients.read_locally());
        let reads = scope.spawn(|| {
            clients.longest_refusal(|address| {
                get(address, "/queue/list?limit=1").is_ok_and(|answer| answer.status == 200)
            })
        });
        let writes = scope.spawn(|| {
            clients.longest_refusal(|address| {
                let key = format!("key{}", clients.local_reads.load(Ordering::Relaxed));
                new_job(address, &format!("http://x/{key}"), &key)
                    .is_ok_and(|answer| [200, 201].contains(&answer.status))
            })
        });
        // Ends the clients also when a node does not come back.
        let done = Done(&clients.done);
        for id in 1..=3 {
            let leads = cluster.leader() == id;
            clients.restarting.store(id, Ordering::SeqCst);
            let stopping = Instant::now();
            cluster.stop(id);
            let stopped = stopping.elapsed();
            cluster.start(id);
            cluster.wait_ready(id);
            eprintln!(
                "node {id}{}: stopped in {} ms, ready again after {} ms",
                if leads { " (the leader)" } else { "" },
                stopped.as_millis(),
                (stopping.elapsed() - stopped).as_millis()
            );
            // Back so soon, it would lead on, and serve nobody for 6 s.
            assert!(!leads || cluster.leader() != id, "node {id} leads on");
            clients.restarting.store(0, Ordering::SeqCst);
        }
        drop(done);
        local.join().unwrap();
        (reads.join().unwrap(), writes.join().unwrap())
    });
    eprintln!(
        "{} local reads, none refused; longest refusal: reads {} ms, writes {} ms",
        clients.local_reads.load(Ordering::Relaxed),
        reads.as_millis(),
        writes.as_millis()
    );
    assert!(reads < REFUSAL_MAX && writes < REFUSAL_MAX);
}

struct Clients {
    addresses: Vec<SocketAddr>,
    /// The node that clients leave alone, as a load balancer does; 0 for none.
    restarting: AtomicUsize,
    done: AtomicBool,
    local_reads: AtomicU32,
}

impl Clients {
    fn others(&self) -> impl Iterator<Item = SocketAddr> {
        let restarting = self.restarting.load(Ordering::SeqCst);
        let others = self.addresses.iter().zip(1..);
        others
            .filter(move |(_, id)| *id != restarting)
            .map(|(address, _)| *address)
    }

    /// Every read must be answered.
    fn read_locally(&self) {
        while !self.done.load(Ordering::Relaxed) {
            for address in self.others() {
                let answer = get(address, "/queue/list?limit=1&consistency=local").unwrap();
                assert_eq!(answer.status, 200, "{address}: {}", answer.text());
                self.local_reads.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Repeats a request, at another node when one refuses; gives the longest time that it took until one was served.
    fn longest_refusal(&self, served: impl Fn(SocketAddr) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        while !self.done.load(Ordering::Relaxed) {
            let started = Instant::now();
            while !self.others().any(&served) && started.elapsed() < REFUSAL_MAX {
                std::thread::sleep(Duration::from_millis(10));
            }
            longest = longest.max(started.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        longest
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
