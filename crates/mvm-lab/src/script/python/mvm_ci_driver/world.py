"""The names that a test script finds."""

import functools
import os
import re
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from mvm_ci_driver.duration import DEFAULT, Duration
from mvm_ci_driver.engine import Engine
from mvm_ci_driver.errors import MachineError, PollingConditionError, RequestedAssertionFailed, not_there
from mvm_ci_driver.log import Logger
from mvm_ci_driver.machine import Machine
from mvm_ci_driver.network import Network, Vlan
from mvm_ci_driver.waiting import PollingConditions, retry


class AssertionTester(unittest.TestCase):
    """The `t` of scripts: what it finds wrong is a failed assertion of theirs."""

    failureException = RequestedAssertionFailed

    def runTest(self) -> None:
        """Only the assertions are used."""


class Driver:
    def __init__(self, machines: List[Machine], vlans: List[Vlan], out_dir: Path, log: Logger) -> None:
        self.machines = machines
        self.machines_qemu = machines
        self.machines_nspawn: List[Machine] = []
        self.vlans = vlans
        self.out_dir = out_dir
        self.logger = log


class Debug:
    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Nothing: `mvm-ci test --pause-on-failure` and `mvm-ci repl` are for this."""


def variable(name: str) -> str:
    """The name of a machine's variable."""
    return re.sub(r"\W", "_", name)


class World:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        told = engine.tell("test", {"hello": None})
        self.log = Logger(engine)
        self.machines = [Machine(engine, self.log, machine) for machine in told["machines"]]
        self.vlans = [Vlan(number) for number in told["segments"]]
        self._conditions = PollingConditions()
        engine.before_each = self._conditions.check
        self._out_dir = Path(told["out_dir"])

    def names(self) -> Dict[str, Any]:
        """The globals of a script."""
        names: Dict[str, Any] = {
            "start_all": self.start_all,
            "join_all": self.join_all,
            "subtest": self.log.subtest,
            "retry": retry,
            "polling_condition": self._conditions.decorate,
            "wait_for_cluster": self.wait_for_cluster,
            "create_machine": self.create_machine,
            "machines": self.machines,
            "machines_qemu": self.machines,
            "machines_nspawn": [],
            "vlans": self.vlans,
            "network": Network(self._engine),
            "driver": Driver(self.machines, self.vlans, self._out_dir, self.log),
            "log": self.log,
            "t": AssertionTester(),
            "debug": Debug(),
            "dump_machine_ssh": self.dump_machine_ssh,
            "serial_stdout_on": lambda: self.log.print_serial_logs(True),
            "serial_stdout_off": lambda: self.log.print_serial_logs(False),
            "os": os,
            "Machine": Machine,
            "BaseMachine": Machine,
            "QemuMachine": Machine,
            "NspawnMachine": Machine,
            "RequestedAssertionFailed": RequestedAssertionFailed,
            "MachineError": MachineError,
            "PollingConditionError": PollingConditionError,
        }
        names.update({f"vlan{vlan.nr}": vlan for vlan in self.vlans})
        names.update({variable(machine.name): machine for machine in self.machines})
        if len(self.machines) == 1:
            names["machine"] = self.machines[0]
        return names

    def start_all(self) -> None:
        """Starts every machine, without waiting until they are up."""
        for machine in self.machines:
            machine.start()

    def join_all(self) -> None:
        """Waits until every machine is off."""
        for machine in self.machines:
            machine.wait_for_shutdown()

    def wait_for_cluster(
        self, predicate: Callable[[List[Machine]], Any], timeout: Optional[Duration] = DEFAULT
    ) -> None:
        """Waits until the predicate is true of the machines; a command that fails in it is a no."""

        @functools.wraps(predicate)
        def holds(last: bool) -> Any:
            try:
                return predicate(self.machines)
            except RequestedAssertionFailed:
                if last:
                    raise
                return False

        retry(holds, timeout=timeout)

    def create_machine(self, *_arguments: Any, **_named: Any) -> Machine:
        raise not_there("create_machine()", "all machines are in the topology file")

    def dump_machine_ssh(self) -> None:
        for machine in self.machines:
            self.log.info(machine.ssh_backdoor_command())
