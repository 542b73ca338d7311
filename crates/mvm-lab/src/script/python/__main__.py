"""Started by the engine: `python3 FOLDER check SCRIPT`, or `run SCRIPT` or `repl [SCRIPT]` with the engine on an inherited
socket."""

import builtins
import os
import sys
from typing import List

import script
from engine import Engine
from world import World


def main(arguments: List[str]) -> int:
    if arguments[0] == "check":
        problem = script.syntax_problem(arguments[1])
        if problem is not None:
            print(problem)
        return 0 if problem is None else 1
    engine = Engine(int(os.environ.pop("MVM_CI_ENGINE")))
    names = World(engine).names()
    names["__name__"] = "__main__"
    names["__builtins__"] = builtins
    path = arguments[1] if len(arguments) > 1 else None
    names["test_script"] = lambda: script.execute(path, names)
    names["run_tests"] = names["test_script"]
    if arguments[0] == "repl":
        import repl

        repl.run(engine, names)
        verdict, message = "passed", None
    else:
        verdict, message = script.run(path, names)
    flush()
    engine.tell("test", {"finished": {"verdict": verdict, "message": message}})
    return 0 if verdict == "passed" else 1


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
