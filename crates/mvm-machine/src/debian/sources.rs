//! Where packages of a suite come from: what the host's own apt is told, as far as it concerns that suite.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    files::{self, FileError},
    machine::Gateway,
};

/// apt's folder on this host.
const APT: &str = "/etc/apt";
/// Settings that lead to the network the host has.
const NETWORK_SETTINGS: &[&str] = &["Acquire::http::", "Acquire::https::", "Acquire::Retries"];

const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];
const LOOPBACK: [&str; 3] = ["//127.0.0.1", "//localhost", "//[::1]"];

/// The host's settings of apt for its way to the network, as lines of an apt.conf.
pub(super) fn network_options() -> Vec<String> {
    let dumped = Command::new("apt-config")
        .arg("dump")
        .env("LC_ALL", "C")
        .output();
    let dumped = dumped.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&dumped).into_owned();
    let lines = text.lines().filter(|line| {
        NETWORK_SETTINGS.iter().any(|name| line.starts_with(name)) && !line.ends_with("\"\";")
    });
    lines.map(str::to_owned).collect()
}

/// The proxies that the environment names, which apt follows too.
pub(super) fn proxies() -> impl Iterator<Item = (&'static str, String)> {
    let named = |name| Some((name, std::env::var(name).ok()?));
    PROXIES.into_iter().filter_map(named)
}

/// A text with addresses as a machine with a way out names them: the host's loopback is not its own.
pub(super) fn seen_by_machines(text: &str) -> String {
    let host = format!("//{}", Gateway::HOST);
    let text = text.to_owned();
    LOOPBACK
        .iter()
        .fold(text, |text, loopback| text.replace(loopback, &host))
}

/// What the host's sources say of a suite; nothing where they know none, and mmdebstrap knows the archive by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    lines: String,
    stanzas: String,
}

impl Sources {
    pub(super) fn seen_by_machines(self) -> Sources {
        Sources {
            lines: seen_by_machines(&self.lines),
            stanzas: seen_by_machines(&self.stanzas),
        }
    }
}

/// Reads the host's sources of a suite.
pub(super) fn of(suite: &str) -> Result<Sources, FileError> {
    let mut sources = Sources::default();
    for path in source_files(Path::new(APT))? {
        let text = String::from_utf8_lossy(&files::read(&path)?).into_owned();
        match path.extension().is_some_and(|end| end == "sources") {
            true => sources.stanzas.extend(stanzas_of(suite, &text)),
            false => sources.lines.extend(lines_of(suite, &text)),
        }
    }
    Ok(sources)
}

/// Writes them to files in `folder`.
pub(super) fn write(sources: &Sources, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut written = Vec::new();
    for (name, text) in [
        ("sources.list", &sources.lines),
        ("sources.sources", &sources.stanzas),
    ] {
        if !text.is_empty() {
            let path = folder.join(name);
            files::write(&path, text.as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}

fn source_files(apt: &Path) -> Result<Vec<PathBuf>, FileError> {
    let parts = apt.join("sources.list.d");
    let mut found = match parts.is_dir() {
        true => files::walk(&parts)?,
        false => Vec::new(),
    };
    found.retain(|path| {
        path.extension()
            .is_some_and(|end| end == "list" || end == "sources")
    });
    let main = apt.join("sources.list");
    found.extend(main.is_file().then_some(main));
    found.sort_unstable();
    Ok(found)
}

/// Whether an entry for `named` is for machines of the suite: the suite, its updates, its security fixes.
fn is_of(suite: &str, named: &str) -> bool {
    named == suite
        || ["-updates", "-security", "/updates"]
            .iter()
            .any(|part| named.strip_suffix(part) == Some(suite))
}

/// The one-line entries of a suite.
fn lines_of(suite: &str, text: &str) -> Vec<String> {
    let of_suite = text.lines().filter(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("deb") {
            return false;
        }
        let mut in_options = false;
        let mut rest = words.filter(|word| {
            let is_option = in_options || word.starts_with('[');
            in_options = is_option && !word.ends_with(']');
            !is_option
        });
        rest.nth(1).is_some_and(|named| is_of(suite, named))
    });
    of_suite.map(|line| format!("{line}\n")).collect()
}

/// The deb822 entries that name the suite, with their other suites left out.
fn stanzas_of(suite: &str, text: &str) -> Vec<String> {
    let mut kept = Vec::new();
    for stanza in text.split("\n\n") {
        let mut has_suite = false;
        let mut is_off = false;
        let mut lines = String::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(':') {
                Some((key, named)) if key.eq_ignore_ascii_case("Suites") => {
                    let named: Vec<&str> = named
                        .split_whitespace()
                        .filter(|named| is_of(suite, named))
                        .collect();
                    has_suite = !named.is_empty();
                    lines.push_str(&format!("Suites: {}\n", named.join(" ")));
                    continue;
                }
                Some((key, value)) if key.eq_ignore_ascii_case("Enabled") => {
                    is_off = value.trim().eq_ignore_ascii_case("no");
                }
                _ => {}
            }
            lines.push_str(line);
            lines.push('\n');
        }
        if has_suite && !is_off {
            kept.push(format!("{lines}\n"));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_the_host_s_loopback_elsewhere() {
        let option = "Acquire::http::Proxy \"http://localhost:3142\";";
        let seen = "Acquire::http::Proxy \"http://10.0.2.2:3142\";";
        assert_eq!(seen_by_machines(option), seen);
        let stanza = "URIs: http://127.0.0.1/debian http://deb.debian.org/debian\n";
        let seen = "URIs: http://10.0.2.2/debian http://deb.debian.org/debian\n";
        assert_eq!(seen_by_machines(stanza), seen);
    }

    #[test]
    fn lines_of_other_suites_are_left_out() {
        let text = "# deb http://a bookworm main\ndeb http://a bookworm main\ndeb-src http://a bookworm main\n\
            deb [arch=amd64 signed-by=/k] http://b bookworm-security main\ndeb http://c nodistro main\n";
        assert_eq!(
            lines_of("bookworm", text),
            [
                "deb http://a bookworm main\n",
                "deb [arch=amd64 signed-by=/k] http://b bookworm-security main\n"
            ]
        );
        assert!(lines_of("trixie", text).is_empty());
    }

    #[test]
    fn stanzas_keep_the_suite_only() {
        let text = "Types: deb\n# a comment\nURIs: http://a\nSuites: bookworm bookworm-updates trixie\nComponents: main\n\n\
            Types: deb\nURIs: http://b\nSuites: nodistro\n\nEnabled: no\nURIs: http://c\nSuites: bookworm\n";
        assert_eq!(
            stanzas_of("bookworm", text),
            ["Types: deb\nURIs: http://a\nSuites: bookworm bookworm-updates\nComponents: main\n\n"]
        );
    }
}
