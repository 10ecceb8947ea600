"""The recovery engine: every rule of the configuration at work, and what they share.

Shared are the pause, the fleet's token, the look at breakers and numbers (taken once for all rules that look at about
the same time), the question whether a dependency is down, and the word that the supervised process's supervisor asks
for before it starts the process again (`may_start_at`).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar.control.recovery.actions.liveness import FailLiveness
from sidecar.control.recovery.ports import Alone, Seen
from sidecar.control.recovery.rule import Rule
from sidecar.machines.recovery.maintenance import end_of_maintenance
from sidecar.runtime.observer import Happening, Kind, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Set

    from sidecar.config.document import Config
    from sidecar.config.recovery import Recovery as RuleConfig
    from sidecar.control.recovery.ports import Fleet, Surroundings
    from sidecar.runtime.metrics import Registry, Snapshot
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor

BREAKERS_SECONDS = 0.5
"""A look at the breakers serves all rules for so long, unless one changes."""
NUMBERS_SECONDS = 1.0
"""A look at the counters."""


class RecoveryEngine:
    """All rules."""

    def __init__(
        self,
        around: Surroundings,
        tasks: Supervisor,
        registry: Registry,
        observer: Observer,
        fleet: Fleet | None = None,
    ) -> None:
        self.around = around
        self.registry = registry
        self.observer = observer
        self.fleet: Fleet = Alone() if fleet is None else fleet
        self.paused: dict[str, str] | None = None
        """Who paused it, why and since when; None: it is not."""
        self._tasks = tasks
        self._rules: dict[str, Rule] = {}
        self._breakers: dict[str, dict[str, Any]] = {}
        self._breakers_at = self._numbers_at = -60.0
        self._numbers: Snapshot | None = None
        self._works: set[asyncio.Task[None]] = set()
        self._joined = False
        self._end_hearing = observer.subscribe(self._hear)

    # Rules ------------------------------------------------------------------------------------------------------------

    async def apply(self, config: Config) -> None:
        """Follow these rules from now on. A rule whose condition and action stay keeps its fault and its attempts."""
        wanted = {rule.name: rule for rule in config.recovery}
        for name, rule in list(self._rules.items()):
            new = wanted.get(name)
            if new is None or (new.when, new.do) != (rule.config.when, rule.config.do):
                await self._end(name)
        for name, new in wanted.items():
            known = self._rules.get(name)
            if known is not None:
                known.reconfigure(new)
            else:
                self._begin(name, new)
        await self._join_or_leave()

    async def _join_or_leave(self) -> None:
        """Be one of the replicas that restart while a rule does."""
        restarts = any(rule.action.restarts for rule in self._rules.values())
        if restarts and not self._joined:
            self._tasks.start("recovery-fleet", self.fleet.run)
        elif self._joined and not restarts:
            await self._tasks.end("recovery-fleet")
            await self.fleet.leave()
        self._joined = restarts

    def _begin(self, name: str, config: RuleConfig) -> None:
        rule = self._rules[name] = Rule(config, self)
        self._tasks.start(f"recovery-{name}", rule.run)

    async def _end(self, name: str) -> None:
        rule = self._rules.pop(name)
        await self._tasks.end(f"recovery-{name}")
        await rule.stop()

    async def stop(self) -> None:
        """Nothing is done any more; what was done stays, for all ends with us."""
        self._end_hearing()
        for name in self._rules:
            await self._tasks.end(f"recovery-{name}")
        for name in list(self._rules):
            await self._rules.pop(name).stop()
        await self._join_or_leave()

    # What rules share -------------------------------------------------------------------------------------------------

    async def seen(self, *, numbers: bool, fresh: bool = False) -> Seen:
        """What is known now; `fresh`: not what was known a moment ago."""
        now = monotonic()
        if fresh or now >= self._breakers_at + BREAKERS_SECONDS:
            self._breakers_at = now
            self._breakers = {one["name"]: one for one in await self.around.breakers()}
        if numbers and now >= self._numbers_at + NUMBERS_SECONDS:
            self._numbers_at = now
            self._numbers = await self.around.snapshot()
        return Seen(monotonic(), self._breakers, self._numbers if numbers else None)

    async def dependency_down(self, besides: Set[str]) -> str:
        """What the service needs and does not get; empty: nothing that is known of. Asks those that look well."""
        config, health = self.around.config(), self.around.health
        names = [one.name for one in config.dependencies]
        for name in names:
            if trouble := health.dependency_trouble(name):
                return f"dependency {name} is down: {trouble}"
        for name, breaker in (await self.seen(numbers=False, fresh=True)).breakers.items():
            refusing = breaker["machine"] == "open" and breaker["mode"] == "enforce" and breaker["remaining_seconds"]
            if refusing and name.partition("/")[0] not in besides:
                return f"the breaker of {name} is open: {breaker['detail']}"
        for name, answers in zip(names, await asyncio.gather(*map(health.ask_dependency, names)), strict=True):
            if answers and not any(one.ok for one in answers):
                return f"dependency {name} does not answer: {answers[0].detail}"
        return ""

    def maintenance(self, config: RuleConfig) -> datetime | None:
        """When the maintenance ends that is going on; None: there is none."""
        return end_of_maintenance(config.maintenance, datetime.now(UTC))

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a little thing beside."""
        task = asyncio.ensure_future(work())
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    def may_start_at(self, now: float) -> float:
        """When the supervised process may be started again after it died."""
        return max((rule.machine.revive_at(now) for rule in self._rules.values() if rule.of_child), default=now)

    def service_live(self) -> bool:
        """False while a rule wants the service's container restarted."""
        return not any(isinstance(rule.action, FailLiveness) and rule.action.wanted for rule in self._rules.values())

    def _hear(self, happening: Happening) -> None:
        """On anybody's way: only note it."""
        match happening.kind:
            case Kind.CHILD_DIED:
                for rule in self._rules.values():
                    rule.child_died(str(happening.fields["exit"]))
            case Kind.CHILD_STARTED:
                for rule in self._rules.values():
                    rule.child_started(again=bool(happening.fields["restarts"]))
            case Kind.AGENT_CONDITION:
                for rule in self._rules.values():
                    rule.agent_reported(happening)
            case Kind.BREAKER_CHANGED:
                self._breakers_at = -60.0
                self._poke()
            case Kind.ENDPOINT_HEALTH_CHANGED | Kind.DEPENDENCY_HEALTH_CHANGED:
                self._poke()

    def _poke(self) -> None:
        for rule in self._rules.values():
            rule.poke()

    # Orders -----------------------------------------------------------------------------------------------------------

    def pause(self, by: str, why: str) -> None:
        """Nothing is done until `resume`; a supervised process that dies is started still."""
        self.paused = {"by": by, "why": why, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        self.observer.tell(Kind.RECOVERY_PAUSED, "recovery", level=Level.WARNING, by=by, why=why)

    def resume(self, by: str, why: str) -> None:
        """Go on."""
        if self.paused is not None:
            self.paused = None
            self.observer.tell(Kind.RECOVERY_RESUMED, "recovery", by=by, why=why)
            for rule in self._rules.values():
                rule.resumed()

    def find(self, name: str) -> Rule | None:
        """The rule of that name."""
        return self._rules.get(name)

    def view(self) -> dict[str, Any]:
        """For people, JSON-shaped: paused {by, why, since} or null, rules as `Rule.view` has them, fleet {replicas,
        restarting, allowed}, or null when nobody says.
        """
        return {
            "paused": self.paused,
            "rules": [rule.view() for rule in self._rules.values()],
            "fleet": self.fleet.view(),
        }
