"""What recovery sees of the program and does to it; `app/recovery.py` gives it."""

from typing import Any, NamedTuple, Protocol

from sidecar.config.address import Address
from sidecar.config.document import Config
from sidecar.control.child import Child
from sidecar.control.health import HealthChecks
from sidecar.runtime.metrics import Snapshot


class Surroundings(Protocol):
    """The program as recovery knows it."""

    health: HealthChecks
    child: Child | None

    def config(self) -> Config:
        """The configuration that is served by."""
        ...

    def leaving(self) -> bool:
        """Whether the program drains or stops: then nothing is restarted."""
        ...

    def address(self, listener: str) -> Address | None:
        """Where a listener can be reached from here."""
        ...

    async def endpoints(self, upstream: str) -> list[tuple[str, int]]:
        """Address and priority of each of an upstream's endpoints."""
        ...

    async def breakers(self) -> list[dict[str, Any]]:
        """Every breaker, as the API shows it."""
        ...

    async def reset_breakers(self, upstream: str) -> None:
        """What was known of a process that is no more says nothing of the new one."""
        ...

    async def serve(self, verb: str, *argument: Any) -> None:
        """Tell whoever serves, every worker: reroute, shift_priority, drain_endpoints, flush_pool,
        clear_cache.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """All numbers."""
        ...


class Fleet(Protocol):
    """The others' leave to restart: at most a quarter of a service's replicas at once, and at least one."""

    async def take(self) -> str:
        """Empty: granted. Else why not, for people. Asked again after a while."""
        ...

    async def give_back(self) -> None:
        """The restart is over."""
        ...

    async def run(self) -> None:
        """Be one of them, until cancelled."""
        ...

    async def leave(self) -> None:
        """Be none of them any more."""
        ...

    def view(self) -> dict[str, int] | None:
        """For people: {replicas, restarting, allowed}; None: nobody says."""
        ...


class Alone:
    """There are no others, or none that we share state with."""

    async def take(self) -> str:
        return ""

    async def give_back(self) -> None:
        pass

    async def run(self) -> None:
        pass

    async def leave(self) -> None:
        pass

    def view(self) -> dict[str, int] | None:
        return None


class Sight(NamedTuple):
    """What was seen of a condition."""

    sick: bool
    why: str = ""


WELL = Sight(sick=False)


class Seen(NamedTuple):
    """What everybody said at about the same moment; conditions are judged by it."""

    now: float
    breakers: dict[str, dict[str, Any]]
    snapshot: Snapshot | None
    """None: no rule needs the numbers."""


class Condition(Protocol):
    """One thing that is watched."""

    about: dict[str, str]
    """What it is of, for happenings: upstream, dependency or program."""
    upstream: str
    """The upstream that it is of; empty: none."""
    numbers: bool
    """Whether it looks at the counters."""
    remembers: bool
    """Whether it speaks of the past too, so that it is true for a while after the fault is over."""
    window: float
    """Seconds that it looks back, and must be false before what stands in is undone; 0: it speaks of now."""

    def look(self, seen: Seen) -> Sight:
        """What is known now."""
        ...

    async def look_again(self, seen: Seen) -> Sight:
        """What it says itself when it is asked now."""
        ...

    def forget(self) -> None:
        """The fault is over: what was counted before does not count."""
        ...


class Present:
    """A condition that speaks of now."""

    numbers = False
    remembers = False
    window = 0.0
    upstream = ""

    def forget(self) -> None:
        """There is nothing to forget."""


class ActionFailed(Exception):
    """It could not be done; the message says why, for people."""


class Action(Protocol):
    """One way to help. Everything that it does is bounded in time and size."""

    strategy: str
    """The word on the metric."""
    restarts: bool
    """Whether it ends the service: never for a dependency's sake, and not more than a quarter of the fleet at once."""
    lasts: bool
    """Whether what it does holds until `undo`."""
    about: str
    """The upstream that stands in for the sick one and has to be well; empty: none."""

    async def run(self) -> str:
        """Do it; what was done, in a few words. Raises ActionFailed. May be cancelled."""
        ...

    async def undo(self) -> None:
        """The fault is over, or the rule is gone: leave nothing behind. Does nothing where nothing lasts."""
        ...

    async def needless(self) -> bool:
        """Where it lasts: whether the sick one is well without it. Asked when the condition was false for a while."""
        ...

    def renewed(self) -> bool:
        """Whether the service is another process than before `run`; true where nobody can tell."""
        ...
