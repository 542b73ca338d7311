"""The test's log: lines, nested groups and subtests, all told by the engine's reports."""

import sys
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from mvm_ci_driver.engine import Engine


class Logger:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._depth = 0

    def log(self, message: str, attributes: Optional[Dict[str, str]] = None) -> None:
        machine = (attributes or {}).get("machine")
        self._say("info", message, machine)

    def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._say("info", message)

    def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._say("debug", message)

    def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._say("warning", message)

    def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        """As in the NixOS test driver, this ends the test as failed."""
        self._say("error", message)
        sys.exit(1)

    def log_serial(self, message: str, machine: str) -> None:
        self._say("debug", message, machine)

    def log_test_error(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._say("error", message)

    def print_serial_logs(self, enable: bool) -> None:
        self._engine.tell("test", {"log_consoles": {"on": enable}})

    @contextmanager
    def nested(self, message: str, attributes: Optional[Dict[str, str]] = None) -> Iterator[None]:
        self.log(message, attributes)
        self._depth += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self._depth -= 1
            self.log(f"(finished: {message}, in {time.monotonic() - began:.2f} seconds)", attributes)

    @contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """A named part of the test: a case of its own in the reports. Its failure ends the test."""
        self._engine.tell("test", {"subtest_began": {"name": name}})
        try:
            yield
        except BaseException as error:
            self._ended(name, describe(error))
            raise
        self._ended(name, None)

    def _ended(self, name: str, error: Optional[str]) -> None:
        self._engine.tell("test", {"subtest_ended": {"name": name, "error": error}})

    def _say(self, level: str, message: str, machine: Optional[str] = None) -> None:
        text = "  " * self._depth + str(message)
        self._engine.tell("test", {"log": {"level": level, "text": text, "machine": machine}})


def describe(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name
