//! `mvm-ci up`, `ssh` and `console` at a real terminal, with real machines.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::pty::{HANG, Left, Pty};

const MVM_CI: &str = env!("CARGO_BIN_EXE_mvm-ci");
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// `mvm-ci up` as a process of its own, with a temporary folder of its own.
struct Up {
    child: Child,
    folder: tempfile::TempDir,
}

impl Up {
    /// Starts it and waits until it stays.
    fn start(topology: &str) -> Up {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(folder.path().join("topology.toml"), topology).unwrap();
        let temporary = folder.path().join("t");
        fs::create_dir(&temporary).unwrap();
        let child = Command::new(MVM_CI)
            .arg("up")
            .arg(folder.path())
            .args(["--runs", "runs"])
            .current_dir(folder.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env("TMPDIR", &temporary)
            .stdout(fs::File::create(folder.path().join("output")).unwrap())
            .spawn()
            .unwrap();
        let up = Up { child, folder };
        up.wait_for("the machines are up", || up.output().contains("stay until"));
        up
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    /// A command to be run where `up` was.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("MVM_CI_RUNS", "runs")
            .env("TERM", "vt100");
        command
    }

    /// `mvm-ci` with these arguments, on a terminal that it controls.
    fn on_terminal(&self, arguments: &[&str]) -> Pty {
        let program = [&[MVM_CI], arguments].concat();
        Pty::start(self.command("setsid"), &program)
    }

    /// `mvm-ci` with these arguments, with pipes.
    fn piped(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(MVM_CI);
        let command = command.args(arguments).stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Processes of `up`, and what it has among the temporary files. Processes that name its folder in their environment
    /// are its own.
    fn survivors(&self) -> Vec<PathBuf> {
        let temporary = self.folder.path().join("t");
        let mark = format!("TMPDIR={}", temporary.display()).into_bytes();
        let is_ours = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|word| word == mark)
        };
        let processes = entries(Path::new("/proc")).into_iter().filter(is_ours);
        let runs = entries(&self.folder.path().join("runs"));
        let pointers = runs.iter().map(|run| run.join("control.json"));
        processes
            .chain(entries(&temporary))
            .chain(pointers.filter(|pointer| pointer.exists()))
            .collect()
    }

    fn expect_clean(&self) {
        self.wait_for("nothing of it is left", || self.survivors().is_empty());
    }

    #[track_caller]
    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + HANG;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}; {:?} left; {}",
                self.survivors(),
                self.output()
            );
            sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn expect_left(terminal: Pty, code: i32) {
    let expected = Left {
        code: Some(code),
        restored: true,
    };
    assert_eq!(terminal.end(), expected);
}

#[test]
fn people_come_and_go_while_a_lab_is_up() {
    let mut up = Up::start("[machines.node1]\n[machines.node2]\n");
    a_terminal_is_as_if_it_were_here(&up);
    whoever_leaves_hangs_up(&up);
    a_command_has_pipes(&up);
    what_is_not_there_is_named(&up);
    a_console_is_shown(&up);

    let mut cut_off = up.on_terminal(&["ssh", "node1"]);
    cut_off.see("node1:~# ");
    assert!(!up.survivors().is_empty(), "a running lab has processes");
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    expect_left(cut_off, 255);
    up.expect_clean();
}

fn a_terminal_is_as_if_it_were_here(up: &Up) {
    let mut terminal = up.on_terminal(&["ssh", "node2"]);
    terminal.see("node2:~# ");
    assert!(terminal.is_raw());
    terminal.type_in("stty size; echo $TERM\r");
    terminal.see("\n24 80\r\nvt100\r\n");
    terminal.resize(132, 50);
    terminal.type_in("while [ \"$(stty size)\" = '24 80' ]; do :; done; stty size\r");
    terminal.see("\n50 132\r\n");
    // Said by what runs in the foreground, which the shell itself is until then.
    terminal.type_in("sh -c 'echo run$((1 + 1)); exec sleep 1000'\r");
    terminal.see("run2\r\n");
    terminal.type_in("\x03");
    terminal.type_in("echo still $((40 + 2))\r");
    terminal.see("still 42\r\n");
    terminal.type_in("exit 7\r");
    expect_left(terminal, 7);
}

fn whoever_leaves_hangs_up(up: &Up) {
    let mut terminal = up.on_terminal(&["ssh", "node1", "--", "echo", "begun;", "sleep", "1111"]);
    terminal.see("begun\r\n");
    terminal.type_in("\x1d");
    expect_left(terminal, 0);

    let mut terminal = up.on_terminal(&["ssh", "node1", "--", "echo begun; sleep 1111"]);
    terminal.see("begun\r\n");
    terminal.signal("TERM");
    expect_left(terminal, 128 + 15);

    up.wait_for("those who left are gone", || {
        let seen = up.piped(&["ssh", "node1", "--", "ps | grep -c '[s]leep 1111'"], "");
        text(&seen.stdout) == "0\n"
    });
}

fn a_command_has_pipes(up: &Up) {
    let command = "tr a-z A-Z; echo problem >&2; kill -9 $$";
    let output = up.piped(&["ssh", "node1", "--", command], "typed\n");
    assert_eq!(text(&output.stdout), "TYPED\n");
    assert_eq!(text(&output.stderr), "problem\n");
    assert_eq!(output.status.code(), Some(128 + 9));
    // The shell reads lines.
    let output = up.piped(&["ssh", "node2"], "hostname; exit 5\n");
    assert_eq!(text(&output.stdout), "node2\n");
    assert_eq!(output.status.code(), Some(5));
}

fn what_is_not_there_is_named(up: &Up) {
    let control = up.folder.path().join("nowhere");
    let control = control.to_str().unwrap();
    for (arguments, words) in [
        (&["ssh", "nod"][..], "node1, node2"),
        (&["console", "nod"], "node1, node2"),
        (&["ssh", "--runs", "none", "node1"], "mvm-ci up"),
        (&["ssh", "--run", "none", "node1"], "none"),
        (&["ssh", "--control", control, "node1"], "nowhere"),
    ] {
        let output = up.piped(arguments, "");
        assert_eq!(output.status.code(), Some(255), "{arguments:?}");
        let said = text(&output.stderr);
        assert_eq!(said.matches(words).count(), 1, "{arguments:?}: {said}");
    }
    // Those that are there, named otherwise.
    let runs = entries(&up.folder.path().join("runs"));
    let pointer = fs::read_to_string(runs[0].join("control.json")).unwrap();
    let pointer: serde_json::Value = serde_json::from_str(&pointer).unwrap();
    let control = pointer["socket"].as_str().unwrap();
    for lab in [["--run", runs[0].to_str().unwrap()], ["--control", control]] {
        let output = up.piped(
            &[&["ssh"], &lab[..], &["node1", "--", "hostname"]].concat(),
            "",
        );
        assert_eq!(text(&output.stdout), "node1\n", "{lab:?}");
    }
}

fn a_console_is_shown(up: &Up) {
    let mut console = up.on_terminal(&["console", "node1"]);
    // Said again and again, since it is not known when somebody listens.
    let speaker = up.on_terminal(&[
        "ssh",
        "node1",
        "--",
        "while :; do echo spoken > /dev/ttyS0; sleep 0.1; done",
    ]);
    console.see("spoken\r\n");
    speaker.type_in("\x1d");
    speaker.end();
    console.type_in("\x1d");
    expect_left(console, 0);
}

#[test]
fn a_prompt_has_the_names_of_scripts() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(
        folder.path().join("topology.toml"),
        "[machines.node1]\n[machines.node2]\n",
    )
    .unwrap();
    fs::write(
        folder.path().join("test.py"),
        "print('the script', node1.succeed('hostname'))\n",
    )
    .unwrap();
    let mut command = Command::new("setsid");
    command
        .current_dir(folder.path())
        .env("XDG_STATE_HOME", folder.path())
        .env("TERM", "dumb");
    let mut prompt = Pty::start(command, &[MVM_CI, "repl", ".", "--runs", "runs"]);
    prompt.see("Machines: node1, node2");
    prompt.see(">>> ");
    prompt.type_in("start_all()\r");
    prompt.type_in("node1.succeed('echo a$((40 + 2))')\r");
    prompt.see("'a42\\n'");
    // An error is short, and the session lives on.
    prompt.type_in("node2.succeed('exit 3')\r");
    let shown = prompt.see("ended with exit code 3");
    assert!(!shown.contains("engine.py"), "{shown}");
    // Ctrl-C ends a wait, not the session.
    prompt.type_in("print('wait' + 'ing'); node1.wait_for_file('/never')\r");
    prompt.see("waiting\r\n");
    prompt.type_in("\x03");
    prompt.see("KeyboardInterrupt");
    prompt.type_in("network.isolate(node1); network.status()['cuts']\r");
    prompt.see(
        "('node1', 'node2')"
            .replace('(', "[")
            .replace(')', "]")
            .as_str(),
    );
    // A terminal in a machine, and back.
    prompt.type_in("node1.shell_interact()\r");
    prompt.see("node1:~# ");
    prompt.type_in("hostname; echo in-$((1 + 1))\r");
    prompt.see("in-2\r\n");
    prompt.type_in("\x1d");
    prompt.see(">>> ");
    prompt.type_in("test_script()\r");
    prompt.see("the script node1");
    prompt.end_input_until("run folder: ");
    expect_left(prompt, 0);
    let history = fs::read_to_string(folder.path().join("mvm-ci/repl-history")).unwrap();
    assert!(history.contains("start_all()"), "{history}");
}

#[test]
fn ctrl_c_ends_a_lab_in_order() {
    let mut up = Up::start(
        "[machines.node1.services.web]\ncommand = ['sh', '-c', 'echo $((40 + 2)); sleep 1000']\n",
    );
    up.wait_for("what a service says is shown", || {
        up.output().contains("\nnode1 web | 42\n")
    });
    let pid = up.child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    up.expect_clean();
}

#[test]
fn a_topology_that_is_none_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("topology.toml");
    fs::write(&file, "[machines.node1]\nmemory_mb = 3\n").unwrap();
    let output = Command::new(MVM_CI)
        .args(["up", "--runs"])
        .arg(folder.path().join("runs"))
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("topology.toml:2"), "{said}");
    assert!(said.contains("memory_mib"), "{said}");
    assert!(!folder.path().join("runs").exists());
}
