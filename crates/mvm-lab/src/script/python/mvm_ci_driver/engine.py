"""The conversation with the engine: one JSON object per line, both ways, over an inherited socket.

A request is {"id": N, AREA: {VERB: ARGUMENTS}}, its answer {"id": N, "value": ...} or {"id": N, "error": {"kind", "message"}}.
Several threads may ask at once. An answer that nobody waits for any more, after Ctrl-C, is called off with {"cancel": N}.
"""

import json
import socket
import threading
from concurrent.futures import Future, wait
from typing import Any, Callable, Dict, Optional

from mvm_ci_driver.errors import MachineError, RequestedAssertionFailed

# How often polling conditions are looked at during a wait; each has an interval of its own besides.
LOOK_SECONDS = 0.25

KINDS = {
    "assertion": RequestedAssertionFailed,
    "machine": MachineError,
    "value": ValueError,
}


class Engine:
    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\n")
        self._lock = threading.Lock()
        self._waiting: Dict[int, "Future[Any]"] = {}
        self._next = 0
        self._gone = False
        self.on_event: Callable[[Dict[str, Any]], None] = lambda event: None
        self.before_each: Callable[[], None] = lambda: None
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, area: str, what: Any) -> Any:
        """Asks for something that is the script's own doing: due polling conditions are looked at first."""
        self.before_each()
        return self.tell(area, what)

    def wait(self, area: str, what: Any) -> Any:
        """Asks for a wait, during which polling conditions are looked at as before every command."""
        self.before_each()
        return self.tell(area, what, self.before_each)

    def tell(self, area: str, what: Any, meanwhile: Optional[Callable[[], None]] = None) -> Any:
        future: "Future[Any]" = Future()
        with self._lock:
            if self._gone:
                raise MachineError("the engine is gone")
            self._next += 1
            number = self._next
            self._waiting[number] = future
        self._send({"id": number, area: what})
        try:
            while meanwhile is not None and not wait([future], LOOK_SECONDS).done:
                meanwhile()
            return future.result()
        except BaseException:
            if not future.done():
                self._send({"cancel": number})
            raise
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def _send(self, message: Dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError as error:
            raise MachineError(f"the engine is gone: {error}") from None

    def _read(self) -> None:
        for line in self._lines:
            message = json.loads(line)
            if "event" in message:
                self.on_event(message["event"])
                continue
            with self._lock:
                future = self._waiting.get(message["id"])
            if future is None:
                continue
            error = message.get("error")
            if error is None:
                future.set_result(message.get("value"))
            else:
                future.set_exception(KINDS[error["kind"]](error["message"]))
        with self._lock:
            self._gone = True
            waiting = list(self._waiting.values())
        for future in waiting:
            if not future.done():
                future.set_exception(MachineError("the engine is gone"))
