# An etcd cluster keeps its promises while its network splits and its leader dies.

CTL = "ETCDCTL_API=3 etcdctl --dial-timeout=2s --command-timeout=5s"

start_all()
for node in machines:
    node.wait_for_unit("etcd")
    node.wait_for_open_port(2379)


def leader():
    for node in machines:
        status, told = node.execute(f"{CTL} endpoint status --write-out=simple")
        if status == 0 and told.split(", ")[4] == "true":
            return node
    return None


wait_for_cluster(lambda _nodes: leader(), timeout=120)

with subtest("what one node takes, all have"):
    node1.wait_until_succeeds(f"{CTL} put first one")
    for node in machines:
        t.assertEqual(node.succeed(f"{CTL} get first --print-value-only"), "one\n")

with subtest("a node cut off refuses, the others go on"):
    with network.partitioned([node1], [node2, node3]):
        node2.wait_until_succeeds(f"{CTL} put second two", timeout=60)
        node1.fail(f"{CTL} put second other")
        node1.fail(f"{CTL} get second")
        # What it has is there for whoever asks for that alone.
        t.assertEqual(node1.succeed(f"{CTL} get first --consistency=s --print-value-only"), "one\n")

with subtest("healed, it has what the others took"):
    node1.wait_until_succeeds(f"{CTL} get second --print-value-only | grep -x two", timeout=60)

with subtest("the leader crashes, another leads, nothing is lost"):
    wait_for_cluster(lambda _nodes: leader(), timeout=60)
    old = leader()
    survivors = [node for node in machines if node.name != old.name]
    old.crash()
    survivors[0].wait_until_succeeds(f"{CTL} put third three", timeout=60)
    for node in survivors:
        t.assertEqual(node.succeed(f"{CTL} get second --print-value-only"), "two\n")

with subtest("it comes back with its disk and catches up"):
    old.start()
    old.wait_for_unit("etcd")
    old.wait_until_succeeds(f"{CTL} get third --print-value-only | grep -x three", timeout=60)
