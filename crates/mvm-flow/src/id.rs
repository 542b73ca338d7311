//! Names of executions, modules and owners.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::Error as _};

use crate::entropy::entropy;

/// Names one run of a workflow, in the whole cluster and for ever.
///
/// Guests know it as a number that is not negative, all others as `wkf_` and thirteen digits of base 32.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExecutionId(i64);

const PREFIX: &str = "wkf_";
/// Crockford's digits: none is taken for another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 13;

impl ExecutionId {
    /// The id of that number; the sign is dropped.
    pub const fn new(number: i64) -> Self {
        Self(number & i64::MAX)
    }

    /// An id that no other has.
    #[expect(clippy::cast_possible_wrap, reason = "bits")]
    pub fn random() -> Self {
        Self::new(entropy() as i64)
    }

    /// The id of a workflow that another one starts as its `nth` step: the same however often it is started.
    pub fn of_child(parent: Self, nth: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.0.to_le_bytes());
        hasher.update(&nth.to_le_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Self::new(i64::from_le_bytes(bytes))
    }

    /// The number that guests know.
    pub const fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        for place in (0..LENGTH).rev() {
            // Five bits of a number that is not negative.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "five bits"
            )]
            let digit = (self.0 >> (5 * place)) as usize & 31;
            write!(formatter, "{}", char::from(DIGITS[digit]))?;
        }
        Ok(())
    }
}

/// A text is no name of an execution.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no id of a workflow; one looks like wkf_0h3k7c9pqrstv")]
pub struct BadId(String);

impl FromStr for ExecutionId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.chars().take(80).collect());
        let digits = text.strip_prefix(PREFIX).ok_or_else(bad)?;
        if digits.len() != LENGTH {
            return Err(bad());
        }
        let mut number: u64 = 0;
        for byte in digits.bytes() {
            let digit = DIGITS.iter().position(|digit| *digit == byte);
            number = number << 5 | digit.ok_or_else(bad)? as u64;
        }
        // Thirteen digits hold 65 bits.
        let number = i64::try_from(number).map_err(|_| bad())?;
        let id = Self(number);
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(bad())
        }
    }
}

impl Serialize for ExecutionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecutionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Counts the owners of an execution: each new one is higher, and what an older one writes is refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Epoch(pub u64);

/// The BLAKE3 hash of a module, in hexadecimal.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ModuleHash(pub String);

impl ModuleHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Milliseconds since 1970, by some machine's wall clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// That of a time; 0 for what was before 1970.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_read_as_it_is_written(number: i64) {
            let id = ExecutionId::new(number);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<ExecutionId>();
            let _ = format!("wkf_{text}").parse::<ExecutionId>();
        }
    }

    #[test]
    fn ids_are_texts_of_one_length() {
        assert_eq!(ExecutionId::new(0).to_string(), "wkf_0000000000000");
        assert_eq!(ExecutionId::new(i64::MAX).to_string(), "wkf_7zzzzzzzzzzzz");
        for text in [
            "",
            "wkf_",
            "wkf_zzzzzzzzzzzzz",
            "wkf_0000000000001 ",
            "wkf_O000000000000",
        ] {
            assert!(text.parse::<ExecutionId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn children_differ_by_parent_and_step() {
        let parent = ExecutionId::new(7);
        let child = ExecutionId::of_child(parent, 3);
        assert_eq!(child, ExecutionId::of_child(parent, 3));
        assert_ne!(child, ExecutionId::of_child(parent, 4));
        assert_ne!(child, ExecutionId::of_child(child, 3));
    }
}
