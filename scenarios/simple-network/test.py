# Three machines see one another; iptables in a guest, and a cut link, part just those they should.

FETCH = "curl -fsS --max-time 5"

print("=== Starting all VMs ===")
start_all()

for node in machines:
    node.wait_for_unit("page.service")
    node.wait_for_open_port(3020)

with subtest("every machine has its name and address"):
    for number, node in enumerate(machines, start=1):
        t.assertEqual(node.succeed("hostname").strip(), node.name)
        assert f"192.168.1.{number}/24" in node.succeed("ip addr show eth1")

with subtest("every pair pings, over IPv4 and IPv6"):
    for source in machines:
        for target in machines:
            source.succeed(f"ping -4 -c 1 {target.name}", f"ping -6 -c 1 {target.name}")

with subtest("every machine fetches every page"):
    for source in machines:
        for target in machines:
            page = source.succeed(f"{FETCH} http://{target.name}:3020/")
            t.assertEqual(page.strip(), target.name)

with subtest("iptables in node1 drops what node2 sends"):
    node1.succeed("iptables -A INPUT -s node2 -j DROP", "ip6tables -A INPUT -s node2 -j DROP")
    node2.fail(f"{FETCH} http://node1:3020/", timeout=30)
    node3.succeed(f"{FETCH} http://node1:3020/")
    node1.succeed("iptables -L -n | grep DROP", "iptables -F", "ip6tables -F")
    node2.wait_until_succeeds(f"{FETCH} http://node1:3020/")

with subtest("one link is cut, without a tool in the guest"):
    network.cut(node1, node2)
    node2.fail(f"{FETCH} http://node1:3020/")
    node1.fail("ping -c 1 -W 1 node2")
    node3.succeed(f"{FETCH} http://node1:3020/")
    network.heal(node1, node2)
    node2.wait_until_succeeds(f"{FETCH} http://node1:3020/")

with subtest("node3 crashes and comes back"):
    node3.crash()
    node1.fail("ping -c 1 -W 1 node3")
    node3.start()
    node3.wait_for_unit("page.service")
    node1.wait_until_succeeds(f"{FETCH} http://node3:3020/")

print("=== All tests passed! ===")
