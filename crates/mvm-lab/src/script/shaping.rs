//! Scripts that shape `eth0` by `tc`: no other machine is there, so nothing between machines changes, and the log says so.

use super::shell;

/// The card that leads to no other machine.
const CARD: &str = "eth0";
/// What `tc` calls setting something.
const SETTING: [&str; 3] = ["add", "change", "replace"];

/// Tells whether a shell text shapes what goes out by [`CARD`].
pub(super) fn concerns_eth0(text: &str) -> bool {
    shell::calls(text).iter().any(|call| {
        call.program == "tc"
            && call.has(|word| word == CARD)
            && call.has(|word| SETTING.contains(&word))
    })
}

/// What is told of a machine where that was done.
pub(super) fn warning(machine: &str) -> String {
    let variable = machine.replace('-', "_");
    format!(
        "eth0 leads to no other machine: what tc sets there changes nothing between them. They meet on eth1 upward; or \
         shape the network itself, as by network.sent_by({variable}).delay(0.05)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_on_eth0_is_told_from_all_else() {
        for (text, expected) in [
            ("tc qdisc add dev eth0 root netem delay 50ms", true),
            (
                "true && sudo /sbin/tc qdisc replace dev eth0 root netem loss 1%",
                true,
            ),
            (
                "for c in eth1; do tc qdisc change dev eth0 root netem; done",
                true,
            ),
            ("tc qdisc add dev eth1 root netem delay 50ms", false),
            ("tc qdisc del dev eth0 root", false),
            ("tc qdisc show dev eth0", false),
            ("tc qdisc add dev eth1 root netem; ip addr show eth0", false),
            ("echo tc qdisc add dev eth0", false),
            ("", false),
        ] {
            assert_eq!(concerns_eth0(text), expected, "{text:?}");
        }
    }
}
