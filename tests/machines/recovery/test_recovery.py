"""Recovery's rules, one example per stage; then any order of events against what must always hold."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.machines.recovery.recovery import LOOK_AGAIN, RELAPSE_WITHIN, WELL_AFTER, Change, Recovery, RecoveryPolicy
from sidecar.machines.recovery.stages import CHANGES, MEANING, Hold, Stage
from sidecar.machines.transition import Transition

POLICY = RecoveryPolicy(held_for=5.0, attempts=3, backoff=2.0, budget_runs=10, budget_per=600.0)


def machine(**changes: float) -> Recovery:
    given = {name: getattr(POLICY, name) for name in POLICY.__dataclass_fields__} | changes
    return Recovery(RecoveryPolicy(**given), lambda: 0.5)  # the middle: no jitter


def acting(now: float = 5.0, **changes: float) -> Recovery:
    one = machine(**changes)
    one.seen(now - 5.0, sick=True, why="no answer")
    one.tick(now)
    one.checked(now, None)
    assert one.stage is Stage.ACTING
    return one


def proving(now: float = 5.0, **changes: float) -> Recovery:
    one = acting(now, **changes)
    one.acted(now, ok=True)
    return one


def healed(now: float = 5.0, **changes: float) -> Recovery:
    one = proving(now, **changes)
    assert one.proved(now) == Transition(Stage.PROVING, Stage.HEALED, "proved", now)
    return one


def try_again(one: Recovery) -> float:
    """From the wait to the action; when it begins."""
    assert one.stage is Stage.WAITING and one.due is not None
    now = one.due
    one.tick(now)
    one.checked(now, None)
    return now


# ------------------------------------------------------------------------------------------------- before it acts
def test_a_condition_must_hold_without_a_break():
    one = machine()
    assert one.seen(1.0, sick=True, why="no answer") == Transition(Stage.WELL, Stage.SICK, "seen", 1.0, "no answer")
    assert one.detected_at == 1.0
    assert one.seen(3.0, sick=False) == Transition(Stage.SICK, Stage.WELL, "gone", 3.0)
    one.seen(4.0, sick=True)
    assert one.tick(8.9) is None
    assert one.tick(9.0).new is Stage.CHECKING


def test_the_look_before_acting_may_find_it_gone():
    one = machine()
    one.seen(0.0, sick=True)
    one.tick(5.0)
    assert one.seen(5.1, sick=False) == Transition(Stage.CHECKING, Stage.WELL, "gone", 5.1)
    assert one.attempts == 0


@pytest.mark.parametrize("hold", list(Hold))
def test_what_forbids_to_act_is_told_once_and_asked_again(hold: Hold):
    one = machine()
    one.seen(0.0, sick=True)
    one.tick(5.0)
    assert one.checked(5.0, hold, "db is down") == Transition(Stage.CHECKING, Stage.HELD, hold.value, 5.0, "db is down")
    assert one.due == 5.0 + LOOK_AGAIN
    assert one.tick(10.0) is None  # still held: it is for the shell to look
    assert one.checked(10.0, hold) is None
    assert one.due == 10.0 + LOOK_AGAIN
    assert one.attempts == 0
    assert one.checked(15.0, None).new is Stage.ACTING


def test_what_held_it_is_over_and_it_acts_at_once():
    one = machine()
    one.seen(0.0, sick=True)
    one.tick(5.0)
    one.checked(5.0, Hold.PAUSED)
    one.allowed(6.0)
    assert one.due == 6.0
    assert one.checked(6.0, None).new is Stage.ACTING
    one.allowed(7.0)
    assert one.due is None


def test_what_is_held_ends_when_the_fault_does():
    one = machine()
    one.seen(0.0, sick=True)
    one.tick(5.0)
    one.checked(5.0, Hold.PAUSED)
    assert one.seen(6.0, sick=False).new is Stage.WELL
    assert one.hold is None


# ------------------------------------------------------------------------------------------------- attempts
def test_an_attempt_that_fails_waits_twice_as_long_each_time():
    one = acting(attempts=5)
    now = 5.0
    waits = []
    for _ in range(4):
        one.acted(now, ok=False, detail="no such program")
        began, now = now, try_again(one)
        waits.append(now - began)
    assert waits == [2.0, 4.0, 8.0, 16.0]


def test_the_wait_is_jittered():
    low, high = (Recovery(POLICY, lambda u=u: u) for u in (0.0, 0.999))
    for one in (low, high):
        one.seen(0.0, sick=True)
        one.tick(5.0)
        one.checked(5.0, None)
        one.acted(5.0, ok=False)
    assert low.due == pytest.approx(5.0 + 1.6)
    assert 5.0 + 2.3 < high.due < 5.0 + 2.4


def test_attempts_used_up_are_told_once_however_it_goes_on():
    one = acting(attempts=2)
    one.acted(5.0, ok=False)
    now = try_again(one)
    assert one.acted(now, ok=True).new is Stage.PROVING
    told = one.unproved(now + 30, "answered 500")
    assert told == Transition(Stage.PROVING, Stage.ESCALATED, "attempts_used", now + 30, "answered 500")
    assert one.due is None
    assert one.seen(now + 31, sick=True) is None
    assert one.seen(now + 40, sick=False).new is Stage.QUIET
    assert one.seen(now + 50, sick=True).reason == "known"
    assert one.seen(now + 60, sick=False).new is Stage.QUIET
    assert one.tick(now + 60 + WELL_AFTER) == Transition(Stage.QUIET, Stage.WELL, "stayed_well", now + 60 + WELL_AFTER)
    assert one.seen(now + 700, sick=True).new is Stage.SICK


def test_a_fault_that_pauses_is_the_same_fault():
    one = acting(attempts=2)
    one.acted(5.0, ok=False)
    assert one.seen(6.0, sick=False) == Transition(Stage.WAITING, Stage.QUIET, "gone", 6.0)
    one.seen(7.0, sick=True)
    one.tick(12.0)
    one.checked(12.0, None)
    assert one.attempts == 2
    assert one.acted(12.0, ok=False).new is Stage.ESCALATED


# ------------------------------------------------------------------------------------------------- proof and relapse
def test_a_proof_resets_attempts_and_backoff():
    one = acting(attempts=2)
    one.acted(5.0, ok=False)
    now = try_again(one)
    one.acted(now, ok=True)
    one.proved(now + 6)
    assert one.attempts == 0
    one.seen(now + 400, sick=True)
    one.tick(now + 405)
    one.checked(now + 405, None)
    one.acted(now + 405, ok=False)
    assert one.due == now + 405 + 2.0


def test_sick_again_within_five_minutes_is_a_relapse_and_treated_like_any_fault():
    one = healed(5.0)
    back = one.seen(5.0 + RELAPSE_WITHIN - 1, sick=True, why="again")
    assert back == Transition(Stage.HEALED, Stage.SICK, "relapsed", 5.0 + RELAPSE_WITHIN - 1, "again")
    assert one.due == back.at + POLICY.held_for
    assert one.attempts == 0
    assert healed(5.0).seen(5.0 + RELAPSE_WITHIN, sick=True).reason == "seen"


def test_ten_good_minutes_end_it():
    one = healed(5.0)
    assert one.tick(5.0 + WELL_AFTER - 1) is None
    assert one.tick(5.0 + WELL_AFTER).new is Stage.WELL
    assert one.detected_at is None


def test_what_is_seen_during_the_proof_decides_nothing():
    one = proving()
    assert one.seen(6.0, sick=True) is None
    assert one.seen(7.0, sick=False) is None
    assert one.stage is Stage.PROVING


# ------------------------------------------------------------------------------------------------- budget
def test_the_budget_holds_across_faults_and_frees_itself():
    one = healed(5.0, budget_runs=1, budget_per=100.0)
    one.seen(50.0, sick=True)
    one.tick(55.0)
    assert one.checked(55.0, None).reason == "budget_used"
    one.seen(60.0, sick=False)
    one.tick(60.0 + WELL_AFTER)
    one.seen(700.0, sick=True)
    one.tick(705.0)
    assert one.checked(705.0, None).new is Stage.ACTING


def test_what_people_order_is_done_whatever_was_used_up():
    one = acting(attempts=1, budget_runs=1)
    one.acted(5.0, ok=False)
    assert one.stage is Stage.ESCALATED
    assert one.ordered(6.0) == Transition(Stage.ESCALATED, Stage.ACTING, "ordered", 6.0)
    assert one.ordered(6.0) is None  # at it
    assert one.acted(7.0, ok=False).reason == "known"
    assert one.budget.left(7.0) == 0


def test_a_reload_keeps_the_fault_and_takes_the_new_figures():
    one = acting(attempts=3, budget_runs=10)
    one.reconfigure(RecoveryPolicy(held_for=1.0, attempts=1, backoff=1.0, budget_runs=1, budget_per=600.0))
    assert one.budget.left(6.0) == 0
    assert one.acted(6.0, ok=False).new is Stage.ESCALATED


# ------------------------------------------------------------------------------------------------- the supervised one
def test_a_death_after_a_good_life_is_answered_at_once_and_costs_no_budget():
    one = healed(5.0, budget_runs=1)
    assert one.died(20.0, detail="SIGKILL").reason == "relapsed"
    assert one.revive_at(20.0) == 20.0
    assert one.reborn(20.1) == Transition(Stage.DEAD, Stage.PROVING, "reborn", 20.1)
    assert one.proved(26.0).new is Stage.HEALED
    assert one.died(30.0).new is Stage.DEAD
    assert one.revive_at(30.0) == 30.0


def test_a_crash_loop_stops_at_the_budget_with_one_escalation():
    one = machine(attempts=9, budget_runs=2, budget_per=100.0)
    told = []
    now = 0.0
    for _ in range(3):
        told.append(one.died(now, detail="code 1"))
        if one.revive_at(now) > now:
            break
        told.append(one.reborn(now))
        now += 1.0
    assert [change.new for change in told] == [Stage.DEAD, Stage.PROVING, Stage.DEAD, Stage.PROVING, Stage.ESCALATED]
    assert told[-1].reason == "budget_used"
    assert one.revive_at(now) == 100.0  # then there is room for one more; nobody is told again
    assert one.reborn(100.0) is None
    assert one.died(101.0) is None
    assert one.revive_at(101.0) == 101.0
    assert one.reborn(101.0) is None
    assert one.revive_at(102.0) == 200.0


def test_attempts_count_in_a_crash_loop_too():
    one = machine(attempts=2)
    for now in (0.0, 1.0):
        one.died(now)
        one.reborn(now)
    assert one.died(2.0).reason == "attempts_used"


def test_a_long_life_needs_no_proof():
    one = machine(budget_runs=1)
    one.budget.spend(WELL_AFTER)
    assert one.died(WELL_AFTER + 1, lived=WELL_AFTER).new is Stage.DEAD
    assert one.revive_at(WELL_AFTER + 1) == WELL_AFTER + 1


def test_when_we_end_it_ourselves_it_did_not_die():
    assert acting().died(6.0) is None


# ------------------------------------------------------------------------------------------------- the table
def test_every_stage_is_told_and_reached():
    assert set(MEANING) == set(Stage)
    assert {new for _, new in CHANGES} == set(Stage)
    assert {old for old, _ in CHANGES} == set(Stage)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is seen and done, in whatever order, only listed changes happen and the limits hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.policy = RecoveryPolicy(5.0, 2, 2.0, 3, 60.0)
        self.one = Recovery(self.policy, lambda: 0.5)
        self.runs: list[float] = []  # automatic ones
        self.told = 0  # escalations since the fault was over
        self.attempts = 0  # automatic, since the last proof or good end

    def took(self, before: Stage, change: Change | None, *, automatic: bool = True) -> None:
        if change is None:
            assert self.one.stage is before
            return
        assert (change.old, change.new) == (before, self.one.stage)
        assert change.reason in CHANGES[change.old, change.new], change
        if change.new is Stage.ACTING and automatic:
            assert sum(at + self.policy.budget_per > self.now for at in self.runs) < self.policy.budget_runs
            assert self.attempts < self.policy.attempts
        if change.new is Stage.ACTING:
            self.runs.append(self.now)
            self.attempts += 1
        if change.reason == "reborn":
            self.attempts += 1
        if change.new is Stage.HEALED or change.new is Stage.WELL:
            self.told = self.attempts = 0
        if change.new is Stage.ESCALATED and change.reason != "known":
            self.told += 1
            assert self.told == 1
        if change.reason == "relapsed":
            assert before is Stage.HEALED

    @rule(wait=st.sampled_from([0.0, 0.5, 2.0, 5.0, 61.0, RELAPSE_WITHIN, WELL_AFTER]))
    def time_goes_on(self, wait: float) -> None:
        self.now += wait
        self.took(self.one.stage, self.one.tick(self.now))

    @rule(sick=st.booleans())
    def somebody_looks(self, sick: bool) -> None:
        self.took(self.one.stage, self.one.seen(self.now, sick=sick, why="why"))

    @rule(hold=st.one_of(st.none(), st.none(), st.sampled_from(list(Hold))))
    def it_is_checked(self, hold: Hold | None) -> None:
        self.took(self.one.stage, self.one.checked(self.now, hold))

    @rule(ok=st.booleans())
    def it_was_done(self, ok: bool) -> None:
        self.took(self.one.stage, self.one.acted(self.now, ok=ok))

    @rule(ok=st.booleans())
    def the_proof_ends(self, ok: bool) -> None:
        before = self.one.stage
        self.took(before, self.one.proved(self.now) if ok else self.one.unproved(self.now))

    @rule()
    def it_dies(self) -> None:
        self.took(self.one.stage, self.one.died(self.now))

    @rule()
    def it_is_reborn(self) -> None:
        if self.one.revive_at(self.now) <= self.now:
            left = self.one.budget.left(self.now)
            self.took(self.one.stage, self.one.reborn(self.now))
            if self.one.budget.left(self.now) < left:
                self.runs.append(self.now)

    @rule()
    def people_order_it(self) -> None:
        self.took(self.one.stage, self.one.ordered(self.now), automatic=False)

    @invariant()
    def it_is_due_only_where_time_decides(self) -> None:
        waits = {Stage.SICK, Stage.HELD, Stage.WAITING, Stage.HEALED, Stage.QUIET}
        assert (self.one.due is not None) == (self.one.stage in waits)
        assert (self.one.hold is not None) == (self.one.stage is Stage.HELD)

    @invariant()
    def a_fault_has_a_beginning(self) -> None:
        assert self.one.stage is Stage.WELL or self.one.detected_at is not None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
