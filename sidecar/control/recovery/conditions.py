"""What a rule watches: `when` as a question that is asked several times a second, and once more right before acting.

`look` judges by what is known already and costs nothing; `look_again` asks the thing itself. Each says in a few words
what it saw.
"""

import os
from collections import deque
from typing import Protocol

from sidecar.base.units import show_duration
from sidecar.config.recovery import ErrorRatio, MemoryPressure, Trigger
from sidecar.control.recovery.ports import WELL, Seen, Sight, Surroundings
from sidecar.machines.window import Window
from sidecar.runtime import series

STALE_SECONDS = 5.0
"""A breaker whose open period is over for so long has no traffic: it says nothing of the upstream any more."""
_FAULTLESS = ("ok", "client_gone", "client_timeout")
"""Outcomes that say nothing against the upstream; with one of these only a 5xx does."""


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

    def look(self, seen: Seen) -> Sight:
        """What is known now."""
        ...

    async def look_again(self, seen: Seen) -> Sight:
        """What it says itself when it is asked now."""
        ...

    def forget(self) -> None:
        """The fault is over: what was counted before does not count."""
        ...


class _Present:
    """A condition that speaks of now."""

    numbers = False
    remembers = False
    upstream = ""

    def forget(self) -> None:
        """There is nothing to forget."""


def condition(trigger: Trigger, around: Surroundings, *, of_child: bool) -> Condition:
    """The condition that `trigger` describes; `of_child`: the rule restarts the supervised process."""
    if trigger.upstream is not None:
        return UpstreamSick(trigger.upstream, around, of_child=of_child)
    if trigger.dependency is not None:
        return DependencyDown(trigger.dependency, around)
    if trigger.error_ratio is not None:
        return Failing(trigger.error_ratio)
    if trigger.crashes is not None:
        return Crashing(trigger.crashes.count, trigger.crashes.within)
    if trigger.memory is not None:
        return MemoryShort(trigger.memory)
    assert trigger.event_loop_lag is not None, "exactly one is given"
    return Lagging(trigger.event_loop_lag)


class UpstreamSick(_Present):
    """All its endpoints are unhealthy, or its breaker is open; or the supervised process behind it is not there, or
    stopped by a signal.
    """

    def __init__(self, upstream: str, around: Surroundings, *, of_child: bool) -> None:
        self.upstream = upstream
        self.about = {"upstream": upstream}
        self._around = around
        self._child = around.child if of_child else None
        self._stale_since: float | None = None

    def look(self, seen: Seen) -> Sight:
        if process := self._process():
            return Sight(sick=True, why=process)
        trouble = self._around.health.upstream_trouble(self.upstream)
        if trouble:
            return Sight(sick=True, why=trouble)
        return self._breaker(seen)

    async def look_again(self, seen: Seen) -> Sight:
        if process := self._process():
            return Sight(sick=True, why=process)
        answers = await self._around.health.ask_upstream(self.upstream)
        if answers and not any(one.ok for one in answers):
            return Sight(sick=True, why=answers[0].detail)
        return self._breaker(seen)

    def _process(self) -> str:
        """What is wrong with the supervised process; empty: nothing that the kernel knows of."""
        if self._child is None:
            return ""
        if not self._child.running:
            return "the service's process is not there"
        return "the service's process is stopped (SIGSTOP)" if self._child.stopped() else ""

    def _breaker(self, seen: Seen) -> Sight:
        one = seen.breakers.get(self.upstream)
        if one is None or one["machine"] not in {"open", "half_open"} or one["mode"] != "enforce":
            self._stale_since = None
            return WELL
        if one["machine"] == "half_open" or one["remaining_seconds"]:
            self._stale_since = None
        elif self._stale_since is None:
            self._stale_since = seen.now
        elif seen.now >= self._stale_since + STALE_SECONDS:
            return WELL
        return Sight(sick=True, why=f"its breaker is {one['machine'].replace('_', '-')}: {one['detail']}")


class DependencyDown(_Present):
    """Its checks fail."""

    def __init__(self, dependency: str, around: Surroundings) -> None:
        self.about = {"dependency": dependency}
        self._name = dependency
        self._around = around

    def look(self, seen: Seen) -> Sight:  # noqa: ARG002
        trouble = self._around.health.dependency_trouble(self._name)
        return Sight(bool(trouble), trouble)

    async def look_again(self, seen: Seen) -> Sight:  # noqa: ARG002
        answers = await self._around.health.ask_dependency(self._name)
        bad = [one for one in answers if not one.ok]
        return Sight(sick=True, why=bad[0].detail) if answers and len(bad) == len(answers) else WELL


class Failing:
    """Too many of an upstream's requests fail, over a window: what flaps is seen as well as what is down."""

    numbers = True
    remembers = True

    def __init__(self, config: ErrorRatio) -> None:
        self.upstream = config.upstream
        self.about = {"upstream": config.upstream}
        self._config = config
        self._window = Window(config.window, columns=2)
        self._counted: tuple[float, float] | None = None

    def look(self, seen: Seen) -> Sight:
        config = self._config
        if seen.snapshot is not None:
            code, outcome = series.REQUESTS.labels.index("code"), series.REQUESTS.labels.index("outcome")
            of = seen.snapshot.select(series.REQUESTS, upstream=config.upstream)
            bad = [one for one in of if one.labels[code].startswith("5") or one.labels[outcome] not in _FAULTLESS]
            counted = sum(one.value for one in of), sum(one.value for one in bad)
            before = self._counted or counted
            self._counted = counted
            if seen.now >= self._window.edge:
                self._window.turn(seen.now)
            for column in (0, 1):
                self._window.counts[column] += max(0, round(counted[column] - before[column]))
        total, failed = self._window.sum(0, seen.now), self._window.sum(1, seen.now)
        if total < config.minimum_requests or failed < config.above * total:
            return WELL
        return Sight(sick=True, why=f"{failed} of {total} requests failed within {show_duration(config.window)}")

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)

    def forget(self) -> None:
        self._window.clear()


class Crashing:
    """The supervised process dies again and again."""

    numbers = False
    remembers = True
    upstream = ""

    def __init__(self, count: int, within: float) -> None:
        self.about = {"program": "service"}
        self._within = within
        self._deaths: deque[float] = deque(maxlen=count)

    def died(self, now: float) -> None:
        """It died once more."""
        self._deaths.append(now)

    def look(self, seen: Seen) -> Sight:
        deaths = self._deaths
        if len(deaths) < (deaths.maxlen or 1) or deaths[0] + self._within < seen.now:
            return WELL
        return Sight(sick=True, why=f"died {len(deaths)} times within {show_duration(self._within)}")

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)

    def forget(self) -> None:
        self._deaths.clear()


class Lagging(_Present):
    """The event loop is late, on the average since the last look at the numbers."""

    numbers = True

    def __init__(self, limit: float) -> None:
        self.about = {"program": "sidecar"}
        self._limit = limit
        self._before: tuple[int, float] | None = None
        self._sight = WELL

    def look(self, seen: Seen) -> Sight:
        if seen.snapshot is not None:
            of = seen.snapshot.select(series.EVENT_LOOP_LAG)
            counted = sum(sum(one.counts) for one in of), sum(one.value for one in of)
            count, late = (counted[at] - (self._before or counted)[at] for at in (0, 1))
            if count > 0 or self._before is None:
                self._before = counted
                mean = late / count if count else 0.0
                self._sight = Sight(mean >= self._limit, f"the event loop is {1000 * mean:.0f} ms late")
        return self._sight

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)


class MemoryShort(_Present):
    """The container's memory runs out. No limit, or no control group of version 2: never.

    What the kernel could take back at once does not count, as with the kubelet's working set: a file that is read fills
    the group to its limit, and nothing is wrong.
    """

    def __init__(self, config: MemoryPressure) -> None:
        self.about = {"program": "container"}
        self._config = config

    def look(self, seen: Seen) -> Sight:  # noqa: ARG002
        used, limit = self._number("memory.current"), self._number("memory.max")
        if used is None or not limit:
            return WELL
        used = max(0, used - self._reclaimable())
        if used < self._config.above * limit:
            return WELL
        return Sight(sick=True, why=f"{used >> 20} of {limit >> 20} MiB used ({used / limit:.0%})")

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)

    def _number(self, name: str) -> int | None:
        try:
            return int(self._read(name))
        except ValueError:  # no such group; `max` is no limit
            return None

    def _reclaimable(self) -> int:
        """Bytes of files that nobody used lately."""
        words = iter(self._read("memory.stat").split())
        return next((int(value) for name, value in zip(words, words, strict=False) if name == b"inactive_file"), 0)

    def _read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self._config.cgroup, name), "rb") as stream:
                return stream.read(65536)
        except OSError:
            return b""
