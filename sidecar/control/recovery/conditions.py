"""What a rule watches: `when` as a question that is asked several times a second, and once more right before acting.

`look` judges by what is known already and costs nothing; `look_again` asks the thing itself. Each says in a few words
what it saw.
"""

from sidecar.config.recovery import Trigger
from sidecar.control.recovery.ports import WELL, Condition, Present, Seen, Sight, Surroundings
from sidecar.control.recovery.symptoms import AgentReports, Crashing, Failing, Lagging, MemoryShort

STALE_SECONDS = 5.0
"""A breaker whose open period is over for so long has no traffic: it says nothing of the upstream any more."""


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
    if trigger.agent is not None:
        return AgentReports(trigger.agent)
    assert trigger.event_loop_lag is not None, "exactly one is given"
    return Lagging(trigger.event_loop_lag)


class UpstreamSick(Present):
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


class DependencyDown(Present):
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
