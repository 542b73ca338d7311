//! One virtual machine: what the host has, a kernel, an image, disks, and QEMU around them.
//!
//! Several machines, their network and faults in time live in `mvm-lab`; what runs inside the guest and
//! the protocol to it live in `mvm-agent`.

pub mod host;

pub mod agent_binary;
pub mod apt;
pub mod cache;
pub mod data_disk;
pub mod deb;
pub mod debian;
pub mod elf;
pub mod files;
pub mod image;
pub mod kernel;

mod codec;
mod initramfs;
mod qcow2;
mod recording;
mod shared_image;

pub mod accelerator;
pub mod boot_tokens;
pub mod console;
pub mod machine;
pub mod pool;
pub mod process;
pub mod qmp;
pub mod snapshot;

mod qemu;
