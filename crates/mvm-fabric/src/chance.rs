//! Random choices that can be made again: one stream of numbers per direction.
//!
//! What is chosen by them is in `direction` and `partition`.

use std::f64::consts::TAU;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::impairment::Probability;

/// A stream of random numbers, told by its key and how many were drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    stream: Pcg64,
    drawn: u64,
}

impl Chance {
    /// The stream for a direction. It depends on names, so traffic elsewhere and the order in which ports
    /// were added do not disturb it.
    pub(crate) fn of_direction(seed: u64, from: &str, to: &str) -> Chance {
        let mut key = Key::new(seed);
        key.add(from);
        key.add(to);
        key.stream()
    }

    /// The stream for a choice that is named by `purpose`.
    pub(crate) fn of_choice(seed: u64, purpose: &str) -> Chance {
        let mut key = Key::new(seed);
        key.add(purpose);
        key.stream()
    }

    /// How many numbers were drawn.
    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Goes on as if so many numbers had been drawn.
    pub(crate) fn skip(&mut self, drawn: u64) {
        self.stream.advance(u128::from(drawn));
        self.drawn = self.drawn.wrapping_add(drawn);
    }

    /// A number with 64 random bits.
    pub(crate) fn number(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.stream.next_u64()
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias is below bound / 2^64.
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 to 1, without 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        // As many bits as the type holds exactly.
        (self.number() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// True with the probability given. Draws nothing for what never or always happens.
    pub(crate) fn happens(&mut self, probability: Probability) -> bool {
        if probability == Probability::NEVER || probability == Probability::ALWAYS {
            return probability == Probability::ALWAYS;
        }
        self.fraction() < probability.value()
    }

    /// A number with mean 0 and deviation 1 in the shape of a bell: the method of Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        // From above zero to one, for its logarithm.
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (TAU * self.fraction()).cos()
    }

    /// A number with minimum 0 and mean 1: a Pareto distribution of shape 3, less its minimum.
    pub(crate) fn pareto(&mut self) -> f64 {
        // A minimum of 2 gives a mean of 3.
        2.0 * (1.0 - self.fraction()).powf(-1.0 / 3.0) - 2.0
    }
}

/// The hash of Fowler, Noll and Vo: simple, and the same in all versions of everything.
struct Key(u64);

impl Key {
    fn new(seed: u64) -> Key {
        let mut key = Key(0xcbf2_9ce4_8422_2325);
        key.add_bytes(&seed.to_le_bytes());
        key
    }

    /// The length keeps "a", "bc" and "ab", "c" apart.
    fn add(&mut self, text: &str) {
        self.add_bytes(&(text.len() as u64).to_le_bytes());
        self.add_bytes(text.as_bytes());
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn stream(&self) -> Chance {
        Chance {
            stream: Pcg64::seed_from_u64(self.0),
            drawn: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(mut chance: Chance) -> [u64; 4] {
        std::array::from_fn(|_| chance.number())
    }

    #[test]
    fn a_stream_depends_on_seed_and_both_names_and_on_nothing_else() {
        let first = numbers(Chance::of_direction(1, "a", "bc"));
        assert_eq!(numbers(Chance::of_direction(1, "a", "bc")), first);
        for other in [(2, "a", "bc"), (1, "ab", "c"), (1, "bc", "a")] {
            let (seed, from, to) = other;
            assert_ne!(numbers(Chance::of_direction(seed, from, to)), first);
        }
    }

    /// A seed written down must mean the same tomorrow.
    #[test]
    fn streams_do_not_change_between_versions() {
        let mut chance = Chance::of_direction(42, "node1", "node2");
        assert_eq!(chance.number(), RECORDED);
    }

    const RECORDED: u64 = 12_025_588_387_504_652_252;

    #[test]
    fn a_stream_goes_on_from_the_number_of_draws() {
        let mut original = Chance::of_choice(7, "test");
        for _ in 0..10 {
            let _ = original.normal();
        }
        let mut copy = Chance::of_choice(7, "test");
        copy.skip(original.drawn());
        assert_eq!(copy.drawn(), original.drawn());
        assert_eq!(numbers(copy), numbers(original));
    }

    /// The mean of many draws.
    #[track_caller]
    fn check_mean(draw: impl Fn(&mut Chance) -> f64, expected: f64, tolerance: f64) {
        const DRAWS: u32 = 100_000;
        let mut chance = Chance::of_choice(1, "mean");
        let sum: f64 = (0..DRAWS).map(|_| draw(&mut chance)).sum();
        let mean = sum / f64::from(DRAWS);
        assert!((mean - expected).abs() < tolerance, "{mean}");
    }

    #[test]
    fn distributions_have_their_moments() {
        check_mean(Chance::fraction, 0.5, 0.005);
        check_mean(Chance::normal, 0.0, 0.02);
        check_mean(|chance| chance.normal().powi(2), 1.0, 0.02);
        check_mean(Chance::pareto, 1.0, 0.05);
        check_mean(|chance| chance.below(11) as f64, 5.0, 0.05);
        let third = Probability::new(0.3).unwrap();
        check_mean(
            |chance| f64::from(u8::from(chance.happens(third))),
            0.3,
            0.01,
        );
        check_mean(
            |chance| f64::from(u8::from(chance.pareto() < 0.0)),
            0.0,
            f64::EPSILON,
        );
    }

    #[test]
    fn what_is_certain_draws_nothing() {
        let mut chance = Chance::of_choice(1, "certain");
        assert!(chance.happens(Probability::ALWAYS));
        assert!(!chance.happens(Probability::NEVER));
        assert_eq!(chance.drawn(), 0);
    }
}
