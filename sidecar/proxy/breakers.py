"""A breaker at its post: the machine, its policy compiled for the hot path, and what happens when it changes.

Every upstream has one, and every route that says `breaker: own` has one of its own, named `UPSTREAM/ROUTE` on
metrics and commands. A change of state is counted and told to the observer here; the sweep calls `expire` when a
trial, a lease or an order is overdue.

A breaker that shares its state has a *tie*. It hears what happens here, after it happened, and tells what others agreed
on by `adopt`, `grant` and `alone`. When the tie's other end exports the state (the parent of several workers does,
once for all of them), this one does not.
"""

from __future__ import annotations

import random
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.machines.breaker import Breaker, BreakerChange, Permit, Snapshot, Trial
from sidecar.machines.breaker_states import AUTOMATIC, BreakerState
from sidecar.machines.failure_fields import FailureFields, suspects
from sidecar.machines.fleet.leases import Ended, Lease
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config.breaker import Breaker as BreakerPolicy
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

SHOWN = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)


class Tie(Protocol):
    """Leads to the others who share a breaker. It only notes what it hears, since a request may be waiting."""

    tells: bool
    """The other end counts, exports and tells changes of state."""

    def moved(self, guarded: Guarded, change: BreakerChange | None) -> None:
        """It changed; None: not its state, but its order or remaining time."""

    def refused(self, guarded: Guarded) -> None:
        """A call was refused while others lead: a lease could be used, now or when the open period is over."""

    def granted(self, guarded: Guarded) -> None:
        """Leases have come."""

    def ended(self, guarded: Guarded, ended: Ended) -> None:
        """A lease is no more."""


class Guarded:
    """One breaker and its surroundings."""

    def __init__(
        self, name: str, policy: BreakerPolicy, registry: Registry, observer: Observer, tie: Tie | None = None
    ) -> None:
        self.name = name
        self.breaker = Breaker(policy, random.random, monotonic())
        self.decision = registry.cell(series.BREAKER_DECISION)
        self._registry = registry
        self._observer = observer
        self._tie = tie
        for state in () if tie is not None and tie.tells else SHOWN:
            registry.gauge_function(series.BREAKER_STATE, lambda state=state: self.breaker.shown is state, name, state)  # type: ignore[misc]
        self._compile(policy)

    def _compile(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.suspects = suspects(policy)
        self.failure_fields = FailureFields(policy.failure_headers)
        self.slow_after = policy.slow_after if policy.slow_rate > 0.0 else inf
        self._rejected = self._registry.cell(series.BREAKER_REJECTED, self.name, policy.mode)
        self._counted = self.breaker.refused
        if policy.mode != "disabled" and (self._tie is None or not self._tie.tells):
            for (old, new), reasons in AUTOMATIC.items():
                for reason in reasons:  # from zero on, so that the first is an increase
                    self._registry.cell(series.BREAKER_TRANSITIONS, self.name, old.value, new.value, str(reason))

    def reconfigure(self, policy: BreakerPolicy) -> None:
        """Go on under another policy; state and remaining time stay."""
        if policy != self.policy:
            change = self.breaker.reconfigure(policy, monotonic())
            self._compile(policy)
            if change is not None:
                self.changed(change)

    def retire(self) -> None:
        """Its upstream or route is no more."""
        self._registry.remove(upstream=self.name)

    def count_refusals(self) -> None:
        """A call was refused, or in mode observe would have been; the machine keeps the count."""
        self._rejected.value += self.breaker.refused - self._counted
        self._counted = self.breaker.refused
        if self.breaker.led and self._tie is not None:
            self._tie.refused(self)

    def cancel(self, permit: Permit) -> None:
        """The call that `permit` was for told nothing about the upstream."""
        ended = self.breaker.cancel(permit, monotonic())
        if ended is not None:
            self.changed(ended)

    def trial(self, trial: Trial) -> None:
        """A trial call was admitted."""
        if trial.transition is not None:
            self.changed(trial.transition)

    def changed(self, change: BreakerChange | Ended) -> None:
        """The breaker changed its state: count it, tell it. Or a lease ended: tell those who gave it."""
        tie = self._tie
        if isinstance(change, Ended):
            if tie is not None:
                tie.ended(self, change)
            return
        if tie is None or not tie.tells:
            self._count(change)
        if tie is not None:
            tie.moved(self, change)

    def _count(self, change: BreakerChange) -> None:
        self._registry.cell(
            series.BREAKER_TRANSITIONS, self.name, change.old.value, change.new.value, str(change.reason)
        ).value += 1
        level = Level.WARNING if change.new in (BreakerState.OPEN, BreakerState.FORCED_OPEN) else Level.INFO
        self._observer.tell(
            Kind.BREAKER_CHANGED, self.name, level=level, reason=str(change.reason), detail=change.detail,
            upstream=self.name, old=change.old.value, new=change.new.value,
        )  # fmt: skip

    # What the sweep looks at ----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `expire` has something to do."""
        return self.breaker.deadline

    def expire(self, now: float) -> None:
        """A trial or an order is overdue."""
        while self.breaker.deadline <= now:
            change = self.breaker.expire(now)
            if change is not None:
                self.changed(change)

    # What others agreed on ------------------------------------------------------------------------------------------

    def adopt(self, told: Snapshot) -> None:
        """Others agreed with us on another state."""
        self._moved(self.breaker.adopt(told, monotonic()))

    def grant(self, leases: Iterable[Lease]) -> None:
        """Trials that may be made here."""
        self.breaker.grant(leases)
        if self._tie is not None:
            self._tie.granted(self)

    def alone(self) -> None:
        """The others cannot be heard."""
        self._moved(self.breaker.alone(monotonic()))

    def _moved(self, change: BreakerChange | None) -> None:
        if change is not None:
            self.changed(change)
        elif self._tie is not None:
            self._tie.moved(self, None)

    def view(self) -> dict[str, Any]:
        """Everything that people want to see, as plain data."""
        seen = self.breaker.snapshot(monotonic())
        return {
            "name": self.name,
            "mode": self.policy.mode,
            "state": self.breaker.shown.value,
            "machine": seen.state.value,
            "reason": str(seen.reason),
            "detail": seen.detail,
            "for_seconds": round(seen.for_seconds, 1),
            "remaining_seconds": None if seen.remaining is None else round(seen.remaining, 1),
            "reopened": seen.reopened,
            "consecutive_failures": seen.consecutive_failures,
            "window": {
                "total": seen.total,
                "failures": seen.failures,
                "slow": seen.slow,
                "seconds": self.policy.window,
            },
            "trials": seen.trials,
            "trial_successes": seen.successes,
            "refused": seen.refused,
            "led": seen.led,
            "ordered_by": seen.ordered_by,
            "ordered_why": seen.ordered_why,
        }

    # Handing over ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that a successor needs to go on."""
        return self.breaker.snapshot(monotonic())

    def restore(self, snapshot: Snapshot) -> None:
        """Go on where another process stopped: the same state for the rest of its time, the same order."""
        self.breaker.restore(snapshot, monotonic())
        self._counted = self.breaker.refused

    # Orders ---------------------------------------------------------------------------------------------------------

    def order(self, action: str, *, seconds: float | None, by: str, why: str) -> None:
        """`open` or `close` it by hand, for `seconds` or until `reset`."""
        now = monotonic()
        if action == "reset":
            change = self.breaker.reset(now)
        else:
            state = BreakerState.FORCED_OPEN if action == "open" else BreakerState.FORCED_CLOSED
            until = None if seconds is None else now + seconds
            change = self.breaker.force(state, now, until=until, by=by, why=why)
        self._moved(change)
