"""The keeper of the incidents: hears what happens, keeps the book, has it written down and tells the numbers.

    observer ──hear──▶ queue ──▶ detector: what holds, what is gone ──▶ book: what became of which incident
                                                                          ├─▶ writer (the file)
                                                                          └─▶ metrics, log, who wants to know

`hear` only notes; the one task of `run` does the rest, and never waits for a disk or a receiver longer than a moment.
What an earlier run left behind is taken over; what held in it counts as gone unless it is seen again within
TAKEN_OVER_SECONDS.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from sidecar.control.incidents.detect import Detector, Gone, Sign, concerns
from sidecar.control.incidents.ledger import Loaded
from sidecar.control.incidents.telling import entry, summary, whole
from sidecar.control.incidents.writer import Writer
from sidecar.machines.incidents.availability import Figures, Span, figures
from sidecar.machines.incidents.book import MAX_OPEN, Change, Entry, IncidentBook, What
from sidecar.machines.incidents.incident import Condition, Incident, Severity, Status
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind, Level, Observer

TAKEN_OVER_SECONDS = 180.0
"""Longer than an active check takes at its defaults to find out that something is unhealthy."""
BEFORE_SECONDS, BEFORE = 300.0, 20
"""What happened so long before an incident, and so much of it, is told in its timeline."""
LOOK_SECONDS = 10.0
"""The longest wait between two looks at the time: wall clocks are set."""
RUN_SECONDS = 60.0
"""How often it is written down that we watch."""
MAX_HEARD = 10_000
SHOWN, MAX_SHOWN = 10, 20
"""Entries of an incident, and incidents, in the status."""

_TOLD_AGAIN = frozenset(
    {Kind.AGENT_CONDITION, Kind.CERTIFICATE_EXPIRES, Kind.CERTIFICATE_REFUSED, Kind.SHARED_STATE_UNREACHABLE}
)

Listener = Callable[[Change], None]

_log = Log(__name__)


class Keeper:
    """All incidents of this sidecar. `clock`: Unix seconds."""

    def __init__(
        self,
        book: IncidentBook,
        detector: Detector,
        writer: Writer,
        registry: Registry,
        observer: Observer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self._detector = detector
        self._writer = writer
        self._registry = registry
        self._observer = observer
        self._clock = clock
        self._began = clock()
        self._runs: list[Span] = []
        self._run_written = 0.0
        self._heard: deque[Happening] = deque(maxlen=MAX_HEARD)
        self._lately: deque[Happening] = deque(maxlen=200)
        self._work = asyncio.Event()
        self._listeners: list[Listener] = []
        self._open = registry.cell(series.INCIDENTS_OPEN)
        self._detect, self._ack, self._resolve = (
            registry.cell(one) for one in (series.INCIDENT_DETECT, series.INCIDENT_ACK, series.INCIDENT_RESOLVE)
        )

    def listen(self, listener: Listener) -> None:
        """Call it with every change of an incident, notes left out."""
        self._listeners.append(listener)

    def hear(self, happening: Happening) -> None:
        """Note what happened; may be called from anywhere in the loop."""
        if happening.kind is not Kind.INCIDENT_CHANGED:
            self._heard.append(happening)
            self._work.set()

    def adopt(self, loaded: Loaded) -> None:
        """What an earlier run left behind; it may come late, when the file could not be read at first."""
        now = self._clock()
        seen = max((end for _, end in loaded.runs), default=now)
        ours = {one.fingerprint for one in self.book.live()}
        for incident, timeline in loaded.incidents:
            if incident.closed is None and incident.fingerprint in ours:  # it went on here, under another id
                incident.status, incident.closed = Status.CLOSED, now
                incident.resolved = incident.resolved or now
                self.keep(incident)
            self.book.take_over(incident, timeline, now + TAKEN_OVER_SECONDS, seen)
        self._runs = loaded.runs
        self._count()
        self._work.set()

    def owe_everything(self) -> None:
        """Have everything written down that is in memory."""
        for incident in self.book:
            self.keep(incident)
            for number, line in enumerate(self.book.timeline(incident.id)):
                self._writer.owe(Change(incident, What.NOTED, line, number))
        self.seen()

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        while True:
            self.catch_up()
            due = self.book.due()
            due = float("inf") if due is None else due
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SECONDS, max(0.0, due - self._clock()))):
                    await self._work.wait()
            self._work.clear()

    def catch_up(self) -> None:
        """Take in all that was heard, and the time that went by."""
        while self._heard:
            one = self._heard.popleft()
            try:
                self._take_in(one)
            except Exception as error:  # noqa: BLE001 - what one happening does must not cost the others
                _log.error("happening_not_understood", error=error, every=60.0, about=one.kind, kind=one.kind)
        now = self._clock()
        self._became(self.book.tick(now))
        if now - self._run_written >= RUN_SECONDS:
            self.seen()
        self._count()

    def add(self, incident: Incident, line: Entry) -> None:
        """Something belongs to its story; the incident itself may have changed, too."""
        added = self.book.note(incident, line)
        self._became(added or [Change(incident, What.NOTED, None, incident.entries)])

    def keep(self, incident: Incident) -> None:
        """Something about it changed that is no news."""
        self._writer.owe(Change(incident, What.NOTED, None, incident.entries))

    def tell(self, sign: Sign) -> None:
        """Something is wrong, or not any more, that no happening says."""
        now = self._clock()
        if isinstance(sign, Gone):
            self._became(self.book.clear(*sign, now))
        else:
            self._hold(sign, now)

    def seen(self) -> None:
        """Have it written down that we watched until now."""
        self._run_written = self._clock()
        self._writer.owe_run(self._began, self._run_written)

    # What people ask and say ------------------------------------------------------------------------------------------

    def view(self) -> list[dict[str, Any]]:
        """Every incident that is known, open ones first, without timelines."""
        self.catch_up()
        now = self._clock()
        return [summary(one, now) for one in self.book]

    def open_ones(self) -> list[dict[str, Any]]:
        """Those that are open, for the status, with the end of their timelines."""
        now = self._clock()
        return [whole(one, self.book.timeline(one.id)[-SHOWN:], now) for one in self.book.open()[:MAX_SHOWN]]

    async def show(self, one: str) -> dict[str, Any] | None:
        """The incident with this id and its timeline."""
        self.catch_up()
        incident, timeline = self.book.find(one), self.book.timeline(one)
        if not timeline:
            stored = await self._writer.read(one)
            incident, timeline = stored or (incident, timeline)
        return None if incident is None else whole(incident, timeline, self._clock())

    async def ack(self, one: str, by: str, why: str) -> bool:
        """Somebody looks at it; False: there is none with this id that is open."""
        self.catch_up()
        incident, now = self.book.find(one), self._clock()
        first = incident is not None and incident.acknowledged is None
        changes = self.book.ack(one, now, by, why)
        if changes is None or incident is None:
            return False
        if first:
            self._ack.observe(max(0.0, now - incident.detected))
        self._became(changes)
        await self._writer.settled()
        return True

    async def resolve(self, one: str, by: str, why: str) -> bool:
        """Somebody ends it; False: there is none with this id that is open."""
        self.catch_up()
        changes = self.book.resolve(one, self._clock(), by, why)
        if changes is None:
            return False
        self._became(changes)
        self._count()
        await self._writer.settled()
        return True

    # What follows -----------------------------------------------------------------------------------------------------

    def _take_in(self, one: Happening) -> None:
        if not self._repeats(one):
            self._lately.append(one)
            for incident in self.book.live():
                if concerns(one, incident.subject):
                    self._became(self.book.note(incident, entry(one)))
        for sign in self._detector.hear(one):
            if isinstance(sign, Gone):
                self._became(self.book.clear(*sign, one.at))
            else:
                self._hold(sign, one.at)
        if one.kind is Kind.CONFIG_RELOADED:
            for gone in self._detector.vanished(self.book.open()):
                self._became(self.book.clear(*gone, one.at))

    def _repeats(self, one: Happening) -> bool:
        """Whether it is told again and again while it lasts, and was told in the same words lately."""
        words = (one.kind, one.subject, one.level, one.reason, one.detail, one.fields.get("holds", True))
        return one.kind in _TOLD_AGAIN and any(
            words == (old.kind, old.subject, old.level, old.reason, old.detail, old.fields.get("holds", True))
            for old in self._lately
        )

    def _before(self, subject: str, now: float) -> list[Entry]:
        """What led to it."""
        told = [one for one in self._lately if now - one.at <= BEFORE_SECONDS and concerns(one, subject)]
        return [entry(one) for one in told[-BEFORE:]]

    def _hold(self, condition: Condition, now: float) -> None:
        refused = self.book.refused
        self._became(self.book.hold(condition, now, self._before(condition.subject, now)))
        if self.book.refused > refused:
            _log.warning("incident_refused", every=60.0, failure=condition.failure, on=condition.subject,
                         reason=f"{MAX_OPEN} incidents are open already", detail=condition.text)  # fmt: skip

    def _became(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._writer.owe(change)
            if change.what is not What.NOTED:
                self._tell(change)
                for listener in self._listeners:
                    listener(change)
            self._work.set()
            self.seen()

    def _tell(self, change: Change) -> None:
        one, what = change.incident, change.what
        if what is What.OPENED:
            self._detect.observe(max(0.0, one.detected - one.started))
        elif what is What.RESOLVED:
            self._resolve.observe(max(0.0, (one.resolved or 0.0) - one.started))
        bad = what in {What.OPENED, What.WORSENED, What.RELAPSED, What.REOPENED}
        worst = Level.WARNING if one.severity is Severity.WARNING else Level.ERROR
        self._observer.tell(
            Kind.INCIDENT_CHANGED, one.id, level=worst if bad else Level.INFO, reason=str(what),
            detail=change.entry.text if change.entry is not None else one.title, about=one.id,
            incident=one.id, status=str(one.status), severity=str(one.severity), failure=one.failure, on=one.subject,
        )  # fmt: skip

    def _count(self) -> None:
        self._open.value = len(self.book.open())
        known = self.figures()
        cells = ((series.AVAILABILITY, known.availability), (series.MTTA, known.mtta), (series.MTTR, known.mttr),
                 (series.MTBF, known.mtbf), (series.OBSERVED, known.observed), (series.UNKNOWN, known.unknown),
                 (series.DOWN, known.down))  # fmt: skip
        for metric, value in cells:
            if value is not None:  # what is not known is not exported
                self._registry.cell(metric).value = value

    def figures(self) -> Figures:
        """Availability and means over the last 30 days."""
        now = self._clock()
        return figures([*self._runs, (self._began, now)], self.book, now)
