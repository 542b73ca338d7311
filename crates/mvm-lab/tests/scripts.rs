//! Scripts in Python on real machines: each name and meaning that the NixOS test driver's scripts rely on.
//!
//! Most is asserted by the scripts themselves, in `scripts/`; what they leave behind is looked at here.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use mvm_lab::{
    event::{Event, LogLevel, StepOutcome},
    report::{self, Colours},
    runner::{self, Report, RunOptions},
    script::ScriptTest,
    verdict::Verdict,
};

/// What a run came to, and what was told of it.
struct Told {
    report: Report,
    events: Vec<Event>,
}

impl Told {
    fn lines(&self) -> Vec<&str> {
        let events = self.events.iter();
        events
            .filter_map(|event| match event {
                Event::Log { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The warnings of the log, each behind the machine that it is about.
    fn warnings(&self) -> Vec<String> {
        let events = self.events.iter();
        events
            .filter_map(|event| match event {
                Event::Log {
                    level: LogLevel::Warning,
                    machine,
                    text,
                } => Some(format!("{}: {text}", machine.as_deref().unwrap_or("?"))),
                _ => None,
            })
            .collect()
    }

    fn steps(&self) -> Vec<(&str, &StepOutcome)> {
        let events = self.events.iter();
        events
            .filter_map(|event| match event {
                Event::StepEnded { step, outcome, .. } => Some((step.as_str(), outcome)),
                _ => None,
            })
            .collect()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

fn run(test: ScriptTest) -> Told {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let options = RunOptions {
        listeners: vec![
            report::terminal(std::io::stdout(), Colours::Off, None),
            Box::new(move |stamped| heard.lock().unwrap().push(stamped.event.clone())),
        ],
        ..RunOptions::new(runs, ["cargo", "test", &test.name])
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime
        .block_on(runner::run(&test.scenario(), options))
        .unwrap();
    let events = std::mem::take(&mut *events.lock().unwrap());
    Told { report, events }
}

/// Runs a script of one's own on one machine.
fn run_text(name: &str, text: &str) -> Told {
    run_texts(name, "[machines.one]\nmemory_mib = 128\n", text)
}

/// Runs a script of one's own on machines of one's own.
fn run_texts(name: &str, topology: &str, script: &str) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{name}.toml"));
    std::fs::write(&file, topology).unwrap();
    std::fs::write(folder.path().join(format!("{name}.py")), script).unwrap();
    run(ScriptTest::load(&file).unwrap())
}

#[test]
fn every_name_means_what_it_does_in_the_nixos_test_driver() {
    let told = run(ScriptTest::load(&folder().join("names.toml")).unwrap());
    assert_eq!(
        told.report.verdict,
        Verdict::Passed,
        "{:?}",
        told.report.message
    );
    let lines = told.lines();
    for expected in [
        "a printed line",
        "a line of the machine's",
        "to standard error",
        "on the console and in the log",
    ] {
        assert!(lines.contains(&expected), "{expected:?} in {lines:#?}");
    }
    assert!(!lines.contains(&"on the console alone"), "{lines:#?}");
    let steps = told.steps();
    assert!(
        steps
            .iter()
            .all(|(_, outcome)| **outcome == StepOutcome::Passed),
        "{steps:?}"
    );
    assert_eq!(steps.last().unwrap().0, "a subtest");
    let copied = told.report.folder.join("copied/tree/b/c");
    assert_eq!(std::fs::read_to_string(copied).unwrap(), "deep\n");
    // What was never touched was never started.
    let started = |name: &str| {
        let up = |event: &&Event| matches!(event, Event::CameUp { machine, .. } if machine == name);
        told.events.iter().filter(up).count()
    };
    assert_eq!(started("untouched"), 0);
    assert_eq!(started("server-lazy"), 1);
}

#[test]
fn a_failed_assertion_shows_the_lines_of_the_script_alone() {
    let told = run_text(
        "fails",
        "def look():\n    one.succeed('echo seen; echo why >&2; exit 3')\n\nwith subtest('a look'):\n    look()\n",
    );
    assert_eq!(told.report.verdict, Verdict::Failed);
    let message = told.report.message.as_deref().unwrap();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[0], "Traceback (most recent call last):");
    let ours = lines.iter().filter(|line| line.contains("File \"")).count();
    assert_eq!(ours, 2, "{message}");
    assert!(message.contains("line 2, in look"), "{message}");
    assert!(
        message.contains("RequestedAssertionFailed: command `echo seen; echo why >&2; exit 3` on one must succeed, and ended with exit code 3"),
        "{message}"
    );
    assert!(
        message.contains("stdout: seen") && message.contains("stderr: why"),
        "{message}"
    );
    let steps = told.steps();
    assert!(
        matches!(steps[..], [("a look", StepOutcome::Failed { .. })]),
        "{steps:?}"
    );
}

#[test]
fn what_scripts_can_do_wrong_is_told() {
    let told = run_text(
        "wrong",
        r#"
def raises(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), f"{error} does not say {words!r}"
        return
    raise AssertionError(f"no {kind.__name__}")

raises(NotImplementedError, "screenshot() is not there", lambda: one.screenshot("x"))
raises(NotImplementedError, "qmp_client is not there", lambda: one.qmp_client)
raises(NotImplementedError, "send_key() is not there", lambda: one.send_key("ctrl-alt-delete"))
raises(ValueError, "no machine \"two\"", lambda: network.isolate("two"))
raises(ValueError, "1.5 is no probability", lambda: network.all().loss(1.5))
raises(ValueError, "is no time to wait", lambda: one.succeed("true", timeout=-1))
raises(RequestedAssertionFailed, "killed when its time was up", lambda: one.succeed("sleep 1000", timeout=0.5))
raises(RequestedAssertionFailed, "last seen after", lambda: one.wait_until_succeeds("false", timeout=1))
raises(RequestedAssertionFailed, "nothing accepted connections", lambda: one.wait_for_open_port(9, timeout=1))
raises(RequestedAssertionFailed, "did not appear on the console", lambda: one.wait_for_console_text("no such text", timeout=0.2))
raises(RequestedAssertionFailed, "until the time was up", lambda: one.wait_until_succeeds("sleep 1000", timeout=0.5))
raises(RequestedAssertionFailed, "could not see", lambda: one.wait_until_fails("true", timeout=0.5))
raises(RequestedAssertionFailed, "must fail", lambda: one.fail("true"))
raises(RequestedAssertionFailed, "SIGPIPE", lambda: one.succeed("yes | grep -q y"))
raises(RequestedAssertionFailed, "1 != 2", lambda: t.assertEqual(1, 2))
raises(RequestedAssertionFailed, "timed out", lambda: retry(lambda last: False, timeout=0.1))
def is_formed(nodes):
    return len(nodes) > 3
raises(RequestedAssertionFailed, "is_formed of line 26 returned False", lambda: wait_for_cluster(is_formed, timeout=0.1))
raises(AttributeError, "fly", lambda: one.fly())
one.succeed("true")
"#,
    );
    assert_eq!(
        told.report.verdict,
        Verdict::Passed,
        "{:?}",
        told.report.message
    );
}

/// The warnings of a script on two machines with firewalls and `tc`.
fn warnings_of(name: &str, script: &str) -> Vec<String> {
    const TOPOLOGY: &str = "[image]\nfirewall = true\n[machines.node1]\n[machines.node2]\n";
    let told = run_texts(name, TOPOLOGY, script);
    let report = &told.report;
    assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.message);
    told.warnings()
}

#[test]
fn a_firewall_that_lets_ipv6_pass_is_warned_of_once() {
    let warnings = warnings_of(
        "half-a-firewall",
        r#"
node1.succeed("iptables -A INPUT -s node2 -j DROP")
node2.fail("ping -4 -c 1 -W 1 node1")
node2.succeed("ping -6 -c 1 node1")
node1.succeed("iptables -A OUTPUT -d node2 -j DROP")
node2.succeed("ping -6 -c 1 node1")
"#,
    );
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.starts_with("node1: iptables stops IPv4 alone")
            && warning.contains("ip6tables")
            && warning.contains("network.isolate(node1)"),
        "{warning}"
    );
}

#[test]
fn a_firewall_for_both_families_is_not_warned_of() {
    let warnings = warnings_of(
        "whole-firewall",
        r#"
for tables in ("iptables", "ip6tables"):
    for chain in ("INPUT -s", "OUTPUT -d"):
        node1.succeed(f"{tables} -A {chain} node2 -j DROP")
node2.fail("ping -4 -c 1 -W 1 node1")
node2.fail("ping -6 -c 1 -W 1 node1")
"#,
    );
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn what_is_shaped_on_the_card_that_leads_nowhere_is_warned_of_once() {
    let warnings = warnings_of(
        "eth0",
        r#"
for machine in machines:
    machine.succeed("tc qdisc show dev eth0")
node1.succeed("tc qdisc add dev eth0 root netem delay 50ms")
node1.succeed("tc qdisc change dev eth0 root netem delay 10ms")
node2.succeed("tc qdisc add dev eth1 root netem delay 1ms")
"#,
    );
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.starts_with("node1: eth0 leads to no other machine")
            && warning.contains("network.sent_by(node1)"),
        "{warning}"
    );
}

#[test]
fn a_machine_that_does_not_start_is_told_of_though_the_script_goes_on() {
    const TOPOLOGY: &str = "[machines.one]\nmemory_mib = 128\n[machines.one.services.web]\ncommand = [\"/no/such/program\"]\n";
    for (name, script) in [
        ("never-asked", "one.start()\none.crash()\n"),
        ("asked-for-its-end", "start_all()\njoin_all()\n"),
        (
            "started-again",
            "one.start()\none.shutdown()\none.start()\n",
        ),
    ] {
        let report = run_texts(name, TOPOLOGY, script).report;
        let message = report.message.unwrap_or_default();
        assert!(
            report.verdict != Verdict::Passed && message.contains("/no/such/program"),
            "{name}: {:?}: {message}",
            report.verdict
        );
    }
}

#[test]
fn scripts_that_end_by_themselves_come_to_a_verdict() {
    for (name, text, verdict, words) in [
        ("exit-zero", "raise SystemExit(0)", Verdict::Passed, ""),
        (
            "exit-three",
            "import sys; sys.exit(3)",
            Verdict::Failed,
            "SystemExit: 3",
        ),
        (
            "error",
            "log.error('no good')",
            Verdict::Failed,
            "SystemExit: 1",
        ),
        (
            "gone",
            "os._exit(7)",
            Verdict::Failed,
            "ended Python with exit code 7",
        ),
        (
            "killed",
            "os.kill(os.getpid(), 9)",
            Verdict::Failed,
            "killed by signal 9",
        ),
        (
            "condition",
            "@polling_condition\ndef holds():\n    'it holds'\n    return False\nwith holds:\n    one.start()",
            Verdict::Failed,
            "PollingConditionError: polling condition failed: it holds",
        ),
        (
            "trouble",
            "raise MachineError('no good')",
            Verdict::Unknown,
            "MachineError: no good",
        ),
        (
            "name",
            "one.succeed(undefined)",
            Verdict::Failed,
            "NameError: name 'undefined' is not defined\n  the machines are one",
        ),
    ] {
        let told = run_text(name, text);
        assert_eq!(
            told.report.verdict, verdict,
            "{name}: {:?}",
            told.report.message
        );
        let message = told.report.message.unwrap_or_default();
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn an_error_of_a_thread_is_told_with_the_lines_of_the_script() {
    let told = run_text(
        "threads",
        "import threading\nwatch = threading.Thread(target=lambda: one.succeed('exit 3'), name='watch')\nwatch.start()\nwatch.join()\n",
    );
    assert_eq!(told.report.verdict, Verdict::Passed);
    let warnings = told.warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("watch ended with an error")
            && warning.contains("threads.py\", line 2")
            && warning.contains("ended with exit code 3")
            && warning.matches("File \"").count() == 1,
        "{warning}"
    );
}

#[test]
fn what_is_no_test_is_refused_before_any_boot() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        ScriptTest::load(&folder.path().join(name))
            .unwrap_err()
            .to_string()
    };
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(load("nothing").contains("could not read the topology"));
    write("alone.toml", "[machines.one]\n");
    assert!(load("alone").contains("could not find the script"));
    write("alone.py", "start_all()\nwith subtest('x')\n    pass\n");
    let syntax = load("alone.toml");
    assert!(
        syntax.contains("alone.py\", line 2") && syntax.contains("SyntaxError"),
        "{syntax}"
    );
    write("alone.toml", "[machine.one]\n");
    assert!(load("alone").contains("alone.toml:1: machine: unknown field `machine`"));
}
