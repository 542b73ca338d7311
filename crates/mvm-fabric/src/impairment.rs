//! What can be wrong with a direction, as plain values of which no invalid one exists.
//!
//! What an impairment does to a frame is in `direction`; which direction has which is in `links`.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All that is wrong with a direction; [`Impairment::NONE`], the default, is nothing.
///
/// The parts compose in this order, whatever the order of the fields: a frame is dropped if its direction
/// is cut; if it is larger than the MTU; by loss; may be corrupted; may be duplicated. Then each copy for
/// itself waits in the rate queue, is delayed, may be held back by reordering, and enters the queue of its
/// egress port.
///
/// Without `reorder`, frames of one direction keep their order, whatever the jitter: a frame that drew a
/// short delay waits for those sent before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// The largest payload, after the Ethernet header, that passes.
    pub mtu_bytes: Option<u32>,
    /// Frames that vanish.
    pub loss: Loss,
    /// How likely one random bit of a frame's payload is flipped. Headers are never altered.
    pub corrupt: Probability,
    /// How likely a frame is sent twice.
    pub duplicate: Probability,
    /// How many bits pass per second.
    pub rate: Option<Rate>,
    /// How long a frame takes.
    pub delay: Delay,
    /// Frames that are overtaken by those behind them.
    pub reorder: Option<Reorder>,
}

impl Impairment {
    /// Nothing is wrong.
    pub const NONE: Impairment = Impairment {
        mtu_bytes: None,
        loss: Loss::None,
        corrupt: Probability::NEVER,
        duplicate: Probability::NEVER,
        rate: None,
        delay: Delay::NONE,
        reorder: None,
    };

    /// Tells whether nothing is wrong.
    pub fn is_none(&self) -> bool {
        *self == Impairment::NONE
    }
}

/// A number is no probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{value} is no probability, which is a number from 0 to 1")]
pub struct ProbabilityError {
    /// The number given.
    pub value: f64,
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

// There is none that is not a number.
impl Eq for Probability {}

impl Probability {
    /// Zero.
    pub const NEVER: Probability = Probability(0.0);
    /// One.
    pub const ALWAYS: Probability = Probability(1.0);

    /// Makes a probability of a number.
    ///
    /// # Errors
    ///
    /// If the number is not from 0 to 1.
    pub fn new(value: f64) -> Result<Probability, ProbabilityError> {
        if (0.0..=1.0).contains(&value) {
            // Adding zero makes minus zero, which a program may show, a plain one.
            Ok(Probability(value + 0.0))
        } else {
            Err(ProbabilityError { value })
        }
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Probability {
    type Error = ProbabilityError;

    fn try_from(value: f64) -> Result<Probability, ProbabilityError> {
        Probability::new(value)
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> f64 {
        probability.0
    }
}

/// A time is too long to delay a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delay of {} s is longer than {} s", given.as_secs(), Latency::MAX.as_secs())]
pub struct LatencyError {
    /// The time given.
    pub given: Duration,
}

/// A time by which a frame can be delayed: at most an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Duration", into = "Duration")]
pub struct Latency(Duration);

impl Latency {
    /// The longest delay. No test of a network waits longer, and a mistaken unit is found.
    pub const MAX: Duration = Duration::from_secs(3600);
    /// No time at all.
    pub const ZERO: Latency = Latency(Duration::ZERO);

    /// Makes a latency of a time.
    ///
    /// # Errors
    ///
    /// If it is longer than [`Latency::MAX`].
    pub fn new(given: Duration) -> Result<Latency, LatencyError> {
        if given <= Latency::MAX {
            Ok(Latency(given))
        } else {
            Err(LatencyError { given })
        }
    }

    /// Makes a latency of milliseconds.
    ///
    /// # Errors
    ///
    /// If it is longer than [`Latency::MAX`].
    pub fn from_millis(milliseconds: u64) -> Result<Latency, LatencyError> {
        Latency::new(Duration::from_millis(milliseconds))
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<Duration> for Latency {
    type Error = LatencyError;

    fn try_from(given: Duration) -> Result<Latency, LatencyError> {
        Latency::new(given)
    }
}

impl From<Latency> for Duration {
    fn from(latency: Latency) -> Duration {
        latency.0
    }
}

/// How long a frame takes. The sum is never below zero nor above [`Latency::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// What every frame takes.
    pub base: Latency,
    /// What is added to it or taken from it, by chance.
    pub jitter: Jitter,
}

impl Delay {
    /// No delay.
    pub const NONE: Delay = Delay {
        base: Latency::ZERO,
        jitter: Jitter::None,
    };

    /// The same delay for every frame.
    pub const fn constant(base: Latency) -> Delay {
        Delay {
            base,
            jitter: Jitter::None,
        }
    }
}

/// How the delay varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jitter {
    /// It does not.
    #[default]
    None,
    /// Evenly, from `spread` less to `spread` more.
    Uniform {
        /// The largest difference.
        spread: Latency,
    },
    /// In the shape of a bell.
    Normal {
        /// The standard deviation.
        deviation: Latency,
    },
    /// Only upward, mostly a little and seldom a lot: a Pareto distribution of shape 3 from its minimum on.
    Pareto {
        /// What is added in the mean.
        mean: Latency,
    },
}

/// Which frames vanish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with the same probability, whatever befell the others.
    Independent(Probability),
    /// Bursts: the direction is in a good or a bad state, good at first, and after each frame may change.
    GilbertElliott(GilbertElliott),
}

/// The four parameters of bursty loss. Bad states last `1 / bad_to_good` frames in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GilbertElliott {
    /// How likely a frame makes a good state bad; `p` in the literature.
    pub good_to_bad: Probability,
    /// How likely a frame makes a bad state good; `r` in the literature.
    pub bad_to_good: Probability,
    /// How likely a frame is lost in the good state; `1-k` in the literature.
    pub loss_when_good: Probability,
    /// How likely a frame is lost in the bad state; `1-h` in the literature.
    pub loss_when_bad: Probability,
}

/// Frames that are overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorder {
    /// How likely a frame is held back.
    pub probability: Probability,
    /// For how long, on top of its delay. Frames due in the meantime overtake it.
    pub extra: Latency,
}

/// A rate of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate of 0 bits per second passes nothing; cut the link instead")]
pub struct RateError;

/// How fast frames pass, and how many wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bits per second, of whole Ethernet frames.
    pub bits_per_second: NonZeroU64,
    /// How many bytes may wait or be passing. A frame that finds nothing before it passes whatever its size.
    pub queue_bytes_max: u32,
}

impl Rate {
    /// Makes a rate.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub fn new(bits_per_second: u64, queue_bytes_max: u32) -> Result<Rate, RateError> {
        Ok(Rate {
            bits_per_second: NonZeroU64::new(bits_per_second).ok_or(RateError)?,
            queue_bytes_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_probability(value: f64, valid: bool) {
        assert_eq!(Probability::new(value).is_ok(), valid);
        let file = postcard::to_stdvec(&value).unwrap();
        assert_eq!(postcard::from_bytes::<Probability>(&file).is_ok(), valid);
    }

    #[test]
    fn only_numbers_from_zero_to_one_are_probabilities() {
        for value in [0.0, -0.0, f64::MIN_POSITIVE, 0.3, 1.0] {
            check_probability(value, true);
        }
        for value in [1.5, -0.1, 1.0 + f64::EPSILON, -f64::MIN_POSITIVE] {
            check_probability(value, false);
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            check_probability(value, false);
        }
        let error = Probability::new(1.5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1.5 is no probability, which is a number from 0 to 1"
        );
    }

    #[track_caller]
    fn check_latency(given: Duration, valid: bool) {
        assert_eq!(Latency::new(given).is_ok(), valid);
        let file = postcard::to_stdvec(&given).unwrap();
        assert_eq!(postcard::from_bytes::<Latency>(&file).is_ok(), valid);
    }

    #[test]
    fn a_delay_of_a_year_is_refused() {
        check_latency(Duration::ZERO, true);
        check_latency(Latency::MAX, true);
        check_latency(Latency::MAX + Duration::from_nanos(1), false);
        check_latency(Duration::from_secs(365 * 24 * 3600), false);
        check_latency(Duration::MAX, false);
        assert_eq!(
            Latency::from_millis(u64::MAX).unwrap_err().to_string(),
            "a delay of 18446744073709551 s is longer than 3600 s"
        );
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        assert_eq!(Rate::new(0, 1000), Err(RateError));
        assert!(postcard::from_bytes::<Rate>(&[0, 1]).is_err());
        assert!(Rate::new(u64::MAX, u32::MAX).is_ok());
    }

    #[test]
    fn only_an_impairment_that_does_nothing_is_none() {
        assert!(Impairment::default().is_none());
        let lossy = Impairment {
            loss: Loss::Independent(Probability::ALWAYS),
            ..Impairment::NONE
        };
        assert!(!lossy.is_none());
        let file = postcard::to_stdvec(&lossy).unwrap();
        assert_eq!(postcard::from_bytes::<Impairment>(&file).unwrap(), lossy);
    }
}
