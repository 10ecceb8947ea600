"""The lane of backups: a run when the schedule or somebody says so, and what is let go in the time until the next.

When a run is due, and of which kind it is, the machine knows (`machines/backup/schedule.py`). A run that fails changes
nothing but the time of the next one; what failed is a condition until a run goes well. Retention and pruning come after
a run. Pruning cannot be resumed, so it may go on into the next period, but ends when the RPO asks for a run.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from sidecar.agent import cycle
from sidecar.agent.cycle import Stopped, Turn
from sidecar.agent.faults import AgentFault, Busy, Damaged, Locked, NoRepository, SourceFailure, WrongKey
from sidecar.agent.figures import Figures
from sidecar.agent.lanes.lane import Lane
from sidecar.agent.ports import Kind, Tell
from sidecar.agent.report import Reporter, damaged
from sidecar.agent.stock import Stock
from sidecar.base.clock import since_boot
from sidecar.machines.backup.point_age import PointAge
from sidecar.machines.backup.schedule import Schedule
from sidecar.runtime import observer as told
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Observer

LOOK = 5.0
"""Seconds between two looks at the schedule, at most."""
PRUNE_EVERY = 3600.0
THE_NEWEST = "the newest backup"

_log = Log(__name__)


class Backing:
    """Makes the backups of one agent."""

    def __init__(
        self,
        stock: Stock,
        who: tuple[str, str],
        age: PointAge,
        figures: Figures,
        reporter: Reporter,
        observer: Observer,
    ) -> None:
        """`who`: service and instance; `age`: is told of every verified point that is made here."""
        self._stock = stock
        self._config = stock.config
        self._who = who
        self._age = age
        self._figures = figures
        self._reporter = reporter
        self._observer = observer
        self.lane = Lane("backup")
        self.schedule = Schedule(self._config.rpo, since_boot())
        self._ordered: Kind | None = None
        self._to_join = False
        self._order = asyncio.Event()
        self._pruned_at = since_boot()
        self._to_prune = True  # what killed runs left
        self._prune_waits: str | None = None  # for whose lock

    def remember(self, took: list[float], last: float | None) -> None:
        """How long earlier good runs took, oldest first, and how many seconds ago the last one began."""
        self.schedule = Schedule(self._config.rpo, since_boot(), took, last)

    def order(self, kind: Kind) -> None:
        """A run is wanted now."""
        self._ordered = kind
        self._order.set()

    def join(self) -> None:
        """A log begins anew: a run makes sure that there is a point that it goes on from."""
        self._to_join = True
        self._order.set()

    async def run(self) -> None:
        """Keep the RPO until cancelled."""
        while True:
            now = since_boot()
            if self.schedule.due(now) or self._ordered is not None or self._to_join:
                await self._back_up()
                await self._tidy()
                continue
            self._order.clear()
            with contextlib.suppress(TimeoutError):
                # the loop's own clock stands still while the machine sleeps: look again now and then
                async with asyncio.timeout(max(0.01, min(LOOK, self.schedule.next_at - now))):
                    await self._order.wait()

    async def _back_up(self) -> None:
        ordered, self._ordered, self._to_join = self._ordered, None, False
        asked = "schedule" if ordered is None else "operator"
        kind = ordered or Kind.INCREMENTAL
        began, wall = since_boot(), datetime.now(UTC)

        def work(tell: Tell) -> Turn:
            nonlocal kind
            repository, catalog = self._stock.repository(create=True), self._stock.catalog()
            self._stock.align()
            kind = ordered or cycle.next_kind(self._config, catalog, datetime.now(UTC))
            sources = list(self._stock.sources().values())
            return cycle.make_point(self._config, self._who, repository, catalog, sources, kind, tell, asked)

        self.schedule.began(began)
        turn: Turn | None = None
        try:
            turn = await self.lane.do(work)
        except Locked as fault:
            self._reporter.holds("repository_locked", self._who[0], str(fault), told.Level.WARNING)
            _log.warning("backup_put_off", every=300.0, reason=str(fault))
        except (Stopped, Busy) as fault:
            _log.info("backup_put_off", reason=str(fault))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next run is tried
            self._stock.close()
            self._failed(error, kind)
        took = None if turn is None else turn.seconds  # without what the machine slept
        self.schedule.ended(since_boot(), verified=turn is not None and turn.good, took=took)
        if turn is not None:
            self._finished(turn, began, wall)
        self._tell_unreachable()

    def _finished(self, turn: Turn, began: float, wall: datetime) -> None:
        point, at = turn.manifest, turn.manifest.consistent_at
        self._figures.ran(turn)
        if turn.good and at is not None:
            within = min(max(0.0, (at - wall).total_seconds()), since_boot() - began)
            behind = max(source.behind for source in point.sources)
            self._age.made(point.id, at.timestamp(), began + within - behind)
        for word in (*_WORDS.values(), "repository_locked"):
            self._reporter.over(word, self._who[0])
        failed = {fault.name: fault.reason for fault in point.failures}
        for source in self._config.sources:
            if source.name in failed:
                self._reporter.holds("backup_failed", source.name, failed[source.name])
                self._tell_failure(source.name, "source_failed", failed[source.name])
            else:
                self._reporter.over("backup_failed", source.name)
        if turn.seen.ok:
            self._reporter.over("verify_failed", THE_NEWEST)
        else:
            damaged([turn.seen], THE_NEWEST, self._stock.catalog(), self._reporter, self._observer)
        added = sum(one.bytes_added for one in point.sources)
        self._observer.tell(
            told.Kind.BACKUP_FINISHED,
            point.id,
            level=told.Level.INFO if turn.good else told.Level.WARNING,
            reason=point.requested,
            detail=f"{added} bytes added in {turn.seconds:.1f} s",
            point=point.id,
            asked=point.reason,
            bytes=sum(one.bytes for one in point.sources),
            bytes_added=added,
            seconds=round(turn.seconds, 3),
            verified=turn.good,
        )

    def _failed(self, error: Exception, kind: Kind) -> None:
        """A run that made no point."""
        self._figures.failed([source.name for source in self._config.sources], kind)
        word = next(word for sort, word in _WORDS.items() if isinstance(error, sort))
        detail = str(error) if isinstance(error, AgentFault) else f"{type(error).__name__}: {error}"
        if not isinstance(error, AgentFault):
            _log.error("backup_broke", error=error)
        self._reporter.holds(word, self._who[0], detail)
        self._tell_failure("repository", word, detail)

    def _tell_failure(self, subject: str, reason: str, detail: str) -> None:
        self._observer.tell(
            told.Kind.BACKUP_FAILED, subject, level=told.Level.ERROR, reason=reason, detail=detail, about=subject,
            source=subject,
        )  # fmt: skip

    def _tell_unreachable(self) -> None:
        said = self.schedule.unreachable
        if said:
            self._reporter.holds("rpo_unreachable", self._who[0], said, told.Level.WARNING)
            _log.warning("rpo_unreachable", every=3600.0, detail=said)
        else:
            self._reporter.over("rpo_unreachable")

    async def _tidy(self) -> None:
        """Let go what no rule keeps, and now and then the data that nobody needs."""
        stock = self._stock
        freed = None
        try:
            forgotten = await self.lane.do(
                lambda _tell: cycle.forget(self._config, stock.repository(), stock.catalog())
            )  # fmt: skip
            self._to_prune = self._to_prune or forgotten > 0
            if self._to_prune and since_boot() >= self._pruned_at + PRUNE_EVERY:
                freed = await self.lane.do(
                    lambda tell: cycle.prune(stock.repository(), tell),
                    lambda: self.lane.resting or self.schedule.urgent(since_boot()),
                )
                self._pruned_at, self._to_prune, self._prune_waits = since_boot(), False, None
            if forgotten or freed:
                self._observer.tell(told.Kind.BACKUPS_FORGOTTEN, "repository", points=forgotten, bytes_freed=freed)
        except Locked as fault:
            self._prune_waits = str(fault)
            _log.info("prune_put_off", every=1800.0, reason=str(fault))
        except (Stopped, Busy, NoRepository):
            pass
        except AgentFault as fault:
            _log.warning("retention_failed", every=600.0, reason=str(fault))

    def view(self) -> dict[str, Any]:
        """What it does and will do, for the status."""
        left = self.schedule.next_at - since_boot()
        progress = self.lane.progress
        return {
            "running": self.lane.busy,
            "next_in_seconds": None if self.schedule.running else round(max(0.0, left), 1),
            "progress": None if progress is None else {
                "phase": progress.phase, "source": progress.source, "done": progress.done,
                "total": progress.total or None,
            },
            "prune_waits": self._prune_waits,
        }  # fmt: skip


_WORDS: dict[type[Exception], str] = {
    WrongKey: "wrong_key",
    SourceFailure: "backup_failed",
    Damaged: "repository_damaged",
    AgentFault: "repository_unreachable",
    Exception: "agent_failed",
}
"""The word of the condition; the first that fits."""
