"""What is to be told waits, is replaced by what is newer, comes once, and never in floods."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.machines.incidents.outbox import (
    BURST,
    GIVE_UP_AFTER,
    LONGEST_PAUSE,
    MAX_WAITING,
    PER,
    PER_INCIDENT,
    REFILL,
    Message,
    Outbox,
    Stored,
)


def outbox() -> Outbox:
    ids = itertools.count()
    return Outbox(lambda: 0.0, lambda: f"m{next(ids)}")


def put(box: Outbox, incident: str, what: str, now: float, receiver: str = "ops") -> list[Stored]:
    return box.put(receiver, incident, what, {"status": what}, now)


def deliver(box: Outbox, now: float) -> list[str]:
    """Send all that is due; what was told."""
    told = []
    while messages := box.take(now):
        for message in messages:
            told.append(f"{message.receiver}:{message.incident}:{message.what}")
            box.sent(message, now)
    return told


def test_what_is_put_is_sent_at_once_and_once():
    box = outbox()
    (stored,) = put(box, "1", "opened", 10.0)
    assert not stored.gone
    assert deliver(box, 10.0) == ["ops:1:opened"]
    assert deliver(box, 9999.0) == []
    assert box.due(9999.0) is None


def test_one_attempt_per_receiver_at_a_time_and_the_others_do_not_wait():
    box = outbox()
    put(box, "1", "opened", 1.0)
    put(box, "2", "opened", 1.0)
    put(box, "1", "opened", 1.0, "lead")
    first, other = box.take(1.0)
    assert (first.incident, other.receiver) == ("1", "lead")
    assert box.take(1.0) == []
    box.sent(first, 1.0)
    assert [message.incident for message in box.take(1.0)] == ["2"]


def test_a_failure_is_tried_again_ever_later():
    box = outbox()
    put(box, "1", "opened", 0.0)
    waits, now = [], 0.0
    for _ in range(11):
        (message,) = box.take(now)
        assert not box.failed(message, now, "answered 500").gone
        waits.append(box.due(now) - now)
        now = box.due(now)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_PAUSE
    (message,) = box.take(now)
    assert (message.attempts, message.error) == (12, "answered 500")
    assert box.failed(message, GIVE_UP_AFTER, "answered 500").gone
    assert (box.waiting, box.dropped) == ([], 1)


def test_the_receiver_says_when():
    box = outbox()
    put(box, "1", "opened", 0.0)
    (message,) = box.take(0.0)
    box.failed(message, 0.0, "answered 429", retry_after=42.0)
    assert box.due(0.0) == 42.0


def test_what_was_not_sent_is_replaced_by_what_is_newer():
    box = outbox()
    put(box, "1", "opened", 0.0)
    old, new = put(box, "1", "acknowledged", 1.0)
    assert (old.gone, new.message.what, new.message.created) == (True, "opened", 0.0), "nobody heard of it yet"
    assert new.message.body == {"status": "acknowledged"}
    put(box, "1", "resolved", 2.0)
    assert deliver(box, 3.0) == ["ops:1:resolved"]


def test_what_comes_while_an_attempt_is_under_way_is_sent_after_it():
    box = outbox()
    put(box, "1", "opened", 0.0)
    (message,) = box.take(0.0)
    put(box, "1", "acknowledged", 0.1)
    box.sent(message, 0.2)
    assert deliver(box, 0.3) == ["ops:1:acknowledged"]


def test_what_comes_while_an_attempt_fails_takes_its_place():
    box = outbox()
    put(box, "1", "opened", 0.0)
    (message,) = box.take(0.0)
    put(box, "1", "resolved", 0.1)
    assert box.failed(message, 0.2, "hung").gone
    assert deliver(box, 2.0) == ["ops:1:resolved"]


def test_an_incident_that_flaps_is_told_so_often_and_then_how_it_ended():
    box, told = outbox(), []
    for flap in range(50):
        for what, second in (("reopened", 0.0), ("resolved", 6.0)):
            put(box, "1", what, flap * 12.0 + second)
            told += deliver(box, flap * 12.0 + second)
    assert len(told) == PER_INCIDENT
    assert deliver(box, PER) == ["ops:1:resolved"]
    put(box, "2", "opened", PER)
    assert deliver(box, PER) == ["ops:2:opened"], "another incident is told at once"


def test_an_escalation_is_told_whatever_was_told_before():
    box = outbox()
    for number in range(PER_INCIDENT):
        put(box, "1", "reopened", float(number))
        deliver(box, float(number))
    put(box, "1", "escalated", 10.0)
    assert deliver(box, 10.0) == ["ops:1:escalated"]


def test_a_flood_of_incidents_is_told_at_a_pace():
    box = outbox()
    for number in range(100):
        put(box, str(number), "opened", 0.0)
    assert len(deliver(box, 0.0)) == BURST
    assert box.due(0.0) == REFILL
    assert len(deliver(box, 10 * REFILL)) == 10


def test_there_is_room_for_so_many():
    box = outbox()
    put(box, "first", "opened", 0.0)
    put(box, "second", "resolved", 0.0)
    for number in range(MAX_WAITING - 1):
        put(box, str(number), "opened", 1.0)
    waiting = [message.incident for message in box.waiting]
    assert (len(waiting), box.dropped) == (MAX_WAITING, 1)
    assert waiting[:2] == ["first", "0"], "an ending is given up before an opening"


def test_an_earlier_run_s_messages_are_sent_and_removed_receivers_forgotten():
    box = outbox()
    box.restore([Message("a", "ops", "1", "opened", 5.0), Message("b", "gone", "1", "opened", 5.0)])
    assert [stored.message.receiver for stored in box.keep_only(["ops"])] == ["gone"]
    assert deliver(box, 6.0) == ["ops:1:opened"]


class AnyOrder(RuleBasedStateMachine):
    """Whatever order: the newest is told in the end, once, and never more than the limits allow."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.puts = 0
        self.box = outbox()
        self.under_way: list[Message] = []
        self.told: dict[tuple[str, str], list[float]] = {}
        self.newest: dict[tuple[str, str], str] = {}
        self.written: dict[str, Message] = {}

    def wrote(self, stored: list[Stored]) -> None:
        for message, gone in stored:
            self.written.pop(message.id, None)
            if not gone:
                self.written[message.id] = message

    @rule(receiver=st.sampled_from(["ops", "lead"]), incident=st.sampled_from("12"))
    def something_is_to_be_told(self, receiver: str, incident: str) -> None:
        self.puts += 1
        self.wrote(self.box.put(receiver, incident, "acknowledged", {"n": self.puts}, self.now))
        self.newest[receiver, incident] = str(self.puts)

    @rule()
    def attempts_begin(self) -> None:
        taken = self.box.take(self.now)
        self.under_way += taken
        busy = [message.receiver for message in self.under_way]
        assert len(busy) == len(set(busy))

    @rule(arrives=st.booleans())
    def an_attempt_ends(self, arrives: bool) -> None:
        if not self.under_way:
            return
        message = self.under_way.pop(0)
        if not arrives:
            self.wrote([self.box.failed(message, self.now, "no")])
            return
        self.wrote([self.box.sent(message, self.now)])
        key = (message.receiver, message.incident)
        self.told.setdefault(key, []).append(self.now)
        if self.newest.get(key) == str(message.body["n"]):
            del self.newest[key]

    @rule(wait=st.sampled_from([0.0, 1.0, 60.0, LONGEST_PAUSE, PER]))
    def time_goes_on(self, wait: float) -> None:
        self.now += wait

    @invariant()
    def what_nobody_heard_still_waits(self) -> None:
        waiting = {(one.receiver, one.incident): str(one.body["n"]) for one in self.box.waiting}
        assert waiting == self.newest

    @invariant()
    def what_waits_is_written_down(self) -> None:
        ids = {message.id for message in self.box.waiting}
        assert ids <= set(self.written) <= ids | {message.id for message in self.under_way}

    @invariant()
    def nobody_is_flooded(self) -> None:
        for times in self.told.values():
            for first, later in zip(times, times[PER_INCIDENT:], strict=False):
                assert later - first >= PER


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
