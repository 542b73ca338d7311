//! Which server to ask next, and how long to rest: decided from times and results that are given.

use std::time::Duration;

/// The pause after the first round; doubles with each further one.
const PAUSE_BASE: Duration = Duration::from_millis(100);
/// The longest pause that no server asked for.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Ask this server.
    Ask(usize),
    /// Do nothing for so long.
    Pause(Duration),
    /// The time is over, or will be before anybody may be asked.
    GiveUp,
}

/// One call's way around the servers. Times count from the beginning of the call.
#[derive(Debug)]
pub(crate) struct Rotation {
    servers: Vec<Server>,
    next: usize,
    rounds: u32,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// In this round.
    tried: bool,
    not_before: Duration,
}

impl Rotation {
    /// Starts with server `first` of `servers`.
    pub(crate) fn new(servers: usize, first: usize, deadline: Duration) -> Self {
        Self {
            servers: vec![Server::default(); servers],
            next: first % servers.max(1),
            rounds: 0,
            deadline,
        }
    }

    /// Decides. `jitter` is drawn from 0 to 1: clients that failed together shall not come back together.
    pub(crate) fn step(&mut self, now: Duration, jitter: f64) -> Step {
        if now >= self.deadline {
            return Step::GiveUp;
        }
        let count = self.servers.len();
        let mut order = (0..count).map(|offset| (self.next + offset) % count);
        let may_ask = |server: &Server| !server.tried && server.not_before <= now;
        if let Some(server) = order.find(|server| may_ask(&self.servers[*server])) {
            return Step::Ask(server);
        }
        let earliest = self.servers.iter().map(|server| server.not_before).min();
        let asked_for = earliest.unwrap_or_default().saturating_sub(now);
        let full = PAUSE_MAX.min(PAUSE_BASE * 2_u32.pow(self.rounds.min(10)));
        // Jitter comes on top of what a server asked for, too: it asked all its clients alike.
        let pause = asked_for + full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.rounds += 1;
        for server in &mut self.servers {
            server.tried = false;
        }
        match now + pause < self.deadline {
            true => Step::Pause(pause),
            false => Step::GiveUp,
        }
    }

    /// A server did not do; `retry_after` is what it asked for.
    pub(crate) fn failed(&mut self, server: usize, now: Duration, retry_after: Duration) {
        self.servers[server] = Server {
            tried: true,
            not_before: now.saturating_add(retry_after),
        };
        self.next = (server + 1) % self.servers.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Fails every server that is asked, `took` after it was; returns who was asked and the pauses.
    fn all_fail(rotation: &mut Rotation, took: Duration, retry_after: Duration) -> Vec<String> {
        let mut now = NONE;
        let mut seen = Vec::new();
        loop {
            match rotation.step(now, 1.0) {
                Step::Ask(server) => {
                    seen.push(server.to_string());
                    now += took;
                    rotation.failed(server, now, retry_after);
                }
                Step::Pause(pause) => {
                    seen.push(format!("{} ms", pause.as_millis()));
                    now += pause;
                }
                Step::GiveUp => return seen,
            }
        }
    }

    #[test]
    fn each_is_asked_once_a_round_and_pauses_grow() {
        let seen = all_fail(&mut Rotation::new(3, 2, ms(2_000)), ms(10), NONE);
        assert_eq!(
            seen.join(", "),
            "2, 0, 1, 100 ms, 2, 0, 1, 200 ms, 2, 0, 1, 400 ms, 2, 0, 1, 800 ms, 2, 0, 1"
        );
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_and_others_are_asked_meanwhile() {
        let mut rotation = Rotation::new(2, 0, ms(10_000));
        rotation.failed(0, ms(5), ms(1_000));
        assert_eq!(rotation.step(ms(5), 0.0), Step::Ask(1));
        rotation.failed(1, ms(10), NONE);
        assert_eq!(rotation.step(ms(10), 0.0), Step::Pause(ms(50)));
        assert_eq!(rotation.step(ms(60), 0.0), Step::Ask(1));
        rotation.failed(1, ms(65), ms(3_000));
        assert_eq!(
            rotation.step(ms(65), 0.0),
            Step::Pause(ms(940) + ms(100)),
            "until the first of them may be asked"
        );
        assert_eq!(rotation.step(ms(1_105), 0.0), Step::Ask(0));
    }

    #[test]
    fn nobody_rests_when_the_time_would_be_over() {
        let seen = all_fail(&mut Rotation::new(1, 0, ms(5_000)), ms(1), ms(6_000));
        assert_eq!(seen, ["0"]);
        let mut late = Rotation::new(1, 0, ms(100));
        assert_eq!(late.step(ms(100), 0.5), Step::GiveUp);
    }

    #[test]
    fn jitter_spreads_pauses_over_their_upper_half() {
        let pause = |jitter| {
            let mut rotation = Rotation::new(1, 0, ms(10_000));
            rotation.failed(0, NONE, NONE);
            rotation.step(NONE, jitter)
        };
        assert_eq!(
            [pause(0.0), pause(0.5), pause(1.0)],
            [50, 75, 100].map(|millis| Step::Pause(ms(millis)))
        );
    }
}
