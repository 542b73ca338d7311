# Streaming replication: the standby has what the primary acknowledged, and takes its place when it dies.

DATA = "/var/lib/postgresql/15/main"


def sql(node, statement):
    return node.succeed(f'psql -U postgres -AtqX -v ON_ERROR_STOP=1 -c "{statement}"').strip()


start_all()
for node in machines:
    node.wait_for_unit("postgresql")
    node.wait_for_open_port(5432)

with subtest("pg2 becomes a standby of pg1"):
    pg2.systemctl("stop postgresql")
    pg2.succeed(
        f"rm -rf {DATA}",
        f"su postgres -c 'pg_basebackup -h 192.168.1.1 -U postgres -D {DATA} -R -X stream'",
        timeout=120,
    )
    pg2.systemctl("start postgresql")
    pg2.wait_for_unit("postgresql")
    pg1.wait_until_succeeds(
        "psql -U postgres -Atc 'select state from pg_stat_replication' | grep -x streaming", timeout=60
    )

with subtest("commits are waited for on the standby"):
    pg1.succeed("psql -U postgres -c \"alter system set synchronous_standby_names = '*'\" -c 'select pg_reload_conf()'")
    sql(pg1, "create table notes (text text)")
    sql(pg1, "insert into notes values ('first')")
    pg2.wait_until_succeeds("psql -U postgres -Atc 'select text from notes' | grep -x first", timeout=30)
    t.assertEqual(sql(pg2, "select pg_is_in_recovery()"), "t")

with subtest("a cut link holds commits back, and none is lost"):
    with network.partitioned([pg1], [pg2]):
        waiting = pg1.exec_async("psql -U postgres -c \"insert into notes values ('held')\"")
        pg1.wait_until_succeeds(
            "psql -U postgres -Atc \"select wait_event from pg_stat_activity where query like 'insert%held%'\" | grep SyncRep",
            timeout=30,
        )
        assert waiting.running()
    status, _ = waiting.wait(timeout=90)
    t.assertEqual(status, 0)

with subtest("the primary dies, the standby is promoted and has all"):
    pg1.crash()
    sql(pg2, "select pg_promote(true, 60)")
    t.assertEqual(sql(pg2, "select pg_is_in_recovery()"), "f")
    t.assertEqual(sql(pg2, "select string_agg(text, ',' order by text) from notes"), "first,held")
    sql(pg2, "insert into notes values ('third')")
