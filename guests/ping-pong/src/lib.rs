//! Two workflows that hit a ball back and forth by messages.
//!
//! A workflow can receive messages, but sends them as everybody else does: over the server's HTTP API. None knows its own
//! id, so somebody who started both tells each of the other. `game` does that, and so may any client:
//!
//! ```text
//!  game ── start ──> ping                         pong <── start ── game
//!  game ── opponent {id of pong} ──> ping         pong <── opponent {id of ping} ── game
//!                                    ping ── ball {hits: 1} ──> pong
//!                                    ping <── ball {hits: 2} ── pong      and so on
//! ```

mod server;

use std::time::Duration;

use flawless::idempotent::Idempotence;
use flawless::workflow::{Input, Response};
use flawless::{message, receive, workflow};
use flawless_http::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::server::Server;

flawless::module! { name = "ping-pong", version = "1.0.0" }

/// What all three take.
#[derive(Clone, Serialize, Deserialize)]
struct Rules {
    /// The server, such as `http://localhost:27288`.
    api: String,
    /// The name of the secret that holds the server's token, where it wants one.
    #[serde(default)]
    token_secret: Option<String>,
    /// How often each hits the ball.
    rounds: u32,
    /// How long to wait for the other.
    #[serde(default = "a_minute")]
    patience_ms: u64,
    /// Asked by `ping` at the end, as `{report}?hits=N`.
    #[serde(default)]
    report: Option<String>,
}

fn a_minute() -> u64 {
    60_000
}

#[message("opponent")]
struct Opponent {
    id: String,
}

#[message("ball")]
struct Ball {
    /// Counts up from 1, so that a ball that was sent twice is known.
    hits: u32,
}

/// Starts both players and introduces them; responds with their ids.
#[workflow("game")]
fn game(rules: Input<Rules>, response: Response) {
    let server = Server::new(&rules.api, rules.token_secret.as_deref());
    let ping = server.start("ping", &*rules);
    let pong = server.start("pong", &*rules);
    for (player, id) in [(&ping, &pong), (&pong, &ping)] {
        // Sent again after a crash, it may find a player that is done. One that never heard of it gives up by itself.
        if let Err(error) = server.send(player, &Opponent { id: id.clone() }) {
            log::warn!("{error}");
        }
    }
    let _ = response.send(json!({ "ping": ping, "pong": pong }));
}

/// Hits the ball first, and ends with the last ball in hand.
#[workflow("ping")]
fn ping(rules: Input<Rules>) {
    let player = Player::introduced(&rules);
    for round in 1..=rules.rounds {
        player.hit(2 * round - 1);
        player.await_ball(2 * round);
    }
    let hits = player.hits_max;
    log::info!("game over after {hits} hits");
    if let Some(report) = &rules.report {
        let told = get(format!("{report}?hits={hits}")).idempotent().send();
        told.unwrap_or_else(|error| panic!("could not report to {report}: {error:?}"));
    }
}

/// Waits for the ball first.
#[workflow("pong")]
fn pong(rules: Input<Rules>) {
    let player = Player::introduced(&rules);
    for round in 1..=rules.rounds {
        player.await_ball(2 * round - 1);
        player.hit(2 * round);
    }
    log::info!("last ball hit");
}

struct Player {
    server: Server,
    opponent: String,
    /// In the whole game.
    hits_max: u32,
    patience: Duration,
}

impl Player {
    fn introduced(rules: &Rules) -> Self {
        let patience = Duration::from_millis(rules.patience_ms);
        let opponent = receive! {
            opponent: Opponent => opponent.id,
            +timeout patience => panic!("nobody introduced an opponent within {patience:?}")
        };
        log::info!("playing against {opponent}");
        let server = Server::new(&rules.api, rules.token_secret.as_deref());
        Self {
            server,
            opponent,
            hits_max: 2 * rules.rounds,
            patience,
        }
    }

    fn hit(&self, hits: u32) {
        match self.server.send(&self.opponent, &Ball { hits }) {
            Ok(()) => {}
            // Sent again after a crash, it finds an opponent that has it and is done.
            Err(error) if hits == self.hits_max => log::warn!("{error}"),
            Err(error) => panic!("{error}"),
        }
    }

    fn await_ball(&self, hits: u32) {
        loop {
            let seen = receive! {
                ball: Ball => ball.hits,
                +timeout self.patience => panic!("ball {hits} did not come within {:?}", self.patience)
            };
            // An earlier ball was sent again after a crash.
            if seen == hits {
                break;
            }
            assert!(seen < hits, "ball {seen} came before ball {hits}");
        }
    }
}
