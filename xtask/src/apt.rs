//! Installs distribution packages: with what rights, by which commands. Which packages is decided by `setup`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::process::{Command, Stdio};

use mvm_machine::host::HostView;

use crate::runner::Runner;
use crate::stop::Stop;
use crate::talk;

/// Never ask: nobody may be there. A fresh machine's own upgrade may hold dpkg's lock for minutes: wait for it.
const OPTIONS: [&str; 4] = [
    "--yes",
    "--no-install-recommends",
    "--option",
    "DPkg::Lock::Timeout=300",
];

/// What we may do on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    /// We are root.
    Root,
    /// sudo works without asking.
    Sudo,
    /// sudo may work, and somebody is at the terminal to answer it.
    SudoAsking,
    /// We are a plain user.
    None,
}

/// Says what it will install and how, and installs it; a user without the rights is told the command.
pub(crate) async fn install(
    runner: &mut Runner,
    host: &HostView,
    packages: &BTreeSet<&str>,
) -> anyhow::Result<()> {
    let rights = rights(host);
    let how = describe(rights);
    let names = packages.iter().copied().collect::<Vec<_>>().join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {names}");
    if host.find_program("apt-get").is_none() || rights == Rights::None {
        return Err(Stop::Unfit {
            reason: refusal(host, &names, &by_hand),
        }
        .into());
    }
    talk::say(format_args!("xtask: set-up: will install {names} {how}"));
    if candidates_known(packages) {
        match runner
            .run("set-up: install", install_command(rights, packages))
            .await
        {
            Err(error) if matches!(error.downcast_ref(), Some(Stop::Child { .. })) => {
                // Old lists name files that the mirrors no longer have.
                talk::say(format_args!(
                    "xtask: set-up: {error}; the package lists may be old, refreshing them"
                ));
            }
            ended => return ended.map(drop),
        }
    }
    runner
        .run("set-up: package lists", apt_get(rights, ["update"]))
        .await?;
    runner
        .run("set-up: install", install_command(rights, packages))
        .await?;
    Ok(())
}

fn refusal(host: &HostView, names: &str, by_hand: &str) -> String {
    if host.find_program("apt-get").is_none() {
        return format!("{names} must be installed and there is no apt-get in PATH");
    }
    format!(
        "{names} must be installed, which takes root: this is a plain user, and sudo is missing or would have to ask \
         without a terminal; run this as root, then try again:\n\n    {by_hand}\n"
    )
}

fn describe(rights: Rights) -> &'static str {
    match rights {
        Rights::Root => "with apt-get, as root",
        Rights::Sudo => "with apt-get, through sudo",
        Rights::SudoAsking => "with apt-get, through sudo, which may ask for your password",
        Rights::None => "",
    }
}

fn rights(host: &HostView) -> Rights {
    if rustix::process::geteuid().is_root() {
        return Rights::Root;
    }
    if host.find_program("sudo").is_none() {
        return Rights::None;
    }
    if succeeds(Command::new("sudo").args(["--non-interactive", "true"])) {
        return Rights::Sudo;
    }
    if io::stdin().is_terminal() {
        Rights::SudoAsking
    } else {
        Rights::None
    }
}

/// Whether apt's lists, if there are any, have a version of each package.
fn candidates_known(packages: &BTreeSet<&str>) -> bool {
    packages
        .iter()
        .all(|package| succeeds(Command::new("apt-cache").args(["show", package])))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn install_command(rights: Rights, packages: &BTreeSet<&str>) -> Command {
    let arguments = ["install"]
        .into_iter()
        .chain(OPTIONS)
        .chain(packages.iter().copied());
    apt_get(rights, arguments)
}

/// The environment is set by `env` because sudo would drop it.
fn apt_get<'a>(rights: Rights, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let words: &[&str] = match rights {
        Rights::Root | Rights::None => &["env"],
        Rights::Sudo => &["sudo", "--non-interactive", "env"],
        Rights::SudoAsking => &["sudo", "env"],
    };
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Rights, install_command};

    #[track_caller]
    fn check(rights: Rights, expected: &str) {
        let command = install_command(rights, &BTreeSet::from(["qemu-system-x86", "e2fsprogs"]));
        assert_eq!(crate::runner::describe(&command), expected);
    }

    #[test]
    fn the_command_fits_the_rights() {
        let install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
                       --option DPkg::Lock::Timeout=300 e2fsprogs qemu-system-x86";
        check(Rights::Root, &format!("env {install}"));
        check(
            Rights::Sudo,
            &format!("sudo --non-interactive env {install}"),
        );
        check(Rights::SudoAsking, &format!("sudo env {install}"));
    }
}
