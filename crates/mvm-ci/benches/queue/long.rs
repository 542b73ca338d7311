//! A long queue: what it costs to claim, to list and to remember.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    http::Http,
    load::{Client, Sorted, Steps},
    node_client::{NodeClient, payload},
    nodes::Nodes,
    print::{millis, print, print_at_most},
    processes::memory,
};

/// With `--large` the last one too.
const LENGTHS: [usize; 3] = [1_000, 100_000, 1_000_000];
const ROUNDS: usize = 200;
/// Only submitting, so that the queue is long soon.
const FILLERS: usize = 192;
/// How much more a claim or a page may cost than in the shortest queue.
const RATIO_MAX: f64 = 1.5;

/// What one client sees.
struct Seen {
    claim: Duration,
    page: Duration,
}

pub(crate) async fn measure(nodes: &Nodes, large: bool) {
    let (leader, followers) = nodes.roles().await;
    let roles = [
        ("leader", leader),
        ("follower 1", followers[0]),
        ("follower 2", followers[1]),
    ];
    let ports = roles.map(|(_, node)| node.port);
    let lengths = if large { &LENGTHS[..] } else { &LENGTHS[..2] };
    let mut length = 0;
    let mut first: Option<Seen> = None;
    for next in lengths {
        let start = Instant::now();
        let repeats = fill(&ports, length, next - length).await;
        let rate = (next - length) as f64 / start.elapsed().as_secs_f64();
        length = *next;
        let queue = format!("{length} jobs of others at the head");
        if first.is_some() {
            print(
                &format!("{queue}: submits meanwhile, {FILLERS} clients"),
                "1/s",
                rate,
            );
            print(
                &format!("{queue}: submits that were repeated for want of an answer"),
                "",
                repeats as f64,
            );
        }
        let seen = look(leader.port).await;
        print(
            &format!("{queue}: claim over HTTP, p50"),
            "ms",
            millis(seen.claim),
        );
        print(
            &format!("{queue}: page of 100 over HTTP, local, p50"),
            "ms",
            millis(seen.page),
        );
        if let Some(first) = &first {
            let ratio = |now: Duration, then: Duration| now.as_secs_f64() / then.as_secs_f64();
            let shortest = LENGTHS[0];
            print_at_most(
                &format!("{queue}: claim, to {shortest}"),
                "x",
                ratio(seen.claim, first.claim),
                RATIO_MAX,
            );
            print_at_most(
                &format!("{queue}: page, to {shortest}"),
                "x",
                ratio(seen.page, first.page),
                RATIO_MAX,
            );
        }
        first.get_or_insert(seen);
        for (role, node) in roles {
            let (resident, own) = memory(&node.process);
            print(&format!("{queue}: resident set, {role}"), "MiB", resident);
            print(
                &format!("{queue}: of that not mapped files, {role}"),
                "MiB",
                own,
            );
        }
    }
}

/// Submits jobs that no worker of this bench may take, and says how often one had to be repeated.
async fn fill(ports: &[u16], before: usize, count: usize) -> u64 {
    let mut filling = JoinSet::new();
    for number in 0..FILLERS {
        let port = ports[number % ports.len()];
        let share = count / FILLERS + usize::from(number < count % FILLERS);
        filling.spawn(async move {
            let mut http = Http::connect(port).await.unwrap();
            let job = json!({
                "kind": "bench", "payload": payload(), "labels": ["elsewhere"], "priority": 9
            });
            let mut repeats = 0;
            for place in 0..share {
                let name = format!("fill-{before}-{number}-{place}");
                repeats += http.post_surely("/api/v1/jobs", &job, &name).await;
            }
            repeats
        });
    }
    let mut repeats = 0;
    while let Some(filled) = filling.join_next().await {
        repeats += filled.unwrap();
    }
    repeats
}

async fn look(port: u16) -> Seen {
    let mut client = NodeClient::connect(port, 0).await;
    let mut steps = Steps::default();
    for _ in 0..ROUNDS {
        client.live(&mut steps).await;
    }
    let steps = steps.sorted();
    let (_, claims) = steps.iter().find(|(step, _)| *step == "claim").unwrap();
    let mut http = Http::connect(port).await.unwrap();
    let mut pages = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let page = "/api/v1/jobs?limit=100&order=newest_first&consistency=local";
        let (status, _) = http.get(page).await;
        assert!(status.is_success(), "{status}");
        pages.push(start.elapsed());
    }
    Seen {
        claim: claims.at(50),
        page: Sorted::of(pages).at(50),
    }
}
