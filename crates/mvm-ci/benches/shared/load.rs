//! Clients in a closed loop, and what was measured of them.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

/// Left out: connections, caches and batches settle.
const WARM_UP: Duration = Duration::from_millis(700);
const WINDOW: Duration = Duration::from_secs(4);

/// One client, in its own connection.
pub(crate) trait Client: Send + 'static {
    /// Takes one job from its submission to its end, and notes how long each step took.
    fn live(&mut self, steps: &mut Steps) -> impl Future<Output = ()> + Send;
}

/// How long each step of each job took.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    /// Does a step and notes how long it took.
    pub(crate) async fn time<T>(&mut self, step: &'static str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.0.push((step, start.elapsed()));
        done
    }

    /// The durations of each step, in the order of the steps.
    pub(crate) fn sorted(&self) -> Vec<(&'static str, Sorted)> {
        let mut steps: Vec<(&'static str, Vec<Duration>)> = Vec::new();
        for (name, took) in &self.0 {
            match steps.iter_mut().find(|(step, _)| step == name) {
                Some((_, times)) => times.push(*took),
                None => steps.push((name, vec![*took])),
            }
        }
        let sorted = |(step, times)| (step, Sorted::of(times));
        steps.into_iter().map(sorted).collect()
    }
}

/// Durations in ascending order; at least one.
#[derive(Debug)]
pub(crate) struct Sorted(Vec<Duration>);

impl Sorted {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    /// A percentile below 100.
    pub(crate) fn at(&self, percent: usize) -> Duration {
        self.0[self.0.len() * percent / 100]
    }
}

/// What clients did within the window.
#[derive(Debug, Default)]
pub(crate) struct Load {
    jobs: usize,
    steps: Steps,
}

impl Load {
    /// Jobs per second.
    pub(crate) fn rate(&self) -> f64 {
        self.jobs as f64 / WINDOW.as_secs_f64()
    }

    pub(crate) fn steps(&self) -> Vec<(&'static str, Sorted)> {
        self.steps.sorted()
    }
}

/// Lets clients work at the same time, until the window is over.
pub(crate) async fn run<C: Client>(clients: Vec<C>) -> Load {
    let opens = Instant::now() + WARM_UP;
    let closes = opens + WINDOW;
    let mut working = JoinSet::new();
    for mut client in clients {
        working.spawn(async move {
            let mut load = Load::default();
            while Instant::now() < closes {
                let mut steps = Steps::default();
                client.live(&mut steps).await;
                let now = Instant::now();
                if opens <= now && now < closes {
                    load.jobs += 1;
                    load.steps.0.append(&mut steps.0);
                }
            }
            load
        });
    }
    let mut all = Load::default();
    while let Some(load) = working.join_next().await {
        let mut load = load.unwrap();
        all.jobs += load.jobs;
        all.steps.0.append(&mut load.steps.0);
    }
    all
}
