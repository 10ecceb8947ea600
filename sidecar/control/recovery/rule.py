"""One rule at work: looks at its condition, and does what its machine's stage asks for.

Each rule has a task of its own, so an action that hangs holds up nobody else. Between two stages nothing is decided
here: what was seen, done or proved is told to the machine, and what it says is counted and told to the observer.

An action that lasts (a reroute, a drain) changes what the condition means: while it holds, the fault is healed as long
as whoever stepped in is well; it is undone when the sick one has been well for five seconds.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar.base.units import show_duration
from sidecar.control.probes.probe import Result
from sidecar.control.recovery.actions.build import action
from sidecar.control.recovery.actions.webhook import CallWebhook
from sidecar.control.recovery.conditions import condition
from sidecar.control.recovery.ports import ActionFailed, Sight
from sidecar.control.recovery.proof import OVER_SECONDS, prove, request_through
from sidecar.control.recovery.symptoms import AgentReports, Crashing
from sidecar.control.recovery.tale import Tale
from sidecar.machines.recovery.recovery import Recovery, RecoveryPolicy
from sidecar.machines.recovery.stages import Hold, Stage
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from sidecar.config.recovery import Recovery as RuleConfig
    from sidecar.control.recovery.engine import RecoveryEngine
    from sidecar.machines.recovery.recovery import Change
    from sidecar.runtime.observer import Happening

LOOK_SECONDS = 0.2
"""Between two looks at a condition; what happens meanwhile is looked at at once."""
VERIFY_SECONDS, VERIFY_OTHERS_SECONDS = 30.0, 300.0
"""The default of verify_within: for what we do ourselves, and for what others do when they get round to it."""
_BY_OTHERS = {"liveness", "evict", "webhook"}
_OVER = {Stage.WELL, Stage.QUIET, Stage.HEALED, Stage.ESCALATED}

_log = Log(__name__)


class Rule:
    """One rule of the configuration, with its condition, its action and its machine."""

    def __init__(self, config: RuleConfig, engine: RecoveryEngine) -> None:
        self.config = config
        self._engine = engine
        self._around = engine.around
        self.action = action(config, engine.around)
        self._condition = condition(config.when, engine.around, of_child=self.of_child)
        self.machine = Recovery(_policy(config), random.random)
        self._changed = asyncio.Event()
        self._held_by = ""  # what forbade to act last, in words
        self._undo_owed = False
        self._token = False
        self._standing = False  # what the action did holds until it is undone
        self._well_since: float | None = None  # the sick one, while somebody stands in for it
        self._life_began = monotonic()  # the service's, as far as we know it: ours at first
        self._tale = Tale(config, self.action.strategy, self._condition.about, engine.observer, engine.registry)

    @property
    def of_child(self) -> bool:
        """Whether it restarts the supervised process."""
        return self.config.do.restart == "process"

    @property
    def strategy(self) -> str:
        return self.action.strategy

    @property
    def _within(self) -> float:
        """Seconds that a proof may take, and a service to begin."""
        if self.config.verify_within is not None:
            return self.config.verify_within
        return VERIFY_OTHERS_SECONDS if self.strategy in _BY_OTHERS else VERIFY_SECONDS

    def reconfigure(self, config: RuleConfig) -> None:
        """The same condition and action under other figures."""
        self.config = config
        self.machine.reconfigure(_policy(config))

    async def run(self) -> None:
        """For ever; run by the supervisor."""
        while True:
            if self._undo_owed:
                self._undo_owed = False
                await self._undo()
            match self.machine.stage:
                case Stage.CHECKING:
                    await self._check()
                case Stage.ACTING:
                    await self._act()
                case Stage.PROVING:
                    await self._prove()
                case _:
                    await self._look()

    async def stop(self) -> None:
        """The rule is gone: what it did does not outlive it."""
        await self._undo()
        await self._give_back()

    def poke(self) -> None:
        """Something happened: look at once."""
        self._changed.set()

    def resumed(self) -> None:
        """Nothing is paused any more."""
        self.machine.allowed(monotonic())
        self.poke()

    # From stage to stage ----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        seen = await self._engine.seen(numbers=self._condition.numbers)
        sight = self._condition.look(seen)
        if self._standing:
            sight = await self._while_standing(sight, seen.now)
        self._took(self.machine.seen(seen.now, sick=sight.sick, why=sight.why))
        self._took(self.machine.tick(seen.now))
        machine = self.machine
        if machine.stage is Stage.HELD and machine.due is not None and seen.now >= machine.due:
            await self._check()
        elif machine.stage not in {Stage.CHECKING, Stage.ACTING, Stage.PROVING}:
            await self._nap()

    async def _nap(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _while_standing(self, sight: Sight, now: float) -> Sight:
        """Somebody stands in for the sick one: see whether it is well again, and what the condition means now."""
        if sight.sick:
            self._well_since = None
        elif self._well_since is None:
            self._well_since = now
        elif now >= self._well_since + max(OVER_SECONDS, self._condition.window):
            self._well_since = now
            if await self.action.needless():
                await self._undo()
                return sight
        if self.machine.stage is Stage.WAITING:
            return sight
        trouble = self._around.health.upstream_trouble(self.action.about) if self.action.about else ""
        return Sight(bool(trouble), f"{self.action.about} stands in and is sick: {trouble}")

    async def _check(self) -> None:
        seen = await self._engine.seen(numbers=self._condition.numbers, fresh=True)
        sight = await self._condition.look_again(seen)
        if not sight.sick:
            self._took(self.machine.seen(monotonic(), sick=False))
            return
        hold, detail = await self._forbidden(take=True)
        self._held_by = detail
        self._took(self.machine.checked(monotonic(), hold, detail or sight.why))
        if self.machine.stage is not Stage.ACTING:
            await self._give_back()

    async def _forbidden(self, *, take: bool) -> tuple[Hold | None, str]:
        """What forbids to act, and that in words; `take`: take the fleet's token when nothing else does."""
        engine = self._engine
        if engine.paused is not None:
            return Hold.PAUSED, engine.paused["why"]
        if self._around.leaving():
            return Hold.LEAVING, "the sidecar drains or stops"
        if (until := engine.maintenance(self.config)) is not None:
            return Hold.MAINTENANCE, f"until {until:%Y-%m-%d %H:%M} UTC"
        if self.action.restarts and (down := await self._dependency()):
            return Hold.DEPENDENCY_DOWN, down
        if self.action.restarts and (young := self._starting()):
            return Hold.STARTING, young
        if self.config.dry_run:
            return Hold.DRY_RUN, f"would act ({self.strategy}): {self.machine.why}"
        if take and self.action.restarts and not self._token:
            if refusal := await engine.fleet.take():
                return Hold.NO_TOKEN, refusal
            self._token = True
        return None, ""

    def _starting(self) -> str:
        """Why the service has time still; empty: it was well since it was started, or had the time that a proof has."""
        upstream, child, now = self._condition.upstream, self._around.child, monotonic()
        if not upstream or now >= self._life_began + self._within or (self.of_child and child and child.stopped()):
            return ""
        if self._around.health.answered_since(upstream, self._life_began):
            return ""
        age = show_duration(round(now - self._life_began))
        return f"started {age} ago, and not well yet; it has {show_duration(self._within)} (verify_within)"

    async def _dependency(self) -> str:
        """What is down so that a restart would heal nothing; empty when what is sick is sick here."""
        if self.config.when.dependency is not None:
            return f"{self.config.when.dependency} is down, and no restart of ours brings it back"
        child = self._around.child
        if self.of_child and child is not None and child.stopped():
            return ""  # the kernel says so: it is this process that does not run
        return await self._engine.dependency_down(besides={self._condition.upstream, self.action.about})

    async def _act(self) -> None:
        if isinstance(self.action, CallWebhook):
            self.action.tells = {"why": self.machine.why, "attempt": self.machine.attempts, **self._condition.about}
        try:
            detail, ok = await self.action.run(), True
        except ActionFailed as failure:
            detail, ok = str(failure), False
        except Exception as error:  # noqa: BLE001 - whatever an action does, the fault must not be forgotten
            _log.error("recovery_action_broke", error=error, rule=self.config.name, strategy=self.strategy)
            detail, ok = f"the action broke: {type(error).__name__}", False
        self._standing = ok and self.action.lasts
        if ok:
            self._tale.did(detail)
        self._took(self.machine.acted(monotonic(), ok=ok, detail=detail))

    async def _prove(self) -> None:
        upstream = self.action.about or self._condition.upstream
        proof = asyncio.ensure_future(
            prove(
                lambda: self._question(upstream),
                request_through(self._condition.upstream, self._around) if self._condition.upstream else None,
                renewed=self.action.renewed,
                first_good=lambda: self._welcome(upstream),
                still_sick=self._still_sick,
                within=self._within,
            )
        )
        try:
            while self.machine.stage is Stage.PROVING and not proof.done():
                await self._until_changed(proof)
            if self.machine.stage is not Stage.PROVING:
                return  # it died meanwhile
            missing = proof.result()
        except Exception as error:  # noqa: BLE001 - a look that breaks proves nothing, and must not be tried for ever
            _log.error("recovery_proof_broke", error=error, rule=self.config.name, strategy=self.strategy)
            missing = f"the proof broke: {type(error).__name__}"
        finally:
            proof.cancel()
        if missing:
            self._took(self.machine.unproved(monotonic(), missing))
            return
        self._condition.forget()
        if self.of_child and self._around.child is not None:
            self._around.child.proved()
        self._took(self.machine.proved(monotonic()))

    async def _until_changed(self, proof: asyncio.Future[str]) -> None:
        change: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([proof, change], return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        self._changed.clear()

    async def _question(self, upstream: str) -> Result:
        began = monotonic()
        if upstream:
            answers = await self._around.health.ask_upstream(upstream)
            good = next((one for one in answers if one.ok), None)
            return good or next(iter(answers), Result(ok=False, seconds=0.0, detail=f"{upstream} has no endpoint"))
        seen = await self._engine.seen(numbers=self._condition.numbers, fresh=True)
        sight = await self._condition.look_again(seen)
        return Result(not sight.sick, monotonic() - began, sight.why)

    async def _still_sick(self) -> str:
        """What those who watch say when the proof is there; empty: they agree, or somebody stands in."""
        if self._standing:
            return ""
        seen = await self._engine.seen(numbers=self._condition.numbers, fresh=True)
        sight = self._condition.look(seen)
        return sight.why if sight.sick and not self._condition.remembers else ""

    async def _welcome(self, upstream: str) -> None:
        """The first good look after a restart: what breakers learnt of the process before is void, and nobody else
        need restart it.
        """
        if not self.action.lasts:
            await self.action.undo()
        if self.action.restarts and upstream:
            await self._around.reset_breakers(upstream)

    async def _undo(self) -> None:
        self._standing = False
        self._well_since = None
        await self.action.undo()

    async def _give_back(self) -> None:
        if self._token:
            self._token = False
            await self._engine.fleet.give_back()

    # The supervised process -------------------------------------------------------------------------------------------

    def child_died(self, detail: str) -> None:
        """It died by itself."""
        now = monotonic()
        if isinstance(self._condition, Crashing):
            self._condition.died(now)
        if self.of_child:
            self._took(self.machine.died(now, detail=f"died: {detail}", lived=now - self._life_began))

    def child_started(self, *, again: bool) -> None:
        """It was started; `again`: not for the first time."""
        self._life_began = monotonic()
        if self.of_child and again:
            self._took(self.machine.reborn(self._life_began))

    def agent_reported(self, happening: Happening) -> None:
        """The backup agent says that something is wrong, or not any more."""
        if isinstance(self._condition, AgentReports):
            self._condition.heard(happening, monotonic())
            self.poke()

    # Orders -----------------------------------------------------------------------------------------------------------

    def order(self) -> bool:
        """Somebody wants it done now; False: it is at it."""
        change = self.machine.ordered(monotonic())
        self._took(change)
        return change is not None

    async def describe(self) -> str:
        """What a run would do now, for people."""
        seen = await self._engine.seen(numbers=self._condition.numbers, fresh=True)
        sight = await self._condition.look_again(seen)
        hold, detail = await self._forbidden(take=False)
        found = f"its condition is true: {sight.why}" if sight.sick else "its condition is not true"
        held = f"; by itself it would not act: {hold.value.replace('_', ' ')}: {detail}" if hold else ""
        left = self.machine.budget.left(monotonic())
        return f"{self.config.name} would act ({self.strategy}); {found}{held}; {left} runs left in its budget"

    def _took(self, change: Change | None) -> None:
        """Tell a change of stage, and owe what it asks for."""
        if change is None:
            return
        self._tale.tell(change, self.machine.attempts, self.machine.detected_at)
        new = change.new
        self._undo_owed = self._undo_owed or new in ({Stage.ESCALATED} if self.action.lasts else _OVER)
        if self._token and new not in {Stage.ACTING, Stage.PROVING, Stage.CHECKING, Stage.HELD}:
            self._engine.spawn(self._give_back)
        self.poke()

    def view(self) -> dict[str, Any]:
        """For people, JSON-shaped."""
        machine, now = self.machine, monotonic()
        watches = next(iter(self._condition.about.values()))
        return {
            "name": self.config.name,
            "watches": f"{self._tale.detector.replace('_', ' ')} {watches}".strip(),
            "unhealthy_for_seconds": self.config.when.unhealthy_for,
            "strategy": self.strategy,
            "stage": machine.stage.value,
            "since": self._tale.since,
            "why": "" if machine.stage is Stage.WELL else machine.why,
            "hold": None if machine.hold is None else machine.hold.value,
            "held_by": "" if machine.hold is None else self._held_by,
            "next_seconds": None if machine.due is None else round(max(0.0, machine.due - now), 1),
            "attempts": machine.attempts,
            "attempts_allowed": self.config.attempts,
            "budget_left": machine.budget.left(now),
            "budget": f"{self.config.budget.runs} in {show_duration(self.config.budget.per)}",
            "dry_run": self.config.dry_run,
            "in_force": self._standing,
            "record": list(self._tale.record),
        }


def _policy(config: RuleConfig) -> RecoveryPolicy:
    return RecoveryPolicy(
        config.when.unhealthy_for, config.attempts, config.backoff, config.budget.runs, config.budget.per
    )
