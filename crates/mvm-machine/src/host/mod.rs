//! What this host has and lacks: one list of requirements, looked at in one pass.
//!
//! `mvm-ci doctor` prints the answer and `cargo xtask setup` acts on it, so the two never disagree.
//! [`survey`] only looks: it runs `--version` of a few programs and reads a few files. Installing
//! packages lives in `xtask`; booting a probe guest lives in the accelerator module, whose answer a
//! caller adds with [`Survey::push`]; fetching a kernel lives in the kernel module.

mod checks;
mod distribution;
mod finding;
mod memory;
mod probe;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod version;
mod view;

pub use checks::{Qemu, find_qemu};
pub use distribution::{Distribution, Support};
pub use finding::{Finding, Necessity, Remedy, Requirement, State};
pub use memory::memory_available_bytes;
pub use survey::{Survey, survey};
pub use version::Version;
pub use view::HostView;
