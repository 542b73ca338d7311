//! A saga: books flight, hotel and car with three services, and takes back what was booked, the last first, when one of
//! them cannot be had.
//!
//! Every request carries a key, so that a service that sees it twice does it once. So requests are idempotent, and may be
//! tried again when it is not known what became of them.

use std::time::Duration;

use flawless::idempotent::Idempotence;
use flawless::rand::random;
use flawless::workflow;
use flawless::workflow::{Input, Response};
use flawless_http::{Error, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

flawless::module! { name = "saga", version = "1.0.0" }

/// In the order of booking.
const PARTS: [&str; 3] = ["flight", "hotel", "car"];
/// How often a service is asked before it is given up.
const ATTEMPTS_MAX: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Trip {
    /// `{url}/{part}/book` and `{url}/{part}/cancel` are asked by POST, with `{"trip": ..}` as JSON and the header
    /// `idempotency-key`.
    url: String,
    /// Names the trip; drawn at random where it is not given.
    #[serde(default)]
    trip: Option<String>,
    /// Between the first attempt and the second; each pause is twice the one before.
    #[serde(default = "a_second")]
    pause_ms: u64,
}

fn a_second() -> u64 {
    1000
}

#[derive(Serialize)]
struct Outcome {
    trip: String,
    /// What is booked in the end: everything, or nothing but what is stuck.
    booked: Vec<&'static str>,
    /// What was taken back, in the order in which it was.
    cancelled: Vec<&'static str>,
    /// What could not be taken back; somebody has to look.
    stuck: Vec<&'static str>,
    failed: Option<Failure>,
}

#[derive(Serialize)]
struct Failure {
    part: &'static str,
    why: String,
}

/// Books a trip or leaves nothing behind; responds with what came of it.
#[workflow("trip")]
fn trip(input: Input<Trip>, response: Response) {
    let trip = input
        .trip
        .clone()
        .unwrap_or_else(|| format!("trip-{:016x}", random::<i64>()));
    let agency = Agency {
        url: &input.url,
        trip: &trip,
        pause: Duration::from_millis(input.pause_ms),
    };
    let mut booked = Vec::new();
    let mut failed = None;
    for part in PARTS {
        match agency.ask(part, "book") {
            Answer::Done => booked.push(part),
            Answer::Refused(why) => failed = Some(Failure { part, why }),
            Answer::Unknown(why) => {
                // It may be booked, so it is taken back with the others.
                booked.push(part);
                failed = Some(Failure { part, why });
            }
        }
        if failed.is_some() {
            break;
        }
    }
    let mut outcome = Outcome {
        trip: trip.clone(),
        booked,
        cancelled: Vec::new(),
        stuck: Vec::new(),
        failed,
    };
    if outcome.failed.is_some() {
        agency.take_back(&mut outcome);
    }
    let _ = response.send(outcome);
}

/// What a service made of a request.
enum Answer {
    Done,
    /// It said no.
    Refused(String),
    /// It did not say, and was asked often enough.
    Unknown(String),
}

struct Agency<'a> {
    url: &'a str,
    trip: &'a str,
    pause: Duration,
}

impl Agency<'_> {
    fn take_back(&self, outcome: &mut Outcome) {
        for part in std::mem::take(&mut outcome.booked).into_iter().rev() {
            match self.ask(part, "cancel") {
                Answer::Done => outcome.cancelled.push(part),
                Answer::Refused(why) | Answer::Unknown(why) => {
                    log::error!("{}: {part} is stuck: {why}", self.trip);
                    outcome.booked.push(part);
                    outcome.stuck.push(part);
                }
            }
        }
    }

    /// Asks until there is an answer or no patience left.
    fn ask(&self, part: &str, verb: &str) -> Answer {
        let mut pause = self.pause;
        let mut why = String::new();
        for attempt in 1..=ATTEMPTS_MAX {
            if attempt > 1 {
                workflow::sleep(pause);
                pause *= 2;
            }
            why = match self.ask_once(part, verb) {
                Ok(()) => {
                    log::info!("{}: {verb} {part}: done", self.trip);
                    return Answer::Done;
                }
                Err(Error::Status(code @ 400..=499, _)) => {
                    log::warn!("{}: {verb} {part}: refused with {code}", self.trip);
                    return Answer::Refused(code.to_string());
                }
                Err(Error::Status(code, _)) => code.to_string(),
                Err(Error::Transport(error)) => format!("{:?}", error.kind()),
            };
            log::warn!(
                "{}: {verb} {part}: attempt {attempt} of {ATTEMPTS_MAX}: {why}",
                self.trip
            );
        }
        Answer::Unknown(why)
    }

    fn ask_once(&self, part: &str, verb: &str) -> Result<(), Error> {
        let request = post(format!("{}/{part}/{verb}", self.url))
            .set_header("idempotency-key", format!("{}-{part}-{verb}", self.trip))
            .body(json!({ "trip": self.trip }));
        request.idempotent().send().map(drop)
    }
}
