"""The lane of a log: one for each PostgreSQL source. How far it is behind is a metric; too far is a condition.

It looks every few seconds. A server or a repository that is away is tried again; a lag that is not known is told as
that, never as 0.
"""

import asyncio
import time
from collections.abc import Callable

from sidecar.agent.cycle import Stopped
from sidecar.agent.faults import AgentFault, NoRepository
from sidecar.agent.lanes.lane import Lane
from sidecar.agent.ports import Progress, Tell
from sidecar.agent.report import Reporter
from sidecar.agent.sources.postgres import PostgresSource
from sidecar.agent.sources.postgres_stream import WalStream
from sidecar.agent.stock import Stock
from sidecar.agent.wal import WalArchive
from sidecar.base.clock import since_boot
from sidecar.machines.backup.replication_lag import ReplicationLag
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry

EVERY, SOON = 3.0, 0.5
"""Seconds between two looks; while the stream begins, or something failed."""
BEGINNING = 20
"""Looks that it may take to begin: then there is no hurry any more."""
UNKNOWN_AFTER = 90.0
"""Seconds from the begin on within which a lag that is not known is no trouble yet."""

_log = Log(__name__)


class Streaming:
    """The stream of one source."""

    def __init__(
        self,
        source: PostgresSource,
        stock: Stock,
        registry: Registry,
        reporter: Reporter,
        order: Callable[[], None],
    ) -> None:
        """`order`: a run is wanted, since only a new base backup joins the log that comes now."""
        self._source = source
        self._stock = stock
        self._reporter = reporter
        self._lag = ReplicationLag()
        self._failure = ""
        self._gap = ""
        self._order = order
        self._begun = False
        self._began = since_boot()
        self.lane = Lane(f"log-{source.name}")
        registry.gauge_function(series.BACKUP_REPLICATION_LAG, lambda: self._lag.lag(since_boot()), source.name)

    async def run(self) -> None:
        """Stream until cancelled."""
        watch = asyncio.create_task(self._watch())
        try:
            await self.lane.do(self._work)
        except Stopped:
            pass
        finally:
            watch.cancel()

    def _work(self, tell: Tell) -> None:
        """In the lane's thread; `tell` ends it."""
        stream = WalStream(self._source, self._lag, self._hear_of_gap, self._hear_of_begin)
        beginning = 0
        try:
            while True:
                try:
                    stream.turn(self._archive)
                    self._failure = ""
                except AgentFault as fault:
                    self._failure = str(fault)
                except OSError as error:
                    self._failure = f"{self._source.name}: {error}"
                beginning = 0 if stream.settled and not self._failure else beginning + 1
                until = time.monotonic() + (SOON if 0 < beginning <= BEGINNING else EVERY)
                alive = stream.alive
                while time.monotonic() < until and stream.alive == alive:
                    tell(Progress(phase="stream", source=self._source.name))
                    time.sleep(0.2)
        finally:
            stream.stop()

    def _archive(self, system: str) -> WalArchive | None:
        """None: the first backup makes the repository; what is streamed until then waits."""
        try:
            return self._stock.repository().log(self._source.name, system)
        except NoRepository:
            return None

    def _hear_of_gap(self, why: str) -> None:
        self._gap = why  # told by the loop

    def _hear_of_begin(self) -> None:
        self._begun = True  # the loop orders it

    async def _watch(self) -> None:
        """Too far behind, or not known for too long: that is told."""
        name, limit = self._source.name, self._source.rules.max_lag
        while True:
            await asyncio.sleep(1.0)
            now = since_boot()
            behind = self._lag.behind(now)
            gap, self._gap = self._gap, ""
            if gap:
                _log.error("log_has_gap", source=name, reason=gap)
            if self._begun:
                self._begun = False
                _log.info("log_begins", source=name, detail="a run makes sure that a base backup joins it")
                self._order()
            if self._failure:
                _log.warning("stream_failed", every=60.0, source=name, reason=self._failure)
            if behind is None and now - self._began > UNKNOWN_AFTER:
                why = self._failure or "the server has not answered"
                self._reporter.holds("replication_unknown", name, f"how far the log is behind is not known: {why}")
            elif behind is not None:
                self._reporter.over("replication_unknown", name)
                if behind > limit:
                    more = f": {self._failure}" if self._failure else ""
                    self._reporter.holds("replication_behind", name, f"the log is {behind:.0f} s behind{more}")
                else:
                    self._reporter.over("replication_behind", name)
