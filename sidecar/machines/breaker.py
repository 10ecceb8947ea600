"""Whether an upstream may be called.

    permit = breaker.admit(now)            # a permit, or a Refusal with the reason and the seconds to wait
    breaker.record(permit, now, ok=True)   # exactly once per permit: record what came of it …
    breaker.cancel(permit)                 # … or give it back when nothing can be learnt (the client went away)

**Closed.** Results are counted; three rules open it: failures in a row, share of failures, share of slow answers
within the window. Rates trigger at `>=`, once the window holds `minimum_requests`, and are judged at every result.

**Open.** Refuses for `open_for`, exactly, the first time. Each re-opening grows by `open_multiplier` up to
`open_max` and is jittered by at most a tenth, so that replicas do not probe in step. When the time is over it
stays open for all to see until a call asks: that call becomes the first trial.

**Half open.** At most `half_open_permits` trials at once. `half_open_successes` good ones close it, one bad or slow
one opens it again. A trial without an answer after `half_open_timeout` is bad; one whose answer began (`answered`)
and whose body merely takes longer is good. Either way its permit is free: half open cannot wedge.

**By order.** `force` holds it open or closed until it expires or is `reset`; results then change nothing. An order
works in every mode, the automatic part only as `mode` says: *observe* runs the whole machine, but refuses nobody
and counts what it would have refused; *disabled* counts nothing.

Every permit belongs to one generation, and every change of state begins the next: a result of an earlier
generation changes nothing. While closed the generation's number itself is the permit that all calls share, so
nothing is allocated; trials are objects of their own, each recorded at most once (gobreaker's generation, as
resilience4j's issue 935 teaches what happens without).

**Led.** Several breakers may share one state: the workers of a pod, the replicas of a service. Each judges its own
window and trips by itself; what was agreed on comes as `adopt`, and from then on the state is *led*: its end, too,
comes from outside, and trial calls are made with leases only (`fleet/leases.py`), which `grant` brings. An order given
here stands above what is led. `alone` cuts the tie: what was led open stays so to its end and is then tried by one call
at a time. None of this is on a call's way while the breaker is closed.

Changes of state come back as `Transition`: from `record`, `expire`, `force`, `reset`, `reconfigure`, `adopt`, `alone`,
and, as the first trial makes the breaker half open, in that `Trial`. What came of a lease comes back as `Ended` from
`record`, `cancel` and `expire`. Trials, leases and orders end by `expire`, which a sweep calls from `deadline` on.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.base.backoff import Uniform, exponential
from sidecar.base.names import Decision
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker_states import CHANGES, BreakerState, Reason
from sidecar.machines.fleet.leases import Ended, Lease, TrialEnd
from sidecar.machines.transition import Transition
from sidecar.machines.window import Window

_TOTAL, _FAILURES, _SLOW = 0, 1, 2
_JITTER = 0.1
_RAMP_FLOOR = 0.1
"""The share admitted right after closing; Envoy's slow start begins at 10 %, too."""
_NEVER = math.inf
_UNCOUNTED = -1
"""The permit of calls whose result the breaker does not want."""

BreakerChange = Transition[BreakerState]


class Refusal(NamedTuple):
    """The call must not be made."""

    reason: Decision
    """breaker_open or manual_open."""
    retry_after: int
    """Whole seconds, at least 1, after which asking again makes sense."""


class Trial:
    """The permit of one trial call."""

    __slots__ = ("answered", "deadline", "token", "transition")

    def __init__(self, deadline: float, transition: BreakerChange | None, token: str = "") -> None:
        self.deadline = deadline
        self.answered = False
        """Set it when a good answer's head came: the body may then outlast the deadline."""
        self.transition = transition
        """The change to half open, when this trial brought it about."""
        self.token = token
        """The lease it is made with, until that has come back; empty: none."""


Permit = int | Trial


@dataclass(frozen=True, slots=True)
class Order:
    """Who holds the breaker by hand, and until when."""

    by: str
    why: str
    until: float | None
    """Monotonic seconds; None: until reset."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that people want to see and the next process needs. Times are seconds from the snapshot."""

    state: BreakerState = BreakerState.CLOSED
    reason: str = ""
    """Why it is in this state."""
    detail: str = ""
    for_seconds: float = 0.0
    """How long it has been in this state."""
    remaining: float | None = None
    """Until an open period or an order ends; None: no end."""
    reopened: int = 0
    consecutive_failures: int = 0
    total: int = 0
    failures: int = 0
    slow: int = 0
    trials: int = 0
    successes: int = 0
    refused: int = 0
    ordered_by: str = ""
    ordered_why: str = ""
    led: bool = False
    """Others decided it with us, and decide when it ends."""


class Breaker:
    """One breaker: of an upstream, or of a route that has its own."""

    __slots__ = (
        "_alone",
        "_consecutive",
        "_generation",
        "_leases",
        "_open_until",
        "_order",
        "_policy",
        "_ramp_from",
        "_reopened",
        "_since",
        "_successes",
        "_trials",
        "_troubled",
        "_uniform",
        "_why",
        "_window",
        "deadline",
        "led",
        "ready",
        "refused",
        "state",
    )

    def __init__(self, policy: BreakerPolicy, uniform: Uniform, now: float = 0.0) -> None:
        self._policy = policy
        self._uniform = uniform
        self._window = Window(policy.window)
        self._generation = 1
        self._consecutive = 0
        self._troubled = False  # whether the window may hold a failure or a slow call
        self._trials: set[Trial] = set()
        self._successes = 0
        self._reopened = 0
        self._open_until = 0.0
        self._ramp_from = -_NEVER
        self._order: Order | None = None
        self._since = now
        self._why: tuple[str, str] = ("", "")
        self._leases: list[Lease] = []
        self._alone = False  # the tie was cut while it was led
        self.led = False
        """Its state was agreed on with others; only they end it."""
        self.state = BreakerState.CLOSED
        self.deadline = _NEVER
        """When `expire` has something to do; infinity: not before another call."""
        self.refused = 0
        """Calls refused since the start; in observe mode, those that would have been."""
        self.ready = 0
        """The permit that any call gets at the moment without asking; 0: `admit` must be asked."""
        self._settle()

    @property
    def shown(self) -> BreakerState:
        """closed, open or half_open, as the metric shows it: what the callers feel."""
        if self.state is BreakerState.FORCED_OPEN:
            return BreakerState.OPEN
        if self.state is BreakerState.FORCED_CLOSED or self._policy.mode != "enforce":
            return BreakerState.CLOSED
        return self.state

    # ------------------------------------------------------------------ the way of a call

    def admit(self, now: float) -> Permit | Refusal:
        """A permit for one call, or why not."""
        return self.ready or self._question(now)

    def record(self, permit: Permit, now: float, *, ok: bool, slow: bool = False) -> BreakerChange | Ended | None:
        """What came of the call. `slow`: its answer's head took `slow_after` or longer."""
        if permit != self._generation:
            if permit in self._trials:
                return self._conclude(permit, now, ok=ok, slow=slow)
            return _give_back(permit, now)
        window = self._window
        if now >= window.edge:
            window.turn(now)
        window.counts[_TOTAL] += 1
        if ok:
            self._consecutive = 0
        else:
            self._consecutive += 1
            window.counts[_FAILURES] += 1
            self._troubled = True
        if slow:
            window.counts[_SLOW] += 1
            self._troubled = True
        return self._judge(now) if self._troubled else None

    def cancel(self, permit: Permit, now: float) -> Ended | None:
        """The call ended without telling anything about the upstream."""
        if permit.__class__ is not Trial:
            return None
        self._trials.discard(permit)
        self._settle()
        return _give_back(permit, now)

    def take(self, now: float, grace: float = 0.0) -> Trial | None:
        """A trial, if one may be made now. Nobody counts as refused when there is none.

        `grace`: seconds beyond its time, when it is made elsewhere and its end must first be told.
        """
        change, token = None, ""
        deadline = now + self._policy.half_open_timeout
        if self.state is BreakerState.OPEN:
            if self.led or now < self._open_until:
                return None
            change = self._go(BreakerState.HALF_OPEN, Reason.OPEN_PERIOD_OVER, now)
        elif self.state is not BreakerState.HALF_OPEN:
            return None
        elif self.led:
            lease = next((one for one in self._leases if one.use_by > now), None)
            if lease is None:
                return None
            self._leases.remove(lease)
            deadline, token = lease.deadline, lease.token
        elif len(self._trials) >= (1 if self._alone else self._policy.half_open_permits):
            return None
        trial = Trial(deadline + grace, change, token)
        self._trials.add(trial)
        self._settle()
        return trial

    # ------------------------------------------------------------------ together with others

    def trip(self, reason: Reason, detail: str, now: float) -> BreakerChange | None:
        """One of the breakers that follow this one opened by its own window."""
        if self.state is not BreakerState.CLOSED or self._policy.mode == "disabled":
            return None
        return self._open(reason, now, detail)

    def conclude(self, trial: Trial, end: TrialEnd, now: float) -> BreakerChange | Ended | None:
        """A trial that was taken for another and made there has ended."""
        if end is TrialEnd.UNUSED or trial not in self._trials:
            return self.cancel(trial, now)
        reason = Reason.TRIAL_TIMEOUT if end is TrialEnd.TIMEOUT else Reason.TRIAL_FAILED
        good = end in (TrialEnd.OK, TrialEnd.SLOW)
        return self._conclude(trial, now, ok=good, slow=end is TrialEnd.SLOW, reason=reason)

    def adopt(self, told: Snapshot, now: float) -> BreakerChange | None:
        """Follow what was agreed on anew: `told`'s state, reason, remaining time and order; leases of before are void.

        Closed closes whatever is not an order given here, so only tell it when others opened it or somebody reset it.
        """
        if self._order is not None and not self.led:
            return None
        state = told.state
        if self._policy.mode == "disabled" and state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            state = BreakerState.CLOSED
        until = None if told.remaining is None else now + told.remaining
        by_order = state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)
        order = Order(told.ordered_by, told.ordered_why, until) if by_order else None
        change = None
        if state is not self.state:
            detail = f"{told.reason}: {told.detail}" if told.detail else told.reason
            change = self._go(state, Reason.SHARED, now, detail, order)
        self._why = (told.reason, told.detail)
        self._alone = False
        if state is BreakerState.CLOSED:
            if change is not None and told.reason == Reason.RECOVERED and self._policy.ramp > 0.0:
                self._ramp_from = now
        else:
            self.led = True
            self._order = order
            self._since = now - told.for_seconds
            self._reopened = told.reopened
            self._open_until = now if until is None else until
            self._end_generation()
        self._settle()
        return change

    def grant(self, leases: Iterable[Lease]) -> None:
        """Trials that may be made here, of what was told last."""
        self._leases.extend(leases)
        self._settle()

    def alone(self, now: float) -> BreakerChange | None:
        """The others cannot be heard: decide by itself, gently, what they would have decided. Orders stay."""
        if not self.led or self._order is not None:
            return None
        change = None
        pause = self._policy.open_for * _JITTER * self._uniform()
        if self.state is BreakerState.HALF_OPEN:
            change = self._go(BreakerState.OPEN, Reason.SHARED, now, "those who share it cannot be heard")
            self._open_until = now
        self._open_until = max(self._open_until, now) + pause
        self.led = False
        self._alone = True
        return change

    # ------------------------------------------------------------------ time, orders, reload

    def expire(self, now: float) -> BreakerChange | Ended | None:
        """End what is overdue: a trial, a lease, an order."""
        if now < self.deadline:
            return None
        for lease in self._leases:
            if lease.use_by <= now:
                self._leases.remove(lease)
                self._settle()
                return Ended(lease.token, TrialEnd.UNUSED, now)
        if self._order is not None:
            return self._go(BreakerState.CLOSED, Reason.EXPIRED, now, f"the order of {self._order.by} ended")
        for trial in [trial for trial in self._trials if trial.deadline <= now]:
            change = self._conclude(trial, now, ok=trial.answered, slow=False, reason=Reason.TRIAL_TIMEOUT)
            if change is not None:
                return change
        return None

    def force(
        self, state: BreakerState, now: float, *, until: float | None = None, by: str = "", why: str = ""
    ) -> BreakerChange | None:
        """Hold it FORCED_OPEN or FORCED_CLOSED; the same order again only changes its end and author."""
        if state not in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED):
            raise ValueError(f"a breaker cannot be forced to {state}")
        order = Order(by, why, until)
        if state is self.state:
            self._order = order
            self.led = False
            self._why = (Reason.MANUAL, why)
            self._settle()
            return None
        return self._go(state, Reason.MANUAL, now, why, order)

    def reset(self, now: float) -> BreakerChange | None:
        """Back to automatic: closed, nothing counted yet."""
        if self.state is not BreakerState.CLOSED:
            return self._go(BreakerState.CLOSED, Reason.RESET, now)
        self._end_generation()
        self._forget()
        self._settle()
        return None

    def reconfigure(self, policy: BreakerPolicy, now: float) -> BreakerChange | None:
        """Go on under another policy: state, remaining time, order and permits stay; a new window begins empty."""
        if policy.window != self._policy.window:
            self._window = Window(policy.window)
        self._policy = policy
        if policy.ramp <= 0.0:
            self._ramp_from = -_NEVER
        if policy.mode == "disabled" and self.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            return self._go(BreakerState.CLOSED, Reason.DISABLED, now)
        self._settle()
        return None

    def snapshot(self, now: float) -> Snapshot:
        """Everything at `now`; expired counts left out."""
        until = self._open_until if self.state is BreakerState.OPEN else self._order.until if self._order else None
        return Snapshot(
            state=self.state,
            reason=self._why[0],
            detail=self._why[1],
            for_seconds=now - self._since,
            remaining=None if until is None else max(0.0, until - now),
            reopened=self._reopened,
            consecutive_failures=self._consecutive,
            total=self._window.sum(_TOTAL, now),
            failures=self._window.sum(_FAILURES, now),
            slow=self._window.sum(_SLOW, now),
            trials=len(self._trials),
            successes=self._successes,
            refused=self.refused,
            ordered_by=self._order.by if self._order else "",
            ordered_why=self._order.why if self._order else "",
            led=self.led,
        )

    def restore(self, snapshot: Snapshot, now: float) -> None:
        """Continue where another process stopped. Its window and running trials stay behind."""
        self._forget()
        self.state = snapshot.state
        self._why = (snapshot.reason, snapshot.detail)
        self._since = now - snapshot.for_seconds
        self._generation += 1
        self._reopened = snapshot.reopened
        self._successes = snapshot.successes
        self._consecutive = snapshot.consecutive_failures
        self.refused = snapshot.refused
        until = None if snapshot.remaining is None else now + snapshot.remaining
        self._order = None
        self.led = False
        if self._policy.mode == "disabled" and self.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            self.state = BreakerState.CLOSED
        elif self.state is BreakerState.CLOSED and snapshot.for_seconds < self._policy.ramp:
            self._ramp_from = self._since if snapshot.reason == Reason.RECOVERED else -_NEVER
        elif self.state is BreakerState.OPEN:
            self._open_until = now if until is None else until
        elif self.state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED):
            self._order = Order(snapshot.ordered_by, snapshot.ordered_why, until)
            self.led = snapshot.led
        self._settle()

    # ------------------------------------------------------------------ what it decides

    def _question(self, now: float) -> Permit | Refusal:
        state = self.state
        if state is BreakerState.FORCED_OPEN:
            until = self._order.until if self._order else None
            return self._refuse(Decision.MANUAL_OPEN, self._policy.open_for if until is None else until - now)
        if state is BreakerState.CLOSED:
            share = _RAMP_FLOOR + (1.0 - _RAMP_FLOOR) * (now - self._ramp_from) / self._policy.ramp
            if share >= 1.0:
                self._ramp_from = -_NEVER
                self._settle()
                return self.ready
            return self._generation if self._uniform() < share else self._refuse(Decision.BREAKER_OPEN, 0.0)
        trial = self.take(now)
        if trial is not None:
            return trial
        return self._refuse(Decision.BREAKER_OPEN, self._open_until - now if state is BreakerState.OPEN else 0.0)

    def _refuse(self, reason: Decision, seconds: float) -> Permit | Refusal:
        self.refused += 1
        if reason is Decision.BREAKER_OPEN and self._policy.mode == "observe":
            return _UNCOUNTED
        return Refusal(reason, max(1, math.ceil(seconds)))

    def _judge(self, now: float) -> BreakerChange | None:
        """Whether the closed breaker opens; the window is at `now`."""
        window = self._window
        counts, base = window.counts, window.base
        failures, slow = counts[_FAILURES] - base[_FAILURES], counts[_SLOW] - base[_SLOW]
        if not failures and not slow:
            self._troubled = False
        if self.state is not BreakerState.CLOSED:
            return None
        policy = self._policy
        if 0 < policy.consecutive_failures <= self._consecutive:
            return self._open(Reason.CONSECUTIVE_FAILURES, now, f"{self._consecutive} failures in a row")
        total = counts[_TOTAL] - base[_TOTAL]
        if total >= policy.minimum_requests:
            if 0.0 < policy.failure_rate <= failures / total:
                return self._open(Reason.FAILURE_RATE, now, f"{failures} of {total} calls failed")
            if 0.0 < policy.slow_rate <= slow / total:
                return self._open(Reason.SLOW_RATE, now, f"{slow} of {total} calls were slow")
        return None

    def _conclude(
        self, trial: Trial, now: float, *, ok: bool, slow: bool, reason: Reason = Reason.TRIAL_FAILED
    ) -> BreakerChange | Ended | None:
        """The result of a running trial. One that was made with a lease is for others to judge."""
        self._trials.remove(trial)
        slow = slow and self._policy.slow_rate > 0.0
        if trial.token:
            self._settle()
            if not ok:
                return _give_back(trial, now, TrialEnd.TIMEOUT if reason is Reason.TRIAL_TIMEOUT else TrialEnd.FAILED)
            return _give_back(trial, now, TrialEnd.SLOW if slow else TrialEnd.OK)
        if not ok:
            return self._open(reason, now, "a trial call failed")
        if slow:
            return self._open(Reason.TRIAL_SLOW, now, "a trial call was slow")
        self._successes += 1
        if self._successes >= self._policy.half_open_successes:
            return self._go(BreakerState.CLOSED, Reason.RECOVERED, now, f"{self._successes} trial calls succeeded")
        self._settle()
        return None

    def _open(self, reason: Reason, now: float, detail: str) -> BreakerChange:
        policy = self._policy
        if self.state is BreakerState.HALF_OPEN:
            self._reopened += 1
            grown = exponential(self._reopened, policy.open_for, policy.open_max, policy.open_multiplier)
            period = min(grown, policy.open_max / (1.0 + _JITTER)) * (1.0 + _JITTER * self._uniform())
        else:
            period = policy.open_for
        self._open_until = now + period
        return self._go(BreakerState.OPEN, reason, now, detail)

    def _go(
        self, new: BreakerState, reason: Reason, now: float, detail: str = "", order: Order | None = None
    ) -> BreakerChange:
        if reason not in CHANGES.get((self.state, new), ()):
            raise RuntimeError(f"the breaker's table has no change from {self.state} to {new} by {reason}")
        change = Transition(self.state, new, reason, now, detail)
        self.state = new
        self._since = now
        self._why = (reason, detail)
        self._end_generation()
        self._order = order
        self.led = False
        if new is not BreakerState.OPEN:
            self._consecutive = 0
        if new is BreakerState.CLOSED:
            self._alone = False
            self._forget()
            if reason is Reason.RECOVERED and self._policy.ramp > 0.0:
                self._ramp_from = now
        self._settle()
        return change

    def _end_generation(self) -> None:
        """What runs changes nothing any more; leases in hand go back at the next `expire`."""
        self._generation += 1
        self._trials.clear()
        self._successes = 0
        self._leases = [one._replace(use_by=-_NEVER) for one in self._leases]

    def _forget(self) -> None:
        """Count from nothing, as at the start."""
        self._window.clear()
        self._consecutive = 0
        self._troubled = False
        self._reopened = 0
        self._ramp_from = -_NEVER

    def _settle(self) -> None:
        """Derive what the hot path and the sweep look at from everything else."""
        passing = self.state is BreakerState.FORCED_CLOSED or (
            self.state is BreakerState.CLOSED and self._ramp_from == -_NEVER
        )
        if self._policy.mode == "disabled" and self.state is not BreakerState.FORCED_OPEN:
            self.ready = _UNCOUNTED
        else:
            self.ready = self._generation if passing else 0
        if self._order is not None:
            self.deadline = _NEVER if self._order.until is None else self._order.until
        else:
            self.deadline = min((trial.deadline for trial in self._trials), default=_NEVER)
        if self._leases:
            self.deadline = min(self.deadline, *(lease.use_by for lease in self._leases))


def _give_back(permit: Permit, now: float, end: TrialEnd = TrialEnd.UNUSED) -> Ended | None:
    """The lease that a trial was made with, once; a trial of a generation that is over tells nothing any more."""
    if permit.__class__ is not Trial or not permit.token:
        return None
    token, permit.token = permit.token, ""
    return Ended(token, end, now)
