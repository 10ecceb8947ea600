"""One replica toward the fleet, told as stories; any order of events is the simulation's (tests/simulation)."""

from math import inf

import pytest

from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet import replica as fleet_module
from sidecar.machines.fleet.deeds import Adopt, Alone, Lend, Noticed, Ordered, Send, Sync, Synced
from sidecar.machines.fleet.leases import TrialEnd
from sidecar.machines.fleet.member import ASK_AGAIN, PATIENCE, USE_WITHIN
from sidecar.machines.fleet.replica import SYNC, WATCH, Fleet
from sidecar.machines.fleet.words import (
    Answer,
    Ask,
    Did,
    Force,
    Grant,
    Heal,
    Record,
    Report,
    Restore,
    Return,
    Vote,
    Withdraw,
)

POLICY = BreakerPolicy(open_for=60.0, half_open_timeout=30.0, half_open_permits=3, half_open_successes=3)
OPEN = Record(epoch=100, state=BreakerState.OPEN, left=60_000, period=60_000, reason="failure_rate", by="a, b")
HALF_OPEN = Record(epoch=200, state=BreakerState.HALF_OPEN, reason=Reason.OPEN_PERIOD_OVER)
CLOSED = Record(epoch=300, reason=Reason.RECOVERED)


class Story:
    """A replica that is connected, and what it was told to do last."""

    def __init__(self, *, carrying=3, u=0.5, connected=True):
        self.u = u
        self.now = 1000.0
        self.fleet = Fleet("me", lambda: self.u, self.now)
        self.fleet.follow("pay", POLICY)
        self.deeds = []
        if connected:
            self.hear(self.fleet.connected(self.now))
            self.wait(0.1)
            self.synced(carrying=carrying)

    def hear(self, deeds):
        self.deeds = deeds
        return deeds

    def wait(self, seconds):
        self.now += seconds
        self.hear(self.fleet.tick(self.now))

    def synced(self, *, carrying=3, configs=1, foreign=None, **records):
        sync = next(deed for deed in self.deeds if isinstance(deed, Sync))
        answer = Synced(records, carrying, carrying, configs, foreign or {})
        return self.hear(self.fleet.synced(sync, answer, self.now))

    def sent(self, kind):
        """The one command of this kind among the last deeds."""
        (send,) = [deed for deed in self.deeds if isinstance(deed, Send) and isinstance(deed.command, kind)]
        return send

    def kinds(self):
        return [type(getattr(deed, "command", deed)).__name__ for deed in self.deeds if not isinstance(deed, Sync)]

    def answer(self, send, did, record, grants=(), wait=0):
        answer = Answer(record=record, did=did, grants=tuple(grants), wait=wait)
        return self.hear(self.fleet.answered(send, answer, self.now))

    def told(self, record):
        return self.hear(self.fleet.heard("pay", record, self.now))

    def lost(self):
        """The connection breaks: what was not answered has failed."""
        syncs = [deed for deed in self.deeds if isinstance(deed, Sync)]
        self.hear(self.fleet.lost(self.now))
        for sync in syncs:
            self.fleet.failed(sync, self.now, gone=True)

    def trip(self):
        self.hear(self.fleet.tripped("pay", self.now, seconds=60.0, reason="failure_rate", detail="9 of 10"))
        if not self.deeds:
            self.wait(0.01)

    def open_and_wanted(self):
        """Open for all, the period over, and somebody here was refused: this replica asks."""
        self.told(OPEN)
        self.hear(self.fleet.wants("pay", self.now))
        self.wait(60.1)
        return self.sent(Ask)

    def lease(self):
        ask = self.open_and_wanted()
        grant = Grant(ask.command.tokens[0], 200, 30_000)
        syncs = [deed for deed in self.deeds if isinstance(deed, Sync)]
        self.answer(ask, Did.GRANTED, HALF_OPEN, [grant])
        for sync in syncs:
            self.fleet.failed(sync, self.now, gone=False)
        (lend,) = [deed for deed in self.deeds if isinstance(deed, Lend)]
        return lend.leases[0]


class TestVotes:
    def test_its_own_breaker_opened(self):
        story = Story()
        story.trip()
        vote = story.sent(Vote).command
        assert (vote.voter, vote.epoch, vote.quorum, vote.carrying, vote.period) == ("me", 0, 0, 3, 60_000)
        assert 59_900 < vote.lasting <= 60_000
        assert (vote.reason, vote.detail) == ("failure_rate", "9 of 10")

    def test_the_larger_the_fleet_the_more_the_votes_are_spread(self):
        story = Story(carrying=1000, u=0.999)
        story.hear(story.fleet.tripped("pay", story.now, seconds=60.0, reason="failure_rate", detail=""))
        assert story.kinds() == []
        story.wait(0.4)
        assert story.kinds() == []
        story.told(OPEN)
        story.wait(0.2)
        assert story.kinds() == [], "it heard in time that its vote is not needed"

    def test_a_stale_vote_is_cast_again_under_the_epoch_that_it_learnt(self):
        story = Story()
        story.trip()
        story.answer(story.sent(Vote), Did.STALE, CLOSED)
        assert story.sent(Vote).command.epoch == 300

    def test_it_is_repeated_while_it_lasts(self):
        story = Story()
        story.trip()
        story.answer(story.sent(Vote), Did.COUNTED, Record())
        story.wait(WATCH * 1.1)
        story.synced()
        assert story.sent(Vote).command.lasting < 60_000

    def test_it_is_withdrawn(self):
        story = Story()
        story.trip()
        story.hear(story.fleet.untripped("pay", story.now, closed=False))
        assert story.kinds() == ["Withdraw"]
        assert story.sent(Withdraw).command.voter == "me"
        story.hear(story.fleet.untripped("pay", story.now, closed=True))
        assert story.kinds() == []

    def test_nobody_is_the_only_one_before_the_others_had_time_to_show_themselves(self):
        story = Story(carrying=1)
        story.trip()
        assert story.sent(Vote).command.carrying == 2
        later = Story(carrying=1)
        for _ in range(12):
            later.wait(SYNC * 1.1)
            later.synced(carrying=1)
        later.trip()
        assert later.sent(Vote).command.carrying == 1

    def test_the_quorum_is_measured_against_the_most_seen_lately(self):
        story = Story(carrying=9)
        story.wait(SYNC * 1.1)
        story.synced(carrying=1)
        story.trip()
        assert story.sent(Vote).command.carrying == 9


class TestBelieves:
    def test_the_highest_epoch_whoever_brings_it(self):
        story = Story()
        (adopt,) = story.told(OPEN)
        assert isinstance(adopt, Adopt)
        assert (adopt.told.state, adopt.told.remaining, adopt.told.reason) == ("open", 60.0, "failure_rate")
        assert story.told(OPEN) == []
        assert story.told(Record(epoch=50)) == [], "a late hint"
        assert [deed.told.state for deed in story.told(HALF_OPEN)] == ["half_open"]
        assert [deed.told.state for deed in story.told(CLOSED)] == ["closed"]

    def test_a_closed_that_nothing_came_before_disturbs_nobody(self):
        story = Story()
        assert story.told(CLOSED) == []

    def test_a_reset_is_told_even_so(self):
        story = Story()
        story.told(CLOSED)
        story.trip()
        (adopt,) = story.told(Record(epoch=400, reason=Reason.RESET))
        assert adopt.told.reason == "reset"
        story.wait(10)
        assert "Vote" not in story.kinds(), "what was reset is no reason to vote"

    def test_an_order_says_who_and_why(self):
        story = Story()
        record = Record(epoch=500, state=BreakerState.FORCED_OPEN, left=5000, by="eve", detail="works on it")
        (adopt,) = story.told(record)
        assert (adopt.told.ordered_by, adopt.told.ordered_why, adopt.told.remaining) == ("eve", "works on it", 5.0)
        story.wait(5)
        assert story.fleet.view("pay", story.now)["state"] == "closed"

    def test_a_keeper_that_was_emptied_is_told(self):
        story = Story()
        story.told(OPEN)
        story.wait(20)
        story.synced(pay=Record())
        restore = story.sent(Restore).command.record
        assert (restore.epoch, restore.state, restore.by) == (100, "open", "a, b")
        assert 39_999 <= restore.left <= 40_000

    def test_one_that_is_closed_as_ours_is_not(self):
        story = Story()
        story.told(CLOSED)
        story.wait(20)
        assert story.synced(pay=Record()) == []

    def test_an_epoch_given_twice_is_mended(self):
        story = Story()
        story.told(OPEN)
        story.wait(20)
        story.synced(pay=Record(epoch=100, reason=Reason.RESET))
        assert story.sent(Restore).command.record.epoch == 101


class TestAsks:
    def test_only_when_somebody_was_refused(self):
        story = Story()
        story.told(OPEN)
        story.wait(100)
        assert story.kinds() == []
        story.hear(story.fleet.wants("pay", story.now))
        assert story.kinds() == [], "the whole fleet's asks are spread"
        story.wait(0.1)
        assert story.kinds() == ["Ask"]

    def test_for_its_share_when_the_time_is_over(self):
        ask = Story(carrying=3).open_and_wanted().command
        assert (ask.epoch, len(ask.tokens), ask.permits, ask.ttl, ask.due) == (100, 1, 3, 30_000, True)

    def test_a_small_fleets_share_is_more(self):
        assert len(Story(carrying=2).open_and_wanted().command.tokens) == 2

    def test_a_lease_counts_from_when_it_was_asked_for(self):
        story = Story()
        ask = story.open_and_wanted()
        story.now += 2.0
        story.answer(ask, Did.GRANTED, HALF_OPEN, [Grant(ask.command.tokens[0], 200, 30_000)])
        adopt, lend = story.deeds
        assert adopt.told.state == "half_open"
        assert lend.leases == ((ask.command.tokens[0], story.now + USE_WITHIN, ask.at + 29.0),)

    def test_one_of_an_epoch_that_is_over_goes_back(self):
        story = Story()
        ask = story.open_and_wanted()
        story.told(CLOSED)
        story.answer(ask, Did.GRANTED, HALF_OPEN, [Grant(ask.command.tokens[0], 200, 30_000)])
        assert story.sent(Return).command.tokens == ask.command.tokens

    def test_refused_it_asks_again_later_and_only_if_somebody_still_wants(self):
        story = Story()
        story.answer(story.open_and_wanted(), Did.TAKEN, HALF_OPEN, wait=30_000)
        story.wait(5)
        assert story.kinds() == []
        story.hear(story.fleet.wants("pay", story.now))
        story.wait(ASK_AGAIN)
        assert story.kinds() == ["Ask"]

    def test_one_without_an_answer_is_asked_again_by_the_same_names(self):
        story = Story()
        ask = story.open_and_wanted()
        story.hear(story.fleet.failed(ask, story.now, gone=False))
        story.hear(story.fleet.wants("pay", story.now))
        story.wait(2)
        assert story.sent(Ask).command.tokens == ask.command.tokens


class TestReports:
    @pytest.mark.parametrize(("end", "word"), [(TrialEnd.FAILED, "trial_failed"), (TrialEnd.SLOW, "trial_slow"),
                                               (TrialEnd.TIMEOUT, "trial_timeout")])  # fmt: skip
    def test_what_was_no_good(self, end, word):
        story = Story()
        lease = story.lease()
        story.hear(story.fleet.ended("pay", lease.token, end, story.now))
        report = story.sent(Report).command
        assert (report.ok, report.epoch, report.reason, report.holder) == (False, 200, word, "me")
        assert 60_000 <= report.period <= 66_000
        assert story.fleet.ended("pay", lease.token, end, story.now) == [], "once"

    def test_what_was_good_and_what_told_nothing(self):
        story = Story()
        story.hear(story.fleet.ended("pay", story.lease().token, TrialEnd.OK, story.now))
        report = story.sent(Report).command
        assert (report.ok, report.needed) == (True, 3)
        other = Story()
        other.hear(other.fleet.ended("pay", other.lease().token, TrialEnd.UNUSED, other.now))
        assert other.kinds() == ["Return"]

    def test_without_a_connection_it_waits(self):
        story = Story()
        lease = story.lease()
        story.lost()
        story.hear(story.fleet.ended("pay", lease.token, TrialEnd.OK, story.now))
        assert story.kinds() == []
        story.hear(story.fleet.connected(story.now + 1))
        story.wait(1.1)
        story.synced()
        assert story.sent(Report).command.ok


class TestAlone:
    def test_a_short_break_disturbs_nobody(self):
        story = Story()
        story.told(OPEN)
        story.lost()
        story.wait(PATIENCE / 2)
        assert story.kinds() == []
        story.hear(story.fleet.connected(story.now))
        story.wait(0.1)
        story.synced()
        story.wait(PATIENCE)
        assert "Alone" not in story.kinds()

    def test_connections_that_are_never_answered_are_none(self):
        story = Story()
        story.told(OPEN)
        heard = []
        for _ in range(3):
            story.lost()
            story.hear(story.fleet.connected(story.now))
            for _ in range(3):
                story.wait(PATIENCE / 4)
                heard += [deed for deed in story.deeds if not isinstance(deed, Sync)]
        assert heard == [Alone("pay")]

    def test_a_long_one_leaves_it_alone_until_it_is_back(self):
        story = Story()
        story.told(OPEN)
        story.lost()
        story.wait(PATIENCE)
        assert story.deeds == [Alone("pay")]
        story.hear(story.fleet.connected(story.now))
        story.wait(0.1)
        (adopt,) = [deed for deed in story.synced() if isinstance(deed, Adopt)]
        assert (adopt.told.state, round(adopt.told.remaining, 1)) == ("open", 57.9)

    def test_what_it_found_well_heals_the_fleet(self):
        story = Story()
        story.told(OPEN)
        story.lost()
        story.wait(90)
        story.hear(story.fleet.untripped("pay", story.now, closed=True))
        story.hear(story.fleet.connected(story.now))
        story.wait(0.1)
        story.synced()
        heal = story.sent(Heal)
        assert heal.command.epoch == 100
        (adopt,) = story.answer(heal, Did.CLOSED, CLOSED)
        assert adopt.told.state == "closed"

    def test_healed_it_follows_whatever_happened_meanwhile(self):
        story = Story()
        story.told(OPEN)
        story.lost()
        story.wait(90)
        story.hear(story.fleet.untripped("pay", story.now, closed=True))
        story.hear(story.fleet.connected(story.now))
        story.wait(0.1)
        reopened = Record(epoch=400, state=BreakerState.OPEN, left=30_000, period=60_000)
        (adopt,) = [deed for deed in story.synced(pay=reopened) if isinstance(deed, Adopt)]
        assert adopt.told.remaining == 30.0

    def test_a_keeper_that_refuses_is_as_good_as_none(self):
        story = Story()
        story.told(OPEN)
        story.wait(60)
        heard = []
        for _ in range(3):
            story.hear(story.fleet.wants("pay", story.now))
            story.wait(2)
            heard += story.hear(story.fleet.failed(story.sent(Ask), story.now, gone=False))
        assert heard == [Alone("pay")]

    def test_a_page_that_is_not_ours_leaves_it_alone_and_is_told_once(self):
        story = Story()
        story.told(OPEN)
        story.wait(20)
        assert story.synced(foreign={"pay": "rubbish"}) == [Noticed("pay", "rubbish"), Alone("pay")]
        story.wait(SYNC)
        assert story.synced(foreign={"pay": "rubbish"}) == []
        story.wait(SYNC)
        told = story.synced()
        assert told[0] == Noticed("pay", "")
        assert isinstance(told[1], Adopt)


class TestOrders:
    def test_one_is_sent_and_its_end_told(self):
        story = Story()
        number, deeds = story.fleet.order("pay", BreakerState.FORCED_OPEN, story.now, seconds=600.0, by="eve", why="x")
        story.hear(deeds)
        force = story.sent(Force)
        assert (force.command.state, force.command.lasting, force.command.by) == ("forced_open", 600_000, "eve")
        forced = Record(epoch=700, state=BreakerState.FORCED_OPEN, left=600_000, period=600_000, by="eve", detail="x")
        adopt, ordered = story.answer(force, Did.ORDERED, forced)
        assert isinstance(adopt, Adopt)
        assert ordered == Ordered(number, ok=True)

    def test_overtaken_it_is_sent_again_a_few_times(self):
        story = Story()
        _, deeds = story.fleet.order("pay", BreakerState.CLOSED, story.now, seconds=None, by="eve", why="")
        story.hear(deeds)
        for turn in range(6):
            force = story.sent(Force)
            assert force.command.epoch == (0 if turn == 0 else 300 + turn - 1)
            story.answer(force, Did.STALE, Record(epoch=300 + turn))
        assert [deed.ok for deed in story.deeds if isinstance(deed, Ordered)] == [False]

    def test_what_people_write_is_cut(self):
        story = Story()
        _, deeds = story.fleet.order("pay", BreakerState.CLOSED, story.now, seconds=None, by="e" * 999, why="w" * 9999)
        assert (len(deeds[0].command.by), len(deeds[0].command.why)) == (200, 200)

    def test_without_redis_it_is_refused_at_once(self):
        story = Story(connected=False)
        _, deeds = story.fleet.order("pay", BreakerState.CLOSED, story.now, seconds=None, by="eve", why="")
        assert [deed.ok for deed in deeds] == [False]
        _, deeds = story.fleet.order("tax", BreakerState.CLOSED, story.now, seconds=None, by="eve", why="")
        assert "not shared" in deeds[0].why

    def test_the_fleets_word_can_be_had_again(self):
        story = Story()
        assert story.fleet.again("pay", story.now) == []
        story.told(OPEN)
        story.now += 10
        (adopt,) = story.fleet.again("pay", story.now)
        assert adopt.told.remaining == 50.0


class TestSyncs:
    def test_a_tenth_of_an_operation_a_second_when_all_is_well(self):
        story = Story()
        for number in range(50):
            story.fleet.follow(f"u{number}", POLICY)
        story.wait(0.0)
        story.synced()
        count = 0
        until = story.now + 1000
        while story.now < until:
            story.wait(story.fleet.deadline - story.now)
            assert len(story.deeds) == 1
            assert len(story.deeds[0].known) == 51
            story.synced()
            count += 1
        assert 90 <= count <= 112

    def test_more_often_while_something_is_open_and_less_in_a_crowd(self):
        story = Story()
        story.told(OPEN)
        assert story.fleet.deadline <= story.now + WATCH
        crowd = Story(carrying=1000)
        crowd.told(OPEN)
        assert crowd.fleet.deadline > crowd.now + 0.8 * SYNC

    def test_it_is_idle_when_no_call_passed_for_a_minute(self):
        story = Story()
        story.wait(SYNC * 1.1)
        assert story.deeds[0].carrying
        story.synced()
        story.wait(60)
        assert not story.deeds[0].carrying
        story.synced()
        story.fleet.carries(story.now)
        story.wait(SYNC * 1.1)
        assert story.deeds[0].carrying

    def test_unequal_configurations_are_noticed_once(self):
        story = Story()
        story.wait(SYNC * 1.1)
        assert story.synced(configs=2) == [Noticed("configs", "2 different ones")]
        story.wait(SYNC * 1.1)
        assert story.synced(configs=2) == []
        other = Story()
        other.fleet.follow("pay", BreakerPolicy(open_for=30.0))
        assert other.fleet.config != story.fleet.config

    def test_one_that_failed_comes_again(self):
        story = Story()
        story.wait(SYNC * 1.1)
        story.hear(story.fleet.failed(story.deeds[0], story.now, gone=False))
        story.wait(SYNC * 1.1)
        assert isinstance(story.deeds[0], Sync)
        story.lost()
        assert story.fleet.deadline == inf

    def test_who_is_not_followed_is_nobodys_business(self):
        story = Story()
        story.fleet.unfollow("pay")
        assert story.told(OPEN) == []
        assert story.fleet.view("pay", story.now) is None
        assert fleet_module.MEMORY > SYNC
