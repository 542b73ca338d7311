//! QEMU's command line for one machine: pure, from a specification to arguments.
//!
//! Everything the machine talks through (console, monitor, agent, network) is an inherited end of a
//! socket pair: no socket files, no path limit, no start order. Starting the process and talking to it
//! is `machine`'s work; which QEMU the host has is `host`'s.

use std::{ffi::OsString, os::fd::RawFd, path::Path};

use mvm_agent::boot::{PORT_NAME, SHARED_PORT_NAME};

use crate::{
    accelerator::Accelerator,
    machine::{Gateway, MacAddress, MachineSpec, Memory, Mtu},
};

/// The serial number by which the guest finds the read-only disk shared by all machines.
pub(crate) const SHARED_SERIAL: &str = "shared";
/// The serial number by which the guest finds the read-only disk with its root, if it has one.
pub(crate) const ROOT_SERIAL: &str = "root";
/// The serial number by which the guest finds its private disk.
pub(crate) const DATA_SERIAL: &str = "data";
/// What QEMU calls the private disk.
pub(crate) const DATA_DRIVE: &str = "data";

/// The descriptors QEMU inherits, by what is behind them.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) console: RawFd,
    pub(crate) monitor: RawFd,
    pub(crate) agent: RawFd,
    pub(crate) shared: RawFd,
    /// One per NIC of the specification, in its order.
    pub(crate) nics: Vec<RawFd>,
}

/// How a machine comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// From its kernel's first instruction.
    Cold,
    /// From a saved state that is told over the monitor.
    Incoming,
}

/// How much translated code a TCG machine keeps, as a share of its memory. QEMU's own choice is up to 1 GiB whatever the
/// guest, and one that runs for minutes fills it.
const TRANSLATED_SHARE: u32 = 4;
/// Less than this is translated again and again.
const TRANSLATED_MIB_MIN: u32 = 32;
/// All that can be emulated, less one promise: byte-wise string instructions are not fast where an emulator goes through
/// them byte by byte. Kernel and libraries copy and clear by words without it: half the cost.
const TCG_PROCESSOR: &str = "max,-erms";
/// Programs at random addresses are translated anew each time they start: four fifths of what a small one costs.
const TCG_KERNEL_PARAMETER: &str = "norandmaps";
/// Kernel parameters that cut a second off a TCG boot; each one's reason is its comment.
///
/// `acpi=off`, or anything that keeps ACPI from interrupts, would cut off 0.3 s more. But without ACPI's word this kernel
/// has no local APIC: no message-signalled interrupts, and a timer that wakes an idle guest forty times a second. A
/// hundred of them fill two processors.
const KERNEL_PARAMETERS: &[&str] = &[
    "console=ttyS0",
    // Panics still print; a chatty serial console costs 0.1 s and more under TCG.
    "quiet",
    // A panic resets, and `-action reboot=shutdown` makes that QEMU's end: no hung machine.
    "panic=-1",
    // They wake idle guests; and a guest that waits long for its host's processor is no lockup either.
    "nowatchdog",
    "nosoftlockup",
    // Crypto self-tests: 0.4 s.
    "cryptomgr.notests",
    // The watchdog of clocks wakes an idle guest twice a second, and takes a host that is busy for a bad clock.
    "tsc=reliable",
    // Debian's kernel clears all memory that it hands out to itself: 0.1 s.
    "init_on_alloc=0",
    // Patching lock prefixes out, where there is one processor, takes 0.3 s under TCG.
    "noreplace-smp",
    // Without it q35 once panicked "IO-APIC + timer doesn't work" on a loaded host.
    "no_timer_check",
    "random.trust_cpu=on",
    // Twice a second it would look whether memory is worth compacting.
    "sysctl.vm.compaction_proactiveness=0",
    // The names eth0.. are what the agent renames from; no udev is there to do it.
    "net.ifnames=0",
];

/// Returns the arguments after the program name.
pub(crate) fn arguments(
    spec: &MachineSpec,
    start: Start,
    descriptors: &Descriptors,
) -> Vec<OsString> {
    let mut line = Line::default();
    line.option("-name", &spec.name);
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.option("-display", "none");
    // `spawn=deny` also forbids `exec:` migration; saves and restores use `fd:`.
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.option(
        "-machine",
        "q35,vmport=off,usb=off,hpet=off,sata=off,smbus=off,memory-backend=ram",
    );
    match spec.accelerator {
        Accelerator::Kvm => {
            line.option("-accel", "kvm");
            line.option("-cpu", "host");
        }
        Accelerator::Tcg => {
            let translated_mib = (spec.memory_mib / TRANSLATED_SHARE).max(TRANSLATED_MIB_MIN);
            line.option("-accel", format!("tcg,tb-size={translated_mib}"));
            line.option("-cpu", TCG_PROCESSOR);
        }
    }
    line.option("-smp", spec.cpus.to_string());
    line.option("-m", format!("{}M", spec.memory_mib));
    let size = spec.memory_mib;
    match &spec.memory {
        Memory::Anonymous => {
            line.option("-object", format!("memory-backend-ram,id=ram,size={size}M"));
        }
        Memory::Own(file) => {
            let prefix = format!("memory-backend-file,id=ram,size={size}M,share=on,mem-path=");
            line.path("-object", &prefix, file);
        }
        Memory::Frozen(file) => {
            let prefix = format!("memory-backend-file,id=ram,size={size}M,share=off,mem-path=");
            line.path("-object", &prefix, file);
        }
    }
    if start == Start::Incoming {
        // Stopped when loaded, so that several machines can go on together.
        line.flag("-S");
        line.option("-incoming", "defer");
    }
    line.option("-action", "reboot=shutdown,panic=shutdown");
    line.path("-kernel", "", &spec.image.kernel);
    line.path("-initrd", "", &spec.image.initramfs);
    let emulated = spec.accelerator == Accelerator::Tcg;
    let parameters: Vec<&str> = KERNEL_PARAMETERS
        .iter()
        .copied()
        .chain(emulated.then_some(TCG_KERNEL_PARAMETER))
        .chain(spec.kernel_parameters.iter().map(String::as_str))
        .collect();
    line.option("-append", parameters.join(" "));

    line.option(
        "-chardev",
        format!("socket,id=console,fd={}", descriptors.console),
    );
    line.option("-serial", "chardev:console");
    line.option(
        "-chardev",
        format!("socket,id=monitor,fd={}", descriptors.monitor),
    );
    line.option("-mon", "chardev=monitor,mode=control");
    // The first one is for a console, which there is none of.
    line.option("-device", "virtio-serial-pci,max_ports=3");
    line.option(
        "-chardev",
        format!("socket,id=agent,fd={}", descriptors.agent),
    );
    line.option(
        "-device",
        format!("virtserialport,chardev=agent,name={PORT_NAME}"),
    );
    line.option(
        "-chardev",
        format!("socket,id=shared,fd={}", descriptors.shared),
    );
    line.option(
        "-device",
        format!("virtserialport,chardev=shared,name={SHARED_PORT_NAME}"),
    );
    line.option("-device", "virtio-rng-pci");

    let read_only = [
        (SHARED_SERIAL, &spec.image.shared),
        (ROOT_SERIAL, &spec.image.root),
    ];
    for (serial, disk) in read_only {
        let Some(disk) = disk else { continue };
        // Nobody writes it, so no lock is needed, and many machines share it.
        let prefix = format!("if=none,id={serial},format=raw,readonly=on,file.locking=off,file=");
        line.path("-drive", &prefix, disk);
        line.option(
            "-device",
            format!("virtio-blk-pci,drive={serial},serial={serial}"),
        );
    }
    if let Some(data) = &spec.data_disk {
        line.path(
            "-drive",
            "if=none,id=data,format=qcow2,cache=writeback,discard=unmap,file=",
            &data.path,
        );
        line.option(
            "-device",
            format!("virtio-blk-pci,drive={DATA_DRIVE},serial={DATA_SERIAL}"),
        );
    }
    if spec.gateway.is_some() {
        // Before the others, so that the guest's kernel numbers it 0. QEMU's own addresses are those the guest is told.
        line.option("-netdev", "user,id=gateway");
        let mac = Gateway::MAC;
        line.option(
            "-device",
            format!("virtio-net-pci,netdev=gateway,mac={mac},romfile="),
        );
    }
    let cards = spec.nics.iter().zip(&descriptors.nics);
    for (index, (nic, descriptor)) in (0..=u8::MAX).zip(cards) {
        let mac = MacAddress::of_card(index);
        // The guest's driver assumes the standard one by itself.
        let mtu = match nic.mtu {
            Mtu::STANDARD => String::new(),
            mtu => format!(",host_mtu={}", mtu.bytes()),
        };
        line.option(
            "-netdev",
            format!("stream,id=net{index},server=off,addr.type=fd,addr.str={descriptor}"),
        );
        line.option(
            "-device",
            format!("virtio-net-pci,netdev=net{index},mac={mac},romfile={mtu}"),
        );
    }
    // Last, since of some options QEMU takes the last.
    for option in &spec.qemu_options {
        line.flag(option);
    }
    line.arguments
}

#[derive(Default)]
struct Line {
    arguments: Vec<OsString>,
}

impl Line {
    fn flag(&mut self, name: &str) {
        self.arguments.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl AsRef<str>) {
        self.flag(name);
        self.arguments.push(value.as_ref().into());
    }

    /// Adds an option that ends in a path; in a key list QEMU reads a doubled comma as a comma.
    fn path(&mut self, name: &str, prefix: &str, path: &Path) {
        self.flag(name);
        let mut value = OsString::from(prefix);
        if prefix.is_empty() {
            value.push(path);
        } else {
            value.push(path.to_string_lossy().replace(',', ",,"));
        }
        self.arguments.push(value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use expect_test::expect;

    use super::*;
    use crate::{console::Console, data_disk::DataDisk, image::Image, machine::Nic};

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "node1".into(),
            memory_mib: 256,
            cpus: 1,
            image: Image::for_test("/cache/vmlinux", "/cache/initramfs", Some("/cache/a,b")),
            nics: vec![Nic::default()],
            gateway: None,
            data_disk: Some(DataDisk {
                path: "/tmp/data".into(),
                bytes: 1 << 30,
            }),
            memory: Memory::Anonymous,
            accelerator: Accelerator::Tcg,
            kernel_parameters: vec!["mvm.probe".into()],
            qemu_options: Vec::new(),
            console: Console::new("/run/console".into(), Instant::now()),
            qemu: "qemu-system-x86_64".into(),
            qemu_log: "/run/qemu.log".into(),
        }
    }

    fn line(spec: &MachineSpec) -> String {
        let descriptors = Descriptors {
            console: 10,
            monitor: 11,
            agent: 12,
            shared: 9,
            nics: (13..).take(spec.nics.len()).collect(),
        };
        let arguments = arguments(spec, Start::Cold, &descriptors);
        let text: Vec<_> = arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        text.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn the_whole_line() {
        expect![[r#"
            -name node1
            -nodefaults
            -no-user-config
            -display none
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -machine q35,vmport=off,usb=off,hpet=off,sata=off,smbus=off,memory-backend=ram
            -accel tcg,tb-size=64
            -cpu max,-erms
            -smp 1
            -m 256M
            -object memory-backend-ram,id=ram,size=256M
            -action reboot=shutdown,panic=shutdown
            -kernel /cache/vmlinux
            -initrd /cache/initramfs
            -append console=ttyS0 quiet panic=-1 nowatchdog nosoftlockup cryptomgr.notests tsc=reliable init_on_alloc=0 noreplace-smp no_timer_check random.trust_cpu=on sysctl.vm.compaction_proactiveness=0 net.ifnames=0 norandmaps mvm.probe
            -chardev socket,id=console,fd=10
            -serial chardev:console
            -chardev socket,id=monitor,fd=11
            -mon chardev=monitor,mode=control
            -device virtio-serial-pci,max_ports=3
            -chardev socket,id=agent,fd=12
            -device virtserialport,chardev=agent,name=org.mvm-ci.agent
            -chardev socket,id=shared,fd=9
            -device virtserialport,chardev=shared,name=org.mvm-ci.shared
            -device virtio-rng-pci
            -drive if=none,id=shared,format=raw,readonly=on,file.locking=off,file=/cache/a,,b
            -device virtio-blk-pci,drive=shared,serial=shared
            -drive if=none,id=data,format=qcow2,cache=writeback,discard=unmap,file=/tmp/data
            -device virtio-blk-pci,drive=data,serial=data
            -netdev stream,id=net0,server=off,addr.type=fd,addr.str=13
            -device virtio-net-pci,netdev=net0,mac=52:54:00:12:00:00,romfile="#]].assert_eq(&line(&spec()));
    }

    #[test]
    fn what_somebody_adds_comes_last() {
        let spec = MachineSpec {
            qemu_options: vec!["-device".into(), "e1000".into()],
            ..spec()
        };
        assert!(line(&spec).ends_with("romfile=\n-device e1000"));
    }

    #[test]
    fn every_card_has_its_size_and_the_way_out_comes_first() {
        let spec = MachineSpec {
            nics: vec![
                Nic {
                    mtu: Mtu::new(9000).unwrap(),
                },
                Nic::default(),
            ],
            gateway: Some(Gateway),
            data_disk: None,
            ..spec()
        };
        let line = line(&spec);
        let (_, cards) = line.split_once("serial=shared\n").unwrap();
        expect![[r#"
            -netdev user,id=gateway
            -device virtio-net-pci,netdev=gateway,mac=52:54:00:67:77:00,romfile=
            -netdev stream,id=net0,server=off,addr.type=fd,addr.str=13
            -device virtio-net-pci,netdev=net0,mac=52:54:00:12:00:00,romfile=,host_mtu=9000
            -netdev stream,id=net1,server=off,addr.type=fd,addr.str=14
            -device virtio-net-pci,netdev=net1,mac=52:54:00:12:00:01,romfile="#]]
        .assert_eq(cards);
    }
}
