"""The agent's numbers: what it counts, and what is worked out at each scrape."""

from collections.abc import Callable

from sidecar.agent.cycle import Turn
from sidecar.agent.ports import Level
from sidecar.machines.backup.point_age import PointAge
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry


class Figures:
    """The metrics of one agent."""

    def __init__(self, registry: Registry, rpo: float, age: PointAge, clock: Callable[[], float]) -> None:
        self._registry = registry
        registry.cell(series.BACKUP_RPO_TARGET).value = rpo
        for level in Level:  # from zero on, so that the first is an increase
            for result in ("ok", "damaged"):
                registry.cell(series.BACKUP_VERIFY, level, result)
        registry.gauge_function(series.BACKUP_RPO, lambda: age.age(clock()))
        registry.gauge_function(series.BACKUP_RECOVERY_POINT, lambda: age.date)

    def wrong(self, reason: str, subjects: int) -> None:
        """A condition holds for so many."""
        self._registry.cell(series.BACKUP_CONDITIONS, reason).value = float(subjects)

    def ran(self, turn: Turn) -> None:
        """A run came to its end, with a point."""
        registry = self._registry
        for source in turn.manifest.sources:
            registry.cell(series.BACKUP_RUNS, source.name, source.requested, "ok").value += 1
            registry.cell(series.BACKUP_DURATION, source.name, source.kind).observe(source.seconds)
            registry.cell(series.BACKUP_BYTES_ADDED, source.name).value += source.bytes_added
        for fault in turn.manifest.failures:
            registry.cell(series.BACKUP_RUNS, fault.name, turn.manifest.requested, "failed").value += 1
        self.looked(Level.SAMPLE, ok=turn.seen.ok, at=turn.seen.at.timestamp())

    def failed(self, sources: list[str], kind: str) -> None:
        """A run made no point."""
        for name in sources:
            self._registry.cell(series.BACKUP_RUNS, name, kind, "failed").value += 1

    def looked(self, level: Level, *, ok: bool, at: float) -> None:
        """Something was verified."""
        self._registry.cell(series.BACKUP_VERIFY, level, "ok" if ok else "damaged").value += 1
        if ok:
            self._registry.cell(series.BACKUP_LAST_VERIFIED).value = at
