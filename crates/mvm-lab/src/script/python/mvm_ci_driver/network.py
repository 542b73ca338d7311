"""The network between machines, bent by name. Machines are given as such or by name; times as seconds or timedelta."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from mvm_ci_driver.duration import Duration, seconds
from mvm_ci_driver.engine import Engine
from mvm_ci_driver.machine import Machine

Named = Union[str, Machine]


def name_of(machine: Named) -> str:
    return machine if isinstance(machine, str) else machine.name


class Directions:
    """Some directions of the network; each method changes one aspect of all of them, and returns them."""

    def __init__(self, engine: Engine, which: Dict[str, Any]) -> None:
        self._engine = engine
        self._which = which

    def delay(self, delay: Duration, jitter: Duration = 0, shape: str = "uniform") -> "Directions":
        """How long each frame takes, one way; the jitter's shape is uniform, normal or pareto."""
        return self._set("delay", delay=seconds(delay), jitter=seconds(jitter), shape=shape)

    def loss(self, probability: float) -> "Directions":
        """How likely each frame vanishes, from 0 to 1."""
        return self._set("loss", probability=probability)

    def burst_loss(self, enter: float, leave: float, good: float = 0.0, bad: float = 1.0) -> "Directions":
        """Loss in bursts (Gilbert-Elliott): how likely a burst begins and ends with each frame, and what is lost outside and inside."""
        return self._set("burst_loss", enter=enter, leave=leave, good=good, bad=bad)

    def duplicate(self, probability: float) -> "Directions":
        return self._set("duplicate", probability=probability)

    def corrupt(self, probability: float) -> "Directions":
        return self._set("corrupt", probability=probability)

    def reorder(self, probability: float, extra: Duration) -> "Directions":
        """How likely each frame is held back, and for how long."""
        return self._set("reorder", probability=probability, extra=seconds(extra))

    def rate(self, bits_per_second: int, queue_bytes: int = 128 * 1024) -> "Directions":
        return self._set("rate", bits_per_second=bits_per_second, queue_bytes=queue_bytes)

    def mtu(self, size: int) -> "Directions":
        return self._set("mtu", size=size)

    def clear(self) -> "Directions":
        """Takes back all that was set; cuts stay."""
        return self._set("clear")

    def _set(self, aspect: str, **values: Any) -> "Directions":
        self._engine.ask("network", {"impair": {**self._which, "aspect": {aspect: values or None}}})
        return self


class Network:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # Which directions

    def link(self, one: Named, other: Named) -> Directions:
        """Both directions between two machines."""
        return self._directions("link", one, other)

    def direction(self, source: Named, target: Named) -> Directions:
        """The direction in which target hears source."""
        return self._directions("direction", source, target)

    def of(self, machine: Named) -> Directions:
        """Every direction from and to one machine."""
        return self._directions("of", machine)

    def sent_by(self, machine: Named) -> Directions:
        return self._directions("sent_by", machine)

    def sent_to(self, machine: Named) -> Directions:
        return self._directions("sent_to", machine)

    def all(self) -> Directions:
        return self._directions("all")

    def _directions(self, which: str, *machines: Named) -> Directions:
        return Directions(self._engine, {"of": which, "machines": [name_of(name) for name in machines]})

    # Cuts

    def cut(self, one: Named, other: Named) -> None:
        self._cut("cut", one, other)

    def one_way(self, source: Named, target: Named) -> None:
        """Target does not hear source any more; source still hears target."""
        self._cut("one_way", source, target)

    def isolate(self, *machines: Named) -> None:
        """Cuts machines off from all others, and from each other, on all their cards."""
        for machine in machines:
            self._cut("isolate", machine)

    def partition(self, *groups: Any) -> None:
        """Splits the network in groups, given as lists; machines in none are one more group."""
        listed: List[List[Named]] = list(groups[0]) if len(groups) == 1 else list(groups)
        if listed and not isinstance(listed[0], (list, tuple, set)):
            listed = [listed]
        named = [[name_of(machine) for machine in group] for group in listed]
        self._ask("partition", groups=named)

    def halves(self) -> None:
        self._cut("halves")

    def bridge(self, machine: Named) -> None:
        """Two halves that both see this one machine."""
        self._cut("bridge", machine)

    def majorities_ring(self) -> None:
        self._cut("majorities_ring")

    def random_minority(self) -> List[str]:
        return list(self._ask("random_minority"))

    def heal(self, *machines: Named) -> None:
        """Heals the link between two machines, all links of one, or without any all there are."""
        how: Tuple[str, ...] = ("heal_all", "heal_one", "heal")
        if len(machines) > 2:
            raise ValueError("heal() takes no machine, one, or the two ends of a link")
        self._cut(how[len(machines)], *machines)

    def heal_all(self) -> None:
        self._cut("heal_all")

    @contextmanager
    def partitioned(self, *groups: Any) -> Iterator[None]:
        """A partition that is healed at the end of the `with`."""
        self.partition(*groups)
        try:
            yield
        finally:
            self.heal()

    def flap(self, one: Named, other: Named, up: Duration, down: Duration, total: Duration) -> None:
        """Lets a link come and go; returns when that is over and the link whole."""
        self._ask(
            "flap",
            one=name_of(one),
            other=name_of(other),
            up=seconds(up),
            down=seconds(down),
            total=seconds(total),
        )

    # What is seen

    def status(self) -> Dict[str, Any]:
        """Which directions are cut, and what the machines' cards have counted."""
        return dict(self._ask("status"))

    def capture(self, filename: str = "network.pcapng") -> None:
        """Records all that passes from now on, and what is dropped and why, to a file below the run's folder."""
        self._ask("capture", file=filename)

    def stop_capture(self, filename: str = "network.pcapng") -> None:
        self._ask("stop_capture", file=filename)

    def _cut(self, how: str, *machines: Named) -> None:
        self._ask("cut", how=how, machines=[name_of(machine) for machine in machines])

    def _ask(self, verb: str, **arguments: Any) -> Any:
        return self._engine.ask("network", {verb: arguments or None})


class Vlan:
    """A segment of the network, by its number."""

    def __init__(self, number: int) -> None:
        self.nr = number
        self.pid: Optional[int] = None
        self.socket_dir: Optional[str] = None

    def stop(self) -> None:
        """Nothing: segments end with the run."""

    def __repr__(self) -> str:
        return f"<vlan {self.nr}>"
