"""The prompt: the names of a script, by hand, with history and completion; the log appears above the line being typed."""

import atexit
import code
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Dict

from mvm_ci_driver import script
from mvm_ci_driver.engine import Engine

HISTORY_LINES = 10_000
CLEAR_LINE = "\r\x1b[K"
BANNER = """\
Machines: {machines}
start_all(), NAME.succeed("..."), NAME.shell_interact(), network.status(), test_script(); help(NAME) tells more.
Ctrl-C ends a wait, Ctrl-D ends all.\
"""


class Prompt(code.InteractiveConsole):
    def showtraceback(self) -> None:
        """Errors without the frames of this driver."""
        error = sys.exc_info()[1]
        if error is not None:
            self.write(script.told(error) + "\n")


class Above:
    """Prints lines of the log above the prompt, if one is shown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prompt = ""

    def ask(self, prompt: str = "") -> str:
        with self._lock:
            self._prompt = prompt
        # A line that comes before the prompt is there brings one along, which is taken back.
        back = f"\001{CLEAR_LINE}\002" if sys.stdout.isatty() else ""
        try:
            return input(f"{back}{prompt}")
        finally:
            self._prompt = ""

    def show(self, line: str) -> None:
        with self._lock:
            # In one piece, since what the prompt shows comes from another thread.
            if self._prompt and sys.stdout.isatty():
                sys.stdout.write(f"{CLEAR_LINE}{line}\n{self._prompt}{typed()}")
            else:
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def typed() -> str:
    try:
        import readline
    except ImportError:
        return ""
    return readline.get_line_buffer()


def remember(names: Dict[str, Any]) -> None:
    """Completion, and a history that the next session finds."""
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    history = state / "mvm-ci" / "repl-history"
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        readline.read_history_file(history)
    except OSError:
        return
    readline.set_history_length(HISTORY_LINES)
    atexit.register(readline.write_history_file, history)


def take_terminal() -> None:
    """Comes to the front: Ctrl-C is for what is typed here, not for the engine."""
    if not os.isatty(0):
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())


def run(engine: Engine, names: Dict[str, Any]) -> int:
    take_terminal()
    above = Above()
    engine.on_event = lambda event: above.show(event["line"])
    remember(names)
    prompt = Prompt(names)
    prompt.raw_input = above.ask  # type: ignore[method-assign]
    machines = ", ".join(machine.name for machine in names["machines"])
    prompt.interact(banner=BANNER.format(machines=machines), exitmsg="")
    return 0
