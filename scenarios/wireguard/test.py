# A WireGuard tunnel between two segments: up, over a lossy link, and up again after a cut.

start_all()
router.succeed("sysctl -w net.ipv4.ip_forward=1")
for node in (left, right):
    node.succeed("modprobe wireguard", "umask 077; wg genkey > ~/private; wg pubkey < ~/private > ~/public")

with subtest("the router carries packets between the segments"):
    # Numbers follow sorted names: left 1, right 2, router 3.
    left.succeed("ip route add 192.168.2.0/24 via 192.168.1.3")
    right.succeed("ip route add 192.168.1.0/24 via 192.168.2.3")
    left.wait_until_succeeds("ping -c 1 -W 2 192.168.2.2", timeout=30)

with subtest("the tunnel comes up"):
    for node, other, inner, outer, peer in (
        (left, right, "10.9.0.1", "192.168.2.2", "10.9.0.2"),
        (right, left, "10.9.0.2", "192.168.1.1", "10.9.0.1"),
    ):
        key = other.succeed("cat ~/public").strip()
        node.succeed(
            "ip link add wg0 type wireguard",
            f"ip addr add {inner}/24 dev wg0",
            f"wg set wg0 listen-port 51820 private-key ~/private peer {key} allowed-ips {peer}/32 endpoint {outer}:51820",
            "ip link set wg0 up",
        )
    left.wait_until_succeeds("ping -c 1 -W 2 10.9.0.2", timeout=60)
    right.succeed("ping -c 1 -W 5 10.9.0.1", "wg show wg0 latest-handshakes | grep -qv '\\s0$'")

with subtest("it carries on over a link that loses a tenth"):
    network.of(router).loss(0.1)
    left.succeed("ping -c 20 -i 0.2 -W 2 10.9.0.2 | grep -E ' ([0-9]|[1-6][0-9])(\\.[0-9]+)?% packet loss'")
    network.all().clear()

with subtest("a cut stops it, healing brings it back"):
    network.isolate(router)
    left.fail("ping -c 2 -W 1 10.9.0.2")
    network.heal()
    left.wait_until_succeeds("ping -c 1 -W 2 10.9.0.2", timeout=60)
