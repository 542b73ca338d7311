//! Firewalls that scripts put up in machines: one that stops IPv4 alone is no partition, and the log says so.
//!
//! Names of machines resolve to addresses of both families, so what `iptables` drops goes on over IPv6. The twin may be in
//! the same command or in one of the next; so a rule is held against a script only once it goes on to something else.

use std::collections::BTreeSet;

/// Programs in front of the one that is run, and the shell's own words.
const PREFIXES: [&str; 15] = [
    "sudo", "doas", "env", "exec", "command", "nohup", "time", "timeout", "do", "then", "else",
    "if", "while", "{", "!",
];
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
    commands(text)
        .iter()
        .flat_map(|words| deeds_of(words))
        .collect()
}

fn deeds_of(words: &[String]) -> Vec<Deed> {
    let is_prefix = |word: &str| {
        PREFIXES.contains(&word)
            || word.starts_with('-')
            || word.starts_with(|first: char| first.is_ascii_digit())
            || word.contains('=')
    };
    let mut words = words.iter().map(String::as_str);
    let Some(program) = words.find(|word| !is_prefix(word)) else {
        return Vec::new();
    };
    let arguments: Vec<&str> = words.collect();
    let does = |options: &[&str]| {
        let begins = |word: &&str| options.iter().any(|option| word.starts_with(option));
        arguments.iter().any(begins)
    };
    match program.rsplit('/').next().unwrap_or(program) {
        "bash" | "sh" => arguments
            .iter()
            .skip_while(|word| !word.starts_with('-') || !word.ends_with('c'))
            .nth(1)
            .map_or_else(Vec::new, |script| deeds(script)),
        "sysctl" if arguments.iter().any(|word| word.ends_with(NO_IPV6)) => {
            vec![Deed::ConcernsIpv6]
        }
        "iptables" | "iptables-legacy" | "iptables-nft" => {
            let stops = |word: &&str| {
                let target = word.trim_start_matches("-j").trim_start_matches("--jump=");
                matches!(target, "DROP" | "REJECT")
            };
            vec![match arguments.iter().any(stops) && does(&ADDING) {
                true => Deed::StopsIpv4,
                false if does(&["-F", "--flush"]) => Deed::FlushesIpv4,
                false => Deed::Other,
            }]
        }
        "nft" => match arguments.iter().any(|word| matches!(*word, "inet" | "ip6")) {
            true => vec![Deed::ConcernsIpv6],
            false => vec![Deed::Other],
        },
        program if program.starts_with("ip6tables") => vec![Deed::ConcernsIpv6],
        program if program.starts_with("iptables-") => vec![Deed::Other],
        _ => Vec::new(),
    }
}

/// The words of each command of a shell text, without their quotes; whatever a shell would make of the rest.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match characters.next() {
                None | Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, '\n' | ';' | '&' | '|' | '(' | ')' | '`') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
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
