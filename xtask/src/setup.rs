//! `cargo xtask setup`: makes this host ready. What is needed is told by `mvm_machine::host`, the same list that
//! `mvm-ci doctor` prints; how packages are installed is in `apt`.
//!
//! When nothing is missing it needs no network, takes a fraction of a second and says one line.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use mvm_machine::cache::Cache;
use mvm_machine::host::{Finding, HostView, Requirement, Survey, survey};
use mvm_machine::image;
use mvm_machine::kernel::{Kernel, KernelSource};

use crate::runner::Runner;
use crate::stop::Stop;
use crate::{apt, talk};

pub(crate) async fn setup(runner: &mut Runner) -> anyhow::Result<()> {
    let start = Instant::now();
    let cache = Cache::for_user().map_err(|error| unfit(error.to_string()))?;
    let host = HostView {
        cached_kernel: Kernel::cached(&cache).map(|kernel| kernel.elf().to_path_buf()),
        ..HostView::of_this_host(cache.root().to_path_buf())
    };
    for program in OF_DEBIAN_IMAGES {
        match extra_program(runner, program).await {
            // Minimal machines work all the same.
            Err(error) if matches!(error.downcast_ref(), Some(Stop::Unfit { .. })) => {
                talk::say(format_args!("xtask: set-up: going on without it: {error}"));
            }
            ended => ended?,
        }
    }
    let survey = install_missing(runner, &host).await?;
    let kernel = kernel(runner, cache, &host).await?;
    for finding in survey
        .advice()
        .filter(|finding| finding.requirement != Requirement::Python)
    {
        talk::say(format_args!("xtask: set-up: {}", line(finding)));
    }
    let seconds = start.elapsed().as_secs_f64();
    let qemu = found(&survey, Requirement::Qemu);
    let (release, origin) = (kernel.release(), kernel.origin());
    talk::say(format_args!(
        "xtask: set-up: ready in {seconds:.2} s; QEMU {qemu}; kernel {release} from {origin}"
    ));
    Ok(())
}

/// A program, or another file by its path, that only some task of ours needs, and `mvm-ci` does not: so no survey looks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExtraProgram {
    name: &'static str,
    /// The distribution's package that brings it.
    package: &'static str,
    /// What does not work without it.
    without: &'static str,
}

/// For images of Debian, which tests and scenarios use.
const OF_DEBIAN_IMAGES: [ExtraProgram; 3] = [
    ExtraProgram {
        name: "mmdebstrap",
        package: "mmdebstrap",
        without: "no Debian image can be built",
    },
    ExtraProgram {
        name: "sqfstar",
        package: "squashfs-tools",
        without: "no Debian image can be built",
    },
    ExtraProgram {
        name: "newuidmap",
        package: "uidmap",
        without: "Debian images are built in a machine, which takes minutes longer, but by root",
    },
];

/// For `bench fabric`.
pub(crate) const OF_THE_FABRIC_BENCH: [ExtraProgram; 2] = [
    ExtraProgram {
        name: "vde_switch",
        package: "vde2",
        without: "the switch cannot be measured beside its peer",
    },
    ExtraProgram {
        name: "iperf3",
        package: "iperf3",
        without: "it cannot be measured how fast guests send to one another",
    },
];

/// For `bench queue`, which starts a server of its own. The server's programs are in no folder of `PATH`; this one, which
/// comes with them, is.
pub(crate) const OF_THE_QUEUE_BENCH: [ExtraProgram; 1] = [ExtraProgram {
    name: "pg_createcluster",
    package: "postgresql",
    without: "the queue cannot be measured beside its peer",
}];

/// For `bench flow`, which starts a server of its own from npm's registry.
pub(crate) const OF_THE_FLOW_BENCH: [ExtraProgram; 2] = [
    ExtraProgram {
        name: "node",
        package: "nodejs",
        without: "workflows cannot be measured beside their peer",
    },
    ExtraProgram {
        name: "npm",
        package: "npm",
        without: "workflows cannot be measured beside their peer",
    },
];

/// For `test`.
pub(crate) const OF_THE_TESTS: [ExtraProgram; 6] = [
    ExtraProgram {
        name: "tshark",
        package: "tshark",
        without: "tests cannot read packet captures as others do",
    },
    ExtraProgram {
        name: "iptables",
        package: "iptables",
        without: "guests of tests have no firewall",
    },
    ExtraProgram {
        name: "nft",
        package: "nftables",
        without: "guests of tests have no nftables",
    },
    ExtraProgram {
        name: "tc",
        package: "iproute2",
        without: "guests of tests cannot delay what they send",
    },
    ExtraProgram {
        name: "pkg-config",
        package: "pkg-config",
        without: "the public client of workflows cannot be built",
    },
    ExtraProgram {
        name: "/usr/include/openssl/ssl.h",
        package: "libssl-dev",
        without: "the public client of workflows cannot be built",
    },
];

/// Installs programs, except those that are there.
pub(crate) async fn extra_programs(
    runner: &mut Runner,
    programs: &[ExtraProgram],
) -> anyhow::Result<()> {
    for program in programs {
        extra_program(runner, *program).await?;
    }
    Ok(())
}

async fn extra_program(runner: &mut Runner, program: ExtraProgram) -> anyhow::Result<()> {
    let ExtraProgram {
        name,
        package,
        without,
    } = program;
    let cache = Cache::for_user().map_err(|error| unfit(error.to_string()))?;
    let host = HostView::of_this_host(cache.root().to_path_buf());
    if is_there(&host, name) {
        return Ok(());
    }
    talk::say(format_args!(
        "xtask: set-up: {name} missing; without it, {without}"
    ));
    apt::install(runner, &host, &BTreeSet::from([package])).await?;
    match is_there(&host, name) {
        true => Ok(()),
        false => Err(unfit(format!(
            "{package} is installed and brought no {name}"
        ))),
    }
}

fn is_there(host: &HostView, name: &str) -> bool {
    let path = Path::new(name);
    (path.is_absolute() && path.exists()) || host.find_program(name).is_some()
}

/// The kernel that machines boot, and their BusyBox, fetched when the cache has none.
async fn kernel(runner: &mut Runner, cache: Cache, host: &HostView) -> anyhow::Result<Kernel> {
    if host.cached_kernel.is_none() {
        talk::say(
            "xtask: set-up: will fetch a guest kernel into the cache: this distribution's own package, as this user",
        );
    }
    let obtained = tokio::task::spawn_blocking(move || {
        image::busybox(&cache).map_err(|error| unfit(error.to_string()))?;
        Kernel::obtain(&cache, &KernelSource::Distribution)
            .map_err(|error| unfit(error.to_string()))
    });
    runner
        .until_interrupted("set-up: kernel and BusyBox", obtained)
        .await??
}

/// Looks, installs what packages bring, looks again; fails when something that blocks is left.
async fn install_missing(runner: &mut Runner, host: &HostView) -> anyhow::Result<Survey> {
    let first = survey(host);
    let packages = first.missing_packages();
    if packages.is_empty() {
        return all_there(first);
    }
    for finding in first.blocking() {
        talk::say(format_args!("xtask: set-up: {}", line(finding)));
    }
    apt::install(runner, host, &packages).await?;
    all_there(survey(host))
}

fn all_there(survey: Survey) -> anyhow::Result<Survey> {
    let lines: Vec<String> = survey.blocking().map(line).collect();
    if lines.is_empty() {
        Ok(survey)
    } else {
        Err(unfit(lines.join("\n  ")))
    }
}

fn unfit(reason: String) -> anyhow::Error {
    Stop::Unfit { reason }.into()
}

fn line(finding: &Finding) -> String {
    let remedy = finding
        .remedy
        .as_ref()
        .map(|remedy| format!("; to get it: {}", remedy.advice))
        .unwrap_or_default();
    format!(
        "{} {}: {}; without it, {}{remedy}",
        finding.requirement.label(),
        finding.state.label(),
        finding.found,
        finding.without
    )
}

fn found(survey: &Survey, requirement: Requirement) -> &str {
    let finding = survey
        .findings
        .iter()
        .find(|finding| finding.requirement == requirement);
    finding.map_or("", |finding| finding.found.as_str())
}
