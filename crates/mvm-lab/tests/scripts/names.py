# Each name that scripts of the NixOS test driver use, with what it must mean. Run by tests/scripts.rs.

import json
import re
import time
from datetime import timedelta
from typing import Callable

# A module beside the script, whatever it is called.
import engine

assert engine.WHOSE == "the script"

# Globals.
t.assertEqual([machine.name for machine in machines], ["node1", "server-lazy", "untouched"])
assert driver.machines == machines and machines_qemu == machines and machines_nspawn == []
t.assertEqual([vlan.nr for vlan in vlans], [1, 2])
assert vlan1.nr == 1 and os.path.exists("/")
check: Callable[[Machine], str] = lambda node: node.succeed("hostname")
assert isinstance(node1, QemuMachine) and isinstance(node1, BaseMachine)
assert not node1.booted and not server_lazy.is_up()
print("a printed line")
log.info("a line of the log")
node1.log("a line of the machine's")
with log.nested("a nested group"):
    node1.log("nested")

# Starting does not wait, and commands do.
node1.start()
node1.start()
t.assertEqual(check(node1), "node1\n")
assert node1.booted and node1.connected and node1.pid > 0

# Commands: bash, strict, as root in /tmp, with the newline, standard output alone.
t.assertEqual(node1.execute("echo out; echo err >&2; exit 4"), (4, "out\n"))
t.assertEqual(node1.execute("true", check_return=False)[0], -1)
t.assertEqual(node1.execute("sleep 1000", check_output=False), (-2, ""))
t.assertEqual(node1.succeed("pwd; echo $HOME; id -un"), "/tmp\n/root\nroot\n")
t.assertEqual(node1.succeed("echo $OWN"), "a word of its own\n")
t.assertEqual(node1.succeed(timeout=5), "")
t.assertEqual(node1.succeed("echo one", "echo two"), "one\ntwo\n")
t.assertEqual(node1.fail("echo bad; exit 1", "echo worse; exit 2"), "bad\nworse\n")
node1.fail("false | true")
node1.fail("echo $not_set")
node1.succeed("[[ abc == a* ]]")
t.assertEqual(node1.execute("sleep 1000", timeout=0.3)[0], 124)
t.assertEqual(node1.execute("sleep 1000", timeout=timedelta(milliseconds=300))[0], 124)
t.assertEqual(node1.succeed("printf '\\xff'"), "\ufffd")
t.assertEqual(len(node1.succeed("head -c 300000 /dev/zero | tr '\\0' x")), 300000)
node1.succeed("echo to standard error >&2")
bound = node1.fail
bound("false")

# A background job that leaves standard output alone does not keep the command, and lives on.
node1.succeed("(sleep 1; echo > /tmp/later) >&2 &")
node1.wait_for_file("/tmp/later")
node1.wait_for_file("/tmp/lat*")
node1.wait_for_file("$HOME")
node1.succeed("touch '/tmp/two words'")
node1.wait_for_file("/tmp/two words", timeout=5)

# A folder in common with the host.
node1.succeed("echo from the machine > /tmp/shared/word")
t.assertEqual((node1.shared_dir / "word").read_text(), "from the machine\n")
(node1.shared_dir / "word").write_text("from the host")
t.assertEqual(node1.succeed("cat /tmp/shared/word"), "from the host")

# Waits.
node1.wait_until_succeeds("true")
node1.wait_until_fails("test -e /tmp/absent", timeout=5)
# One that is killed when its time is up has failed, as with fail().
node1.fail("sleep 1000", timeout=0.3)
node1.wait_until_fails("sleep 1000", timeout=0.3)
node1.execute("(sleep 0.5; touch /tmp/soon) >&2 &")
t.assertEqual(node1.wait_until_succeeds("test -e /tmp/soon && echo there"), "there\n")
node1.wait_for_open_port(8080)
node1.wait_for_open_port(8080, "127.0.0.1", timeout=10)
node1.wait_for_closed_port(8081)
node1.succeed("mkdir -p /tmp/sockets && ln -s . /tmp/sockets/link && syslogd")
node1.execute("openssl s_server -unix /tmp/sockets/stream -nocert >&2 &")
node1.wait_for_open_unix_socket("/tmp/sockets/stream", timeout=30)
node1.wait_for_open_unix_socket("/tmp/sockets/link/stream", timeout=30)
node1.wait_for_open_unix_socket("/dev/log", is_datagram=True, timeout=30)
for absent, is_datagram in (("/tmp/sockets/none", False), ("/tmp/sockets/stream", True), ("/dev/log", False)):
    with t.assertRaises(RequestedAssertionFailed):
        node1.wait_for_open_unix_socket(absent, is_datagram, timeout=0.5)
node1.succeed("echo a word on the console > /dev/console")
node1.wait_for_console_text(r"a \w+ on the")
assert "a word on the console" in node1.get_console_log()
node1.succeed("printf 'what is your name? ' > /dev/console")
node1.wait_for_console_text(r"your name\? $", timeout=30)
node1.succeed("echo > /dev/console")
serial_stdout_on()
node1.succeed("echo on the console and in the log > /dev/console")
node1.wait_for_console_text("and in the log", timeout=30)
serial_stdout_off()
node1.succeed("echo on the console alone > /dev/console")
node1.wait_for_console_text("console alone", timeout=30)
node1.sleep(0.1)
tries = []
retry(lambda last: tries.append(last) or len(tries) > 1, timeout_seconds=30)
t.assertEqual(tries, [False, False])
wait_for_cluster(lambda all_of_them: node1.succeed("true") == "")

# QEMU's own events.
node1.send_monitor_command("stop")
node1.send_monitor_command("cont")
t.assertEqual(node1.wait_for_qmp_event(lambda event: event["event"] == "STOP", timeout=30)["event"], "STOP")
with t.assertRaises(RequestedAssertionFailed):
    node1.wait_for_qmp_event(lambda event: event["event"] == "STOP", timeout=0.1)

# Units: the topology's services, and the targets that tests wait for.
node1.wait_for_unit("web")
node1.wait_for_unit("web.service", timeout=10)
node1.wait_for_unit("multi-user.target")
t.assertEqual(node1.get_unit_info("web")["ActiveState"], "active")
t.assertEqual(node1.get_unit_property("web", "SubState"), "running")
node1.require_unit_state("web")
t.assertEqual(node1.succeed("cat /srv/own"), "a word of its own\n")
t.assertEqual(node1.systemctl("is-active web")[0], 0)
node1.stop_job("web")
node1.require_unit_state("web", "inactive")
node1.wait_for_closed_port(8080)
node1.start_job("web")
node1.wait_for_open_port(8080)
node1.start_job("broken")
retry(lambda last: node1.get_unit_property("broken", "ActiveState") == "failed", timeout=30)
try:
    node1.wait_for_unit("broken")
    raise AssertionError("a broken unit was waited for")
except RequestedAssertionFailed as error:
    assert "failed" in str(error), error

# Polling conditions, with and without arguments.
looked = []


@polling_condition
def node1_answers():
    "node1 answers"
    looked.append(1)
    node1.succeed("true")


@polling_condition(seconds_interval=0.01, description="never")
def never():
    return False


with node1_answers:
    node1.succeed("true")
assert looked
with t.assertRaises(PollingConditionError):
    with never:
        node1.succeed("true")
node1_answers.wait()

# One that ends while something is waited for ends the wait.
for wait in (
    lambda: node1.wait_until_succeeds("false"),
    lambda: node1.wait_until_fails("true"),
    lambda: node1.wait_for_open_port(9),
    lambda: node1.wait_for_closed_port(8080),
    lambda: node1.wait_for_console_text("never said"),
):
    looks = []

    @polling_condition(interval=0.01)
    def not_for_long():
        return looks.append(1) or len(looks) < 3

    with t.assertRaises(PollingConditionError):
        with not_for_long:
            wait()

# Beside the script.
started = node1.exec_async("echo begun; sleep 0.2; echo done")
assert started.running()
t.assertEqual(started.wait(timeout=30), (0, "begun\ndone\n"))
killed = node1.exec_async("sleep 1000")
killed.kill()
assert killed.wait(timeout=30)[0] != 0
t.assertEqual(node1.run("echo out; echo err >&2"), (0, "out\n", "err\n"))

# Files.
tree = driver.out_dir / "tree"
(tree / "b").mkdir(parents=True)
(tree / "a").write_text("flat\n")
(tree / "b" / "c").write_text("deep\n")
node1.copy_from_host(tree, "/tmp/tree")
node1.copy_from_host_via_shell(tree / "a", "/tmp/one-file")
t.assertEqual(node1.succeed("cat /tmp/tree/a /tmp/tree/b/c /tmp/one-file"), "flat\ndeep\nflat\n")
# As by cp: into a folder that is there, and seen from where commands are run.
node1.copy_from_host(tree / "a", "/tmp/tree/b/")
node1.copy_from_host(tree, "/tmp/tree/b")
node1.copy_from_host(str(tree / "a"), "relative/flat")
t.assertEqual(node1.succeed("cat tree/b/a tree/b/tree/b/c relative/flat"), "flat\ndeep\nflat\n")
with t.assertRaises(ValueError):
    node1.copy_from_host("/no/such/file", "/tmp/absent-too")
node1.copy_from_machine("/tmp/tree", "copied")
node1.succeed("mkdir -p one/empty; ln -s /tmp/tree/a one/link; echo root > ~/file; ln -s ~/file link")
node1.copy_from_machine("one")
node1.copy_from_machine("link", "copied")
assert (driver.out_dir / "one" / "empty").is_dir()
t.assertEqual((driver.out_dir / "one" / "link").read_text(), "flat\n")
t.assertEqual((driver.out_dir / "copied" / "link").read_text(), "root\n")
with t.assertRaises(RequestedAssertionFailed):
    node1.copy_from_machine("/no/such/file")

# A machine starts with its first command; dashes are underscores; cards are in order.
addresses = server_lazy.succeed("ip -o addr show")
assert "192.168.1.2/24" in addresses and "192.168.2.2/24" in addresses, addresses
assert re.search(r"2001:db8:2::2/64", addresses), addresses
server_lazy.fail("ip route | grep default")
server_lazy.succeed("ping -c 1 node1", "grep -w node1 /etc/hosts")

# There is an eth0, and it leads nowhere.
t.assertEqual(server_lazy.succeed("ls /sys/class/net").split(), ["eth0", "eth1", "eth2", "lo"])
server_lazy.fail("ip addr show eth0 | grep inet")

# block() cuts eth1 and not the channel.
node1.block()
node1.fail("ping -c 1 -W 1 server-lazy")
node1.unblock()
node1.wait_until_succeeds("ping -c 1 -W 1 server-lazy")

# The network.
network.link(node1, "server-lazy").delay(0.05)
began = time.monotonic()
node1.succeed("ping -c 1 server-lazy")
assert time.monotonic() - began > 0.1
network.all().clear()
with network.partitioned([node1], [server_lazy]):
    node1.fail("ping -c 1 -W 1 server-lazy")
    assert ["node1", "server-lazy"] in network.status()["cuts"]
node1.wait_until_succeeds("ping -c 1 -W 1 server-lazy")

# Ends: a crash keeps the disk, a shutdown waits, and so does waiting for one.
node1.succeed("echo kept > /data/kept && sync")
node1.crash()
assert not node1.booted
node1.start()
t.assertEqual(node1.succeed("cat /data/kept"), "kept\n")
node1.pause()
node1.resume()
node1.reboot()
t.assertEqual(node1.succeed("cat /data/kept"), "kept\n")
assert json.loads('{"a": 1}') == {"a": 1}

with subtest("a subtest"):
    node1.shutdown()
    assert not node1.is_up()
    server_lazy.execute("poweroff", check_output=False)
    server_lazy.wait_for_shutdown(timeout=60)
    # One that is starting is waited for, too.
    node1.start()
    with t.assertRaises(RequestedAssertionFailed):
        node1.wait_for_shutdown(timeout=0.5)
