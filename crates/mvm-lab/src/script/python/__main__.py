"""Started by the engine: `python3 FOLDER check SCRIPT`, or `run SCRIPT` or `repl [SCRIPT]` with the engine on an inherited
socket."""

import builtins
import io
import os
import sys
from typing import List

from mvm_ci_driver import script
from mvm_ci_driver.engine import Engine
from mvm_ci_driver.world import World


def main(arguments: List[str]) -> int:
    if arguments[0] == "check":
        problem = script.syntax_problem(arguments[1])
        if problem is not None:
            print(problem)
        return 0 if problem is None else 1
    engine = Engine(int(os.environ.pop("MVM_CI_ENGINE")))
    world = World(engine)
    names = world.names()
    script.tell_of_threads(world.log)
    if arguments[0] == "run":
        sys.stdout = Printed(engine)
    names["__name__"] = "__main__"
    names["__builtins__"] = builtins
    path = arguments[1] if len(arguments) > 1 else None
    names["test_script"] = lambda: script.execute(path, names)
    names["run_tests"] = names["test_script"]
    if arguments[0] == "repl":
        from mvm_ci_driver import repl

        repl.run(engine, names)
        verdict, message = "passed", None
    else:
        verdict, message = script.run(path, names)
    flush()
    engine.tell("test", {"finished": {"verdict": verdict, "message": message}})
    return 0 if verdict == "passed" else 1


class Printed(io.TextIOBase):
    """What the script prints, told by the engine in its place among what machines say."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._tell("\n".join(lines))
        return len(text)

    def flush(self) -> None:
        if self._begun:
            self._tell(self._begun)
            self._begun = ""

    def _tell(self, text: str) -> None:
        self._engine.tell("test", {"log": {"level": "info", "text": text, "machine": None}})


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
