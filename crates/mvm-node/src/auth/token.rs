//! The secret that a client sends: `mvm_`, 256 random bits, and a checksum.
//!
//! The prefix and the checksum are there so that scanners find a token that was published by accident
//! and do not take other text for one, as those of GitHub are:
//! <https://github.blog/engineering/behind-githubs-new-authentication-token-formats/>.
//!
//! A plain hash is enough for the file. Slow ones make up for passwords that people choose; nobody finds
//! 256 random bits by trying. NIST SP 800-63B, section 5.1.2.2, asks for salt and a slow hash only where a
//! secret has less than 112 bits.

use std::{fmt, io};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::Secret;

const PREFIX: &str = "mvm_";
const RANDOM_BYTES: usize = 32;
const CHECKSUM_CHARS: usize = 8;
const CHARS: usize = PREFIX.len() + 2 * RANDOM_BYTES + CHECKSUM_CHARS;

/// A token, which only its client keeps.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// Makes a new one. Fails if the kernel has no random bytes, which no kernel since 3.17 does once it is up.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        // Up to 256 bytes are never given in part.
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled != RANDOM_BYTES {
            return Err(io::Error::other("the kernel gave too few random bytes"));
        }
        let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let checksum = checksum(&random);
        Ok(Self(format!("{PREFIX}{random}{checksum}").into()))
    }

    /// Reads what a client sent; nothing if it cannot be a token or has a typing error.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        if text.len() != CHARS || !rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (random, given) = rest.split_at(2 * RANDOM_BYTES);
        (given == checksum(random)).then(|| Self(text.to_owned().into()))
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(blake3::hash(self.0.expose().as_bytes()))
    }

    /// The text, for its client.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

fn checksum(random: &str) -> String {
    blake3::hash(random.as_bytes()).to_hex()[..CHECKSUM_CHARS].to_owned()
}

/// The BLAKE3 hash of a token. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// Reads 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(Self)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_are_read_back_and_are_not_shown() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(Token::parse(one.expose()).unwrap().hash(), one.hash());
        assert_eq!(TokenHash::parse(&one.hash().to_string()), Some(one.hash()));
        assert_eq!(format!("{one:?}"), "Token(***)");
    }

    #[test]
    fn what_is_mistyped_is_no_token() {
        let token = Token::generate().unwrap().expose().to_owned();
        let changed = match token.as_bytes()[10] {
            b'0' => "1",
            _ => "0",
        };
        let swapped = format!("{}{changed}{}", &token[..10], &token[11..]);
        let unicode = token.replacen(char::is_numeric, "é", 1);
        for text in [
            "",
            "mvm_",
            &token[1..],
            &token[..CHARS - 1],
            &swapped,
            &unicode,
        ] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }
}
