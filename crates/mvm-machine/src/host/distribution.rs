//! Which Linux distribution this is, and whether we promise to work on it. From `os-release` only.

use std::path::Path;

use serde::Serialize;

/// The distribution named by `/etc/os-release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// The machine-readable name, as `debian`; empty when the host does not say.
    pub id: String,
    /// The version, as `12`; empty on rolling releases such as Debian unstable.
    pub version: String,
    /// The name for people.
    pub name: String,
    /// What we promise here.
    pub support: Support,
}

/// What we promise on a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// Tested; set-up installs what is missing.
    Supported,
    /// A relative of Debian that nobody has tested: the same commands are tried.
    UntestedRelative,
    /// Something else: everything may work once QEMU and a kernel are there, but set-up cannot install them.
    Unsupported,
}

/// The oldest Debian whose QEMU and kernel package are known to work.
const DEBIAN_OLDEST: u32 = 12;
/// The oldest Ubuntu, as year and month, whose QEMU and kernel package are known to work.
const UBUNTU_OLDEST: (u32, u32) = (24, 4);

impl Distribution {
    /// Reads `etc/os-release`, or `usr/lib/os-release`, below `root`.
    #[must_use]
    pub fn detect(root: &Path) -> Self {
        let text = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|file| std::fs::read(root.join(file)).ok())
            .unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Whether packages are installed with apt here.
    #[must_use]
    pub fn uses_apt(&self) -> bool {
        match self.support {
            Support::Supported | Support::UntestedRelative => true,
            Support::Unsupported => false,
        }
    }

    fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            os_release
                .lines()
                .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        let (id, version) = (value("ID"), value("VERSION_ID"));
        let support = support(&id, &version, &value("ID_LIKE"));
        let name = match value("PRETTY_NAME") {
            name if name.is_empty() => "an unnamed distribution".to_owned(),
            name => name,
        };
        Self {
            id,
            version,
            name,
            support,
        }
    }
}

fn support(id: &str, version: &str, like: &str) -> Support {
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let major = numbers.next().unwrap_or(0);
    let minor = numbers.next().unwrap_or(0);
    let new_enough = match id {
        // Debian testing and unstable carry no version: newer than any release.
        "debian" => version.is_empty() || major >= DEBIAN_OLDEST,
        "ubuntu" => (major, minor) >= UBUNTU_OLDEST,
        _ => false,
    };
    let related = matches!(id, "debian" | "ubuntu")
        || like
            .split_whitespace()
            .any(|name| matches!(name, "debian" | "ubuntu"));
    match (new_enough, related) {
        (true, _) => Support::Supported,
        (false, true) => Support::UntestedRelative,
        (false, false) => Support::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::{Distribution, Support};

    #[track_caller]
    fn check(os_release: &str, expected: Support) {
        let distribution = Distribution::parse(os_release);
        assert_eq!(distribution.support, expected, "{distribution:?}");
    }

    #[test]
    fn supported_releases() {
        check("ID=debian\nVERSION_ID=\"12\"\n", Support::Supported);
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nID=debian\n",
            Support::Supported,
        );
        check(
            "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux forky/sid\"\n",
            Support::Supported,
        );
        check(
            "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n",
            Support::Supported,
        );
        check(
            "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"26.04\"\n",
            Support::Supported,
        );
    }

    #[test]
    fn relatives_are_tried() {
        check("ID=debian\nVERSION_ID=\"11\"\n", Support::UntestedRelative);
        check(
            "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n",
            Support::UntestedRelative,
        );
        check(
            "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22\"\n",
            Support::UntestedRelative,
        );
    }

    #[test]
    fn others_and_garbage_are_unsupported() {
        check("ID=fedora\nVERSION_ID=43\n", Support::Unsupported);
        check("", Support::Unsupported);
        check("\u{fffd}=\n====\nID", Support::Unsupported);
        assert_eq!(Distribution::parse("").name, "an unnamed distribution");
    }
}
