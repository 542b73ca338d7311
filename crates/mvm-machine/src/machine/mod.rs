//! One machine's life: booting, running, parted, stopped - each a type, and only the running one takes commands.
//!
//! ```text
//!              launch
//!   MachineSpec ------------------> Booting --ready--> Running --crash, power_off--> Stopped
//!        |                             ^               |     ^
//!        | load (a saved state)        | go            | part| reconnect
//!        +-----------> Loaded ---------+               v     |
//!                                                    Parted -+--save--> a state in a file
//! ```
//!
//! A parted machine has an agent to which nobody talks, so that its state can be saved and go on elsewhere. What is
//! kept of saved states, and when they are good, is [`crate::snapshot`]'s; several machines, names, networks
//! and faults in time are the lab's affair.

mod spec;

mod gateway;
mod nic;

mod booting;
mod hand_over;
mod loaded;
mod log;
mod parted;
mod running;
mod systemd;

pub use self::{
    booting::{BootError, Booting, Evidence, LaunchError, unconnected},
    gateway::Gateway,
    loaded::{LoadError, Loaded, SavedState},
    nic::{Mtu, MtuError, Nic},
    parted::Parted,
    running::{MemoryUse, Running, Stopped},
    spec::{MacAddress, MachineSpec, Memory},
    systemd::SystemState,
};
pub(crate) use self::{
    hand_over::{HandOverError, Places},
    loaded::Owner,
};
