"""What the agent tells the proxy, which keeps the pod's incidents: events, and conditions that hold.

It posts to `/api/v1/happenings` on the proxy's admin socket. A condition (the RPO is missed, a backup failed) is said
when it begins, again every few minutes while it holds, and once when it is over; by itself it expires there, so an
agent that dies leaves nothing for ever. Without a proxy, or with one that cannot be told, the agent carries on: events
are given up when too many wait, conditions are told when it is back.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from sidecar.agent.catalog import Catalog
from sidecar.agent.verdicts import Verification, offered
from sidecar.base.clock import since_boot
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Happening, Kind, Level, Observer
from sidecar.runtime.unix_http import Absent, ask

AGAIN = 180.0
"""Seconds between two words about a condition that holds; it expires after 900."""
_WAITING, _PACKET = 200, 20
_SUBJECT, _DETAIL = 100, 1000
"""Characters that the proxy takes."""
_TARGET = "/api/v1/happenings"
_TOLD = {
    Kind.BACKUP_FINISHED,
    Kind.BACKUP_FAILED,
    Kind.BACKUP_DAMAGED,
    Kind.BACKUPS_FORGOTTEN,
    Kind.BACKUP_PROMISE_CHANGED,
    Kind.DRILL_ENDED,
    Kind.AGENT_STARTED,
    Kind.AGENT_STOPPED,
}

_log = Log(__name__)


class Condition(msgspec.Struct, frozen=True):
    """Something that is wrong."""

    reason: str
    """One word: rpo_missed, backup_failed, …"""
    subject: str
    level: Level
    detail: str


class Reporter:
    """The line to the proxy."""

    def __init__(self, socket_path: str, count: Callable[[str, int], None] = lambda _reason, _subjects: None) -> None:
        """`count` hears of how many subjects a reason holds, whenever that changes."""
        self._socket = socket_path
        self._count = count
        self._events: deque[dict[str, Any]] = deque(maxlen=_WAITING)
        self._holding: dict[tuple[str, str], Condition] = {}
        self._over: dict[tuple[str, str], Condition] = {}
        self._told_at: dict[tuple[str, str], float] = {}
        self._news = asyncio.Event()

    @property
    def conditions(self) -> list[Condition]:
        """What is wrong now."""
        return list(self._holding.values())

    def hear(self, happening: Happening) -> None:
        """A subscriber of the observer."""
        if happening.kind in _TOLD:
            fields = {name: one[:_DETAIL] if isinstance(one, str) else one for name, one in happening.fields.items()}
            self._events.append(
                {"kind": "agent_event", "subject": happening.subject[:_SUBJECT], "level": happening.level,
                 "at": happening.at, "reason": happening.kind, "fields": fields,
                 "detail": (happening.detail or happening.reason)[:_DETAIL]}
            )  # fmt: skip
            self._news.set()

    def holds(self, reason: str, subject: str, detail: str, level: Level = Level.ERROR) -> None:
        """Something is wrong."""
        key = (reason, subject)
        one = Condition(reason, subject, level, detail)
        if self._holding.get(key) != one:
            self._holding[key] = one
            self._over.pop(key, None)
            self._told_at.pop(key, None)
            self._changed(reason)

    def over(self, reason: str, subject: str | None = None) -> None:
        """It is not any more; without a subject: none of this reason is."""
        for key in [key for key in self._holding if key[0] == reason and subject in {None, key[1]}]:
            self._over[key] = self._holding.pop(key)
            self._told_at.pop(key, None)
            self._changed(reason)

    def _changed(self, reason: str) -> None:
        self._count(reason, sum(1 for held, _ in self._holding if held == reason))
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN / 3):  # unlike wait_for it never swallows being cancelled
                    await self._news.wait()
            self._news.clear()
            if not await self.flush():
                await asyncio.sleep(5.0)
                if self._events or self._over:
                    self._news.set()

    async def flush(self) -> bool:
        """Tell what there is to tell; False: there was nobody to hear it."""
        now = since_boot()
        due = [key for key in self._holding if now - self._told_at.get(key, -AGAIN) >= AGAIN]
        said = [_condition(self._holding[key], holds=True) for key in due]
        over = dict(self._over)
        said += [_condition(one, holds=False) for one in over.values()]
        events = list(self._events)[:_PACKET]
        said += events
        if not said:
            return True
        try:
            status, answer = await asyncio.to_thread(ask, self._socket, "POST", _TARGET, msgspec.json.encode(said))
        except Absent:
            return False
        if status != 200:
            # an older proxy, or one that keeps no incidents: what has happened is in our log
            _log.info("report_refused", every=3600.0, status=status, answer=answer[:200].decode("utf-8", "replace"))
            if status not in {400, 404}:
                return False
        self._told_at |= dict.fromkeys(due, now)
        for key, one in over.items():
            if self._over.get(key) is one:
                del self._over[key]
        for event in events:
            if self._events and self._events[0] is event:
                self._events.popleft()
        if self._events:
            self._news.set()
        return True


def _condition(one: Condition, *, holds: bool) -> dict[str, Any]:
    return {"kind": "agent_condition", "subject": one.subject[:_SUBJECT], "level": one.level, "reason": one.reason,
            "detail": one.detail[:_DETAIL], "fields": {"holds": holds, "expires_seconds": 900}}  # fmt: skip


def tell_once(socket_path: str, reason: str, subject: str, detail: str, level: Level = Level.INFO) -> None:
    """One event, from a command; without a proxy there is nobody to tell."""
    event = {"kind": "agent_event", "subject": subject, "level": level, "reason": reason, "detail": detail[:_DETAIL]}
    with contextlib.suppress(Absent):
        ask(socket_path, "POST", _TARGET, msgspec.json.encode([event]), timeout=2.0)


def damaged(
    found: list[Verification], subject: str, catalog: Catalog, reporter: Reporter, observer: Observer
) -> None:  # fmt: skip
    """Something stored is not what was stored: name it, and the next older good point."""
    first = found[0]
    better = offered(catalog, first)
    named = "; ".join(f"{one.what}: {one.where}" for one in first.troubles[:5])
    advice = f"the next older good one is {better}" if better else "no other verified one is whole"
    detail = f"{named}; {advice}; sidecar backup verify {first.point} tells more"
    reporter.holds("verify_failed", subject, detail)
    observer.tell(
        Kind.BACKUP_DAMAGED, first.point, level=Level.ERROR, reason=first.troubles[0].what, detail=detail,
        point=first.point, offered=better,
    )  # fmt: skip
