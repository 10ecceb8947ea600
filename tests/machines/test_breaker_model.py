"""The breaker against its plainly written model: any order of calls, results, time, orders and late news."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Breaker, BreakerChange, Permit, Refusal, Snapshot, Trial
from sidecar.machines.breaker_states import CHANGES, BreakerState, Reason
from sidecar.machines.fleet.leases import Ended, Lease
from tests.machines.breaker_model import BreakerModel, ModelPermit
from tests.machines.breaker_model import Ended as ModelEnded

POLICIES = st.builds(
    BreakerPolicy,
    mode=st.sampled_from(["enforce", "enforce", "enforce", "observe", "disabled"]),
    consecutive_failures=st.sampled_from([0, 2, 5]),
    failure_rate=st.sampled_from([0.0, 0.5]),
    slow_rate=st.sampled_from([0.0, 0.6, 1.0]),
    minimum_requests=st.integers(1, 6),
    window=st.sampled_from([3.0, 10.0]),
    open_for=st.sampled_from([2.0, 60.0]),
    open_multiplier=st.sampled_from([1.0, 3.0]),
    open_max=st.sampled_from([60.0, 90.0]),
    half_open_permits=st.integers(1, 3),
    half_open_successes=st.integers(1, 3),
    half_open_timeout=st.sampled_from([1.0, 30.0]),
    ramp=st.sampled_from([0.0, 5.0]),
)
CHANCE = st.sampled_from([0.0, 0.05, 0.5, 0.99])


class BreakerAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.u = 0.0
        self.permits: list[tuple[Permit, ModelPermit]] = []
        self.granted = 0
        self.returned: set[str] = set()

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        self.breaker = Breaker(policy, lambda: self.u)
        self.model = BreakerModel(policy)

    # ---- what may happen, in any order

    @rule(wait=st.sampled_from([0.0, 0.125, 1.0, 2.0, 11.0, 60.0, 100.0]))
    def time_goes_on(self, wait: float) -> None:
        self.now += wait

    @rule(u=CHANCE)
    def a_call_asks(self, u: float) -> None:
        self.u = u
        was = self.breaker.state
        real, plain = self.breaker.admit(self.now), self.model.admit(self.now, u)
        if isinstance(real, Refusal):
            assert real.reason == plain
            assert real.retry_after >= 1
            if was is BreakerState.OPEN and self.model.open_until > self.now:
                assert real.retry_after == max(1, math.ceil(self.model.open_until - self.now))
            return
        assert isinstance(plain, ModelPermit)
        assert isinstance(real, Trial) == (plain.trial_ends is not None)
        if isinstance(real, Trial):
            assert (real.transition is not None) == (was is BreakerState.OPEN)
        self.permits.append((real, plain))

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), ok=st.booleans(), slow=st.sampled_from([False, False, True]))
    def a_call_ends(self, data: st.DataObject, ok: bool, slow: bool) -> None:
        """Possibly long after its era, possibly a trial for the second time."""
        real, plain = data.draw(st.sampled_from(self.permits))
        self.same(
            self.breaker.record(real, self.now, ok=ok, slow=slow),
            self.model.record(plain, self.now, ok=ok, slow=slow),
        )

    @rule(times=st.integers(1, 6), ok=st.booleans(), slow=st.booleans())
    def calls_run_through(self, times: int, ok: bool, slow: bool) -> None:
        for _ in range(times):
            self.a_call_asks(0.0)
            if self.permits:
                real, plain = self.permits[-1]
                self.same(
                    self.breaker.record(real, self.now, ok=ok, slow=slow),
                    self.model.record(plain, self.now, ok=ok, slow=slow),
                )

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def a_call_is_cancelled(self, data: st.DataObject) -> None:
        real, plain = data.draw(st.sampled_from(self.permits))
        self.same(self.breaker.cancel(real, self.now), self.model.cancel(plain))

    @precondition(lambda self: any(isinstance(real, Trial) for real, _ in self.permits))
    @rule(data=st.data())
    def an_answer_begins(self, data: st.DataObject) -> None:
        real, plain = data.draw(st.sampled_from([pair for pair in self.permits if isinstance(pair[0], Trial)]))
        assert isinstance(real, Trial)
        real.answered = plain.answered = True

    @rule()
    def the_sweep_comes(self) -> None:
        for _ in range(1 + len(self.model.leases) + len(self.model.trials)):
            self.same(self.breaker.expire(self.now), self.model.expire(self.now))
        assert self.breaker.deadline > self.now, "nothing overdue is left behind"

    @rule(
        state=st.sampled_from([BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED]),
        lasting=st.none() | st.sampled_from([1.0, 60.0]),
    )
    def someone_orders(self, state: BreakerState, lasting: float | None) -> None:
        until = None if lasting is None else self.now + lasting
        self.same(self.breaker.force(state, self.now, until=until), self.model.force(str(state), until))

    @rule()
    def someone_resets(self) -> None:
        self.same(self.breaker.reset(self.now), self.model.reset())

    @rule(
        state=st.sampled_from(list(BreakerState)),
        remaining=st.sampled_from([0.0, 2.0, 60.0]),
        endless=st.booleans(),
        reopened=st.integers(0, 2),
        reason=st.sampled_from(["recovered", "reset"]),
    )
    def others_agree(self, state: BreakerState, remaining: float, endless: bool, reopened: int, reason: str) -> None:
        until = None if endless and state is not BreakerState.OPEN else self.now + remaining
        told = Snapshot(state, reason, remaining=None if until is None else remaining, reopened=reopened)
        change = self.breaker.adopt(told, self.now)
        self.same(change, self.model.adopt(str(state), until, reopened))
        if change is not None and change.new is BreakerState.CLOSED and reason == "recovered":
            self.model.ramp_from = self.now if self.model.policy.ramp else None

    @rule(count=st.integers(1, 3), within=st.sampled_from([0.125, 1.0]), lasting=st.sampled_from([2.0, 30.0]))
    def others_grant_leases(self, count: int, within: float, lasting: float) -> None:
        for _ in range(count):
            self.granted += 1
            lease = Lease(str(self.granted), self.now + within, self.now + lasting)
            self.breaker.grant([lease])
            self.model.leases.append(tuple(lease))

    @rule(u=CHANCE)
    def the_tie_is_cut(self, u: float) -> None:
        self.u = u
        pause = self.model.policy.open_for * 0.1 * u
        self.same(self.breaker.alone(self.now), self.model.on_its_own(self.now, pause))

    @rule()
    def another_process_takes_over(self) -> None:
        """Running trials and the window stay behind; all else goes on."""
        successor = Breaker(self.model.policy, lambda: self.u)
        successor.restore(self.breaker.snapshot(self.now), self.now + 500.0)
        for permit, plain in self.permits:
            self.same(self.breaker.cancel(permit, self.now), self.model.cancel(plain))
        before, after = self.breaker.snapshot(self.now), successor.snapshot(self.now + 500.0)
        for name in ("state", "reopened", "successes", "refused", "consecutive_failures", "ordered_by", "reason"):
            assert getattr(after, name) == getattr(before, name)
        assert (after.remaining is None) == (before.remaining is None)
        assert abs((after.remaining or 0.0) - (before.remaining or 0.0)) < 1e-6
        self.model.trials = []

    # ---- what must hold

    def same(self, change: BreakerChange | Ended | None, word: str | ModelEnded | None) -> None:
        if isinstance(change, Ended):
            assert (change.token, change.end) == word
            assert change.token not in self.returned, "a lease comes back once"
            self.returned.add(change.token)
            return
        assert (change.reason if change else None) == word
        if change is None:
            return
        assert Reason(change.reason) in CHANGES[change.old, change.new]
        assert change.new is self.breaker.state
        if change.new is BreakerState.OPEN:
            remaining = self.breaker.snapshot(self.now).remaining
            planned = self.model.open_until - self.now
            assert remaining is not None
            if change.reason == Reason.SHARED:
                assert abs(remaining - planned) < 1e-9
            elif change.old is BreakerState.CLOSED:
                assert abs(remaining - self.model.policy.open_for) < 1e-9
            else:
                assert planned / 1.1 - 1e-9 <= remaining <= min(planned * 1.1, self.model.policy.open_max) + 1e-9
            self.model.open_until = self.now + remaining

    @invariant()
    def all_agrees(self) -> None:
        if not hasattr(self, "breaker"):
            return
        seen, model = self.breaker.snapshot(self.now), self.model
        if model.ramp_from is not None and self.now >= model.ramp_from + model.policy.ramp:
            model.ramp_from = None
        assert seen.state == model.state
        assert (seen.trials, seen.successes, seen.reopened) == (len(model.trials), model.good_trials, model.reopened)
        assert (seen.consecutive_failures, seen.refused) == (model.failures_in_a_row, model.refused)
        if seen.state is not BreakerState.OPEN:
            assert (seen.total, seen.failures, seen.slow) == model.counts(self.now)
        assert (seen.led, len(self.breaker._leases)) == (model.led, len(model.leases))
        assert seen.led or seen.trials <= model.policy.half_open_permits
        assert not seen.led or seen.state is not BreakerState.CLOSED
        assert seen.state is BreakerState.HALF_OPEN or seen.trials == 0
        assert self.breaker.shown in (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)

    def teardown(self) -> None:
        """It never wedges: a healthy upstream closes it, whoever forgot to give a permit back."""
        if not hasattr(self, "breaker"):
            return
        if self.breaker.state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED):
            self.breaker.reset(self.now)
        self.breaker.alone(self.now)
        self.u = 0.0
        self.now += 10_000.0
        while self.breaker.deadline <= self.now:  # a trial that nobody ended may open it once more
            ended = self.breaker.expire(self.now)
            if isinstance(ended, Ended):
                self.returned.add(ended.token)
        for real, _ in self.permits:
            late = self.breaker.cancel(real, self.now)
            if late is not None:
                self.returned.add(late.token)
        assert len(self.returned) == self.granted, "no lease is kept"
        for _ in range(20):
            self.now += 10_000.0
            permit = self.breaker.admit(self.now)
            assert not isinstance(permit, Refusal)
            self.breaker.record(permit, self.now, ok=True)
        assert self.breaker.state is BreakerState.CLOSED


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
