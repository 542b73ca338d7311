//! What a machine is made of.

use std::{fmt, path::PathBuf, sync::Arc};

use super::{Gateway, Nic};
use crate::{accelerator::Accelerator, console::Console, data_disk::DataDisk, image::Image};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that a machine's network card of this number, from 0, has until its agent gives it another.
    ///
    /// It is the same in every machine, so that a frozen machine can become any of them.
    pub const fn of_card(index: u8) -> MacAddress {
        MacAddress([0x52, 0x54, 0x00, 0x12, 0x00, index])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Where a machine's memory lies on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nowhere but in its QEMU.
    Anonymous,
    /// In a file of this machine's own, which is created where it is missing. Its state can be saved at once.
    Own(PathBuf),
    /// Read from a file that others may read too, never written to it. Saving its state takes a detour.
    Frozen(PathBuf),
}

/// Everything that makes a machine; the same specification launched again is the same machine rebooted.
#[derive(Clone)]
pub struct MachineSpec {
    /// The name, for messages and process listings.
    pub name: String,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// How many processors it has.
    pub cpus: u8,
    /// Where that memory lies.
    pub memory: Memory,
    /// Kernel, initramfs and shared disk.
    pub image: Arc<Image>,
    /// Its network cards on switches.
    pub nics: Vec<Nic>,
    /// Its way out to the host's network, if it has one.
    pub gateway: Option<Gateway>,
    /// The private disk, kept across crashes and restarts.
    pub data_disk: Option<DataDisk>,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Kernel parameters after our own.
    pub kernel_parameters: Vec<String>,
    /// Arguments of QEMU after our own.
    pub qemu_options: Vec<String>,
    /// Where the serial console is recorded.
    pub console: Console,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Where QEMU's own complaints go.
    pub qemu_log: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_usual() {
        assert_eq!(MacAddress::of_card(255).to_string(), "52:54:00:12:00:ff");
    }
}
