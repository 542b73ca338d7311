# Sentinels make a replica the master when the master's machine dies.

start_all()
for node in machines:
    node.wait_for_unit("redis-server")
    node.wait_for_unit("redis-sentinel")
    node.wait_for_open_port(6379)
    node.wait_for_open_port(26379)


def master(asked):
    told = asked.succeed("redis-cli -p 26379 sentinel get-master-addr-by-name main")
    return told.split()[0]


with subtest("both replicas follow, all sentinels know them and one another"):
    redis1.wait_until_succeeds("redis-cli info replication | grep connected_slaves:2", timeout=60)
    for node in machines:
        # Of replicas they learn by asking the master, every ten seconds. Those they do not know are not chosen.
        for known in ("replicas", "sentinels"):
            node.wait_until_succeeds(
                f"redis-cli -p 26379 sentinel {known} main | grep -xc runid | grep -x 2", timeout=60
            )

with subtest("a write is on the replicas"):
    redis1.succeed("redis-cli set key value && redis-cli wait 2 5000 | grep -x 2")
    for node in (redis2, redis3):
        t.assertEqual(node.succeed("redis-cli get key"), "value\n")

with subtest("the master's machine dies, a replica takes over"):
    redis1.crash()
    # Two of three must agree; when each votes for itself, they vote again twenty seconds later.
    retry(lambda _last: master(redis2) != "192.168.1.1", timeout=300)
    new = master(redis2)
    redis3.wait_until_succeeds(
        f"redis-cli -p 26379 sentinel get-master-addr-by-name main | grep -x {new}", timeout=60
    )
    redis2.wait_until_succeeds(f"redis-cli -h {new} set key newer", timeout=30)

with subtest("the old master comes back as a replica"):
    redis1.start()
    redis1.wait_for_unit("redis-server")
    redis1.wait_until_succeeds("redis-cli info replication | grep role:slave", timeout=90)
    redis1.wait_until_succeeds("redis-cli get key | grep -x newer", timeout=60)
