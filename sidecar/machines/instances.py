"""Who takes part in a service, as the registry's answers told it over time.

Each instance has a lease that the registry counts; an answer names the instances and how long each lease still runs.
What an answer no longer names is believed until the lease that was last seen has run out: a registry that was emptied
takes nobody's service away before its instances had the time to come back. An instance that leaves on purpose says so,
with the state `left`, and is gone at once.

Leases run only while the registry is heard. While it is not, nothing ends: all goes on from what was last known. When
it is heard again, everyone has a whole `grace` to be named anew, whatever the answers say meanwhile.

`now` is monotonic. The registry's clock and ours never meet: only durations cross.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What an instance says of itself."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    """It lives, and its service does not answer or is to get nothing new."""
    LEFT = "left"
    """It went on purpose; told for a short while, so that others hear of it."""


class Instance(NamedTuple):
    """One replica of a service."""

    name: str
    address: str
    state: State


class Lease(NamedTuple):
    """An instance as one answer names it."""

    instance: Instance
    seconds: float
    """How long it still runs, by the registry's clock."""


class Instances:
    """The instances of one service."""

    def __init__(self, grace: float) -> None:
        """`grace`: seconds that everyone has to be named again after a silence."""
        self._grace = grace
        self._leases: dict[str, tuple[Instance, float]] = {}  # name -> instance, when its lease ends
        self._heard = True

    def silent(self) -> None:
        """The registry is not heard any more."""
        self._heard = False

    def heard(self, now: float, leases: Iterable[Lease]) -> None:
        """The registry answered."""
        if not self._heard:
            self._heard = True
            until = now + self._grace
            self._leases = {name: (one, max(end, until)) for name, (one, end) in self._leases.items()}
        named = {lease.instance.name: (lease.instance, now + lease.seconds) for lease in leases}
        believed = {name: known for name, known in self._leases.items() if name not in named and known[1] > now}
        self._leases = {name: one for name, one in (believed | named).items() if one[0].state is not State.LEFT}

    def present(self) -> list[Instance]:
        """Who takes part, by name."""
        return [self._leases[name][0] for name in sorted(self._leases)]
