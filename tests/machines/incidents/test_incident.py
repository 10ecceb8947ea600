"""An incident's way from the first sign to its end, and what keeps a fault that comes and goes from becoming fifty."""

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.machines.incidents.book import FULL, MAX_OPEN, Change, Entry, IncidentBook, What
from sidecar.machines.incidents.incident import (
    CHANGES,
    MEANING,
    REASONS,
    Condition,
    Incident,
    Patience,
    Severity,
    Status,
)

DETECTED, ACKNOWLEDGED, MITIGATED, RESOLVED, CLOSED = Status
WAIT, REOPEN = Patience()


def book() -> IncidentBook:
    numbers = iter(range(10**9))
    return IncidentBook("orders", "orders-1", lambda _now: f"id{next(numbers)}")


def condition(key: str = "breaker", subject: str = "app", severity: Severity = Severity.ERROR, **more) -> Condition:
    return Condition("upstream_failing", subject, key, severity, f"{key} of {subject}", **more)


def whats(changes: list[Change]) -> list[What]:
    return [change.what for change in changes]


def opened(one: IncidentBook, now: float = 100.0, **keys) -> Incident:
    change = one.hold(condition(**keys), now)[-1]
    assert change.what is What.OPENED
    return change.incident


def test_from_the_first_sign_to_closed():
    one = book()
    incident = opened(one, since=97.0, outage=True)
    assert (incident.status, incident.started, incident.detected) == (DETECTED, 97.0, 100.0)
    assert whats(one.ack(incident.id, 130.0, "kim", "looking")) == [What.ACKNOWLEDGED]
    assert whats(one.clear("upstream_failing", "app", "breaker", 200.0)) == [What.MITIGATED]
    assert incident.outages == [(97.0, 200.0)]
    assert one.tick(200.0 + WAIT - 0.1) == []
    assert whats(one.tick(200.0 + WAIT)) == [What.RESOLVED]
    assert (incident.resolved, one.open()) == (200.0 + WAIT, [])
    assert whats(one.tick(200.0 + WAIT + REOPEN)) == [What.CLOSED]
    assert [entry.kind for entry in one.timeline(incident.id)] == [
        "incident_opened", "incident_acknowledged", "incident_mitigated", "incident_resolved", "incident_closed"
    ]  # fmt: skip
    assert one.timeline(incident.id)[1].text == "acknowledged by kim: looking"


def test_conditions_of_one_subject_are_one_incident_until_the_last_is_gone():
    one = book()
    incident = opened(one, severity=Severity.WARNING)
    assert whats(one.hold(condition("endpoint"), 101.0)) == [What.WORSENED]
    assert one.hold(condition("endpoint"), 102.0) == []
    assert whats(one.hold(condition("errors"), 102.0)) == [What.NOTED]
    assert whats(one.clear("upstream_failing", "app", "endpoint", 103.0)) == [What.NOTED]
    assert incident.severity is Severity.ERROR
    one.clear("upstream_failing", "app", "errors", 104.0)
    assert whats(one.clear("upstream_failing", "app", "breaker", 105.0)) == [What.MITIGATED]
    assert len(list(one)) == 1


def test_what_comes_back_soon_reopens_and_what_comes_later_is_new():
    one = book()
    incident = opened(one)
    one.ack(incident.id, 101.0, "kim")
    one.clear("upstream_failing", "app", "breaker", 110.0)
    one.tick(110.0 + WAIT)
    assert whats(one.hold(condition(), 300.0)) == [What.REOPENED]
    assert (incident.status, incident.alerted, incident.acked, incident.reopened) == (DETECTED, 300.0, False, 1)
    assert incident.acknowledged == 101.0, "the first response stays what it was"
    one.clear("upstream_failing", "app", "breaker", 310.0)
    one.tick(1000.0)
    one.tick(1000.0 + REOPEN)
    assert opened(one, 1000.0 + REOPEN).id != incident.id


def test_who_acknowledged_need_not_do_it_again_at_a_relapse():
    one = book()
    incident = opened(one)
    one.ack(incident.id, 101.0, "kim")
    one.clear("upstream_failing", "app", "breaker", 102.0)
    assert whats(one.hold(condition(), 103.0)) == [What.RELAPSED]
    assert incident.status is ACKNOWLEDGED


def test_fifty_flaps_in_ten_minutes_are_one_incident():
    one = book()
    incident = opened(one, 0.0)
    told: list[What] = []
    for flap in range(50):
        now = flap * 12.0
        told += whats([*one.tick(now), *one.hold(condition(), now), *one.tick(now + 6.0)])
        one.clear("upstream_failing", "app", "breaker", now + 6.0)
    assert len(list(one)) == 1
    assert set(told) == {What.RELAPSED}
    assert one.tick(600.0 + WAIT * 4) == [], "what flapped has to stay well for longer"
    assert whats(one.tick(600.0 + REOPEN)) == [What.RESOLVED]
    assert len(one.timeline(incident.id)) < FULL


def test_resolved_by_hand_while_it_holds():
    one = book()
    incident = opened(one)
    assert whats(one.resolve(incident.id, 110.0, "kim", "known")) == [What.RESOLVED]
    assert one.hold(condition(), 120.0) == [], "said again, not come back"
    assert one.resolve(incident.id, 121.0, "kim") is None
    assert one.ack(incident.id, 121.0, "kim") is None
    assert whats(one.tick(110.0 + REOPEN)) == [What.REOPENED]


def test_what_gets_worse_after_a_resolution_by_hand_reopens_it():
    one = book()
    incident = opened(one)
    one.resolve(incident.id, 110.0, "kim")
    assert whats(one.hold(condition("dead", severity=Severity.CRITICAL), 120.0)) == [What.REOPENED]


def test_a_condition_that_nobody_repeats_expires():
    one = book()
    opened(one, expires=160.0)
    assert one.due() == 160.0
    one.hold(condition(expires=190.0), 150.0)
    assert one.tick(160.0) == []
    assert whats(one.tick(190.0)) == [What.MITIGATED]


def test_what_an_earlier_run_saw_stays_unless_it_is_not_seen_again():
    first, second = book(), book()
    incident = opened(first)
    second.take_over(incident, first.timeline(incident.id), expires=500.0, seen=200.0)
    assert second.find(incident.id) is incident
    second.hold(condition(), 450.0)
    assert second.tick(500.0) == []
    assert whats(second.clear("upstream_failing", "app", "breaker", 501.0)) == [What.MITIGATED]


def test_the_timeline_begins_before_the_incident_and_has_an_end():
    one = book()
    led = [Entry(90.0 + i, "endpoint_health_changed", "app", "bad") for i in range(3)]
    incident = one.hold(condition(), 100.0, before=led)[-1].incident
    for number in range(2 * FULL):
        one.note(incident, Entry(101.0 + number, "breaker_changed", "app", "again"))
    timeline = one.timeline(incident.id)
    assert [entry.kind for entry in timeline[:4]] == ["endpoint_health_changed"] * 3 + ["incident_opened"]
    assert (len(timeline), timeline[-1].kind) == (FULL, "timeline_full")
    one.ack(incident.id, 9999.0, "kim")
    assert one.timeline(incident.id)[-1].kind == "incident_acknowledged"


def test_there_is_room_for_so_many_and_no_more():
    one = book()
    for number in range(MAX_OPEN + 5):
        one.hold(condition(subject=f"u{number}"), 1.0)
    assert (len(list(one)), one.refused) == (MAX_OPEN, 5)


def test_outages_are_counted_while_requests_fail():
    one = book()
    incident = opened(one, 100.0, severity=Severity.WARNING)
    assert incident.down(0.0, 200.0) == []
    one.hold(condition("dead", outage=True), 110.0)
    assert incident.down(0.0, 115.0) == [(110.0, 115.0)]
    one.clear("upstream_failing", "app", "dead", 120.0)
    assert incident.down(0.0, 200.0) == [(110.0, 120.0)]
    assert incident.down(115.0, 118.0) == [(115.0, 118.0)]


def test_every_status_has_a_meaning_and_a_way_out_but_the_last():
    assert set(MEANING) == set(Status)
    assert {old for old, _ in CHANGES} == set(Status) - {CLOSED}
    assert {reason for why in CHANGES.values() for reason in why} == set(REASONS)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: only listed changes, one live incident per fingerprint, times in order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.book = book()
        self.held: set[tuple[str, str]] = set()
        self.before: dict[str, Status] = {}

    def took(self, changes: list[Change] | None) -> None:
        for incident, what, entry, number in changes or []:
            if entry is not None:
                assert self.book.timeline(incident.id)[number] == entry
            old = self.before.get(incident.id)
            if what is What.OPENED:
                assert old is None
            elif old is not None and old is not incident.status:
                assert (old, incident.status) in CHANGES
            self.before[incident.id] = incident.status

    @rule(subject=st.sampled_from("ab"), key=st.sampled_from("xyz"), worse=st.booleans(), outage=st.booleans())
    def it_holds(self, subject: str, key: str, worse: bool, outage: bool) -> None:
        severity = Severity.CRITICAL if worse else Severity.WARNING
        self.took(self.book.hold(condition(key, subject, severity, outage=outage), self.now))
        self.held.add((subject, key))

    @rule(subject=st.sampled_from("ab"), key=st.sampled_from("xyz"))
    def it_is_gone(self, subject: str, key: str) -> None:
        self.took(self.book.clear("upstream_failing", subject, key, self.now))
        self.held.discard((subject, key))

    @rule(wait=st.sampled_from([0.0, 1.0, WAIT, 100.0, REOPEN]))
    def time_goes_on(self, wait: float) -> None:
        self.now += wait
        self.took(self.book.tick(self.now))

    @rule(data=st.data())
    def somebody_acknowledges(self, data: st.DataObject) -> None:
        for incident in self.book.open():
            if data.draw(st.booleans()):
                self.took(self.book.ack(incident.id, self.now, "kim"))

    @rule(data=st.data())
    def somebody_resolves(self, data: st.DataObject) -> None:
        for incident in self.book.open():
            if data.draw(st.booleans()):
                self.took(self.book.resolve(incident.id, self.now, "kim"))

    @invariant()
    def one_live_incident_per_fingerprint(self) -> None:
        live = [incident.fingerprint for incident in self.book if incident.status is not CLOSED]
        assert len(live) == len(set(live))

    @invariant()
    def what_holds_is_in_an_incident_and_nothing_else_is(self) -> None:
        noted = {(incident.subject, key) for incident in self.book for key in incident.conditions}
        assert noted == self.held

    @invariant()
    def times_are_in_order(self) -> None:
        for incident in self.book:
            assert incident.started <= incident.detected <= incident.alerted <= self.now
            assert (incident.mitigated is None) or not incident.conditions
            assert incident.open == (incident.resolved is None)
            assert incident.entries == len(self.book.timeline(incident.id)) <= 2 * FULL
            spans = incident.down(0.0, self.now)
            assert all(a <= b for a, b in spans)
            assert all(one[1] <= two[0] for one, two in pairwise(spans))

    @invariant()
    def what_waits_has_a_time(self) -> None:
        waiting = [i for i in self.book if i.status in {MITIGATED, RESOLVED}]
        assert (self.book.due() is not None) == bool(waiting)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("who", ["ack", "resolve"])
def test_nobody_acts_on_what_is_not_there(who: str):
    assert getattr(book(), who)("nothing", 1.0, "kim") is None
