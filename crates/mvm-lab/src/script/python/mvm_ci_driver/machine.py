"""A machine as test scripts know it: the names, defaults and meanings of the NixOS test driver, and verbs of our own."""

import re
import shlex
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple, Union

from mvm_ci_driver.duration import DEFAULT, Duration, seconds
from mvm_ci_driver.engine import Engine
from mvm_ci_driver.errors import RequestedAssertionFailed, not_there
from mvm_ci_driver.log import Logger

# Statuses that no command has, for those that were not asked for.
STATUS_UNCHECKED = -1
STATUS_DETACHED = -2
# Of a pipeline whose end did not read all, since scripts' shells have `pipefail` set.
STATUS_BROKEN_PIPE = 128 + signal.SIGPIPE
# How much of a wait for something that may never come one request takes.
PIECE_SECONDS = 1.0
QMP_EVENT_DEFAULT = timedelta(minutes=10)

SCREEN = "machines have no screen here"
KEYBOARD = "machines have no keyboard here; send_console() writes to the serial console"
UEFI = "machines boot without UEFI"


class Started:
    """A command that was started and runs beside the script; see `exec_async`."""

    def __init__(self, machine: "Machine", number: int, command: str) -> None:
        self._number = number
        self.machine = machine
        self.command = command

    def wait(self, timeout: Optional[Duration] = None) -> Tuple[int, str]:
        """Waits for the end; the status, and standard output. Raises when the time is up: it runs on then."""
        ended = self._ask("wait_started", timeout=seconds(timeout))
        return ended["status"], ended["stdout"]

    def running(self) -> bool:
        return bool(self._ask("started_runs"))

    def output(self) -> str:
        """Standard output so far."""
        return str(self._ask("started_output"))

    def kill(self) -> None:
        self._ask("kill_started")

    def _ask(self, verb: str, **arguments: Any) -> Any:
        return self.machine._ask(verb, number=self._number, **arguments)

    def __repr__(self) -> str:
        return f"<{self.command!r} on {self.machine.name}>"


class Machine:
    def __init__(self, engine: Engine, log: Logger, told: Dict[str, Any]) -> None:
        self._engine = engine
        self._log = log
        self._console_at = 0
        self.name: str = told["name"]
        self.out_dir = Path(told["out_dir"])
        self.shared_dir = Path(told["shared_dir"])
        self.state_dir = Path(told["out_dir"]) / self.name

    def __repr__(self) -> str:
        return f"<machine {self.name}>"

    # Life

    def start(self, allow_reboot: bool = False) -> None:
        """Starts the machine, without waiting until it is up. No effect if it was started.

        A guest that reboots ends its machine, which the next command starts again, whatever `allow_reboot` says.
        """
        self._ask("start")

    def connect(self) -> None:
        """Waits until the machine is up; starts it if needed, as every command does."""
        self._ask("connect")

    def shutdown(self) -> None:
        """Powers the machine off in order, and waits until it is off."""
        self._ask("shutdown")

    def wait_for_shutdown(self, timeout: Optional[Duration] = None) -> None:
        self._ask("wait_for_shutdown", timeout=seconds(timeout))

    def crash(self) -> None:
        """Ends the machine at once. Its disks keep what it flushed."""
        self._ask("crash")

    def release(self) -> None:
        self.crash()

    def reboot(self) -> None:
        """Powers the machine off in order and starts it again."""
        self._ask("reboot")

    def pause(self) -> None:
        """Stops the machine's processors, and its clocks with them."""
        self._ask("pause")

    def resume(self) -> None:
        self._ask("resume")

    def is_up(self) -> bool:
        return bool(self._tell("is_up"))

    @property
    def booted(self) -> bool:
        return self.is_up()

    @property
    def connected(self) -> bool:
        return self.is_up()

    @property
    def pid(self) -> Optional[int]:
        found = self._tell("pid")
        return None if found is None else int(found)

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Optional[Duration] = DEFAULT,
    ) -> Tuple[int, str]:
        """Runs a command by bash, as root in /tmp. The status (124 when the time was up), and standard output."""
        if not check_output:
            self._ask("spawn", command=command)
            return STATUS_DETACHED, ""
        output = self._ask("execute", command=command, timeout=seconds(timeout))
        status = int(output["status"]) if check_return else STATUS_UNCHECKED
        return status, output["stdout"]

    def run(self, command: str, timeout: Optional[Duration] = DEFAULT) -> Tuple[int, str, str]:
        """As execute, with standard error as well."""
        output = self._ask("execute", command=command, timeout=seconds(timeout))
        return int(output["status"]), output["stdout"], output["stderr"]

    def exec_async(self, command: str) -> Started:
        """Starts a command that runs beside the script."""
        number = self._ask("begin", command=command)
        return Started(self, number, command)

    def succeed(self, *commands: str, timeout: Optional[Duration] = None) -> str:
        """Every command must exit with 0. What they wrote to standard output, in a row."""
        return self._each("must succeed", commands, timeout, lambda status: status == 0)

    def fail(self, *commands: str, timeout: Optional[Duration] = None) -> str:
        """Every command must exit with another status than 0."""
        return self._each("must fail", commands, timeout, lambda status: status != 0)

    def _each(
        self,
        what: str,
        commands: Tuple[str, ...],
        timeout: Optional[Duration],
        holds: Callable[[int], bool],
    ) -> str:
        written = ""
        for command in commands:
            output = self._ask("execute", command=command, timeout=seconds(timeout), told_as=what)
            status = int(output["status"])
            if not holds(status):
                raise RequestedAssertionFailed(failed_command(self.name, what, command, output))
            written += output["stdout"]
        return written

    def wait_until_succeeds(self, command: str, timeout: Optional[Duration] = DEFAULT) -> str:
        return str(self._wait("wait_until", command=command, succeeds=True, timeout=seconds(timeout)))

    def wait_until_fails(self, command: str, timeout: Optional[Duration] = DEFAULT) -> str:
        return str(self._wait("wait_until", command=command, succeeds=False, timeout=seconds(timeout)))

    def sleep(self, secs: Optional[Duration] = None, duration: Optional[Duration] = None) -> None:
        """Sleeps in the guest's time: while the machine is paused, this does not end."""
        chosen = seconds(secs if duration is None else duration)
        if chosen is None:
            raise ValueError("sleep() needs a duration")
        self.succeed(f"sleep {chosen}")

    # Units

    def systemctl(self, q: str, user: Optional[str] = None) -> Tuple[int, str]:
        output = self._ask("systemctl", arguments=q, user=user)
        return int(output["status"]), output["stdout"]

    def start_job(self, jobname: str, user: Optional[str] = None) -> Tuple[int, str]:
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: Optional[str] = None) -> Tuple[int, str]:
        return self.systemctl(f"stop {jobname}", user)

    def wait_for_unit(
        self, unit: str, user: Optional[str] = None, timeout: Optional[Duration] = DEFAULT
    ) -> None:
        """Waits until a unit is active; fails early if it failed, or is inactive with nothing under way."""
        self._wait("wait_for_unit", unit=unit, user=user, timeout=seconds(timeout))

    def get_unit_info(self, unit: str, user: Optional[str] = None) -> Dict[str, str]:
        return dict(self._ask("unit", unit=unit, user=user)["properties"])

    def get_unit_property(self, unit: str, property: str, user: Optional[str] = None) -> str:
        info = self.get_unit_info(unit, user)
        if property not in info:
            raise RequestedAssertionFailed(f"unit {unit} on {self.name} has no property {property}")
        return info[property]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        state = self._ask("unit", unit=unit, user=None)["active_state"]
        if state != require_state:
            raise RequestedAssertionFailed(
                f"unit {unit} on {self.name} is {state}, it was to be {require_state}"
            )

    # Waits

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: Optional[Duration] = DEFAULT
    ) -> None:
        self._wait("wait_for_port", port=int(port), address=addr, open=True, timeout=seconds(timeout))

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: Optional[Duration] = DEFAULT
    ) -> None:
        self._wait("wait_for_port", port=int(port), address=addr, open=False, timeout=seconds(timeout))

    def wait_for_open_unix_socket(
        self, addr: str, is_datagram: bool = False, timeout: Optional[Duration] = DEFAULT
    ) -> None:
        flags, bound = ("-uU", '$5 == "0002"') if is_datagram else ("-U", '$4 == "00010000"')
        path = shlex.quote(addr)
        # BusyBox's nc knows no such sockets. There the kernel's list tells: of its columns, 4 has the flags (00010000
        # of one that accepts connections), 5 the type, and 8 the path.
        listed = f"""awk -v a={path} -v b="$(readlink -f {path})" '{bound} && ($8 == a || $8 == b) {{ there = 1 }} END {{ exit !there }}'"""
        self.wait_until_succeeds(
            f"if [[ $(nc -h 2>&1) == *-U* ]]; then nc -z {flags} {path}; else {listed} /proc/net/unix; fi", timeout
        )

    def wait_for_file(self, filename: str, timeout: Optional[Duration] = DEFAULT) -> None:
        # Patterns, variables and `~` are the shell's.
        word = filename if re.search(r"[*?[$~]", filename) else shlex.quote(filename)
        self.wait_until_succeeds(f"test -e {word}", timeout)

    def wait_for_console_text(self, regex: str, timeout: Optional[Duration] = None) -> None:
        """Waits for text on the serial console that came since the last such wait, on one line or several."""
        pattern = re.compile(regex, re.MULTILINE)
        left = seconds(timeout)
        whole, begun = "", ""
        while True:
            piece = PIECE_SECONDS if left is None else min(PIECE_SECONDS, left)
            told = self._ask("console", start=self._console_at + whole.count("\n"), begun=begun, wait=piece)
            whole += "".join(f"{line}\n" for line in told["lines"])
            begun = told["begun"]
            seen = whole + begun
            found = pattern.search(seen)
            if found:
                self._console_at += seen[: found.end()].rstrip("\n").count("\n") + 1
                return
            if left is not None:
                left -= told["waited"]
                if left <= 0:
                    raise RequestedAssertionFailed(f"{regex!r} did not appear on the console of {self.name}")

    # Files

    def copy_from_host(self, source: Union[str, Path], target: str) -> None:
        """Copies a file or a folder of the host to the guest."""
        self._ask("copy_from_host", source=str(Path(source).absolute()), target=target)

    def copy_from_host_via_shell(self, source: Union[str, Path], target: str) -> None:
        self.copy_from_host(source, target)

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file or a folder of the guest to a folder below the run's."""
        self._ask("copy_from_machine", source=source, target=target_dir)

    def copy_from_vm(self, source: str, target_dir: str = "") -> None:
        self.copy_from_machine(source, target_dir)

    # Consoles and QEMU

    def send_console(self, chars: str) -> None:
        self._ask("send_console", text=chars)

    def get_console_log(self) -> str:
        return "\n".join(self._tell("console", start=0, wait=0.0)["lines"])

    def shell_interact(self, address: Optional[str] = None) -> None:
        """A terminal in the guest. Ctrl-] leaves it."""
        if address is not None:
            raise not_there("shell_interact(address)", "the terminal is always this one")
        self._ask("connect")
        self._attach("ssh")

    def console_interact(self) -> None:
        """The serial console. Ctrl-] leaves it."""
        self._attach("console")

    def ssh_backdoor_command(self) -> str:
        return str(self._tell("attach_command", kind="ssh")["shown"])

    def _attach(self, kind: str) -> None:
        import subprocess

        told = self._tell("attach_command", kind=kind)
        subprocess.run(told["command"], check=False)

    def send_monitor_command(self, command: str) -> str:
        """A command of QEMU's human monitor."""
        return str(self._ask("monitor", command=command))

    def wait_for_qmp_event(
        self, event_filter: Callable[[Dict[str, Any]], bool], timeout: Optional[Duration] = QMP_EVENT_DEFAULT
    ) -> Dict[str, Any]:
        """Waits for an event of QEMU's that the filter takes; those that came before the call count, each once."""
        allowed = seconds(timeout)
        began = time.monotonic()
        while True:
            event: Optional[Dict[str, Any]] = self._ask("monitor_event", wait=PIECE_SECONDS)
            if event is not None and event_filter(event):
                return event
            if allowed is not None and time.monotonic() - began >= allowed:
                raise RequestedAssertionFailed(f"QEMU told no such event of {self.name} within {allowed} seconds")

    def forward_port(self, host_port: int = 8080, guest_port: int = 80) -> None:
        """Forwards a port of the host's loopback to one of the machine, whatever becomes of the network."""
        self._ask("forward_port", host_port=int(host_port), guest_port=int(guest_port))

    def block(self) -> None:
        """Pulls the cable of eth1; other cards stay. `network.isolate` cuts all of them."""
        self._ask("block", blocked=True)

    def unblock(self) -> None:
        self._ask("block", blocked=False)

    # The log

    def log(self, msg: str) -> None:
        self._log.log(msg, {"machine": self.name})

    def log_serial(self, msg: str) -> None:
        self._log.log_serial(msg, self.name)

    def nested(self, msg: str, attrs: Optional[Dict[str, str]] = None) -> ContextManager[None]:
        return self._log.nested(msg, {"machine": self.name, **(attrs or {})})

    # What is not there: screens, keyboards, UEFI, and QEMU's own sockets

    def screenshot(self, filename: str) -> None:
        raise not_there("screenshot()", SCREEN)

    def get_screen_text(self) -> str:
        raise not_there("get_screen_text()", SCREEN)

    def get_screen_text_variants(self) -> List[str]:
        raise not_there("get_screen_text_variants()", SCREEN)

    def get_window_names(self) -> List[str]:
        raise not_there("get_window_names()", SCREEN)

    def wait_for_text(self, regex: str, timeout: Optional[Duration] = DEFAULT) -> None:
        raise not_there("wait_for_text()", SCREEN)

    def wait_for_window(self, regexp: str, timeout: Optional[Duration] = DEFAULT) -> None:
        raise not_there("wait_for_window()", SCREEN)

    def wait_for_x(self, timeout: Optional[Duration] = DEFAULT) -> None:
        raise not_there("wait_for_x()", SCREEN)

    def get_tty_text(self, tty: str) -> str:
        raise not_there("get_tty_text()", SCREEN)

    def dump_tty_contents(self, tty: str) -> None:
        raise not_there("dump_tty_contents()", SCREEN)

    def wait_until_tty_matches(self, tty: str, regexp: str, timeout: Optional[Duration] = DEFAULT) -> None:
        raise not_there("wait_until_tty_matches()", SCREEN)

    def send_key(self, key: str, delay: Any = timedelta(milliseconds=10), log: bool = True) -> None:
        raise not_there("send_key()", KEYBOARD)

    def send_chars(self, chars: str, delay: Any = timedelta(milliseconds=10)) -> None:
        raise not_there("send_chars()", KEYBOARD)

    @property
    def process(self) -> None:
        raise not_there("process", "QEMU is not a child of the script's; pid tells its number")

    @property
    def qmp_client(self) -> None:
        raise not_there("qmp_client", "send_monitor_command() and wait_for_qmp_event() are for this")

    def wait_for_monitor_prompt(self) -> str:
        raise not_there("wait_for_monitor_prompt()", "send_monitor_command() waits for its answer")

    def switch_root(self) -> None:
        raise not_there("switch_root()", "machines have one stage of booting")

    def create_efi_vars(self, *_arguments: Any) -> None:
        raise not_there("create_efi_vars()", UEFI)

    def read_efi_vars(self, *_arguments: Any) -> None:
        raise not_there("read_efi_vars()", UEFI)

    def write_efi_vars(self, *_arguments: Any) -> None:
        raise not_there("write_efi_vars()", UEFI)

    def dump_efi_vars(self, *_arguments: Any) -> None:
        raise not_there("dump_efi_vars()", UEFI)

    def _ask(self, verb: str, **arguments: Any) -> Any:
        return self._engine.ask("machine", [self.name, {verb: arguments or None}])

    def _wait(self, verb: str, **arguments: Any) -> Any:
        return self._engine.wait("machine", [self.name, {verb: arguments or None}])

    def _tell(self, verb: str, **arguments: Any) -> Any:
        return self._engine.tell("machine", [self.name, {verb: arguments or None}])


def failed_command(machine: str, what: str, command: str, output: Dict[str, Any]) -> str:
    """What is said of a command that ended otherwise than it had to."""
    if output["timed_out"]:
        how = "was killed when its time was up (exit code 124)"
    else:
        how = f"ended with exit code {output['status']}"
    if output["status"] == STATUS_BROKEN_PIPE:
        how += " (SIGPIPE: one side of a `|` wrote on when the other had ended, as `grep -q` does at its first find)"
    shown = "".join(
        f"\n  {name}: {output[name].rstrip()[-2000:]}"
        for name in ("stdout", "stderr")
        if output[name].strip()
    )
    return f"command `{command}` on {machine} {what}, and {how}{shown}"
