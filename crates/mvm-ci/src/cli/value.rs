//! Values as people write them: durations, sizes, times, pairs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mvm_flow::journal::State;
use mvm_queue::{Concurrency, JobState, Missed};

/// A time, or how far it is from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// So far from now; the command says in which direction.
    Distance(Duration),
    /// Then.
    At(Timestamp),
}

/// `90s`, `1h 30m`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|_| "write it as 90s, 10m, 1h 30m or 500ms".to_owned())?;
    Duration::try_from(signed).map_err(|_| "it must not be below zero".to_owned())
}

/// A duration, or a time of RFC 3339.
pub(super) fn when(text: &str) -> Result<When, String> {
    let wrong = |_| "write 10m, or a time as 2027-01-31T08:00:00Z".to_owned();
    match text.parse() {
        Ok(timestamp) => Ok(When::At(timestamp)),
        Err(_) => duration(text).map(When::Distance).map_err(wrong),
    }
}

/// `1048576`, `512M`, `2G`: powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write it as 512M or 2G".to_owned();
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// `NAME=VALUE`
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// `KEY=LIMIT`
pub(super) fn concurrency(text: &str) -> Result<Concurrency, String> {
    let pair = text
        .rsplit_once('=')
        .and_then(|(key, limit)| Some((key, limit.parse().ok()?)));
    match pair {
        Some((key, limit)) => Ok(Concurrency {
            key: key.to_owned(),
            limit,
        }),
        None => Err("write it as KEY=LIMIT, for instance deploy=1".to_owned()),
    }
}

/// What becomes of missed times.
pub(super) fn missed(word: &str) -> Result<Missed, String> {
    match word {
        "once" => Ok(Missed::Once),
        "all" => Ok(Missed::All),
        "skip" => Ok(Missed::Skip),
        _ => Err("write once, all or skip".to_owned()),
    }
}

/// A job's state.
pub(super) fn state(word: &str) -> Result<JobState, String> {
    JobState::parse(word).ok_or_else(|| {
        let known = JobState::ALL.map(JobState::as_str);
        format!("states are {}", known.join(", "))
    })
}

/// A workflow's state.
pub(super) fn flow_state(word: &str) -> Result<State, String> {
    State::parse(word).ok_or_else(|| {
        let known = State::ALL.map(State::as_str);
        format!("states are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_times_are_read() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, expected) in [
            ("0", 0),
            ("3K", 3072),
            ("512M", 512 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "18446744073709551615K", "1T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(when("10m"), Ok(When::Distance(Duration::from_secs(600))));
        assert_eq!(
            when("1970-01-01T01:00:01+01:00"),
            Ok(When::At(Timestamp::from_second(1).unwrap()))
        );
        assert!(when("tomorrow").is_err());
    }

    #[test]
    fn pairs_are_read() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(variable("=b").is_err() && variable("A").is_err());
        let found = concurrency("a=b=2").map(|found| (found.key, found.limit));
        assert_eq!(found, Ok(("a=b".into(), 2)));
        assert!(concurrency("a").is_err() && concurrency("a=many").is_err());
    }
}
