"""What a test script can catch, and what its failures are told apart by."""


class RequestedAssertionFailed(Exception):
    """Something the script asked for does not hold."""

    # Scripts know these names without a module, and so are they shown.
    __module__ = "builtins"


class MachineError(Exception):
    """The engine or a machine is in trouble, which need not be the tested system's fault."""

    __module__ = "builtins"


class PollingConditionError(MachineError):
    """A polling condition does not hold any more."""

    __module__ = "builtins"


def not_there(method: str, instead: str) -> NotImplementedError:
    return NotImplementedError(f"{method} is not there: {instead}")
