//! What the program says to wrong input and an unfit host: what was tried, what was found, and the exit code.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::ports::free_ports;

const USAGE: i32 = 2;
const UNFIT: i32 = 4;

struct Case {
    command: Command,
    folder: tempfile::TempDir,
}

impl Case {
    /// The program with `arguments`, in an empty folder of its own.
    fn new(arguments: &[&str]) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
        command.args(arguments).current_dir(folder.path());
        Case { command, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn env(mut self, name: &str, value: &str) -> Case {
        self.command.env(name, value);
        self
    }

    /// Expects an exit code, and every one of `words` in what was said.
    #[track_caller]
    fn check(mut self, code: i32, words: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command.output().unwrap();
        let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert_eq!(status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in:\n{said}");
        }
        said
    }
}

/// Three ports of loopback that are free now, as the member list of a node alone.
fn alone() -> String {
    let ports = free_ports(3);
    format!("1=127.0.0.1:{}:{}:{}", ports[0], ports[1], ports[2])
}

#[test]
fn an_unknown_scenario_is_answered_with_those_there_are() {
    Case::new(&["test", "clutser"]).check(USAGE, &["\"clutser\"", "cluster", "simple-network"]);
    Case::new(&["test"]).check(USAGE, &["<SCENARIOS>"]);
}

#[test]
fn a_host_without_qemu_is_unfit_and_told_the_package() {
    let words = ["qemu-system-x86", "mvm-ci doctor"];
    Case::new(&["test", "simple-network"])
        .env("PATH", "/nowhere")
        .check(UNFIT, &words);
    let said = Case::new(&["doctor"])
        .env("PATH", "/nowhere")
        .check(UNFIT, &["QEMU", "missing", "qemu-system-x86"]);
    assert!(said.contains("a node can still be served"), "{said}");
    // Nodes run jobs without it, in one of two ways.
    let isolation = said.lines().find(|line| line.starts_with("job isolation"));
    let ways = ["in a PID namespace", "under a subreaper"];
    assert!(
        isolation.is_some_and(|line| ways.iter().any(|way| line.contains(way))),
        "{said}"
    );
}

#[test]
fn a_qemu_that_is_too_old_is_told_its_version() {
    let case = Case::new(&["test", "simple-network"]);
    let qemu = case.path().join("qemu-system-x86_64");
    fs::write(&qemu, "#!/bin/sh\necho QEMU emulator version 6.2.0\n").unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let path = case.path().to_str().unwrap().to_owned();
    case.env("PATH", &format!("{path}:/usr/bin:/bin"))
        .check(UNFIT, &["6.2 at", "needed is 7.2"]);
}

#[test]
fn a_file_that_is_no_kernel_is_refused_before_anything_boots() {
    Case::new(&["test", "simple-network", "--kernel", "/etc/hostname"])
        .check(UNFIT, &["/etc/hostname", "kernel"]);
    Case::new(&["test", "simple-network", "--kernel", "/no/such/file"])
        .check(UNFIT, &["/no/such/file"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_the_setting_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let members = alone();
    Case::new(&[
        "serve",
        "--listen",
        &address,
        "--members",
        &members,
        "--data-dir",
        "data",
    ])
    .check(UNFIT, &[&address, "in use", "set listen to another"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let case = Case::new(&["serve", "--members", &alone(), "--data-dir", "file/data"]);
    fs::write(case.path().join("file"), "in the way").unwrap();
    case.check(
        UNFIT,
        &["could not write to the data directory", "file/data"],
    );
}

/// The program starts itself again to restore; what it says must come through.
#[test]
fn a_backup_that_is_none_is_named() {
    let arguments = ["serve", "--data-dir", "data", "--restore", "backup"];
    let case = Case::new(&arguments);
    fs::write(case.path().join("backup"), "not a database").unwrap();
    case.check(UNFIT, &["could not restore from backup", "not a database"]);
}

#[test]
fn a_variable_that_would_make_the_store_lose_data_is_refused() {
    Case::new(&["serve"])
        .env("HQL_BACKUP_RESTORE", "file:/tmp/x")
        .check(UNFIT, &["HQL_BACKUP_RESTORE", "unset it"]);
}

#[test]
fn a_malformed_configuration_names_line_and_key() {
    let case = Case::new(&["serve"]);
    fs::write(
        case.path().join("mvm-ci.toml"),
        "node_id = 1\nlisen = \"[::]:1\"\n",
    )
    .unwrap();
    case.check(USAGE, &["mvm-ci.toml", "2", "lisen"]);
    let case = Case::new(&["serve"]);
    fs::write(case.path().join("mvm-ci.toml"), "node_id = 1\nlisten = 5\n").unwrap();
    case.check(USAGE, &["mvm-ci.toml", "2", "listen"]);
}
