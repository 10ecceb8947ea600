"""The lane of drills: one is due every so often; what it showed is a metric, and a condition when it failed."""

import asyncio
import contextlib
import math
from datetime import UTC, datetime

from sidecar.agent.cycle import Stopped
from sidecar.agent.drills.drill import DrillReport, clear_away, drills, run_drill
from sidecar.agent.faults import AgentFault, Busy, NoRepository, Unknown
from sidecar.agent.lanes.lane import Lane
from sidecar.agent.report import Reporter
from sidecar.agent.stock import Stock
from sidecar.base.clock import since_boot
from sidecar.machines.backup.drill import Due
from sidecar.runtime import observer as told
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer

LOOK = 5.0
"""Seconds between two looks at the clock."""
AGAIN = 600.0
"""Seconds, at most, until one that failed before it began is tried again; one that has nothing to restore yet: LOOK."""

_log = Log(__name__)


class Drilling:
    """The drills of one agent."""

    def __init__(self, stock: Stock, registry: Registry, reporter: Reporter, observer: Observer) -> None:
        self._stock = stock
        self._registry = registry
        self._reporter = reporter
        self._observer = observer
        self.lane = Lane("drill")

    async def run(self) -> None:
        """One whenever it is due, until cancelled; none without `backup.drill`."""
        rules = self._stock.config.drill
        earlier: list[DrillReport] = []
        with contextlib.suppress(AgentFault):
            earlier = await self.lane.do(lambda _tell: drills(self._stock.catalog(), 100))
            await self.lane.do(lambda _tell: clear_away(self._stock.config))
        for one in reversed(earlier):
            if one.passed:
                self._show(one)
        if rules is None:
            return
        ago = (datetime.now(UTC) - earlier[0].at).total_seconds() if earlier else None
        due = Due(rules.every, since_boot(), ago)
        while True:
            await asyncio.sleep(min(LOOK, max(0.05, due.due_at - since_boot())))
            if due.due(since_boot()):
                due = Due(min(rules.every, await self._drill()), since_boot(), 0.0)

    async def _drill(self) -> float:
        """Seconds until the next, if that is not due before."""
        stock = self._stock
        try:
            report = await self.lane.do(
                lambda tell: run_drill(
                    stock.config, stock.repository(), stock.catalog(), stock.sources(), tell, asked="schedule"
                )
            )
        except (Stopped, Busy, Unknown, NoRepository) as fault:
            _log.info("drill_put_off", every=600.0, reason=str(fault))
            return LOOK
        except AgentFault as fault:
            self._reporter.holds("drill_failed", "drill", str(fault))
            _log.warning("drill_failed", every=600.0, reason=str(fault))
            return AGAIN
        if report.passed:
            self._show(report)
            self._reporter.over("drill_failed")
        else:
            self._reporter.holds("drill_failed", "drill", f"{report.point}: {report.why}")
        self._judge(report)
        self._observer.tell(
            told.Kind.DRILL_ENDED, report.point, level=told.Level.INFO if report.passed else told.Level.ERROR,
            reason="passed" if report.passed else "failed", detail=report.why, point=report.point,
            passed=report.passed, rto_seconds=report.rto_seconds, rpo_seconds=report.rpo_seconds,
            seconds=round(sum(report.steps.values()), 3),
        )  # fmt: skip
        return math.inf

    def _judge(self, report: DrillReport) -> None:
        """A drill that passed may show that a promise cannot be kept."""
        if report.rto_seconds is not None and report.rto_seconds > report.rto_target_seconds:
            detail = f"a drill took {report.rto_seconds:.0f} s; rto is {report.rto_target_seconds:.0f} s"
            self._reporter.holds("rto_missed", "drill", detail)
        elif report.rto_seconds is not None:
            self._reporter.over("rto_missed")

    def _show(self, report: DrillReport) -> None:
        registry = self._registry
        if report.rto_seconds is not None:
            registry.cell(series.BACKUP_DRILL_RTO).value = report.rto_seconds
        if report.rpo_seconds is not None:
            registry.cell(series.BACKUP_DRILL_RPO).value = report.rpo_seconds
        registry.cell(series.BACKUP_DRILL_SUCCESS).value = report.at.timestamp()
