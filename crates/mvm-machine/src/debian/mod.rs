//! The root of a Debian image: a suite with systemd and packages, on one compressed read-only disk, and how its machines
//! get from the initramfs to a systemd that holds the packages' services back.
//!
//! Building it is [`build`]'s, from what [`recipe`] says and [`sources`] finds; in a machine where [`rights`] finds none. What a machine does with it is the agent's
//! (`mvm_agent::daemon`); who it is it learns afterwards, and only then are the services started.

mod build;
mod error;
mod machine;
mod recipe;
mod rights;
mod sources;

use std::path::PathBuf;

use mvm_agent::boot::{AGENT_PATH, INIT_PATH, PlannedFile, RootPlan};

use self::recipe::Recipe;
pub use self::{
    build::{BUILD_TOOLS, Tool},
    error::DebianError,
    rights::Rights,
};
use crate::{
    cache::{Cache, ContentKey, Shelf},
    kernel::Kernel,
    qemu::ROOT_SERIAL,
};

/// Built in a minute or two, and not without a network.
pub const ROOTS: Shelf = Shelf {
    name: "debian-roots",
    unused_max: Some(std::time::Duration::from_secs(60 * 24 * 3600)),
};
const ROOT_NAME: &str = "root.squashfs";
/// What the way to the root takes, beside what every machine does.
pub(crate) const MODULES: &[&str] = &["squashfs", "overlay"];
/// What systemd starts at boot. It is reached when all is there that services of packages count on.
pub(crate) const HELD_TARGET: &str = "mvm-held.target";
const HELD_UNIT: &str = "\
[Unit]
Description=The system, with the services of packages held back
Requires=sysinit.target
Wants=dbus.socket
After=sysinit.target dbus.socket
AllowIsolate=yes
";
const AGENT_UNIT: &str = "\
[Unit]
Description=The agent of the machine's host
DefaultDependencies=no
IgnoreOnIsolate=yes
# Services that it runs are somebody else's business.
StartLimitIntervalSec=0

[Service]
ExecStart=/run/mvm/agent service
Restart=on-failure
# It answers whatever the machine is busy with; what it runs has the usual priority.
Nice=-20
TasksMax=infinity
";
/// Siblings must not have keys in common, so none is in the image. For a server that came with it.
const KEYS_UNIT: &str = "\
[Unit]
Description=The machine's own keys of its SSH server
ConditionFileIsExecutable=/usr/sbin/sshd
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
";
/// Time for the agent to make place on the disk when the daemon begins a journal of the machine's own.
const JOURNAL_SETTINGS: &str = "\
[Service]
RestartSec=200ms
";
const KEYS_UNIT_NAME: &str = "mvm-ssh-keys.service";
/// Nobody's: with none at all systemd would take the boot for the first one of its installation and enable what it likes.
const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef\n";
const UNITS: &str = "/run/systemd/system";
const AGENT_UNIT_NAME: &str = "mvm-agent.service";

/// A root in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) key: ContentKey,
}

/// Builds a root or finds it in the cache. Blocks, for minutes where it is built.
pub(crate) fn root(
    cache: &Cache,
    kernel: &Kernel,
    suite: &str,
    packages: &[String],
) -> Result<Root, DebianError> {
    let recipe = Recipe::new(suite, packages, kernel);
    let key = recipe.key(cache)?;
    let entry = cache.entry::<DebianError>(ROOTS, &key, |place| {
        build::build(cache, kernel, &recipe, place, &place.join(ROOT_NAME))
    })?;
    Ok(Root {
        path: entry.join(ROOT_NAME),
        key,
    })
}

/// How the agent gets to the root and what it puts there, with links to what lies beside it.
pub(crate) fn plan(links: impl Iterator<Item = (String, String)>) -> RootPlan {
    let file = |path: &str, content: &str| PlannedFile {
        path: path.to_owned(),
        content: content.to_owned(),
    };
    let unit = |name: &str, content: &str| file(&format!("{UNITS}/{name}"), content);
    let own_links = [
        // What runs the agent's program in machines of either kind finds it there.
        (INIT_PATH.to_owned(), AGENT_PATH.to_owned()),
        (
            format!("{UNITS}/sysinit.target.wants/{AGENT_UNIT_NAME}"),
            format!("../{AGENT_UNIT_NAME}"),
        ),
        (
            format!("{UNITS}/multi-user.target.wants/{KEYS_UNIT_NAME}"),
            format!("../{KEYS_UNIT_NAME}"),
        ),
    ];
    RootPlan {
        disk: ROOT_SERIAL.to_owned(),
        filesystem: "squashfs".to_owned(),
        links: own_links.into_iter().chain(links).collect(),
        files: vec![
            unit(AGENT_UNIT_NAME, AGENT_UNIT),
            unit(HELD_TARGET, HELD_UNIT),
            unit(KEYS_UNIT_NAME, KEYS_UNIT),
            unit("systemd-journald.service.d/mvm.conf", JOURNAL_SETTINGS),
            file("/etc/machine-id", MACHINE_ID),
            file("/etc/hostname", "localhost\n"),
            file("/etc/resolv.conf", ""),
        ],
        init: vec![
            "/lib/systemd/systemd".to_owned(),
            format!("--unit={HELD_TARGET}"),
        ],
    }
}
