"""Tells people: `machines/incidents` (outbox, escalation) decides what is due; here it is sent.

Nothing is sent before it is written down (unless the file fails), so that a notice outlives us: whatever was under way
when we ended is sent again. One attempt per receiver at a time; a receiver that hangs costs its own attempt only. Who
wants to hear again of what is open (Alertmanager) does so under the same lock, so that an old `firing` never
overtakes a `resolved`. What came of it stands on the incident's timeline: each success, and the first failure of each
notice.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sidecar.control.incidents.agreement import Agreement, News
from sidecar.control.incidents.keeper import Keeper
from sidecar.control.incidents.senders.sender import Notice, NotSent, Sender
from sidecar.control.incidents.telling import summary
from sidecar.control.incidents.writer import Writer
from sidecar.machines.incidents import escalation
from sidecar.machines.incidents.book import Change, Entry, What
from sidecar.machines.incidents.escalation import Step
from sidecar.machines.incidents.incident import Incident, Severity
from sidecar.machines.incidents.outbox import Message, Outbox, Stored
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry

LOOK_SECONDS = 10.0
BUSY_SECONDS = 1.0
"""Until a receiver that is being told is looked at again."""
_TOLD = frozenset({What.OPENED, What.WORSENED, What.ACKNOWLEDGED, What.RESOLVED, What.REOPENED})
_RANKS = {str(severity): rank for rank, severity in enumerate(Severity)}

_log = Log(__name__)


class Receiver(NamedTuple):
    """Somebody who hears."""

    sender: Sender
    least: str
    """The least severity."""
    always: bool
    """Hears of every incident; else only when one is escalated to it."""


class Deliveries:
    """All that is to be told to anybody."""

    def __init__(
        self, outbox: Outbox, keeper: Keeper, writer: Writer, registry: Registry, clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._keeper = keeper
        self._writer = writer
        self._registry = registry
        self._clock = clock
        self._receivers: dict[str, Receiver] = {}
        self._steps: list[Step] = []
        self._locks: dict[str, asyncio.Lock] = {}
        self._refresh_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self.agreement = Agreement(keeper, self._tell, clock)
        keeper.listen(self._became)

    def restore(self, messages: Sequence[Message]) -> None:
        """What an earlier run left unsent."""
        self._outbox.restore(messages)
        self._write(self._outbox.keep_only(self._receivers))
        self._work.set()

    def owe_everything(self) -> None:
        """Have everything written down that waits."""
        self._write([Stored(one, gone=False) for one in self._outbox.waiting])

    def apply(self, receivers: dict[str, Receiver], steps: Sequence[Step]) -> None:
        """Who hears from now on."""
        self._receivers, self._steps = receivers, list(steps)
        self._write(self._outbox.keep_only(receivers))
        self._refresh_at = {
            name: self._refresh_at.get(name, 0.0) for name, one in receivers.items() if one.sender.refresh_seconds
        }
        self._work.set()

    async def run(self) -> None:
        """Tell what is to be told, until cancelled."""
        try:
            while True:
                self._work.clear()
                await self.agreement.work()
                self._escalate()
                await self._writer.settled()
                for message in self._outbox.take(self._clock()):
                    self._start(self._attempt(message))
                self._refresh()
                self._registry.cell(series.NOTIFICATIONS_WAITING).value = len(self._outbox.waiting)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_SECONDS, max(0.0, self._due() - self._clock()))):
                        await self._work.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    # What is to be told ---------------------------------------------------------------------------------------------

    def _became(self, change: Change) -> None:
        """An incident changed."""
        if change.what in _TOLD:
            text = change.entry.text if change.entry is not None else change.incident.title
            self.agreement.put(News(change.incident, str(change.what), text))
        self._work.set()

    def _tell(self, news: News) -> None:
        for name, receiver in self._receivers.items():
            if self._hears(name, receiver, news.incident):
                self._put(name, *news)

    def _hears(self, name: str, receiver: Receiver, incident: Incident) -> bool:
        escalated = [step.to for step in sorted(self._steps)[: incident.escalated]]
        bad = _RANKS[str(incident.severity)] >= _RANKS[receiver.least]
        return name in escalated or (receiver.always and bad)

    def _put(self, name: str, incident: Incident, what: str, text: str) -> None:
        now = self._clock()
        self._write(self._outbox.put(name, incident.id, what, _body(incident, text, now), now))

    def _escalate(self) -> None:
        now = self._clock()
        for incident in filter(self.agreement.leads, self._keeper.book.open()):
            for name in escalation.take(self._steps, incident, now):
                waited = _minutes(now - incident.alerted)
                self._note(
                    incident, "incident_escalated", f"nobody acknowledged within {waited}: {name} is told", "error"
                )
                self._put(name, incident, "escalated", f"nobody acknowledged within {waited}: {incident.title}")

    def _due(self) -> float:
        led = list(filter(self.agreement.leads, self._keeper.book.open()))
        steps = [escalation.due(self._steps, one) for one in led]
        times = [self._outbox.due(self._clock()), self.agreement.due(), *steps]
        if led:
            times += self._refresh_at.values()
        return min((time for time in times if time is not None), default=float("inf"))

    # How it is told -------------------------------------------------------------------------------------------------

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, message: Message) -> None:
        receiver = self._receivers.get(message.receiver)
        try:
            if receiver is None:
                raise NotSent("is not in the configuration any more", final=True)
            async with self._lock(message.receiver):
                await receiver.sender.send(_notice(message))
        except asyncio.CancelledError:
            self._outbox.given_back(message, self._clock())
            raise
        except NotSent as error:
            self._failed(message, str(error), error.retry_after, final=error.final)
        except Exception as error:  # noqa: BLE001 - a sender's own fault must not keep the receiver busy for ever
            self._failed(message, f"failed: {type(error).__name__}", None, final=False)
        else:
            self._sent(message)
        self._work.set()

    def _sent(self, message: Message) -> None:
        now = self._clock()
        self._write([self._outbox.sent(message, now)])
        self._count(message, "sent")
        incident = self._keeper.book.find(message.incident)
        if incident is None:
            return
        if incident.notified is None:
            incident.notified = now
            self._registry.cell(series.INCIDENT_NOTIFY).observe(max(0.0, now - incident.detected))
            self._start(self.agreement.told(incident))
        self._note(incident, "incident_told", f"{message.receiver} was told: {message.what}")

    def _failed(self, message: Message, why: str, retry_after: float | None, *, final: bool) -> None:
        dropped = self._outbox.dropped
        self._write([self._outbox.failed(message, self._clock(), why, retry_after, final=final)])
        final = self._outbox.dropped > dropped  # refused for good, or tried for a day
        self._count(message, "dropped" if final else "failed")
        _log.warning("notification_failed", every=60.0, about=message.receiver, receiver=message.receiver, reason=why,
                     incident=message.incident, attempts=message.attempts, again=not final)  # fmt: skip
        incident = self._keeper.book.find(message.incident)
        if incident is not None and (message.attempts == 1 or final):
            given_up = "; it is not tried again" if final else ""
            text = f"{message.receiver} could not be told that it was {message.what}: {why}{given_up}"
            self._note(incident, "incident_untold", text, "warning")

    def _refresh(self) -> None:
        now, incidents = self._clock(), any(map(self.agreement.leads, self._keeper.book.open()))
        for name, due in self._refresh_at.items():
            receiver = self._receivers[name]
            if not incidents or now < due:
                continue
            if self._lock(name).locked():
                self._refresh_at[name] = now + BUSY_SECONDS
            else:
                self._refresh_at[name] = now + (receiver.sender.refresh_seconds or LOOK_SECONDS)
                self._start(self._renew(name, receiver))

    async def _renew(self, name: str, receiver: Receiver) -> None:
        async with self._lock(name):
            waiting = {(one.receiver, one.incident) for one in self._outbox.waiting}
            now = self._clock()
            heard = [
                Notice("open", one.title, summary(one, now), one.started, None)
                for one in filter(self.agreement.leads, self._keeper.book.open())
                if self._hears(name, receiver, one) and (name, one.id) not in waiting
            ]
            if not heard:
                return
            try:
                await receiver.sender.refresh(heard)
            except NotSent as error:
                _log.warning("notification_refresh_failed", every=60.0, about=name, receiver=name, reason=str(error))

    # What follows -----------------------------------------------------------------------------------------------------

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _note(self, incident: Incident, kind: str, text: str, level: str = "info") -> None:
        self._keeper.add(incident, Entry(self._clock(), kind, incident.subject, text, level))

    def _write(self, stored: Sequence[Stored]) -> None:
        for one in stored:
            self._writer.owe_message(one)

    def _count(self, message: Message, result: str) -> None:
        self._registry.cell(series.NOTIFICATIONS, message.receiver, result).value += 1


def _body(incident: Incident, text: str, now: float) -> dict[str, Any]:
    return {
        "text": text,
        "incident": summary(incident, now),
        "started": incident.started,
        "resolved": None if incident.open else incident.resolved,
    }


def _notice(message: Message) -> Notice:
    body: dict[str, Any] = message.body
    return Notice(message.what, body["text"], body["incident"], body["started"], body["resolved"])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
