//! The guest agent of mvm-ci: how the host talks to a machine it booted.
//!
//! - [`boot`]: what the host writes into the initramfs for the agent as PID 1.
//! - [`wire`], [`protocol`]: the agent channel, on any byte stream.
//! - [`client`]: the host's side of it (feature `client`).
//! - [`daemon`]: the guest's side (feature `daemon`), which the `mvm-agent` binary runs.
//! - [`watch`]: the orders for the watcher, a mode of the same binary that cleans up after a runner that
//!   was killed.
//!
//! Not here: QEMU, images and everything else about starting a machine; that is `mvm-machine`.

pub mod boot;
pub mod protocol;
pub mod watch;
pub mod wire;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
