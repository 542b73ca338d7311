"""Waiting for what the script itself looks at: retry and polling conditions."""

import functools
import inspect
import time
from datetime import timedelta
from typing import Any, Callable, List, Optional, Union

from mvm_ci_driver.duration import DEFAULT, Duration, seconds
from mvm_ci_driver.errors import PollingConditionError, RequestedAssertionFailed

INTERVAL_SECONDS = 1.0


def retry(
    fn: Callable[[bool], Any],
    timeout_seconds: Optional[Duration] = None,
    timeout: Optional[Duration] = None,
) -> None:
    """Calls fn(False) about once a second until it is true; at last fn(True), once."""
    allowed = seconds(timeout if timeout is not None else timeout_seconds)
    if allowed is None:
        allowed = DEFAULT.total_seconds()
    began = time.monotonic()
    while time.monotonic() - began < allowed:
        if fn(False):
            return
        left = allowed - (time.monotonic() - began)
        time.sleep(max(0.0, min(INTERVAL_SECONDS, left)))
    result = fn(True)
    if not result:
        elapsed = time.monotonic() - began
        raise RequestedAssertionFailed(
            f"action timed out after {elapsed:.2f} seconds (timeout={allowed}): {shown(fn)} returned {result!r} at last"
        )


def shown(fn: Callable[..., Any]) -> str:
    """A function by its name and line."""
    fn = inspect.unwrap(fn)
    code = getattr(fn, "__code__", None)
    line = f" of line {code.co_firstlineno}" if code is not None else ""
    return f"{getattr(fn, '__qualname__', repr(fn))}{line}"


class PollingCondition:
    """A function that must hold while the script is inside its `with`: looked at before each command, when due."""

    def __init__(
        self,
        condition: Callable[[], Any],
        active: List["PollingCondition"],
        interval: Duration,
        description: Optional[str],
    ) -> None:
        self._condition = condition
        self._active = active
        self._interval = seconds(interval) or 0.0
        text = description or condition.__doc__ or condition.__name__
        self.description = " ".join(text.split())
        self._last: Optional[float] = None
        self._entered = 0
        self._checking = False

    def __enter__(self) -> None:
        self._entered += 1
        if self._entered == 1:
            self._active.append(self)

    def __exit__(self, *_error: Any) -> None:
        self._entered -= 1
        if self._entered == 0:
            self._active.remove(self)
            self._last = None

    @property
    def overdue(self) -> bool:
        return self._last is None or time.monotonic() >= self._last + self._interval

    @property
    def entered(self) -> bool:
        return self._entered > 0

    def check(self, force: bool = False) -> bool:
        """Whether it holds. Commands of the condition itself are not checked again."""
        if self._checking or not (self.overdue or force):
            return True
        self._checking = True
        try:
            result = self._condition()
        except Exception as error:
            raise PollingConditionError(f"polling condition failed: {self.description}: {error}") from error
        finally:
            self._checking = False
            self._last = time.monotonic()
        return result is None or bool(result)

    def maybe_raise(self) -> None:
        if not self.check():
            raise PollingConditionError(f"polling condition failed: {self.description}")

    def wait(self, timeout: Duration = DEFAULT) -> None:
        @functools.wraps(self._condition)
        def holds(_last: bool) -> bool:
            try:
                return self.check(force=True)
            except PollingConditionError:
                return False

        retry(holds, timeout=timeout)


class PollingConditions:
    """Makes polling conditions, and looks at those that the script is inside of."""

    def __init__(self) -> None:
        self._active: List[PollingCondition] = []

    def check(self) -> None:
        for condition in list(self._active):
            condition.maybe_raise()

    def decorate(
        self,
        fn: Optional[Callable[[], Any]] = None,
        *,
        seconds_interval: Optional[Duration] = None,
        interval: Union[timedelta, int, float] = timedelta(seconds=2),
        description: Optional[str] = None,
    ) -> Any:
        """`@polling_condition`, or `@polling_condition(interval=..., description=...)`."""
        chosen = interval if seconds_interval is None else seconds_interval

        def made(condition: Callable[[], Any]) -> PollingCondition:
            return PollingCondition(condition, self._active, chosen, description)

        return made if fn is None else made(fn)
