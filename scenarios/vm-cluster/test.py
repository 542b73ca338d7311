# The three-node cluster: formation, replication, partition by iptables in the guests, crash and restart.

import json

CURL = "curl -fsS --max-time 5"


def submit(url):
    """The command that submits a job; under one key, so that one that is repeated makes no second job."""
    body = json.dumps({"url": url})
    headers = f"-H 'content-type: application/json' -H 'idempotency-key: {url}'"
    return f"{CURL} -X POST {headers} -d '{body}' http://localhost:3020/new-job"


def jobs(node):
    return int(node.succeed(f"{CURL} http://localhost:3020/queue/list | jq '.jobs | length'"))


def has_jobs(count):
    return lambda nodes: all(jobs(node) == count for node in nodes if node.booted)


print("=== Starting all VMs ===")
start_all()
for node in machines:
    node.wait_for_unit("mvm-ci.service")
    node.wait_for_open_port(3020)
    node.wait_for_open_port(27288)

with subtest("the cluster forms"):
    for node in machines:
        node.wait_until_succeeds(f"{CURL} http://localhost:3020/ready", timeout=120)
        node.succeed("ss -tlnp | grep 3020", "ss -tlnp | grep 9000", "journalctl -u mvm-ci.service | grep -c .")

with subtest("each node has a workflow service of its own"):
    for node in machines:
        node.succeed(f"{CURL} http://localhost:27288/version", "ss -tlnp | grep 27288")

with subtest("a job submitted to node1 appears on all"):
    node1.succeed(submit("https://example.com/1"))
    wait_for_cluster(has_jobs(1), timeout=120)

with subtest("node1 partitioned: the majority goes on, the minority refuses"):
    for other in ("192.168.1.2", "192.168.1.3"):
        for tables in ("INPUT -s", "OUTPUT -d"):
            node1.succeed(f"iptables -A {tables} {other} -j DROP")
    for other in ("2001:db8:1::2", "2001:db8:1::3"):
        node1.succeed(f"ip6tables -A INPUT -s {other} -j DROP")
    node1.fail(submit("https://example.com/no"))
    node2.wait_until_succeeds(submit("https://example.com/2"), timeout=120)
    node1.succeed("iptables -F", "ip6tables -F")
    wait_for_cluster(has_jobs(2), timeout=120)

with subtest("node3 crashes, two of three go on"):
    node3.crash()
    node1.wait_until_succeeds(submit("https://example.com/3"), timeout=120)

with subtest("node3 restarts and replays its log"):
    node3.start()
    node3.wait_for_unit("mvm-ci.service")
    node3.wait_until_succeeds(f"{CURL} http://localhost:3020/ready", timeout=120)
    wait_for_cluster(has_jobs(3), timeout=120)

print("=== All tests passed! ===")
