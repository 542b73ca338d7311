//! The seed of a run: what its random choices are made from, so that they can be made again.
//!
//! Choices of the network are made from it (`network`); guests have randomness of their own.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
};

/// Set to a seed of an earlier run, it repeats that run's choices.
pub const SEED_VARIABLE: &str = "MVM_CI_SEED";

/// The seed asked for is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not read {SEED_VARIABLE}: {given:?} is no whole number from 0 to 18446744073709551615"
)]
pub struct SeedError {
    /// What the variable says.
    pub given: String,
}

/// What a run's random choices are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The one that [`SEED_VARIABLE`] asks for, or else one drawn at random.
    ///
    /// # Errors
    ///
    /// If the variable is set to what is no seed.
    pub fn of_environment() -> Result<Seed, SeedError> {
        match std::env::var_os(SEED_VARIABLE) {
            Some(given) => Seed::parse(&given.to_string_lossy()),
            None => Ok(Seed::draw()),
        }
    }

    fn parse(given: &str) -> Result<Seed, SeedError> {
        given.parse().map(Seed).map_err(|_| SeedError {
            given: given.to_owned(),
        })
    }

    /// The standard library seeds its hasher at random, which is good enough.
    fn draw() -> Seed {
        Seed(RandomState::new().build_hasher().finish())
    }

    /// The seed of the choice with this number; each has another one.
    pub(crate) fn of_choice(self, number: u64) -> u64 {
        // The golden ratio, as SplitMix64 steps, so that seeds next to each other do not share choices.
        self.0
            .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_seeds() {
        assert_eq!(Seed::parse("18446744073709551615"), Ok(Seed(u64::MAX)));
        for given in ["", "-1", "0x10", "18446744073709551616", "seed"] {
            let error = Seed::parse(given).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "could not read MVM_CI_SEED: {given:?} is no whole number from 0 to 18446744073709551615"
                )
            );
        }
    }

    #[test]
    fn seeds_and_choices_differ() {
        assert_ne!(Seed::draw(), Seed::draw());
        assert_ne!(Seed(1).of_choice(1), Seed(2).of_choice(0));
        assert_eq!(Seed(7).of_choice(0), 7);
    }
}
