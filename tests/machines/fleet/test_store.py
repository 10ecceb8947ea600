"""The keeper of pages under any commands whatever: what must hold of a page, by itself."""

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.page import MOST_BARRED, MOST_VOTES, Page, apply
from sidecar.machines.fleet.words import (
    NO_END,
    Ask,
    Command,
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

PERMITS = 2
SPANS = [0, 1, 500, 30_000]
ORDERS = [BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED, BreakerState.CLOSED]
STEPS = [0, 1, 600_000, 31_000_000, -3_600_000_000]
ACTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(STEPS), st.randoms(use_true_random=False)), max_size=40)


def word(kind: int, dice: Random, epoch: int) -> Command:
    """A command whose sender knows about this epoch."""
    who = dice.choice("abc")
    near = max(0, epoch + dice.choice([-1, 0, 0, 0, 1]))
    span, period, ok = dice.choice(SPANS), dice.choice(SPANS), dice.random() < 0.5
    tokens = tuple(f"t{dice.randrange(6)}" for _ in range(dice.randrange(3)))
    match kind:
        case 0 | 1:
            return Vote(voter=who, epoch=near, lasting=span, period=period, quorum=dice.randrange(4))
        case 2:
            return Withdraw(voter=who)
        case 3 | 4:
            return Ask(holder=who, epoch=near, tokens=tokens, permits=PERMITS, ttl=span, due=ok)
        case 5:
            return Report(holder=who, token=f"t{period % 6}", epoch=near, ok=ok, needed=2, period=period)
        case 6:
            return Return(tokens=tokens)
        case 7:
            return Force(epoch=near, state=dice.choice(ORDERS), lasting=span or NO_END)
        case 8:
            state = dice.choice(list(BreakerState))
            return Restore(record=Record(epoch=near, state=state, left=span if ok else NO_END, period=period))
        case _:
            return Heal(epoch=near) if ok else Look()


@settings(max_examples=200, deadline=None)
@given(ACTS)
def test_what_holds_of_a_page_whatever_is_asked(acts):
    page, now_us = Page(), 10**9
    for kind, step, dice in acts:
        now_us = max(0, now_us + step)
        command = msgspec.json.decode(msgspec.json.encode(word(kind, dice, page.epoch)), type=Command)
        before = msgspec.json.decode(msgspec.json.encode(page), type=Page)
        answer = apply(page, command, now_us, dice.randrange(4))
        now = now_us // 1000
        assert page.epoch >= before.epoch
        assert answer.changed == (page.epoch != before.epoch)
        assert answer.record == page.record(now)
        if page.state is not before.state:
            assert answer.changed
        assert len(page.leases) <= PERMITS
        assert set(before.leases) - set(page.leases) <= ended(before, command, now)
        assert all(lease.until <= now + lease.ttl for lease in page.leases.values())
        assert all(now < vote.until <= now + vote.lasting for vote in page.votes.values())
        assert not page.votes or page.state is BreakerState.CLOSED
        assert page.until == NO_END or page.until <= now + page.period
        assert {grant.token for grant in answer.grants} <= set(page.leases)
        assert msgspec.json.decode(msgspec.json.encode(page), type=Page) == page
    for holder in "abc":  # nobody comes back, and yet it goes on
        now_us += 40_000_000
        if page.state is BreakerState.HALF_OPEN:
            assert apply(page, ask(holder, page.epoch), now_us).did == "granted"


def ask(holder: str, epoch: int) -> Ask:
    return Ask(holder=holder, epoch=epoch, tokens=(f"{holder}-last",), permits=PERMITS, ttl=1000)


def ended(page: Page, command: object, now: int) -> set[str]:
    """The leases that may be gone after this command."""
    named = {command.token} if isinstance(command, Report) else set()
    if isinstance(command, Return):
        named = set(command.tokens)
    return named | {token for token, lease in page.leases.items() if min(lease.until, now + lease.ttl) <= now}


def test_what_is_remembered_is_bounded():
    page = Page()
    for number in range(MOST_VOTES + 10):
        vote = Vote(voter=f"v{number}", epoch=0, lasting=60_000, period=60_000, quorum=10_000)
        apply(page, vote, 10**9)
    assert len(page.votes) == MOST_VOTES
    for number in range(MOST_BARRED + 10):
        page.state = BreakerState.HALF_OPEN
        report = Report(holder=f"h{number}", token="t", epoch=page.epoch, ok=False, needed=1, period=1)
        apply(page, report, 10**9 + number)
    assert len(page.barred) == MOST_BARRED
