"""What a rule watches that is counted rather than asked: errors, deaths, lateness, memory, what the agent reports."""

import os
from collections import deque

from sidecar.base.units import show_duration
from sidecar.config.recovery import AgentTrouble, ErrorRatio, MemoryPressure
from sidecar.control.recovery.ports import WELL, Present, Seen, Sight
from sidecar.machines.window import Window
from sidecar.runtime import series
from sidecar.runtime.observer import Happening

_FAULTLESS = ("ok", "client_gone", "client_timeout")
"""Outcomes that say nothing against the upstream; with one of these only a 5xx does."""
AGENT_EXPIRY_SECONDS = 900.0
"""A condition that the agent does not report again is over then, as it is for incidents."""
MAX_REPORTED = 100


class Failing:
    """Too many of an upstream's requests fail, over a window: what flaps is seen as well as what is down."""

    numbers = True
    remembers = True

    def __init__(self, config: ErrorRatio) -> None:
        self.upstream = config.upstream
        self.about = {"upstream": config.upstream}
        self.window = config.window
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
        self.window = within
        self._deaths: deque[float] = deque(maxlen=count)

    def died(self, now: float) -> None:
        """It died once more."""
        self._deaths.append(now)

    def look(self, seen: Seen) -> Sight:
        deaths = self._deaths
        if len(deaths) < (deaths.maxlen or 1) or deaths[0] + self.window < seen.now:
            return WELL
        return Sight(sick=True, why=f"died {len(deaths)} times within {show_duration(self.window)}")

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)

    def forget(self) -> None:
        self._deaths.clear()


class Lagging(Present):
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


class MemoryShort(Present):
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


class AgentReports(Present):
    """The backup agent says that something is wrong: a backup that failed, a target missed, a replica that is behind.

    It repeats what holds; what it does not repeat is over when its time is.
    """

    def __init__(self, config: AgentTrouble) -> None:
        self.about = {"program": "agent"}
        self._config = config
        self._holds: dict[tuple[str, str], tuple[float, str]] = {}  # condition, subject -> until when, why

    def heard(self, happening: Happening, now: float) -> None:
        """An `agent_condition`."""
        wanted, word = self._config, (happening.reason or "", happening.subject)
        if wanted.condition not in {None, word[0]} or wanted.subject not in {None, word[1]}:
            return
        self._holds.pop(word, None)
        if happening.fields.get("holds", True):
            if len(self._holds) >= MAX_REPORTED:
                del self._holds[next(iter(self._holds))]
            until = now + float(happening.fields.get("expires_seconds", AGENT_EXPIRY_SECONDS))
            self._holds[word] = (until, f"{word[0]} of {word[1]}: {happening.detail or 'no more is said'}")

    def look(self, seen: Seen) -> Sight:
        why = next((why for until, why in self._holds.values() if seen.now < until), "")
        return Sight(bool(why), why)

    async def look_again(self, seen: Seen) -> Sight:
        return self.look(seen)
