"""What every keeper of the fleet's pages must do: the pure one and the script in a real Redis, the same suite."""

import random

import msgspec
import pytest

from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.words import (
    Ask,
    Force,
    Heal,
    Look,
    Record,
    Report,
    Restore,
    Return,
    Vote,
    Withdraw,
)
from tests.contract.fleet_keepers import InProcess, InRedis

HOUR = 3_600_000_000


def vote(who, epoch=0, *, lasting=60_000, quorum=2, carrying=0):
    return Vote(voter=who, epoch=epoch, lasting=lasting, period=60_000, quorum=quorum, carrying=carrying,
                reason="consecutive_failures", detail="5 failures in a row")  # fmt: skip


def ask(who, epoch, *tokens, permits=3, ttl=30_000, due=False, carrying=0):
    return Ask(holder=who, epoch=epoch, tokens=tokens, permits=permits, ttl=ttl, due=due, carrying=carrying)


def report(who, token, epoch, ok, needed=2, period=60_000):
    return Report(holder=who, token=token, epoch=epoch, ok=ok, needed=needed, period=period,
                  reason="" if ok else "trial_failed", detail="")  # fmt: skip


def later(keeper, seconds):
    keeper.now_us += int(seconds * 1_000_000)


def opened(keeper):
    keeper.apply(vote("a"))
    return keeper.apply(vote("b")).record.epoch


def half_opened(keeper, *tokens, permits=3):
    epoch = opened(keeper)
    later(keeper, 60)
    answer = keeper.apply(ask("a", epoch, *tokens, permits=permits))
    assert answer.did == "granted"
    return answer.record.epoch


class TestVotes:
    def test_distinct_voters_open_it_for_all(self, keeper):
        first = keeper.apply(vote("a"))
        assert (first.did, first.record.state, first.changed) == ("counted", "closed", False)
        assert keeper.apply(vote("a")).did == "counted"
        second = keeper.apply(vote("b"))
        assert (second.did, second.changed) == ("opened", True)
        record = second.record
        assert (record.state, record.left, record.period) == ("open", 60_000, 60_000)
        assert (record.reason, record.by) == ("consecutive_failures", "a, b")
        assert record.epoch == keeper.now_us

    def test_a_vote_ends_with_its_voters_own_open_period(self, keeper):
        keeper.apply(vote("a", lasting=5_000))
        later(keeper, 5)
        assert keeper.apply(vote("b")).did == "counted"

    def test_a_vote_is_withdrawn(self, keeper):
        keeper.apply(vote("a"))
        assert keeper.apply(Withdraw(voter="a")).did == "counted"
        assert keeper.apply(Withdraw(voter="a")).did == "nothing"
        assert keeper.apply(vote("b")).did == "counted"

    @pytest.mark.parametrize(
        ("present", "told", "did"),
        [(0, 0, "opened"), (1, 0, "opened"), (2, 0, "counted"), (9, 0, "counted"), (1, 9, "counted")],
    )
    def test_the_usual_quorum_is_two_or_all_who_carry_traffic(self, keeper, present, told, did):
        keeper.carrying(present)
        assert keeper.apply(vote("a", quorum=0, carrying=told)).did == did

    def test_an_older_epoch_is_told_the_newer_and_changes_nothing(self, keeper):
        epoch = opened(keeper)
        keeper.apply(Force(epoch=epoch, state=BreakerState.CLOSED))
        before = keeper.record()
        answer = keeper.apply(vote("c", epoch, quorum=1))
        assert (answer.did, answer.changed) == ("stale", False)
        assert keeper.record() == before == answer.record

    def test_a_vote_over_is_none(self, keeper):
        assert keeper.apply(vote("a", lasting=0, quorum=1)).did == "nothing"


class TestLeases:
    def test_none_while_the_period_lasts(self, keeper):
        epoch = opened(keeper)
        later(keeper, 59)
        answer = keeper.apply(ask("a", epoch, "a1"))
        assert (answer.did, answer.wait, answer.record.state) == ("early", 1000, "open")

    def test_the_first_ask_after_it_makes_it_half_open(self, keeper):
        epoch = opened(keeper)
        later(keeper, 60)
        answer = keeper.apply(ask("a", epoch, "a1", "a2"))
        assert (answer.did, answer.record.state, answer.changed) == ("granted", "half_open", True)
        assert [(one.token, one.left, one.epoch) for one in answer.grants] == [
            ("a1", 30_000, answer.record.epoch), ("a2", 30_000, answer.record.epoch)]  # fmt: skip

    def test_due_by_the_askers_own_clock(self, keeper):
        epoch = opened(keeper)
        assert keeper.apply(ask("a", epoch, "a1", due=True)).did == "granted"

    def test_no_more_than_permits_whoever_asks(self, keeper):
        epoch = half_opened(keeper, "a1", "a2")
        answer = keeper.apply(ask("b", epoch, "b1", "b2"))
        assert [one.token for one in answer.grants] == ["b1"]
        refused = keeper.apply(ask("c", epoch, "c1"))
        assert (refused.did, refused.wait, refused.grants) == ("taken", 30_000, ())

    def test_a_repeated_ask_is_granted_the_same(self, keeper):
        epoch = opened(keeper)
        later(keeper, 60)
        first = keeper.apply(ask("a", epoch, "a1", "a2"))
        later(keeper, 1)
        again = keeper.apply(ask("a", epoch, "a1", "a2"))
        assert again.record.epoch == first.record.epoch
        assert [(one.token, one.left) for one in again.grants] == [("a1", 29_000), ("a2", 29_000)]

    def test_a_dead_holders_lease_ends(self, keeper):
        epoch = half_opened(keeper, "a1", permits=1)
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "taken"
        later(keeper, 30)
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "granted"

    def test_refusals_prolong_nothing(self, keeper):
        epoch = half_opened(keeper, "a1", permits=1)
        for _ in range(29):
            later(keeper, 1)
            assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "taken"
        later(keeper, 1)
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "granted"

    def test_what_is_returned_is_free(self, keeper):
        epoch = half_opened(keeper, "a1", permits=1)
        assert keeper.apply(Return(tokens=("a1", "zz"))).did == "counted"
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "granted"

    def test_leases_outlive_a_change_of_state(self, keeper):
        epoch = half_opened(keeper, "a1", "a2", permits=2)
        reopened = keeper.apply(report("a", "a1", epoch, ok=False, period=1000)).record
        later(keeper, 1)
        answer = keeper.apply(ask("b", reopened.epoch, "b1", "b2", permits=2))
        assert [one.token for one in answer.grants] == ["b1"], "a2 is still on its way to the upstream"

    def test_all_lent_of_before_leave_it_open(self, keeper):
        epoch = half_opened(keeper, "a1", "a2", permits=2)
        reopened = keeper.apply(report("a", "gone", epoch, ok=False, period=1000)).record
        later(keeper, 1)
        answer = keeper.apply(ask("b", reopened.epoch, "b1", permits=2))
        assert (answer.did, answer.record.state) == ("taken", "open")


class TestReports:
    def test_enough_good_ones_close_it(self, keeper):
        epoch = half_opened(keeper, "a1", "a2")
        assert keeper.apply(report("a", "a1", epoch, ok=True)).did == "counted"
        assert keeper.apply(report("a", "a1", epoch, ok=True)).did == "nothing", "a lease reports once"
        answer = keeper.apply(report("a", "a2", epoch, ok=True))
        assert (answer.did, answer.record.state, answer.record.reason) == ("closed", "closed", "recovered")
        assert answer.record.epoch > epoch

    def test_a_bad_one_opens_it_again(self, keeper):
        epoch = half_opened(keeper, "a1")
        record = keeper.apply(report("a", "a1", epoch, ok=False, period=90_000)).record
        assert (record.state, record.left, record.reopened, record.reason) == ("open", 90_000, 1, "trial_failed")

    def test_a_bad_one_counts_after_its_lease_too(self, keeper):
        epoch = half_opened(keeper, "a1")
        later(keeper, 31)
        assert keeper.apply(report("a", "a1", epoch, ok=False)).did == "opened"

    def test_a_good_one_does_not(self, keeper):
        epoch = half_opened(keeper, "a1")
        later(keeper, 31)
        assert keeper.apply(report("a", "a1", epoch, ok=True, needed=1)).did == "nothing"

    @pytest.mark.parametrize("ok", [True, False])
    def test_one_of_an_older_epoch_only_frees_its_permit(self, keeper, ok):
        epoch = half_opened(keeper, "a1", "a2")
        keeper.apply(report("a", "a1", epoch, ok=False))
        before = keeper.record()
        assert keeper.apply(report("a", "a2", epoch, ok=ok, needed=1)).did == "stale"
        assert keeper.record() == before

    def test_who_failed_lets_the_others_try_first(self, keeper):
        keeper.carrying(3)
        epoch = half_opened(keeper, "a1")
        reopened = keeper.apply(report("a", "a1", epoch, ok=False, period=1000)).record.epoch
        later(keeper, 1)
        answer = keeper.apply(ask("a", reopened, "a2"))
        assert (answer.did, answer.wait) == ("barred", 2000)
        later(keeper, 2)
        assert keeper.apply(ask("a", reopened, "a2")).did == "granted", "nobody else wanted"

    def test_nobody_waits_for_others_that_are_not_there(self, keeper):
        keeper.carrying(1)
        epoch = half_opened(keeper, "a1")
        reopened = keeper.apply(report("a", "a1", epoch, ok=False, period=1000)).record.epoch
        later(keeper, 1)
        assert keeper.apply(ask("a", reopened, "a2")).did == "granted"

    def test_who_failed_waits_while_others_try(self, keeper):
        keeper.carrying(3)
        epoch = half_opened(keeper, "a1")
        reopened = keeper.apply(report("a", "a1", epoch, ok=False, period=1000)).record.epoch
        later(keeper, 1)
        trying = keeper.apply(ask("b", reopened, "b1")).record.epoch
        later(keeper, 5)
        assert keeper.apply(ask("a", trying, "a2")).did == "barred"


class TestOrders:
    def test_an_order_stands_above_all_until_its_end(self, keeper):
        epoch = opened(keeper)
        answer = keeper.apply(Force(epoch=epoch, state=BreakerState.FORCED_CLOSED, lasting=600_000, by="eve", why="x"))
        assert (answer.did, answer.record.state, answer.record.left) == ("ordered", "forced_closed", 600_000)
        assert (answer.record.by, answer.record.detail, answer.record.reason) == ("eve", "x", "manual")
        assert keeper.apply(vote("a", answer.record.epoch, quorum=1)).did == "nothing"
        later(keeper, 600)
        ended = keeper.apply(Look())
        assert (ended.record.state, ended.record.reason, ended.changed) == ("closed", "expired", True)

    def test_one_without_an_end_stays(self, keeper):
        keeper.apply(Force(epoch=0, state=BreakerState.FORCED_OPEN, by="eve", why="x"))
        later(keeper, 10_000_000)
        assert keeper.apply(Look()).record.state == "forced_open"

    def test_it_is_taken_back(self, keeper):
        epoch = keeper.apply(Force(epoch=0, state=BreakerState.FORCED_OPEN, by="eve", why="x")).record.epoch
        record = keeper.apply(Force(epoch=epoch, state=BreakerState.CLOSED, by="bob", why="")).record
        assert (record.state, record.reason) == ("closed", "reset")

    def test_an_order_that_comes_twice_or_late_changes_nothing(self, keeper):
        order = Force(epoch=0, state=BreakerState.FORCED_OPEN, by="eve", why="x")
        keeper.apply(order)
        assert keeper.apply(order).did == "stale"


class TestLoss:
    def test_whoever_knows_more_restores_it(self, keeper):
        epoch = opened(keeper)
        known = keeper.record()
        keeper.fresh()
        later(keeper, 10)
        answer = keeper.apply(Restore(record=msgspec.structs.replace(known, left=50_000)))
        assert (answer.did, answer.record.state, answer.record.left) == ("restored", "open", 50_000)
        assert answer.record.epoch > epoch
        assert keeper.apply(Restore(record=known)).did == "stale", "once is enough"

    def test_half_open_comes_back_as_open_and_due(self, keeper):
        half_opened(keeper, "a1")
        known = keeper.record()
        keeper.fresh()
        record = keeper.apply(Restore(record=known)).record
        assert (record.state, record.left) == ("open", 0)

    def test_the_stricter_stands(self, keeper):
        known = Record(epoch=keeper.now_us + HOUR, state=BreakerState.CLOSED, reason="recovered")
        opened(keeper)
        record = keeper.apply(Restore(record=known)).record
        assert (record.state, record.left) == ("open", 60_000)
        assert record.epoch > known.epoch

    def test_the_later_end_stands(self, keeper):
        opened(keeper)
        known = Record(epoch=keeper.now_us + HOUR, state=BreakerState.OPEN, left=90_000, period=90_000, reopened=2)
        assert keeper.apply(Restore(record=known)).record.left == 90_000

    def test_an_order_comes_back(self, keeper):
        opened(keeper)
        known = Record(epoch=keeper.now_us + HOUR, state=BreakerState.FORCED_CLOSED, left=-1, by="eve", detail="x")
        record = keeper.apply(Restore(record=known)).record
        assert (record.state, record.left, record.by) == ("forced_closed", -1, "eve")

    def test_who_found_it_well_while_cut_off_closes_it(self, keeper):
        epoch = opened(keeper)
        assert keeper.apply(Heal(epoch=epoch - 1)).did == "stale"
        assert keeper.apply(Heal(epoch=epoch)).record.state == "closed"


class TestClock:
    def test_one_that_fell_back_prolongs_nothing_beyond_what_it_ever_lasted(self, keeper):
        epoch = half_opened(keeper, "a1", permits=1)
        later(keeper, -3600)
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).wait == 30_000
        later(keeper, 30)
        assert keeper.apply(ask("b", epoch, "b1", permits=1)).did == "granted"

    def test_epochs_grow_all_the_same(self, keeper):
        epoch = opened(keeper)
        later(keeper, -3600)
        assert epoch < keeper.apply(Force(epoch=epoch, state=BreakerState.CLOSED)).record.epoch <= epoch + 65_536

    def test_hardly_ever_given_twice(self, keeper):
        """Emptied under a clock that fell back: what was decided anew is told apart from what was forgotten."""
        epoch = opened(keeper)
        later(keeper, -3600)
        lost = keeper.apply(Force(epoch=epoch, state=BreakerState.CLOSED)).record.epoch
        keeper.fresh()
        later(keeper, 0.000_123)
        again = keeper.apply(Force(epoch=epoch, state=BreakerState.FORCED_OPEN, lasting=5)).record.epoch
        assert again > epoch
        assert again != lost

    def test_an_open_period_is_cut_to_its_length(self, keeper):
        opened(keeper)
        later(keeper, -3600)
        assert keeper.apply(Look()).record.left == 60_000
        later(keeper, 20)
        assert keeper.apply(Look()).record.left == 40_000


class TestPresence:
    def test_who_shows_itself_counts_for_three_beats(self, keeper):
        assert (keeper.sync("a").carrying, keeper.sync("a").replicas) == (1, 1)
        later(keeper, 10)
        seen = keeper.sync("b", idle=True)
        assert (seen.carrying, seen.replicas) == (1, 2)
        later(keeper, 20)
        seen = keeper.sync("b", idle=True)
        assert (seen.carrying, seen.replicas) == (1, 1), "a is gone, and one always counts: who asks"

    def test_idle_and_back(self, keeper):
        keeper.sync("b")
        assert keeper.sync("a").carrying == 2
        assert keeper.sync("a", idle=True).carrying == 1
        assert keeper.sync("a").carrying == 2

    def test_unequal_configurations_are_counted_while_they_live(self, keeper):
        keeper.sync("a")
        assert keeper.sync("b", config="c2").configs == 2
        later(keeper, 30)
        assert keeper.sync("b", config="c2").configs == 1

    def test_a_clock_that_fell_back_makes_nobody_immortal(self, keeper):
        keeper.sync("a")
        keeper.sync("b")
        later(keeper, -3600)
        assert keeper.sync("a").replicas == 1


class TestSync:
    def test_only_what_differs_is_told(self, keeper):
        epoch = opened(keeper)
        known = {"x": (epoch, BreakerState.OPEN), "y": (0, BreakerState.CLOSED)}
        assert keeper.sync("a", **known).records == {}
        assert keeper.sync("a", y=(7, BreakerState.OPEN)).records == {"y": Record()}
        told = keeper.sync("a", x=(epoch, BreakerState.CLOSED)).records["x"]
        assert (told.state, told.left, told.epoch) == ("open", 60_000, epoch)

    def test_what_is_left_is_told_and_not_when_it_ends(self, keeper):
        opened(keeper)
        later(keeper, 59)
        assert keeper.record().left == 1000
        later(keeper, 100)
        assert keeper.record().left == 0


def command_of(dice, epochs):
    """Any command, most of them sensible."""
    who = dice.choice("abc")
    epoch = dice.choice(epochs[-3:])
    token = f"{who}{dice.randrange(4)}"
    match dice.randrange(12):
        case 0 | 1 | 2:
            return vote(who, epoch, lasting=dice.choice([0, 1000, 60_000]), quorum=dice.choice([0, 0, 1, 2]),
                        carrying=dice.choice([0, 3]))  # fmt: skip
        case 3:
            return Withdraw(voter=who)
        case 4 | 5:
            tokens = (token, f"{who}{dice.randrange(4)}")
            return ask(who, epoch, *tokens, permits=dice.choice([1, 2]), ttl=dice.choice([500, 30_000]),
                       due=dice.random() < 0.3, carrying=dice.choice([0, 0, 4]))  # fmt: skip
        case 6 | 7:
            return report(who, token, epoch, ok=dice.random() < 0.6, needed=dice.choice([1, 2]), period=1000)
        case 8:
            return Return(tokens=(token,))
        case 9:
            state = dice.choice([BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED, BreakerState.CLOSED])
            return Force(epoch=epoch, state=state, lasting=dice.choice([-1, 1000]), by=who, why="ünd \"'")
        case 10:
            state = dice.choice(list(BreakerState))
            left = -1 if state in ("closed", "half_open") else dice.choice([0, 1000, 90_000])
            record = Record(epoch=epoch + dice.choice([0, 1, 10**9]), state=state, left=left, period=max(left, 0),
                            reopened=dice.randrange(3), reason=Reason.MANUAL, detail="d", by="b")  # fmt: skip
            return Restore(record=record)
        case _:
            return dice.choice([Look(), Heal(epoch=epoch)])


@pytest.mark.parametrize("seed", range(30))
def test_the_script_and_its_plain_text_agree(redis_server, seed):
    """Any order of commands, also senseless ones, while the clock runs, stands and jumps."""
    dice = random.Random(seed)
    plain, script = InProcess(), InRedis(redis_server)
    plain.now_us = script.now_us = 1_700_000_000_000_000 + dice.randrange(10**6)
    plain.fresh()
    script.fresh()
    epochs = [0]
    for _ in range(50):
        if dice.random() < 0.05:
            carrying = dice.randrange(4)
            plain.carrying(carrying)
            script.carrying(carrying)
        step = dice.choice([0, 0, 1, 400_000, 1_000_000, 30_000_000, -HOUR if dice.random() < 0.1 else 0])
        plain.now_us += step
        script.now_us += step
        command = command_of(dice, epochs)
        mine, theirs = plain.apply(command), script.apply(command)
        assert theirs == mine, command
        assert script.record() == plain.record()
        epochs.append(mine.record.epoch)
    told = [msgspec.json.decode(hint, type=dict)["r"] for hint in script.hints()]
    assert [int(one["e"]) for one in told] == [record.epoch for record in plain.told]
    script.close()
