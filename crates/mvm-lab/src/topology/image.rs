//! What machines boot: the kind of an image, and what it holds beside what every image of its kind has.

use std::path::PathBuf;

/// What an image is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKind {
    /// Kernel, agent and BusyBox, with programs of the host. It boots in a second.
    #[default]
    Minimal,
    /// A Debian suite with systemd, and packages of it.
    Debian,
}

/// Debian's stable suite when this was written.
const SUITE_DEFAULT: &str = "bookworm";

/// What an image holds besides what all of its kind have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageContents {
    /// What it is made of.
    pub kind: ImageKind,
    /// The Debian suite; of no account in a minimal image.
    pub suite: String,
    /// Kernel modules by name, loaded at boot, beyond those that booting needs.
    pub modules: Vec<String>,
    /// Host programs by name or path, brought with the shared libraries they need.
    pub programs: Vec<String>,
    /// Host programs under a name of the guest's own: the host's path, then the guest's.
    pub renamed_programs: Vec<(PathBuf, String)>,
    /// Packages: in a minimal image those of the host whose whole file list is brought, for programs with plug-ins or
    /// tables; in a Debian image those of the suite that are installed.
    pub packages: Vec<String>,
    /// Whether guests can filter, translate and delay packets themselves.
    pub firewall: bool,
}

impl Default for ImageContents {
    fn default() -> ImageContents {
        ImageContents {
            kind: ImageKind::default(),
            suite: SUITE_DEFAULT.to_owned(),
            modules: Vec::new(),
            programs: Vec::new(),
            renamed_programs: Vec::new(),
            packages: Vec::new(),
            firewall: false,
        }
    }
}

/// What iptables, nft and tc ask the kernel for, by what it is used for.
const FIREWALL_MODULES: &[&str] = &[
    // Tables and what their rules look at.
    "nf_tables",
    "nft_compat",
    "nft_ct",
    "nft_fib_inet",
    "nft_limit",
    "nft_log",
    "nft_reject_inet",
    "nf_log_syslog",
    // Addresses put in the place of others.
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "xt_MASQUERADE",
    "xt_REDIRECT",
    "xt_nat",
    // Matches and targets of iptables.
    "xt_LOG",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_limit",
    "xt_mark",
    "xt_multiport",
    "xt_pkttype",
    "xt_state",
    "xt_statistic",
    "xt_string",
    "xt_tcpudp",
    "ip6t_REJECT",
    "ipt_REJECT",
    // Queues of tc.
    "sch_netem",
    "sch_tbf",
    "sch_htb",
    "sch_prio",
    "sch_ingress",
    "cls_u32",
    "act_mirred",
];
/// Debian's packages of the programs, with the plug-ins and tables they read.
const FIREWALL_PACKAGES: &[&str] = &["iptables", "iproute2"];
/// Names of theirs that lead elsewhere, by links that belong to no package. Users may not have their folder in `PATH`.
const FIREWALL_PROGRAMS: &[&str] = &["/usr/sbin/ip6tables", "/usr/sbin/iptables", "/usr/sbin/nft"];
/// Debian's packages that bring the same to a Debian image, which loads modules by itself.
const FIREWALL_DEBIAN_PACKAGES: &[&str] = &["iproute2", "iptables", "nftables"];

impl ImageContents {
    /// Adds what guests need to filter, translate and delay packets themselves: `iptables`, `ip6tables`, `nft`, `tc` and
    /// `ip`, and the kernel modules behind them. For minimal images the host has to have the packages `iptables`,
    /// `nftables` and `iproute2`.
    pub fn firewall(mut self) -> ImageContents {
        self.firewall = true;
        self
    }

    /// What a machine boots that asks for another kind, or for more packages. Packages of the one kind are none of the
    /// other's.
    pub(super) fn of_machine(&self, kind: Option<ImageKind>, packages: &[String]) -> ImageContents {
        let mut contents = self.clone();
        if let Some(kind) = kind.filter(|kind| *kind != self.kind) {
            contents.kind = kind;
            contents.packages.clear();
        }
        contents.packages.extend_from_slice(packages);
        if contents.firewall {
            contents.add_firewall();
        }
        contents.packages.sort_unstable();
        contents.packages.dedup();
        contents
    }

    fn add_firewall(&mut self) {
        let owned = |names: &'static [&'static str]| names.iter().map(|name| (*name).to_owned());
        match self.kind {
            ImageKind::Minimal => {
                self.modules.extend(owned(FIREWALL_MODULES));
                self.packages.extend(owned(FIREWALL_PACKAGES));
                self.programs.extend(owned(FIREWALL_PROGRAMS));
            }
            ImageKind::Debian => self.packages.extend(owned(FIREWALL_DEBIAN_PACKAGES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn packages_are_those_of_the_machines_kind() {
        let whole = ImageContents {
            packages: names(&["tcpdump", "jq"]),
            programs: names(&["curl"]),
            ..ImageContents::default()
        };
        let more = whole.of_machine(None, &names(&["jq", "busybox"]));
        assert_eq!(more.packages, ["busybox", "jq", "tcpdump"]);
        let debian = whole.of_machine(Some(ImageKind::Debian), &names(&["nginx"]));
        assert_eq!(debian.packages, ["nginx"]);
        assert_eq!(debian.programs, ["curl"]);
    }

    #[test]
    fn a_firewall_is_of_the_machines_kind() {
        let whole = ImageContents::default().firewall();
        let minimal = whole.of_machine(None, &[]);
        assert!(minimal.modules.contains(&"nf_tables".to_owned()));
        assert_eq!(minimal.packages, ["iproute2", "iptables"]);
        let debian = whole.of_machine(Some(ImageKind::Debian), &[]);
        assert!(debian.modules.is_empty() && debian.programs.is_empty());
        assert_eq!(debian.packages, ["iproute2", "iptables", "nftables"]);
    }
}
