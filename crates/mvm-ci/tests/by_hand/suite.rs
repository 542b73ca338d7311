//! Several tests by one command: none hides another, and what became of them is told in one place.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn write(folder: &Path, name: &str, script: &str) {
    let topology = "[machines.one]\nmemory_mib = 128\n";
    fs::write(folder.join(format!("{name}.toml")), topology).unwrap();
    fs::write(folder.join(format!("{name}.py")), script).unwrap();
}

/// `mvm-ci test` in a folder with three tests, one of which fails, and one of which the lab is in trouble with.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    write(
        folder,
        "good",
        "with subtest('a step'):\n    one.succeed('true')\n",
    );
    write(
        folder,
        "bad",
        "with subtest('a step'):\n    assert 1 == 2, 'no'\n",
    );
    write(folder, "trouble", "raise MachineError('smoke')\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
    command.args(["test", "--runs", "runs"]).args(arguments);
    command.current_dir(folder).output().unwrap()
}

#[test]
fn a_failure_hides_no_other_test() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let arguments = [
        "bad",
        "good",
        "trouble",
        "good.toml",
        "--jobs",
        "2",
        "--junit",
        "junit.xml",
        "--seed",
        "7",
    ];
    let output = run(folder.path(), &arguments);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("\n2 of 4 passed\n"), "{told}");
    for line in [
        "good | ",
        "MVM_CI_SEED=7",
        "AssertionError: no",
        "MachineError: smoke",
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    let summary = told.split("\n\n").last().unwrap();
    let verdicts = ["passed", "unknown", "failed"].map(|word| summary.find(word).unwrap());
    assert!(verdicts.is_sorted(), "{summary}");
    let junit = fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    for part in [
        "tests=\"4\" skipped=\"0\" failures=\"1\" errors=\"1\"",
        "<testcase name=\"a step\" classname=\"bad\"",
        "<testcase name=\"the run\" classname=\"trouble\"",
        "type=\"failed\"",
    ] {
        assert!(junit.contains(part), "{part} in {junit}");
    }
    assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 4);
}

#[test]
fn tests_are_repeated_and_chosen_by_their_names() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = run(
        folder.path(),
        &["bad", "good", "--filter", "oo", "--repeat", "2", "--json"],
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("2 of 2 passed"), "{told}");
    let listed = run(folder.path(), &["bad", "good", "--filter", "oo", "--list"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(
        listed.starts_with("good ") && listed.lines().count() == 1,
        "{listed}"
    );
    let none = run(folder.path(), &["bad", "--filter", "nothing"]);
    assert_eq!(none.status.code(), Some(2));
}

/// The scripts of the repository, those that need no image of Debian.
#[test]
fn the_simple_network_is_a_script_too() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/simple-network");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
    command.args(["test", "--runs", "runs"]).arg(scenario);
    let output = command.current_dir(folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let starting = told.find("=== Starting all VMs ===").unwrap();
    assert!(starting < told.find("booting").unwrap(), "{told}");
}
