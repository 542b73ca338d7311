//! The version a program prints about itself, as two numbers. Ranges and pre-releases are not needed here.

use std::fmt;

/// A version's first two numbers, which decide what a program can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// Makes a version from its two numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Finds the first `N.M` in the first line of what a program printed; `None` if there is none.
    #[must_use]
    pub fn in_output(output: &str) -> Option<Self> {
        output
            .lines()
            .next()?
            .split_whitespace()
            .find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let (major, rest) = word.split_once('.')?;
        let minor_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        Some(Self::new(
            major.parse().ok()?,
            rest[..minor_end].parse().ok()?,
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[track_caller]
    fn check(output: &str, expected: Option<(u32, u32)>) {
        assert_eq!(
            Version::in_output(output),
            expected.map(|(major, minor)| Version::new(major, minor))
        );
    }

    #[test]
    fn versions_are_found_in_real_output() {
        check(
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright\n",
            Some((7, 2)),
        );
        check("QEMU emulator version 10.0.0\n", Some((10, 0)));
        check("QEMU emulator version 9.1-rc2\n", Some((9, 1)));
        check("Python 3.11.7\n", Some((3, 11)));
    }

    #[test]
    fn garbage_is_no_version() {
        check("", None);
        check("command not found", None);
        check("version x.y", None);
        check("version 99999999999.1", None);
        check("\nQEMU emulator version 7.2.0", None);
    }
}
