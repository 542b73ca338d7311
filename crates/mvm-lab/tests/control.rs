//! A lab is asked for terminals, commands and consoles by others, and stays after a failure if it is to.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use mvm_lab::{
    control::{
        client::{Attached, Client, ClientError, Output},
        wire::{Ended, Frame, Machine, Power, RefusalKind, Request, Size},
    },
    ensure,
    event::Event,
    node::{TerminalOptions, WindowSize},
    report::{self, Colours},
    runner::{self, RunOptions, Stay},
    scenario::{Failure, Outcome, Run, Scenario},
    topology::{MachineConfig, Topology},
    verdict::Verdict,
};
use mvm_machine::console::Said;
use support::{ALLOWED, signal};
use tokio::sync::oneshot;

/// The scenario's side: what a node gives by itself.
async fn look_at_a_node_and_fail(run: &Run) -> Outcome {
    let node = run.lab.node("node1");
    let mut listener = node.console().listen();
    ensure!(
        !node.console().write(b"too early").await,
        "a machine that is off heard something"
    );
    node.start().await?;

    let options = TerminalOptions {
        command: Some("stty size; read -r line; stty size; exit 7".to_owned()),
        size: WindowSize {
            columns: 80,
            rows: 24,
        },
        term: "vt100".to_owned(),
    };
    let mut terminal = node.terminal(options).await?;
    let input = terminal.input();
    let resized = input.resize(WindowSize {
        columns: 132,
        rows: 50,
    });
    let typed = input.write_all(b"go on\r").await;
    let mut shown = Vec::new();
    while let Ok(Some(bytes)) = terminal.output().await {
        shown.extend_from_slice(&bytes);
    }
    let shown = String::from_utf8_lossy(&shown).into_owned();
    ensure!(
        shown.ends_with("50 132\r\n"),
        "{resized:?}, {typed:?}: {shown:?}"
    );
    let status = terminal.wait().await;
    ensure!(
        matches!(status, Ok(mvm_lab::ExitStatus::Code(7))),
        "{status:?}"
    );

    let mut reader = node
        .agent()?
        .shell("exec 3<> /dev/ttyS0; stty -echo <&3; echo said >&3; head -n 1 <&3")
        .timeout(ALLOWED)
        .spawn()
        .await
        .map_err(|error| Failure::trouble(&error))?;
    let mut said = String::new();
    while !said.contains("said") {
        match listener.next().await {
            Some(Said::Bytes(bytes)) => said.push_str(&String::from_utf8_lossy(&bytes)),
            other => ensure!(false, "{other:?} after {said:?}"),
        }
    }
    ensure!(
        node.console().write(b"typed\r").await,
        "a machine that is on heard nothing"
    );
    let mut heard = Vec::new();
    while let Ok(Some(event)) = reader.next_event().await {
        if let mvm_agent::client::Event::Stdout(bytes) = event {
            heard.extend_from_slice(&bytes);
        }
    }
    ensure!(heard == b"typed\n", "{:?}", String::from_utf8_lossy(&heard));
    Err(Failure::broken("as planned"))
}

/// The other process's side, once the lab stays.
async fn ask(runs: &Path) {
    let listing = client(runs).await.machines().await.unwrap();
    let expected = [("node1", Power::On), ("node2", Power::Off)];
    let expected = expected.map(|(name, power)| Machine {
        name: name.to_owned(),
        power,
    });
    assert_eq!(listing.machines, expected);
    assert!(listing.folder.starts_with(runs), "{listing:?}");
    let mode = std::os::unix::fs::MetadataExt::mode;
    let socket = std::fs::read(listing.folder.join("control.json")).unwrap();
    let pointer: mvm_lab::control::wire::Pointer = serde_json::from_slice(&socket).unwrap();
    let folder = pointer.socket.parent().unwrap().metadata().unwrap();
    assert_eq!(mode(&folder) & 0o777, 0o700, "others are kept out");

    for (machine, kind, words) in [
        ("node3", RefusalKind::UnknownMachine, "node1, node2"),
        ("node2", RefusalKind::Off, "is off"),
    ] {
        let refused = client(runs).await.attach(&terminal(machine)).await;
        match refused.unwrap_err() {
            ClientError::Refused(refusal) => {
                assert_eq!(refusal.kind, kind);
                assert!(refusal.message.contains(words), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
    }

    let mut attached = client(runs).await.attach(&terminal("node1")).await.unwrap();
    see(&mut attached, "node1:~# ").await;
    let leave = Frame::Data(b"exit 3\r".to_vec());
    attached.input.send(&leave).await.unwrap();
    assert_eq!(end(&mut attached.output).await.2, Ended::Code(3));

    let command = "cat; echo problem >&2; exit 4";
    let request = Request::Command {
        machine: "node1".to_owned(),
        command: Some(command.to_owned()),
    };
    let mut attached = client(runs).await.attach(&request).await.unwrap();
    let much = "0123456789".repeat(100_000);
    let Attached { output, input } = &mut attached;
    let sending = async {
        let frame = Frame::Data(much.clone().into_bytes());
        input.send(&frame).await.unwrap();
        input.send(&Frame::End).await.unwrap();
    };
    let ((), (back, errors, ended)) = tokio::join!(sending, end(output));
    assert!(back == much, "another content came back");
    assert_eq!((errors.as_str(), ended), ("problem\n", Ended::Code(4)));

    let request = Request::Console {
        machine: "node1".to_owned(),
    };
    let mut attached = client(runs).await.attach(&request).await.unwrap();
    // Among the last lines.
    see(&mut attached, "said\r\n").await;
}

async fn client(runs: &Path) -> Client {
    Client::newest(runs).await.unwrap()
}

fn terminal(machine: &str) -> Request {
    Request::Terminal {
        machine: machine.to_owned(),
        command: None,
        size: Size {
            columns: 80,
            rows: 24,
        },
        term: "vt100".to_owned(),
    }
}

/// Waits until the text was shown.
async fn see(attached: &mut Attached, text: &str) {
    let mut shown = String::new();
    while !shown.contains(text) {
        match attached.output.next().await.unwrap() {
            Some(Frame::Data(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
}

/// Waits for the end; returns both outputs until then.
async fn end(output: &mut Output) -> (String, String, Ended) {
    let mut outputs = [Vec::new(), Vec::new()];
    loop {
        match output.next().await.unwrap() {
            Some(Frame::Data(bytes)) => outputs[0].extend(bytes),
            Some(Frame::Error(bytes)) => outputs[1].extend(bytes),
            Some(Frame::Exit(ended)) => {
                let [output, errors] = outputs.map(|bytes| String::from_utf8(bytes).unwrap());
                return (output, errors, ended);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_failed_lab_stays_and_is_asked_by_others() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runs: PathBuf = folder.path().to_owned();
    let scenario = Scenario {
        name: "control".into(),
        about: "a test".into(),
        topology: Topology::new(["node1", "node2"].map(MachineConfig::new).into()),
        prepare: None,
        run: Box::new(|run| Box::pin(look_at_a_node_and_fail(run))),
    };
    let (staying, stays) = oneshot::channel();
    let staying = Mutex::new(Some(staying));
    let options = RunOptions {
        stay: Stay::Unpassed,
        listeners: vec![
            report::terminal(std::io::stdout(), Colours::Off, None),
            Box::new(move |stamped| {
                let stays =
                    matches!(&stamped.event, Event::Note { text } if text.contains("stay until"));
                if let Some(staying) = stays.then(|| staying.lock().unwrap().take()).flatten() {
                    staying.send(()).unwrap();
                }
            }),
        ],
        ..RunOptions::new(runs.clone(), ["cargo"])
    };
    let others = async {
        stays.await.unwrap();
        ask(&runs).await;
        signal("INT", std::process::id());
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (report, ()) = runtime.block_on(async {
        tokio::time::timeout(4 * ALLOWED, async {
            tokio::join!(runner::run(&scenario, options), others)
        })
        .await
        .expect("the run ends")
    });
    let report = report.unwrap();
    assert_eq!(report.verdict, Verdict::Failed, "{:?}", report.message);
    assert_eq!(report.message.as_deref(), Some("as planned"));
    let left = runtime.block_on(Client::newest(&runs)).unwrap_err();
    assert!(matches!(left, ClientError::NoLab { .. }), "{left:?}");
    assert!(!report.folder.join("control.json").exists());
}
