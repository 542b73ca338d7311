//! What the commands that run a lab share.

use std::io::{IsTerminal, Write};

use mvm_lab::{
    environment::{AcceleratorRequest, EnvironmentOptions},
    event::Listener,
    lab::StartBy,
    report::Colours,
    run_folder::shell_line,
    runner::{Report, RunOptions},
};
use mvm_machine::accelerator::Accelerator;

use super::no_colour;
use crate::cli::{AcceleratorArg, RunArgs};

/// The options of a run; `command` is what was asked of this program, less what `arguments` has.
pub(super) fn options(arguments: &RunArgs, command: Vec<String>, listener: Listener) -> RunOptions {
    let accelerator = match arguments.accelerator {
        AcceleratorArg::Auto => AcceleratorRequest::Auto,
        AcceleratorArg::Kvm => AcceleratorRequest::Only(Accelerator::Kvm),
        AcceleratorArg::Tcg => AcceleratorRequest::Only(Accelerator::Tcg),
    };
    let mut again: Vec<String> = std::env::args().take(1).collect();
    again.extend(command);
    if arguments.cold {
        again.push("--cold".to_owned());
    }
    if arguments.capture {
        again.push("--capture".to_owned());
    }
    if let Some(display) = &arguments.display {
        again.push(format!("--display={display}"));
    }
    if let Some(kernel) = &arguments.kernel {
        again.extend(["--kernel".to_owned(), kernel.to_string_lossy().into_owned()]);
    }
    RunOptions {
        capture: arguments.capture,
        environment: EnvironmentOptions {
            accelerator,
            kernel: arguments.kernel.clone(),
            warm: None,
            qemu_options: qemu_options(arguments),
        },
        start: match arguments.cold {
            true => StartBy::ColdBoot,
            false => StartBy::Snapshot,
        },
        listeners: vec![listener],
        ..RunOptions::new(arguments.runs.runs.clone(), again)
    }
}

/// What `QEMU_OPTS` says, as NixOS's tests have it, and `--display`.
fn qemu_options(arguments: &RunArgs) -> Vec<String> {
    let mut options: Vec<String> = std::env::var("QEMU_OPTS")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if let Some(display) = &arguments.display {
        options.extend(["-vga", "std", "-display", display].map(str::to_owned));
    }
    options
}

pub(super) fn colours() -> Colours {
    if std::io::stdout().is_terminal() && !no_colour() {
        Colours::On
    } else {
        Colours::Off
    }
}

/// Every run ends with where its files are; beside JSON that is talk, for standard error.
pub(super) fn tell_folder(json: bool, report: &Report) -> anyhow::Result<()> {
    let line = format!(
        "run folder: {}\n",
        shell_line(&[report.folder.to_string_lossy().into_owned()])
    );
    let written = match json {
        true => std::io::stderr().write_all(line.as_bytes()),
        false => std::io::stdout().write_all(line.as_bytes()),
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
