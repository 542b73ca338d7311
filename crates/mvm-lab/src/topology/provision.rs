//! What a machine has beside its image: files, units, users and environment. Putting it there is the node's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{ImageContents, ImageKind};

/// What is put into a machine whenever it starts, so that machines of one image may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// Files, by their absolute path in the machine.
    pub files: BTreeMap<String, GuestFile>,
    /// systemd's units of its own, the text of each by its name. Only machines with systemd can have any.
    pub units: BTreeMap<String, String>,
    /// Users beside root, each with a home and a shell.
    pub users: Vec<String>,
    /// Variables for all commands, and for all services that do not say otherwise.
    pub environment: BTreeMap<String, String>,
}

/// A file in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// What is in it.
    pub content: GuestContent,
    /// Its permission bits.
    pub mode: u32,
}

/// Where the content of a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestContent {
    /// Told here.
    Text(String),
    /// What a file of the host holds when the machine starts.
    Host(PathBuf),
}

const PATH_RULE: &str = "a file's path begins with / and has no ..";
const UNIT_RULE: &str = "a unit has a name like web.service";
const USER_RULE: &str = "1 to 32 of a-z, 0-9, _ and -, a letter first";
const VARIABLE_RULE: &str = "letters, digits and _, no digit first";
const PACKAGE_RULE: &str = "a Debian package has a name of a-z, 0-9, +, - and .";
const SUITE_RULE: &str = "a Debian suite has a name like bookworm";
/// The kinds of units that systemd has (systemd.unit(5)).
const UNIT_KINDS: &[&str] = &[
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

impl Provision {
    /// Finds a name that nothing can have: what is named so, the name, and what such names are like.
    pub(super) fn bad_word(
        &self,
        image: &ImageContents,
    ) -> Option<(&'static str, String, &'static str)> {
        let packages: &[String] = match image.kind {
            ImageKind::Minimal => &[],
            ImageKind::Debian => &image.packages,
        };
        let suite = std::slice::from_ref(&image.suite);
        bad("the file", self.files.keys(), is_path, PATH_RULE)
            .or_else(|| bad("the unit", self.units.keys(), is_unit, UNIT_RULE))
            .or_else(|| bad("the user", &self.users, is_user, USER_RULE))
            .or_else(|| {
                let names = self.environment.keys();
                bad("the variable", names, is_variable, VARIABLE_RULE)
            })
            .or_else(|| bad("the package", packages, is_package, PACKAGE_RULE))
            .or_else(|| bad("the suite", suite, is_package, SUITE_RULE))
    }

    /// Looks for the host's files in `folder`, as far as their paths are relative.
    pub(super) fn find_host_files(&mut self, folder: &Path) {
        for file in self.files.values_mut() {
            if let GuestContent::Host(path) = &mut file.content {
                *path = folder.join(&path);
            }
        }
    }
}

fn bad<'a>(
    what: &'static str,
    words: impl IntoIterator<Item = &'a String>,
    is_good: fn(&str) -> bool,
    rule: &'static str,
) -> Option<(&'static str, String, &'static str)> {
    let found = words.into_iter().find(|word| !is_good(word));
    found.map(|word| (what, word.clone(), rule))
}

fn is_path(word: &str) -> bool {
    word.len() > 1 && word.starts_with('/') && word.split('/').all(|part| part != "..")
}

fn is_unit(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    word.rsplit_once('.')
        .is_some_and(|(stem, kind)| !stem.is_empty() && UNIT_KINDS.contains(&kind))
        && word.bytes().all(plain)
}

fn is_user(word: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=32).contains(&word.len())
        && word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(plain)
}

fn is_variable(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !word.is_empty()
        && !word.starts_with(|first: char| first.is_ascii_digit())
        && word.bytes().all(plain)
}

fn is_package(word: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    word.starts_with(|first: char| first.is_ascii_alphanumeric()) && word.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_good: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for word in good {
            assert!(is_good(word), "{word:?}");
        }
        for word in bad {
            assert!(!is_good(word), "{word:?}");
        }
    }

    #[test]
    fn names_are_checked() {
        check(is_path, &["/etc/a b"], &["", "/", "etc/a", "/etc/../a"]);
        check(
            is_unit,
            &["web.service", "a@b.socket", "x-y.timer"],
            &["web", ".service", "a/b.service", "web.srevice"],
        );
        check(is_user, &["alice", "a_1-b"], &["", "1a", "Alice", "a b"]);
        check(is_variable, &["PATH", "_a1"], &["", "1a", "a-b", "a=b"]);
        check(
            is_package,
            &["nginx", "libstdc++6", "0ad"],
            &["", "-a", "a b", "a,b", "Nginx", "a;b"],
        );
    }
}
