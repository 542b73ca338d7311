//! Firewalls that scripts put up in machines: one that stops IPv4 alone is no partition, and the log says so.
//!
//! Names of machines resolve to addresses of both families, so what `iptables` drops goes on over IPv6. The twin may be in
//! the same command or in one of the next; so a rule is held against a script only once it goes on to something else.

use std::collections::BTreeSet;

use super::shell;

/// What an option of iptables' that adds or replaces a rule, or sets a chain's policy, begins with.
const ADDING: [&str; 8] = [
    "-A",
    "-I",
    "-R",
    "-P",
    "--append",
    "--insert",
    "--replace",
    "--policy",
];
/// What turns IPv6 off altogether.
const NO_IPV6: &str = "disable_ipv6=1";

/// What one command of a shell text does to a machine's firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// It drops or rejects over IPv4 alone.
    StopsIpv4,
    /// It takes rules for IPv4 away.
    FlushesIpv4,
    /// It concerns IPv6 as well.
    ConcernsIpv6,
    /// It looks, allows, or takes one rule away.
    Other,
}

/// The machines with a firewall for IPv4 alone.
#[derive(Debug, Default)]
pub(super) struct Firewalls {
    /// Those that stop IPv4 and may get a twin yet.
    halves: BTreeSet<String>,
    /// Those with a firewall for IPv6, and those that were told of.
    settled: BTreeSet<String>,
}

impl Firewalls {
    /// Takes note of a command before it is run. Returns the machines whose firewall stops IPv4 alone now that the script goes
    /// on to something else; each is told of once.
    pub(super) fn hear(&mut self, machine: &str, command: &str) -> Vec<String> {
        let deeds = deeds(command);
        if deeds.is_empty() {
            let halves = std::mem::take(&mut self.halves);
            self.settled.extend(halves.iter().cloned());
            return halves.into_iter().collect();
        }
        for deed in deeds {
            match deed {
                Deed::StopsIpv4 if !self.settled.contains(machine) => {
                    self.halves.insert(machine.to_owned());
                }
                Deed::FlushesIpv4 => {
                    self.halves.remove(machine);
                }
                Deed::ConcernsIpv6 => {
                    self.halves.remove(machine);
                    self.settled.insert(machine.to_owned());
                }
                Deed::StopsIpv4 | Deed::Other => {}
            }
        }
        Vec::new()
    }
}

/// What is told of a machine whose firewall stops IPv4 alone.
pub(super) fn warning(machine: &str) -> String {
    let variable = machine.replace('-', "_");
    format!(
        "iptables stops IPv4 alone here: IPv6 still passes, and names of machines resolve to both. Add the rule by \
         ip6tables as well, or cut both by network.isolate({variable}) or network.cut({variable}, ...)"
    )
}

/// What the commands of a shell text do to a firewall, in their order; those that have nothing to do with one are left out.
fn deeds(text: &str) -> Vec<Deed> {
    shell::calls(text).iter().filter_map(deed).collect()
}

fn deed(call: &shell::Call) -> Option<Deed> {
    let has = |words: &[&str]| call.has(|word| words.contains(&word));
    let does =
        |options: &[&str]| call.has(|word| options.iter().any(|option| word.starts_with(option)));
    match call.program.as_str() {
        "sysctl" if call.has(|word| word.ends_with(NO_IPV6)) => Some(Deed::ConcernsIpv6),
        "iptables" | "iptables-legacy" | "iptables-nft" => {
            let stops = call.has(|word| {
                let target = word.trim_start_matches("-j").trim_start_matches("--jump=");
                matches!(target, "DROP" | "REJECT")
            });
            Some(match stops && does(&ADDING) {
                true => Deed::StopsIpv4,
                false if does(&["-F", "--flush"]) => Deed::FlushesIpv4,
                false => Deed::Other,
            })
        }
        "nft" if has(&["inet", "ip6"]) => Some(Deed::ConcernsIpv6),
        "nft" => Some(Deed::Other),
        program if program.starts_with("ip6tables") => Some(Deed::ConcernsIpv6),
        program if program.starts_with("iptables-") => Some(Deed::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machines told of, by one machine's commands and an ordinary one after them.
    #[track_caller]
    fn check(commands: &[&str], told: bool) {
        let mut firewalls = Firewalls::default();
        let mut heard = Vec::new();
        for command in commands.iter().chain(&["curl http://node2:3020/"]) {
            heard.extend(firewalls.hear("node1", command));
        }
        let expected: &[&str] = if told { &["node1"] } else { &[] };
        assert_eq!(heard, expected, "{commands:?}");
    }

    #[test]
    fn what_stops_ipv4_alone_is_told_of() {
        for command in [
            "iptables -A INPUT -s node2 -j DROP",
            "iptables -w -I INPUT 1 -s node2 -j REJECT --reject-with icmp-host-prohibited",
            "iptables --append OUTPUT -d 192.168.1.2 --jump DROP",
            "iptables -AINPUT -jDROP",
            "iptables -A INPUT --jump=DROP",
            "iptables -P INPUT DROP",
            "sudo iptables -A INPUT -j DROP",
            "sudo -n /usr/sbin/iptables-legacy -A INPUT -j \"DROP\"",
            "timeout 5 iptables -w 5 -A INPUT -j DROP",
            "true && iptables -A INPUT -j DROP && true",
            "iptables -F\niptables -A INPUT -j DROP\n",
            "for peer in node2 node3; do iptables -A INPUT -s $peer -j DROP; done",
            "if true; then\n  iptables \\\n    -A INPUT -j DROP\nfi",
            "LANG=C iptables -A INPUT -j DROP | tee log",
            "bash -ec 'iptables -A INPUT -j DROP'",
            "(iptables -A INPUT -j DROP) >&2 &",
        ] {
            check(&[command], true);
        }
    }

    #[test]
    fn what_leaves_ipv4_alone_or_stops_both_is_not() {
        for command in [
            "",
            "curl http://node1/",
            "iptables -L -n | grep DROP",
            "iptables -D INPUT -s node2 -j DROP",
            "iptables -A INPUT -p tcp --dport 3020 -j ACCEPT",
            "iptables -A INPUT -j DROP; iptables -F",
            "iptables -A INPUT -j DROP && ip6tables -A INPUT -j DROP",
            "ip6tables -A INPUT -j DROP\niptables -A INPUT -j DROP",
            "for t in iptables; do $t -A INPUT -j DROP; done",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=1 && iptables -A INPUT -j DROP",
            "iptables -A INPUT -j DROP; nft add rule inet filter input drop",
            "nft add rule inet filter input drop",
            "echo iptables -A INPUT -j DROP",
            "# iptables -A INPUT -j DROP",
            "echo 'it is\niptables -A INPUT -j DROP'",
            "echo 'open",
            "echo open\\",
        ] {
            check(&[command], false);
        }
    }

    #[test]
    fn a_twin_may_come_before_or_right_after() {
        const FOUR: &str = "iptables -A INPUT -s node2 -j DROP";
        const SIX: &str = "ip6tables -A INPUT -s node2 -j DROP";
        check(&[FOUR, SIX], false);
        check(&[SIX, FOUR], false);
        check(&[FOUR, FOUR, "iptables -L -n", SIX], false);
        check(&[SIX, "true", FOUR], false);
        check(&[FOUR, "true", SIX], true);
        check(&[FOUR, "iptables -F"], false);
    }

    #[test]
    fn each_machine_is_told_of_once_whoever_goes_on() {
        let mut firewalls = Firewalls::default();
        let rule = "iptables -A INPUT -s node2 -j DROP";
        for machine in ["node1", "node3"] {
            assert!(firewalls.hear(machine, rule).is_empty());
        }
        let none: Vec<String> = Vec::new();
        assert_eq!(firewalls.hear("node3", "ip6tables -A INPUT -j DROP"), none);
        assert_eq!(firewalls.hear("node2", "curl http://node1/"), ["node1"]);
        assert_eq!(firewalls.hear("node1", rule), none);
        assert_eq!(firewalls.hear("node2", "curl http://node1/"), none);
    }
}
