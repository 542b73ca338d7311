//! What goes into a Debian root and what is done to it at last: pure, but for the kernel's modules it names.

use std::path::{Path, PathBuf};

use crate::{
    cache::{Cache, ContentKey},
    files::FileError,
    kernel::Kernel,
};

/// Changes with what a root holds for the same suite, packages and kernel.
const VERSION: u64 = 1;
/// What every root has: systemd and what tests take for granted.
const BASE_PACKAGES: &[&str] = &[
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "netbase",
    "netcat-openbsd",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
];
/// What mmdebstrap runs with, in a tree of its own.
const TOOLS: &[&str] = &[
    "apt",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debian-archive-keyring",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mmdebstrap",
    "mount",
    "sed",
    "tar",
    "util-linux",
];
/// Where that tree has what of the host it needs; no folder that mmdebstrap cleans.
pub(super) const TAKEN: &str = "/host";
/// And room to build.
pub(super) const BUILD_FOLDER: &str = "/build";
/// By what apt trusts archives: the host's, as its sources name it.
const KEYS: &[&str] = &[
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/share/keyrings",
];
/// What machines change beside `/etc` and `/var`.
const OWN_FOLDERS: &[&str] = &["data", "home", "opt", "root", "srv", "usr/local"];
/// Documentation and translations: more than a third of a root.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// What would disturb a test by its own timetable, keep randomness that siblings share, or wait on a terminal for nobody.
const MASKED_UNITS: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "man-db.timer",
    "modprobe@dm_mod.service",
    "modprobe@efi_pstore.service",
    "modprobe@loop.service",
    "serial-getty@ttyS0.service",
    "sys-kernel-tracing.mount",
    "systemd-pstore.service",
    "systemd-random-seed.service",
];
/// What systemd runs whenever it reads its units, in vain here: each costs an emulated machine some 30 ms.
const MASKED_GENERATORS: &[&str] = &[
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-veritysetup-generator",
];

/// What makes a root.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    pub(super) suite: &'a str,
    /// Those asked for, sorted.
    pub(super) packages: Vec<&'a str>,
    release: &'a str,
    kernel: &'a Path,
    modules: Option<&'a Path>,
}

impl<'a> Recipe<'a> {
    pub(super) fn new(suite: &'a str, packages: &'a [String], kernel: &'a Kernel) -> Self {
        let mut packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        packages.sort_unstable();
        packages.dedup();
        Recipe {
            suite,
            packages,
            release: kernel.release(),
            kernel: kernel.elf(),
            modules: kernel.modules_directory(),
        }
    }

    /// The key of all that the root depends on, but for what the archive holds on the day it is built.
    pub(super) fn key(&self, cache: &Cache) -> Result<ContentKey, FileError> {
        let key = ContentKey::of("debian root")
            .number(VERSION)
            .text(self.suite)
            .text(&customize(Path::new("modules"), self.release))
            .key(&cache.file_key(self.kernel)?);
        let packages = self.all_packages();
        Ok(packages.fold(key, |key, name| key.text(name)).finish())
    }

    fn all_packages(&self) -> impl Iterator<Item = &str> {
        BASE_PACKAGES.iter().copied().chain(self.packages.clone())
    }

    /// The arguments of mmdebstrap, which writes a tar archive to its standard output. `script` is called at last.
    pub(super) fn arguments(
        &self,
        mode: &str,
        options: &[String],
        sources: &[PathBuf],
        script: &Path,
    ) -> Vec<String> {
        let include: Vec<&str> = self.all_packages().collect();
        let mut arguments = vec![format!("--mode={mode}"), "--variant=minbase".to_owned()];
        let left_out = LEFT_OUT.iter().map(|path| format!("path-exclude={path}"));
        arguments.extend(left_out.map(|option| format!("--dpkgopt={option}")));
        // A build that does not end leaves nothing: there is nothing to be safe on a disk.
        arguments.push("--dpkgopt=force-unsafe-io".to_owned());
        arguments.push(format!("--customize-hook={}", hook(script)));
        arguments.extend(self.ending(&include, options, sources));
        arguments
    }

    /// The arguments for a tree that mmdebstrap itself runs in, as root, once somebody is: nothing in it is configured,
    /// which takes no rights.
    pub(super) fn tools_arguments(
        &self,
        options: &[String],
        sources: &[PathBuf],
        script: &Path,
    ) -> Vec<String> {
        let mut arguments = ["--mode=chrootless", "--variant=extract"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(format!("--extract-hook={}", hook(script)));
        arguments.extend(self.ending(TOOLS, options, sources));
        arguments
    }

    fn ending(&self, include: &[&str], options: &[String], sources: &[PathBuf]) -> Vec<String> {
        let mut arguments = vec![
            "--format=tar".to_owned(),
            format!("--include={}", include.join(",")),
        ];
        arguments.extend(options.iter().map(|option| format!("--aptopt={option}")));
        arguments.push(self.suite.to_owned());
        arguments.push("-".to_owned());
        arguments.extend(sources.iter().map(|path| path.display().to_string()));
        arguments
    }

    /// The script that is called with that tree: it gets the files of `folder` and the kernel's modules in [`TAKEN`], and
    /// the host's keys.
    pub(super) fn tools_script(&self, folder: &Path) -> String {
        let keys: Vec<String> = KEYS.iter().map(Path::new).map(quoted).collect();
        let modules = quoted(self.modules.unwrap_or(Path::new("")));
        format!(
            "\
set -eu
for path in {}; do
    if [ -e \"$path\" ]; then
        mkdir -p \"$1${{path%/*}}\"
        cp -rL \"$path\" \"$1${{path%/*}}/\"
    fi
done
mkdir \"$1{BUILD_FOLDER}\" \"$1{TAKEN}\"
cp {}/* \"$1{TAKEN}/\"
if [ -d {modules} ]; then
    cp -r {modules} \"$1{TAKEN}/modules\"
fi
: >\"$1/etc/resolv.conf\"
",
            keys.join(" "),
            quoted(folder),
        )
    }

    /// The script that is called with the root when all packages are installed.
    pub(super) fn customize(&self) -> String {
        customize(self.modules.unwrap_or(Path::new("")), self.release)
    }

    /// The same where the kernel's modules were taken along to.
    pub(super) fn customize_elsewhere(&self) -> String {
        customize(&Path::new(TAKEN).join("modules"), self.release)
    }
}

fn customize(modules: &Path, release: &str) -> String {
    let modules = quoted(modules);
    let units = MASKED_UNITS.iter().map(|unit| ("$units", unit));
    let generators = MASKED_GENERATORS.iter();
    let generators = generators.map(|generator| ("$generators", generator));
    let masked: Vec<String> = units
        .chain(generators)
        .map(|(folder, name)| format!("ln -sf /dev/null \"{folder}/{name}\""))
        .collect();
    let own = OWN_FOLDERS.join(" ");
    format!(
        "\
set -eu
root=$1
units=\"$root/etc/systemd/system\"
generators=\"$root/etc/systemd/system-generators\"
mkdir -p \"$generators\"
if [ -d {modules} ]; then
    mkdir -p \"$root/lib/modules\"
    cp -r {modules} \"$root/lib/modules/{release}\"
    chroot \"$root\" depmod {release} 2>/dev/null
fi
# Who a machine is it learns when it runs.
mkdir -p \"$root/var/lib/dbus\"
ln -sf /etc/machine-id \"$root/var/lib/dbus/machine-id\"
rm -f \"$root\"/etc/ssh/ssh_host_* \"$root/var/lib/systemd/random-seed\"
mkdir -p \"$root/data\"
# What is a machine's own is below /etc and /var, so that two layers are enough.
for folder in {own}; do
    mv \"$root/$folder\" \"$root/var/$(echo $folder | tr -d /)\"
done
ln -s var/data var/home var/opt var/root var/srv \"$root/\"
ln -s ../var/usrlocal \"$root/usr/local\"
# The host's network is none of the machines'.
rm -f \"$root/etc/apt/apt.conf.d/99mmdebstrap\"
ln -sf /lib/systemd/system/multi-user.target \"$units/default.target\"
{}
rm -rf \"$root\"/var/lib/apt/lists/* \"$root\"/var/cache/apt/* \"$root\"/boot/*
# Folders of logs are the packages', which do not make them again.
rm -rf \"$root/var/log/journal\"
find \"$root/var/log\" -type f -delete
",
        masked.join("\n")
    )
}

/// Has a script called with the root.
fn hook(script: &Path) -> String {
    format!("sh {} \"$1\"", quoted(script))
}

/// Quotes a path for a POSIX shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe<'a>(suite: &'a str, packages: &[&'a str]) -> Recipe<'a> {
        Recipe {
            suite,
            packages: packages.to_vec(),
            release: "6.1.0-9-test",
            kernel: Path::new("/proc/self/exe"),
            modules: None,
        }
    }

    #[test]
    fn the_line_names_suite_packages_and_script() {
        let arguments = recipe("bookworm", &["nginx"]).arguments(
            "root",
            &["Acquire::http::Proxy \"http://a\";".to_owned()],
            &["/a/sources".into()],
            Path::new("/a b/script"),
        );
        let text = arguments.join("\n");
        for expected in [
            "--mode=root",
            ",udev,nginx\n",
            "--aptopt=Acquire::http::Proxy \"http://a\";",
            "--customize-hook=sh '/a b/script' \"$1\"\n",
            "\nbookworm\n-\n/a/sources",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn the_key_follows_suite_and_packages() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let key = |suite, packages: &[&str]| recipe(suite, packages).key(&cache).unwrap();
        let usual = key("bookworm", &["nginx"]);
        assert_eq!(usual, key("bookworm", &["nginx"]));
        assert_ne!(usual, key("trixie", &["nginx"]));
        assert_ne!(usual, key("bookworm", &[]));
    }
}
