//! All requirements looked at in one pass, and what follows from them together.

use std::collections::BTreeSet;

use serde::Serialize;

use super::checks;
use super::distribution::Distribution;
use super::finding::{Finding, Requirement, State};
use super::view::HostView;

/// What a host has and lacks. Serialises for `mvm-ci doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The host's distribution.
    pub distribution: Distribution,
    /// One finding per requirement, in the order to read them.
    pub findings: Vec<Finding>,
}

/// Looks at every requirement but the accelerator, whose probe boots a guest: see [`Finding::accelerator`].
///
/// Takes some 50 ms, most of it QEMU's and Python's start; blocks the calling thread, at worst 10 s per program that hangs.
#[must_use]
pub fn survey(view: &HostView) -> Survey {
    let distribution = Distribution::detect(&view.root);
    let findings = vec![
        checks::qemu(view, &distribution),
        checks::kernel(view, &distribution),
        checks::mke2fs(view, &distribution),
        checks::busybox(view, &distribution),
        checks::apt(view),
        checks::memory(view),
        checks::cache_folder(view),
        checks::temporary_folder(view),
        checks::python(view, &distribution),
        checks::debian_images(view, &distribution),
    ];
    Survey {
        distribution,
        findings,
    }
}

impl Survey {
    /// Adds a finding that needs more than a look, such as the accelerator's; it goes below QEMU's row.
    pub fn push(&mut self, finding: Finding) {
        let below_qemu = self
            .findings
            .iter()
            .position(|each| each.requirement == Requirement::Qemu)
            .map_or(0, |row| row + 1);
        self.findings.insert(below_qemu, finding);
    }

    /// The findings that keep every machine from booting.
    pub fn blocking(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.blocks())
    }

    /// The findings that are not ok and still let machines boot.
    pub fn advice(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.state != State::Ok && !finding.blocks())
    }

    /// The packages that bring what blocks, sorted, each once.
    #[must_use]
    pub fn missing_packages(&self) -> BTreeSet<&str> {
        let remedies = self
            .blocking()
            .filter_map(|finding| finding.remedy.as_ref());
        remedies
            .flat_map(|remedy| remedy.packages.iter().map(String::as_str))
            .collect()
    }
}
