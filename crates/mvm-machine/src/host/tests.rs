//! The survey against made-up hosts: a folder for `/`, and a `PATH` of fake programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use tempfile::TempDir;

use super::{Finding, HostView, Requirement, State, Survey, survey};

const QEMU_OK: &str = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)";

/// A host in a temporary folder: Debian 12, plenty of memory, no programs.
struct FakeHost {
    folder: TempDir,
}

impl FakeHost {
    fn debian() -> Self {
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        host.file(
            "etc/os-release",
            "ID=debian\nVERSION_ID=12\nPRETTY_NAME='Debian 12'\n",
        );
        host.file("proc/meminfo", "MemAvailable: 8388608 kB\n");
        fs::create_dir(host.path("tmp")).unwrap();
        fs::create_dir(host.path("bin")).unwrap();
        host
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn file(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A shell writes the program: were it our own file descriptor, a test that forks at this moment would
    /// inherit it and the program could not be executed ("text file busy").
    fn program(self, name: &str, body: &str) -> Self {
        let made = Command::new("/bin/sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#,
                "sh",
            ])
            .arg(self.path("bin").join(name))
            .arg(body)
            .status()
            .unwrap();
        assert!(made.success());
        self
    }

    fn saying(self, name: &str, output: &str) -> Self {
        self.program(name, &format!("echo '{output}'"))
    }

    fn view(&self) -> HostView {
        HostView {
            search_path: vec![self.path("bin")],
            root: self.folder.path().to_path_buf(),
            cache: self.path("home/.cache/mvm-ci"),
            temporary: self.path("tmp"),
            given_kernel: None,
            cached_kernel: None,
        }
    }

    fn survey(&self) -> Survey {
        survey(&self.view())
    }
}

fn finding(survey: &Survey, requirement: Requirement) -> &Finding {
    survey
        .findings
        .iter()
        .find(|finding| finding.requirement == requirement)
        .unwrap()
}

#[track_caller]
fn check(host: &FakeHost, requirement: Requirement, state: State, found: &str) {
    let survey = host.survey();
    let finding = finding(&survey, requirement);
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(
        finding.found.contains(found),
        "{:?} should tell {found:?}",
        finding.found
    );
    assert_eq!(finding.remedy.is_none(), state == State::Ok, "{finding:?}");
}

#[test]
fn qemu_is_judged_by_what_it_says() {
    let qemu = |body: &str| FakeHost::debian().program("qemu-system-x86_64", body);
    check(
        &FakeHost::debian(),
        Requirement::Qemu,
        State::Missing,
        "no qemu-system-x86_64 in PATH",
    );
    check(
        &qemu("echo 'QEMU emulator version 6.2.0 (Debian 1:6.2)'"),
        Requirement::Qemu,
        State::TooOld,
        "6.2",
    );
    check(
        &qemu("echo 'QEMU emulator version 7.1.90'"),
        Requirement::Qemu,
        State::TooOld,
        "7.1",
    );
    check(
        &qemu(&format!("echo '{QEMU_OK}'")),
        Requirement::Qemu,
        State::Ok,
        "7.2",
    );
    check(
        &qemu("echo 'QEMU emulator version 10.0.0'"),
        Requirement::Qemu,
        State::Ok,
        "10.0",
    );
    check(
        &qemu("echo; echo 'hello there'"),
        Requirement::Qemu,
        State::Unfit,
        "saying \"hello there\"",
    );
    check(
        &qemu("printf '\\377\\376'"),
        Requirement::Qemu,
        State::Unfit,
        "does not tell its version",
    );
    check(
        &qemu("while :; do echo garbage; done"),
        Requirement::Qemu,
        State::Unfit,
        "fails on --version with signal",
    );
    check(
        &qemu(&format!("echo '{QEMU_OK}'; exit 3")),
        Requirement::Qemu,
        State::Unfit,
        "exit status: 3",
    );
}

#[test]
fn a_program_that_cannot_start_is_unfit() {
    let host = FakeHost::debian();
    let path = host.path("bin/qemu-system-x86_64");
    let made = Command::new("/bin/sh")
        .args([
            "-c",
            r#"printf '#!/no/such/shell\n' > "$1" && chmod 755 "$1""#,
            "sh",
        ])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    check(&host, Requirement::Qemu, State::Unfit, "does not start");
}

#[test]
fn a_file_that_is_not_executable_is_no_program() {
    let host = FakeHost::debian();
    host.file("bin/qemu-system-x86_64", "text");
    fs::create_dir(host.path("bin/mke2fs")).unwrap();
    check(
        &host,
        Requirement::Qemu,
        State::Missing,
        "no qemu-system-x86_64",
    );
    check(&host, Requirement::Mke2fs, State::Missing, "no mke2fs");
}

#[test]
fn python_is_judged_by_its_version() {
    check(
        &FakeHost::debian(),
        Requirement::Python,
        State::Missing,
        "no python3",
    );
    check(
        &FakeHost::debian().saying("python3", "Python 3.8.20"),
        Requirement::Python,
        State::TooOld,
        "3.8",
    );
    check(
        &FakeHost::debian().saying("python3", "Python 3.14.0"),
        Requirement::Python,
        State::Ok,
        "3.14",
    );
}

#[test]
fn busybox_is_found_or_downloaded() {
    check(
        &FakeHost::debian().saying("busybox", ""),
        Requirement::Busybox,
        State::Ok,
        "bin/busybox",
    );
    check(
        &FakeHost::debian().saying("apt-get", ""),
        Requirement::Busybox,
        State::Ok,
        "downloaded when needed",
    );
    check(
        &FakeHost::debian(),
        Requirement::Busybox,
        State::Missing,
        "no busybox",
    );
}

#[test]
fn a_kernel_comes_from_the_cache_then_apt_then_boot() {
    let host = FakeHost::debian();
    check(
        &host,
        Requirement::Kernel,
        State::Missing,
        "nothing in the cache",
    );
    host.file("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n");
    host.file("boot/vmlinuz-6.1.0-50-amd64", "kernel");
    check(
        &host,
        Requirement::Kernel,
        State::Missing,
        "nothing readable",
    );
    fs::create_dir_all(host.path("lib/modules/6.1.0-50-amd64")).unwrap();
    check(&host, Requirement::Kernel, State::Ok, "the host's own");
    let host = host.saying("apt-get", "");
    check(
        &host,
        Requirement::Kernel,
        State::Ok,
        "the kernel package of Debian 12",
    );

    let cached = HostView {
        cached_kernel: Some("/kept/vmlinux".into()),
        ..host.view()
    };
    assert_eq!(
        finding(&survey(&cached), Requirement::Kernel).found,
        "/kept/vmlinux, in the cache"
    );
}

#[test]
fn a_given_kernel_is_the_only_one_looked_at() {
    let host = FakeHost::debian().saying("apt-get", "");
    host.file("kernel", "kernel");
    let given = |path: &Path| {
        let view = HostView {
            given_kernel: Some(path.to_path_buf()),
            ..host.view()
        };
        finding(&survey(&view), Requirement::Kernel).state
    };
    assert_eq!(given(&host.path("kernel")), State::Ok);
    assert_eq!(given(&host.path("nowhere")), State::Missing);
    assert_eq!(given(&host.path("bin")), State::Unfit);
}

#[test]
fn scarce_memory_is_advice_and_a_bad_folder_blocks() {
    let host = FakeHost::debian();
    host.file("proc/meminfo", "MemAvailable: 524288 kB\n");
    check(
        &host,
        Requirement::Memory,
        State::Unfit,
        "512 MiB free, wanted are 1024 MiB",
    );
    assert!(!finding(&host.survey(), Requirement::Memory).blocks());

    host.file("home", "a file where a folder should be");
    check(
        &host,
        Requirement::CacheFolder,
        State::Unfit,
        "is not a folder",
    );
    assert!(finding(&host.survey(), Requirement::CacheFolder).blocks());
}

#[test]
fn packages_are_named_only_where_apt_rules() {
    let host = FakeHost::debian();
    assert_eq!(
        host.survey()
            .missing_packages()
            .into_iter()
            .collect::<Vec<_>>(),
        ["e2fsprogs", "qemu-system-x86"]
    );

    host.file(
        "etc/os-release",
        "ID=fedora\nPRETTY_NAME='Fedora Linux 43'\n",
    );
    let survey = host.survey();
    assert!(survey.missing_packages().is_empty());
    let advice = finding(&survey, Requirement::Qemu)
        .remedy
        .clone()
        .unwrap()
        .advice;
    assert_eq!(
        advice,
        "install QEMU 7.2 or newer (qemu-system-x86_64) with the package manager of Fedora Linux 43"
    );
}

#[test]
fn the_table_is_aligned_and_tells_the_remedy() {
    let host = FakeHost::debian()
        .saying("apt-get", "")
        .saying("qemu-system-x86_64", QEMU_OK)
        .saying("mmdebstrap", "");
    let mut survey = host.survey();
    survey.findings.retain(|finding| {
        !matches!(
            finding.requirement,
            Requirement::CacheFolder | Requirement::TemporaryFolder
        )
    });
    survey.push(Finding::accelerator(
        "tcg",
        "the probe guest did not boot with KVM",
    ));
    let text = survey
        .to_string()
        .replace(&host.folder.path().display().to_string(), "ROOT");
    expect![[r#"
        host: Debian 12
        QEMU           ok       7.2 at ROOT/bin/qemu-system-x86_64
        accelerator    ok       tcg: the probe guest did not boot with KVM
        kernel source  ok       the kernel package of Debian 12, downloaded when needed
        mke2fs         missing  no mke2fs in PATH
                                needed: without it, machines with a private disk do not boot
                                to get it: apt-get install --no-install-recommends e2fsprogs
        BusyBox        ok       the busybox package, downloaded when needed
        apt tools      ok       ROOT/bin/apt-get
        memory         ok       8192 MiB free
        Python         missing  no python3 in PATH
                                optional: without it, everything works but scenarios written as Python scripts
                                to get it: apt-get install --no-install-recommends python3
        Debian images  missing  no sqfstar in PATH
                                optional: without it, machines with Debian and systemd do not boot unless their image is in the cache
                                to get it: apt-get install --no-install-recommends squashfs-tools
    "#]]
    .assert_eq(&text);
}

#[test]
fn the_json_words_are_stable() {
    let survey = FakeHost::debian().survey();
    let value = serde_json::to_value(finding(&survey, Requirement::Mke2fs)).unwrap();
    let expected = serde_json::json!({
        "requirement": "mke2fs",
        "necessity": "required",
        "state": "missing",
        "found": "no mke2fs in PATH",
        "without": "machines with a private disk do not boot",
        "remedy": {
            "packages": ["e2fsprogs"],
            "advice": "apt-get install --no-install-recommends e2fsprogs",
        },
    });
    assert_eq!(value, expected);
    assert_eq!(
        serde_json::to_value(&survey.distribution).unwrap()["support"],
        "supported"
    );
}
