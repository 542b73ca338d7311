//! What the host tells the guest before they can talk: the plan the agent carries out as PID 1.
//!
//! The host writes a [`BootPlan`] as JSON to [`BOOT_PLAN_PATH`] inside the initramfs; the daemon reads
//! it before it opens the agent channel. Only what cannot wait for the channel belongs here: the kernel
//! modules the channel itself needs, and the disks. Who the machine is (host name, addresses, clock)
//! comes later over the channel, see [`crate::protocol::Identity`], because a machine restored from a
//! snapshot must be given another identity without another initramfs.

use serde::{Deserialize, Serialize};

/// Where the initramfs holds the agent binary, which the kernel starts as PID 1.
pub const INIT_PATH: &str = "/init";

/// Where the initramfs holds the [`BootPlan`], as JSON.
pub const BOOT_PLAN_PATH: &str = "/etc/mvm/boot.json";

/// The name of the virtio-serial port that carries the agent channel.
pub const PORT_NAME: &str = "org.mvm-ci.agent";

/// The name of the virtio-serial port that carries the folder which machines and host have in common.
pub const SHARED_PORT_NAME: &str = "org.mvm-ci.shared";

/// The hardware address of the card that leads to the host's network, where a machine has one. It is the same in every
/// machine, since nobody else is behind that card, and tells the card apart from those of the cluster before anybody has
/// an identity.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x67, 0x77, 0x00];

/// The word on the kernel command line which makes the agent reset the machine at once, before anything
/// else. The accelerator probe boots such a guest and measures how long it takes.
pub const PROBE_WORD: &str = "mvm.probe";

/// What PID 1 does before it opens the agent channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootPlan {
    /// Absolute paths, inside the initramfs, of uncompressed kernel modules, in load order.
    ///
    /// A module that is already present is skipped; one that fails is reported on the console and the
    /// boot goes on.
    pub modules: Vec<String>,
    /// File systems to mount once the modules are loaded, in order.
    pub mounts: Vec<Mount>,
    /// The system to go on with instead of the initramfs; its own init becomes PID 1 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootPlan>,
}

/// Where a machine with a root of its own keeps what the agent needs there, from before its init starts.
pub const STATE_FOLDER: &str = "/run/mvm";

/// Where the agent lies in such a machine.
pub const AGENT_PATH: &str = "/run/mvm/agent";

/// A root file system on a read-only disk, under changes that are kept in memory until an identity brings the machine's
/// own disk ([`crate::protocol::Layers`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPlan {
    /// The serial number of its disk.
    pub disk: String,
    /// The file system on it, as the kernel names it.
    pub filesystem: String,
    /// Symbolic links to make where there is nothing yet: where, and to what.
    pub links: Vec<(String, String)>,
    /// Files to write.
    pub files: Vec<PlannedFile>,
    /// The program that becomes PID 1, and its arguments.
    pub init: Vec<String>,
}

/// A file that the agent writes before a machine's own init starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedFile {
    /// Its absolute path.
    pub path: String,
    /// Its content.
    pub content: String,
}

/// One file system to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// The absolute path of the mount point; created where it is missing.
    pub target: String,
    /// The file system type as the kernel names it: `ext4`, `squashfs`, `tmpfs`.
    pub filesystem: String,
    /// Whether the file system is mounted read-only.
    pub read_only: bool,
    /// Whether the boot goes on silently when the disk is absent.
    ///
    /// The daemon waits a short, bounded time for a disk that is not optional. In neither case does a
    /// failed mount stop the boot: it is reported on the console, so that the host can still ask why.
    pub optional: bool,
}

/// Where the content of a [`Mount`] comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MountSource {
    /// The virtio disk whose `/sys/block/vdX/serial` equals `serial`.
    Disk {
        /// The serial number the host gave the disk, at most 20 bytes.
        serial: String,
    },
    /// No device: `tmpfs` and its kind.
    Virtual,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_reads_back_and_keeps_its_spelling() {
        let plan = BootPlan {
            modules: vec!["/lib/modules/virtio.ko".to_owned()],
            mounts: vec![
                Mount {
                    source: MountSource::Disk {
                        serial: "data".to_owned(),
                    },
                    target: "/data".to_owned(),
                    filesystem: "ext4".to_owned(),
                    read_only: false,
                    optional: true,
                },
                Mount {
                    source: MountSource::Virtual,
                    target: "/scratch".to_owned(),
                    filesystem: "tmpfs".to_owned(),
                    read_only: false,
                    optional: false,
                },
            ],
            root: Some(RootPlan {
                disk: "root".to_owned(),
                filesystem: "squashfs".to_owned(),
                links: vec![("/init".to_owned(), AGENT_PATH.to_owned())],
                files: vec![PlannedFile {
                    path: "/run/a".to_owned(),
                    content: "b".to_owned(),
                }],
                init: vec!["/sbin/init".to_owned()],
            }),
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert!(
            text.contains(r#""source":{"disk":{"serial":"data"}}"#),
            "{text}"
        );
        assert!(text.contains(r#""source":"virtual""#), "{text}");
        assert_eq!(serde_json::from_str::<BootPlan>(&text).unwrap(), plan);
    }

    #[test]
    fn a_misspelled_key_is_refused() {
        assert!(
            serde_json::from_str::<BootPlan>(r#"{"modules":[],"mounts":[],"mount":[]}"#).is_err()
        );
    }
}
