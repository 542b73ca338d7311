"""Compiling a script, running it, and telling what became of it in the script's own lines."""

import linecache
import sys
import threading
import traceback
from pathlib import Path
from types import CodeType
from typing import Any, Dict, List, Optional, Tuple

from mvm_ci_driver.errors import MachineError, PollingConditionError
from mvm_ci_driver.log import Logger
from mvm_ci_driver.world import variable

# Frames in there say nothing of a script: this driver's, and those of Python's own library, on which it rests.
HIDDEN = (Path(__file__).parent.parent, Path(traceback.__file__).parent)


def compiled(path: str) -> CodeType:
    source = Path(path).read_bytes()
    return compile(source, path, "exec", dont_inherit=True)


def syntax_problem(path: str) -> Optional[str]:
    """What keeps a script from being one, with its line."""
    try:
        compiled(path)
    except (SyntaxError, ValueError) as error:
        return "".join(traceback.format_exception_only(type(error), error)).rstrip()
    return None


def execute(path: Optional[str], names: Dict[str, Any]) -> None:
    """Runs a script with these names as its globals."""
    if path is None:
        raise ValueError("there is no script beside this topology")
    # Modules beside the script are its own.
    folder = str(Path(path).absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    names["__file__"] = path
    exec(compiled(path), names)


def run(path: Optional[str], names: Dict[str, Any]) -> Tuple[str, Optional[str]]:
    """Runs a script; returns passed, failed, trouble or interrupted, and why."""
    try:
        execute(path, names)
    except SystemExit as error:
        if error.code in (None, 0):
            return "passed", None
        return "failed", told(error)
    except KeyboardInterrupt:
        return "interrupted", None
    except MachineError as error:
        return "trouble" if is_trouble(error) else "failed", told(error)
    except NameError as error:
        machines = ", ".join(variable(machine.name) for machine in names["machines"])
        return "failed", f"{told(error)}\n  the machines are {machines}"
    except BaseException as error:
        return "failed", told(error)
    return "passed", None


def tell_of_threads(log: Logger) -> None:
    """An error that ends a thread of the script's does not end the script, and is told as the script's own is."""

    def ended(thread: threading.ExceptHookArgs) -> None:
        if thread.exc_value is not None and not isinstance(thread.exc_value, SystemExit):
            name = thread.thread.name if thread.thread is not None else "a thread"
            log.warning(f"{name} ended with an error, and the script goes on:\n{told(thread.exc_value)}")

    threading.excepthook = ended


def is_trouble(error: MachineError) -> bool:
    """A condition that does not hold is the tested system's doing, unless it could not be looked at."""
    return not isinstance(error, PollingConditionError) or isinstance(error.__cause__, MachineError)


def told(error: BaseException) -> str:
    """The error behind the lines of the script that led to it, those of this driver left out."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_hidden(frame.filename)]
    linecache.checkcache()
    lines: List[str] = []
    if frames:
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    lines += traceback.format_exception_only(type(error), error)
    return "".join(lines).rstrip()


def is_hidden(filename: str) -> bool:
    return any(folder in Path(filename).parents for folder in HIDDEN)
