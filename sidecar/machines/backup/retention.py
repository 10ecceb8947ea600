"""What is kept and what may go: a plan with a reason for every point. Pure; whoever carries it out holds the lease.

Rules, in this order; the first that holds is the reason.

1. A held point stays until somebody lets it go.
2. The newest verified point stays, whatever the rules say, and so does the newest complete one.
3. Everything younger than `keep_within` stays; what is dated in the future counts as young.
4. Of each of the last `daily` days that have a point, the last good one stays; so for weeks (ISO) and months. Days are
   UTC's. Good is verified if the day has one, else complete. What is known to be damaged stands for no day.
5. A point that a kept one leans on stays.
6. An incomplete point is of use to who looks for the reason: it stays for a day.

Everything else goes. A rule counts days that have points, not days of the calendar: after a month without backups the
old ones are still there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

INCOMPLETE_FOR = timedelta(days=1)


class Standing(StrEnum):
    """What is known of a point."""

    VERIFIED = "verified"
    UNKNOWN = "unknown"
    DAMAGED = "damaged"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Kept:
    """A point as retention sees it."""

    id: str
    at: datetime
    """The state that it brings back; aware UTC."""
    standing: Standing
    held: str | None = None
    """Why somebody holds it; None: nobody does."""
    leans_on: frozenset[str] = frozenset()
    """Points without which it cannot be restored."""
    order: int = 0
    """Which was made later, where wall clocks that were set would tell another story."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`backup.retention`."""

    keep_within: float
    daily: int
    weekly: int
    monthly: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen to each point, and why; ids, newest first."""

    keep: dict[str, str] = field(default_factory=dict)
    delete: dict[str, str] = field(default_factory=dict)


def plan(points: Iterable[Kept], rules: Rules, now: datetime) -> Plan:
    """The plan for these points at this moment (aware UTC)."""
    ordered = sorted(points, key=lambda one: (one.at, one.id), reverse=True)
    why: dict[str, str] = {}
    for one in ordered:
        if one.held is not None:
            why[one.id] = f"held: {one.held}" if one.held else "held"
    for name, reason in _newest(ordered):
        why.setdefault(name, reason)
    within = timedelta(seconds=rules.keep_within)
    for one in ordered:
        if one.standing is not Standing.INCOMPLETE and one.at >= now - within:
            why.setdefault(one.id, "younger than keep_within")
    for count, name, slot in _CALENDAR:
        for one in _last_of_each(ordered, count(rules), slot):
            why.setdefault(one.id, f"the last good one of its {name}")
    _keep_what_is_leant_on(ordered, why)
    for one in ordered:
        if one.standing is Standing.INCOMPLETE and one.at >= now - INCOMPLETE_FOR:
            why.setdefault(one.id, "incomplete, and young enough to ask why")
    result = Plan()
    for one in ordered:
        if one.id in why:
            result.keep[one.id] = why[one.id]
        else:
            result.delete[one.id] = _NO_LONGER.get(one.standing, "no rule keeps it")
    return result


def dispensable(points: Iterable[Kept], name: str) -> str:
    """What this point is that nobody may do without, by order or not; empty: nothing."""
    return dict(reversed(_newest(points))).get(name, "")


def _newest(points: Iterable[Kept]) -> list[tuple[str, str]]:
    """The newest verified point and the newest complete one, with the reason why they stay."""
    made = sorted(points, key=lambda one: (one.order, one.at, one.id), reverse=True)
    found = []
    for standings, reason in (
        ({Standing.VERIFIED}, "the newest verified point"),
        ({Standing.VERIFIED, Standing.UNKNOWN}, "the newest complete point"),
    ):
        newest = next((one for one in made if one.standing in standings), None)
        if newest is not None:
            found.append((newest.id, reason))
    return found


_NO_LONGER = {
    Standing.INCOMPLETE: "incomplete: it can never be restored",
    Standing.DAMAGED: "damaged, and no rule keeps it",
}

_CALENDAR: tuple[tuple[Callable[[Rules], int], str, Callable[[datetime], tuple[int, ...]]], ...] = (
    (lambda rules: rules.daily, "day", lambda at: (at.year, at.month, at.day)),
    (lambda rules: rules.weekly, "week", lambda at: at.isocalendar()[:2]),
    (lambda rules: rules.monthly, "month", lambda at: (at.year, at.month)),
)


def _last_of_each(ordered: list[Kept], count: int, slot: Callable[[datetime], tuple[int, ...]]) -> list[Kept]:
    """Of each of the newest `count` slots, its newest verified point, else its newest complete one."""
    chosen: dict[tuple[int, ...], Kept] = {}
    for one in ordered:
        if one.standing not in {Standing.VERIFIED, Standing.UNKNOWN}:
            continue
        key = slot(one.at)
        if key in chosen:
            if chosen[key].standing is not Standing.VERIFIED and one.standing is Standing.VERIFIED:
                chosen[key] = one
        elif len(chosen) < count:
            chosen[key] = one
    return list(chosen.values())


def _keep_what_is_leant_on(ordered: list[Kept], why: dict[str, str]) -> None:
    known = {one.id: one for one in ordered}
    open_ends = [known[id_] for id_ in why]
    while open_ends:
        one = open_ends.pop()
        for needed in one.leans_on:
            if needed in known and needed not in why:
                why[needed] = f"{one.id} leans on it"
                open_ends.append(known[needed])
