//! Cron lines, in UTC: a zone with summer time has ticks that come twice or not at all, and replicas would need the
//! same zone database.

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use jiff::{civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    id::UnixMillis,
    job::JobSpec,
    limits::{Invalid, key},
};

/// The longest cron line.
const LINE_BYTES_MAX: usize = 256;

/// What becomes of ticks that passed while nobody could fire them, because the cluster or the leader's clock stood still.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// However many passed, one job makes up for all of them.
    #[default]
    Once,
    /// Each gets its job, up to [`Missed::CATCH_UP_MAX`]; older ones are left out.
    All,
    /// None gets a job, if it is later than [`Missed::SKIP_AFTER_MS`].
    Skip,
}

impl Missed {
    /// Ticks that [`Missed::All`] makes up for.
    pub const CATCH_UP_MAX: usize = 100;
    /// A tick later than this is missed; one less late is merely late, as any is after an election.
    pub const SKIP_AFTER_MS: i64 = 60_000;
}

/// A cron line that is understood and fires at least once more.
#[derive(Clone)]
pub struct Schedule {
    line: String,
    cron: croner::Cron,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Schedule").field(&self.line).finish()
    }
}

/// What to do about a schedule whose tick has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Firing {
    /// Whether the tick gets a job; if not it is left out.
    pub(crate) fires: bool,
    /// The tick to wait for from then on.
    pub(crate) next_ms: UnixMillis,
}

impl Schedule {
    /// Reads a line of five fields, or six with seconds first, and sees that its time comes after `now`.
    pub fn parse(line: &str, now: UnixMillis) -> Result<Self, Invalid> {
        if line.len() > LINE_BYTES_MAX {
            return Err(Invalid::TooLarge {
                what: "the cron line in bytes",
                found: line.len(),
                allowed: LINE_BYTES_MAX,
            });
        }
        let bad = |why: String| Invalid::BadCron {
            line: line.to_owned(),
            why,
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build()
            .parse(line)
            .map_err(|error| bad(error.to_string()))?;
        let schedule = Self {
            line: line.to_owned(),
            cron,
        };
        match schedule.next(now) {
            Some(_) => Ok(schedule),
            None => Err(Invalid::NeverFires {
                line: line.to_owned(),
            }),
        }
    }

    /// The first tick after a moment.
    pub fn next(&self, after: UnixMillis) -> Option<UnixMillis> {
        let start = civil(after)?;
        let next = self.cron.find_next_occurrence(&start, false).ok()?;
        // The search goes by whole seconds; a moment within one must not find that second again.
        millis(next).filter(|tick| *tick > after)
    }

    /// Decides about a tick that the wall clock has reached. Nothing if it has not, or if no tick comes after.
    ///
    /// The answer is always a later tick to wait for, so a clock that jumps fires nothing twice: forward, the ticks in
    /// between are missed ones; back, the next tick is waited for.
    pub(crate) fn firing(
        &self,
        waiting_for: UnixMillis,
        missed: Missed,
        now: UnixMillis,
    ) -> Option<Firing> {
        if now < waiting_for {
            return None;
        }
        let fire = |next_ms| Firing {
            fires: true,
            next_ms,
        };
        let leave_out = |next_ms| Firing {
            fires: false,
            next_ms,
        };
        match missed {
            Missed::Once => self.next(now).map(fire),
            Missed::All => match self.oldest_to_catch_up(now) {
                Some(oldest) if waiting_for < oldest => Some(leave_out(oldest)),
                _ => self.next(waiting_for).map(fire),
            },
            Missed::Skip => {
                let late = now.0.saturating_sub(waiting_for.0);
                if late <= Missed::SKIP_AFTER_MS {
                    self.next(waiting_for).map(fire)
                } else {
                    self.next(UnixMillis(now.0 - Missed::SKIP_AFTER_MS - 1))
                        .map(leave_out)
                }
            }
        }
    }

    /// The last but so many ticks before `now`.
    fn oldest_to_catch_up(&self, now: UnixMillis) -> Option<UnixMillis> {
        let mut tick = civil(UnixMillis(now.0.saturating_add(1_000)))?;
        for _ in 0..Missed::CATCH_UP_MAX {
            tick = self.cron.find_previous_occurrence(&tick, false).ok()?;
        }
        millis(tick)
    }
}

impl Missed {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::All => "all",
            Self::Skip => "skip",
        }
    }
}

fn civil(moment: UnixMillis) -> Option<DateTime> {
    let timestamp = jiff::Timestamp::from_millisecond(moment.0).ok()?;
    Some(TimeZone::UTC.to_datetime(timestamp))
}

fn millis(moment: DateTime) -> Option<UnixMillis> {
    let zoned = moment.to_zoned(TimeZone::UTC).ok()?;
    Some(UnixMillis(zoned.timestamp().as_millisecond()))
}

/// Says whether a schedule with this name, line and job is accepted, and gives its first tick.
pub fn validate_schedule(
    name: &str,
    line: &str,
    spec: &JobSpec,
    now: UnixMillis,
) -> Result<UnixMillis, Invalid> {
    key("the schedule's name", name)?;
    spec.validate()?;
    for (present, what) in [
        (spec.idempotency_key.is_some(), "idempotency key"),
        (!spec.dependencies.is_empty(), "dependencies"),
        (spec.run_after_ms.is_some(), "run-after time"),
    ] {
        if present {
            return Err(Invalid::NotInSchedule { what });
        }
    }
    let schedule = Schedule::parse(line, now)?;
    schedule.next(now).ok_or_else(|| Invalid::NeverFires {
        line: line.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    /// 2026-11-24 00:00 UTC, a Tuesday.
    const MIDNIGHT: UnixMillis = UnixMillis(1_795_478_400_000);

    fn at(offset: i64) -> UnixMillis {
        UnixMillis(MIDNIGHT.0 + offset)
    }

    #[test]
    fn ticks_are_in_utc_and_strictly_later() {
        let hourly = Schedule::parse("30 * * * *", MIDNIGHT).unwrap();
        assert_eq!(hourly.next(MIDNIGHT), Some(at(30 * MINUTE)));
        assert_eq!(hourly.next(at(30 * MINUTE)), Some(at(90 * MINUTE)));
        assert_eq!(hourly.next(at(30 * MINUTE - 1)), Some(at(30 * MINUTE)));
        assert_eq!(hourly.next(at(30 * MINUTE + 1)), Some(at(90 * MINUTE)));
        let daily = Schedule::parse("0 2 * * *", MIDNIGHT).unwrap();
        assert_eq!(daily.next(at(3 * HOUR)), Some(at(26 * HOUR)));
        let seconds = Schedule::parse("*/10 * * * * *", MIDNIGHT).unwrap();
        assert_eq!(seconds.next(at(1)), Some(at(10_000)));
    }

    #[test]
    fn what_never_fires_or_is_not_understood_is_refused() {
        for line in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            let refused = Schedule::parse(line, MIDNIGHT).unwrap_err();
            assert_eq!(refused, Invalid::NeverFires { line: line.into() });
        }
        for line in [
            "",
            "* * *",
            "61 * * * *",
            "* * * * * * * *",
            "a b c d e",
            "\0",
        ] {
            let refused = Schedule::parse(line, MIDNIGHT).unwrap_err();
            assert!(
                matches!(refused, Invalid::BadCron { .. }),
                "{line:?}: {refused}"
            );
        }
        let long = Schedule::parse(&"1,".repeat(500), MIDNIGHT).unwrap_err();
        assert!(matches!(long, Invalid::TooLarge { .. }), "{long}");
        // Seldom is not never.
        assert!(Schedule::parse("0 0 29 2 *", MIDNIGHT).is_ok());
    }

    #[track_caller]
    fn check(missed: Missed, waiting_for: i64, now: i64, expected: Option<(bool, i64)>) {
        let schedule = Schedule::parse("* * * * *", MIDNIGHT).unwrap();
        let firing = schedule.firing(at(waiting_for), missed, at(now));
        let found = firing.map(|firing| (firing.fires, firing.next_ms.0 - MIDNIGHT.0));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_tick_waits_for_its_time_whatever_the_policy() {
        for missed in [Missed::Once, Missed::All, Missed::Skip] {
            check(missed, MINUTE, MINUTE - 1, None);
            check(missed, MINUTE, MINUTE, Some((true, 2 * MINUTE)));
            check(missed, MINUTE, MINUTE - HOUR, None);
        }
    }

    #[test]
    fn missed_ticks_follow_the_policy() {
        check(Missed::Once, MINUTE, HOUR, Some((true, HOUR + MINUTE)));
        check(Missed::All, MINUTE, HOUR, Some((true, 2 * MINUTE)));
        check(Missed::Skip, MINUTE, HOUR, Some((false, HOUR - MINUTE)));
        check(Missed::Skip, MINUTE, 2 * MINUTE, Some((true, 2 * MINUTE)));
    }

    #[test]
    fn catching_up_has_an_end() {
        check(
            Missed::All,
            MINUTE,
            10 * HOUR,
            Some((false, 10 * HOUR - 99 * MINUTE)),
        );
        check(
            Missed::All,
            10 * HOUR - 99 * MINUTE,
            10 * HOUR,
            Some((true, 10 * HOUR - 98 * MINUTE)),
        );
    }
}
