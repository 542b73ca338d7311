# The three-node cluster: formation, replication, partition by iptables in the guests, crash and restart.

import json

CURL = "curl -fsS --max-time 5"


def submit(node, url):
    body = json.dumps({"url": url})
    return node.succeed(
        f"{CURL} -X POST -H 'content-type: application/json' -d '{body}' http://localhost:3020/new-job"
    )


def jobs(node):
    return int(node.succeed(f"{CURL} http://localhost:3020/queue/list | jq length"))


def has_jobs(count):
    return lambda nodes: all(jobs(node) == count for node in nodes if node.booted)


print("=== Starting all VMs ===")
start_all()
for node in machines:
    node.wait_for_unit("mvm-ci.service")
    node.wait_for_open_port(3020)

with subtest("the cluster forms"):
    for node in machines:
        node.wait_until_succeeds(f"{CURL} http://localhost:3020/ready", timeout=120)
        node.succeed("ss -tlnp | grep 3020", "ss -tlnp | grep 9000", "journalctl -u mvm-ci.service | grep -q .")

with subtest("a job submitted to node1 appears on all"):
    submit(node1, "https://example.com/1")
    wait_for_cluster(has_jobs(1), timeout=30)

with subtest("node1 partitioned: the majority goes on, the minority refuses"):
    for other in ("192.168.1.2", "192.168.1.3"):
        for tables in ("INPUT -s", "OUTPUT -d"):
            node1.succeed(f"iptables -A {tables} {other} -j DROP")
    for other in ("2001:db8:1::2", "2001:db8:1::3"):
        node1.succeed(f"ip6tables -A INPUT -s {other} -j DROP")
    node1.fail(
        f"{CURL} -X POST -H 'content-type: application/json' -d '{{\"url\": \"https://example.com/no\"}}' "
        "http://localhost:3020/new-job"
    )
    node2.wait_until_succeeds(
        f"{CURL} -X POST -H 'content-type: application/json' -d '{{\"url\": \"https://example.com/2\"}}' "
        "http://localhost:3020/new-job",
        timeout=60,
    )
    node1.succeed("iptables -F", "ip6tables -F")
    wait_for_cluster(has_jobs(2), timeout=60)

with subtest("node3 crashes, two of three go on"):
    node3.crash()
    node1.wait_until_succeeds(
        f"{CURL} -X POST -H 'content-type: application/json' -d '{{\"url\": \"https://example.com/3\"}}' "
        "http://localhost:3020/new-job",
        timeout=60,
    )

with subtest("node3 restarts and replays its log"):
    node3.start()
    node3.wait_for_unit("mvm-ci.service")
    node3.wait_until_succeeds(f"{CURL} http://localhost:3020/ready", timeout=120)
    wait_for_cluster(has_jobs(3), timeout=60)

print("=== All tests passed! ===")
