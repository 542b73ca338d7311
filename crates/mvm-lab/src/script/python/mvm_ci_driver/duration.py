"""Durations as scripts give them: seconds as int or float, or a timedelta."""

from datetime import timedelta
from typing import Optional, Union

Duration = Union[int, float, timedelta]

DEFAULT = timedelta(minutes=15)


def seconds(duration: Optional[Duration]) -> Optional[float]:
    """The duration in seconds; None means without end."""
    if duration is None:
        return None
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{duration!r} is no time to wait")
    return value
