"""Whether something answers its active checks: an endpoint of an upstream, or a dependency.

unknown until the first results. One good check settles unknown at once (Envoy does the same); otherwise it takes
`healthy_after` good checks in a row to become healthy and `unhealthy_after` bad ones to become unhealthy. An
answer that takes `degraded_above` or longer is good but slow: it makes what is not unhealthy degraded at once, and
`healthy_after` quick ones in a row lead back. Degraded and unknown things are still used; only unhealthy is out.

The machine also says when to ask again. While a row of results points to another state, checks come ten times as
often, so that `unhealthy_after: 3` at 30 s is decided after 36 s rather than 90. A healthy upstream without traffic
is asked half as often. Every wait is jittered by a tenth, so that a fleet's checks spread. The period runs from the
check's start: a slow answer does not stretch it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sidecar.base.backoff import Uniform, spread
from sidecar.machines.transition import Transition

_JITTER = 0.1
_HASTE = 10.0
_LEISURE = 2.0


class Health(StrEnum):
    """What is known of it."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


CHANGES: dict[tuple[Health, Health], tuple[str, ...]] = {
    (Health.UNKNOWN, Health.HEALTHY): ("answers",),
    (Health.UNKNOWN, Health.DEGRADED): ("slow",),
    (Health.UNKNOWN, Health.UNHEALTHY): ("fails",),
    (Health.HEALTHY, Health.DEGRADED): ("slow",),
    (Health.HEALTHY, Health.UNHEALTHY): ("fails",),
    (Health.DEGRADED, Health.HEALTHY): ("answers",),
    (Health.DEGRADED, Health.UNHEALTHY): ("fails",),
    (Health.UNHEALTHY, Health.HEALTHY): ("answers",),
    (Health.UNHEALTHY, Health.DEGRADED): ("slow",),
}
"""Every change and its reason."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How one thing is judged; seconds and counts as the configuration names them."""

    interval: float
    unhealthy_after: int
    healthy_after: int
    degraded_above: float | None = None


class HealthCheck:
    """One thing under watch."""

    __slots__ = ("_bad", "_good", "_policy", "_quick", "_uniform", "detail", "next_check", "state")

    def __init__(self, policy: HealthPolicy, uniform: Uniform, now: float) -> None:
        self._policy = policy
        self._uniform = uniform
        self._good = self._quick = self._bad = 0  # in a row; quick ones are the good that are not slow
        self.state = Health.UNKNOWN
        self.detail = ""
        """What the last check said, for people."""
        self.next_check = now + uniform() * policy.interval / _HASTE
        """When to ask. Set when a result comes in: while a check runs, the shell asks no second time."""

    @property
    def available(self) -> bool:
        """Whether it is to be used."""
        return self.state is not Health.UNHEALTHY

    def result(
        self, now: float, *, ok: bool, seconds: float, detail: str = "", traffic: bool = True
    ) -> Transition[Health] | None:
        """A check came back after `seconds`, or ran into its time-out. `traffic`: the thing is in use."""
        policy = self._policy
        slow = policy.degraded_above is not None and seconds >= policy.degraded_above
        self.detail = detail
        if ok:
            self._bad = 0
            self._good += 1
            self._quick = 0 if slow else self._quick + 1
        else:
            self._bad += 1
            self._good = self._quick = 0
        change = self._judge(now, ok=ok, slow=slow)
        self.next_check = max(now, now - seconds + self._wait(traffic=traffic))
        return change

    def reconfigure(self, policy: HealthPolicy, now: float) -> None:
        """Go on under another policy; state and rows stay, the next check comes within the new interval."""
        self._policy = policy
        self.next_check = min(self.next_check, now + policy.interval)

    def _judge(self, now: float, *, ok: bool, slow: bool) -> Transition[Health] | None:
        state, policy = self.state, self._policy
        if not ok:
            return self._go(Health.UNHEALTHY, now) if self._bad >= policy.unhealthy_after else None
        if state is Health.UNHEALTHY and self._good < policy.healthy_after:
            return None
        if slow:
            return self._go(Health.DEGRADED, now)
        if state is Health.DEGRADED and self._quick < policy.healthy_after:
            return None
        return self._go(Health.HEALTHY, now)

    def _go(self, new: Health, now: float) -> Transition[Health] | None:
        old = self.state
        if new is old:
            return None
        (reason,) = CHANGES[old, new]
        self.state = new
        return Transition(old, new, reason, now, self.detail)

    def _wait(self, *, traffic: bool) -> float:
        wait = self._policy.interval
        if self._in_transition():
            wait /= _HASTE
        elif self.state is Health.HEALTHY and not traffic:
            wait *= _LEISURE
        return spread(wait, _JITTER, self._uniform)

    def _in_transition(self) -> bool:
        """Whether the last results point away from the state."""
        if self.state is Health.UNHEALTHY:
            return self._good > 0
        if self.state is Health.DEGRADED:
            return self._bad > 0 or self._quick > 0
        return self._bad > 0


def aggregate(states: Iterable[Health]) -> Health:
    """Several services as one: all healthy -> healthy, all unhealthy -> unhealthy, else degraded.

    What is unknown does not count; when nothing is known, the whole is unknown.
    """
    known = {state for state in states if state is not Health.UNKNOWN}
    if not known:
        return Health.UNKNOWN
    return known.pop() if len(known) == 1 else Health.DEGRADED
