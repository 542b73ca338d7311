//! What an impairment does to the frames of one direction: which vanish, which are altered, and when each
//! arrives.
//!
//! Pure decisions, in the order told at [`Impairment`]. Frames themselves wait in `flight`.

use std::time::Duration;

use crate::chance::Chance;
use crate::counters::Cause;
use crate::impairment::{Delay, Impairment, Jitter, Latency, Loss, Rate};

/// What impairments look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// On the wire.
    pub(crate) bytes: usize,
    /// Without the header.
    pub(crate) payload_bytes: usize,
}

/// What becomes of a frame that is not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The random number by which it is corrupted, if it is.
    pub(crate) corrupt: Option<u64>,
    pub(crate) twice: bool,
}

/// What one direction remembers from frame to frame.
#[derive(Clone, Debug)]
pub(crate) struct Direction {
    pub(crate) chance: Chance,
    /// The state of bursty loss.
    pub(crate) bad: bool,
    pub(crate) pace: Pace,
    /// When the last frame that was not held back arrives: none overtakes it unless it is to.
    pub(crate) last_due: Duration,
}

impl Direction {
    pub(crate) fn new(chance: Chance) -> Direction {
        Direction {
            chance,
            bad: false,
            pace: Pace::default(),
            last_due: Duration::ZERO,
        }
    }

    /// Forgets the frames on their way, which have ended it.
    pub(crate) fn empty(&mut self) {
        self.pace = Pace::default();
        self.last_due = Duration::ZERO;
    }

    /// Decides about a frame as a whole; an error is why it is dropped.
    pub(crate) fn judge(&mut self, impairment: &Impairment, size: Size) -> Result<Kept, Cause> {
        let too_large = |mtu_bytes: u32| size.payload_bytes > mtu_bytes as usize;
        if impairment.mtu_bytes.is_some_and(too_large) {
            return Err(Cause::TooLarge);
        }
        if self.loses(impairment.loss) {
            return Err(Cause::Lost);
        }
        let corrupt = size.payload_bytes > 0 && self.chance.happens(impairment.corrupt);
        Ok(Kept {
            corrupt: corrupt.then(|| self.chance.number()),
            twice: self.chance.happens(impairment.duplicate),
        })
    }

    /// Decides when one copy arrives; an error is why it is dropped.
    pub(crate) fn schedule(
        &mut self,
        impairment: &Impairment,
        bytes: usize,
        now: Duration,
    ) -> Result<Duration, Cause> {
        let passed = match impairment.rate {
            None => now,
            Some(rate) => self
                .pace
                .pass(rate, bytes, now)
                .ok_or(Cause::RateQueueFull)?,
        };
        let due = self
            .last_due
            .max(passed + self.draw_delay(impairment.delay));
        if let Some(reorder) = impairment.reorder
            && self.chance.happens(reorder.probability)
        {
            return Ok(due + reorder.extra.get());
        }
        self.last_due = due;
        Ok(due)
    }

    fn loses(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Independent(probability) => self.chance.happens(probability),
            Loss::GilbertElliott(model) => {
                let (loss, change) = if self.bad {
                    (model.loss_when_bad, model.bad_to_good)
                } else {
                    (model.loss_when_good, model.good_to_bad)
                };
                let lost = self.chance.happens(loss);
                self.bad ^= self.chance.happens(change);
                lost
            }
        }
    }

    fn draw_delay(&mut self, delay: Delay) -> Duration {
        let (unit, number) = match delay.jitter {
            Jitter::None => return delay.base.get(),
            Jitter::Uniform { spread } => (spread, 2.0 * self.chance.fraction() - 1.0),
            Jitter::Normal { deviation } => (deviation, self.chance.normal()),
            Jitter::Pareto { mean } => (mean, self.chance.pareto()),
        };
        let difference = number * unit.get().as_secs_f64();
        // Below an hour, which is its largest value, the type is finer than a nanosecond.
        let seconds = delay.base.get().as_secs_f64() + difference;
        Duration::from_secs_f64(seconds.clamp(0.0, Latency::MAX.as_secs_f64()))
    }
}

/// The rate queue of a direction, by its amount alone: frames that wait in it have their time already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// When all that waits has passed.
    pub(crate) busy_until: Duration,
    /// How much waited at `reckoned`, and passes evenly until `busy_until`.
    pub(crate) backlog_bits: u64,
    pub(crate) reckoned: Duration,
}

impl Pace {
    /// Tells when a frame that comes now has passed; `None` if the queue has no room for it.
    fn pass(&mut self, rate: Rate, bytes: usize, now: Duration) -> Option<Duration> {
        let bits = 8 * bytes as u64;
        let backlog_bits = self.backlog_bits(now);
        if backlog_bits > 0 && backlog_bits + bits > 8 * u64::from(rate.queue_bytes_max) {
            return None;
        }
        let passed = self.busy_until.max(now) + time_of(bits, rate);
        *self = Pace {
            busy_until: passed,
            backlog_bits: backlog_bits + bits,
            reckoned: now,
        };
        Some(passed)
    }

    /// How much waits now, rounded up, so that only an idle direction has nothing waiting.
    fn backlog_bits(&self, now: Duration) -> u64 {
        if self.busy_until <= now {
            return 0;
        }
        let left = self.busy_until - now;
        let whole = self.busy_until - self.reckoned;
        let bits = u128::from(self.backlog_bits) * left.as_nanos();
        // Not more than it was, for time does not go back.
        bits.div_ceil(whole.as_nanos()) as u64
    }
}

/// How long bits take to pass, rounded up, so that a rate is never exceeded.
fn time_of(bits: u64, rate: Rate) -> Duration {
    const NANOSECONDS: u128 = 1_000_000_000;
    let bits_per_second = u128::from(rate.bits_per_second.get());
    let nanoseconds = (u128::from(bits) * NANOSECONDS).div_ceil(bits_per_second);
    Duration::new(
        (nanoseconds / NANOSECONDS) as u64,
        (nanoseconds % NANOSECONDS) as u32,
    )
}
