"""The agent: what `sidecar agent run` starts. It keeps the RPO by itself, proves what it made, and says when it cannot.

Three lanes, each a thread that works on one thing at a time: backups, with their verification and what is let go
(`lanes/backing.py`), and what may take long and only reads (`lanes/rereading.py`, `lanes/drilling.py`). Beside them it
watches the promise: how old the newest verified point is.

Nothing of it brings the process down: a repository that is away, a full disk, a wrong key are conditions that are told
(metric, log, the proxy's incidents) and tried again, since a crash would only make the pod unready. What does end it
is a configuration that cannot work, and the signal to stop: what runs gets a moment to end, and is killed then.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from datetime import UTC, datetime
from typing import Any

import sidecar
from sidecar.agent import cycle, history
from sidecar.agent.admin import Admin
from sidecar.agent.drills.drill import DrillReport, drills
from sidecar.agent.faults import AgentFault
from sidecar.agent.figures import Figures
from sidecar.agent.lanes.backing import Backing
from sidecar.agent.lanes.drilling import Drilling
from sidecar.agent.lanes.rereading import Rereading
from sidecar.agent.lanes.streaming import Streaming
from sidecar.agent.memory import one_heap
from sidecar.agent.ports import Kind, Manifest
from sidecar.agent.report import Reporter
from sidecar.agent.restore.half_way import HalfWay
from sidecar.agent.show import as_plain
from sidecar.agent.stock import Stock
from sidecar.agent.verdicts import records
from sidecar.base.clock import since_boot
from sidecar.base.errors import ConfigError
from sidecar.config.load import parse, read
from sidecar.machines.backup.point_age import PointAge
from sidecar.machines.backup.schedule import Promise, PromiseKeeper
from sidecar.runtime import logs
from sidecar.runtime import observer as told
from sidecar.runtime.admin_doors import Refused
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry, Snapshot
from sidecar.runtime.observer import Observer
from sidecar.runtime.systemd import Systemd
from sidecar.runtime.tasks import Supervisor

JUDGE, LOOK = 1.0, 5
"""Seconds between two looks at the promise; every so many of them the catalog is looked into."""
LAST_MOMENT, LONGEST_RUN = 10.0, 3600.0
"""Seconds that a backup under way may still take after SIGTERM, and after the file changed."""

_log = Log(__name__)


class Agent:
    """One run of `sidecar agent run`."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError."""
        one_heap()
        self._text = read(path)
        self._document = parse(self._text, path)
        if self._document.backup is None:
            raise ConfigError(f"{path}: there is no `backup` section: nothing says what is backed up")
        self._config = self._document.backup
        service = self._document.service
        self._who = (service.name, service.instance or socket.gethostname())
        self._registry = Registry()
        self._observer = Observer()
        self._tasks = Supervisor(self._registry)
        self._admin = Admin(self._config.admin, self)
        self._stock = Stock(self._config)
        self._age = PointAge()
        figures = Figures(self._registry, self._config.rpo, self._age, since_boot)
        self._reporter = Reporter(self._document.admin.socket, figures.wrong)
        self._observer.subscribe(self._reporter.hear)
        self._backing = Backing(self._stock, self._who, self._age, figures, self._reporter, self._observer)
        self._rereading = Rereading(self._stock, figures, self._reporter, self._observer, self._look_again)
        self._drilling = Drilling(self._stock, self._registry, self._reporter, self._observer)
        self._streams = [
            Streaming(source, self._stock, self._registry, self._reporter, self._backing.join)
            for source in self._stock.streamed()
        ]
        self._half_way = HalfWay(self._document, self._reporter)
        self._promise = PromiseKeeper(self._config.rpo, since_boot())
        self._path = path
        self._stop = asyncio.Event()
        self.again = False
        """It ended because the file says something else now: make another."""
        self._ready = False
        self._began = since_boot()
        self._systemd = Systemd(os.environ)

    # The run ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until stopped. Raises ConfigError when the start fails."""
        logs.setup(self._document.log.level, self._document.log.format)
        try:
            await self._admin.start()
            await self._look_half_way()
            await self._remember()
            loop = asyncio.get_running_loop()
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(one, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            self._tasks.start("report", self._reporter.run)
            self._tasks.start("backups", self._backing.run)
            self._tasks.start("reads", self._rereading.run)
            self._tasks.start("drills", self._drilling.run)
            for stream in self._streams:
                self._tasks.start(stream.lane.name, stream.run)
            self._tasks.start("promise", self._keep_watching)
            self._ready = True
            self._observer.tell(
                told.Kind.AGENT_STARTED, self._who[0], version=sidecar.__version__,
                repository=self._config.repository.url, rpo_seconds=self._config.rpo,
            )  # fmt: skip
            self._systemd.ready(f"backing up {self._who[0]}")
            self._tasks.start("systemd-watchdog", self._systemd.pat)
            await self._stop.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        was_ready, self._ready = self._ready, False
        self._systemd.stopping()
        self._rereading.lane.stop()
        self._drilling.lane.stop()
        for stream in self._streams:
            stream.lane.stop()
        for stream in self._streams:
            await stream.lane.rest(3.0)
        await self._backing.lane.rest(LAST_MOMENT if not self.again else LONGEST_RUN)
        if was_ready:
            self._observer.tell(told.Kind.AGENT_STOPPED, self._who[0])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reporter.flush(), 2.0)
        await self._tasks.stop()
        await self._admin.stop()

    def _reload(self) -> None:
        """Read the file again; a good one that says something else counts once what runs is done. A bad one never."""
        try:
            text = read(self._path)
            if text == self._text:
                return
            self._text = text
            found = parse(text, self._path)
            if found.backup is None:
                raise ConfigError(f"{self._path}: there is no `backup` section any more")
        except ConfigError as error:
            self._observer.tell(
                told.Kind.CONFIG_RELOAD_FAILED, self._path, level=told.Level.ERROR, path=self._path,
                reason=str(error), advice="the agent goes on with the last good one", every=60.0,
            )  # fmt: skip
            return
        old = self._document
        if (found.backup, found.service, found.admin, found.log) != (old.backup, old.service, old.admin, old.log):
            self.again = True
            self.stop()

    async def _remember(self) -> None:
        """Go on where the last agent on this machine was."""

        def look() -> tuple[list[history.Ran], Manifest | None]:
            return history.runs(self._stock.catalog()), cycle.newest_verified(self._stock.catalog())

        try:
            ran, newest = await asyncio.to_thread(look)
        except AgentFault as fault:
            _log.error("catalog_failed", reason=str(fault))
            return
        now, wall = since_boot(), datetime.now(UTC)
        if newest is not None and newest.consistent_at is not None:
            self._age.seen(newest.id, newest.consistent_at.timestamp(), wall.timestamp(), now)
        # when nobody can tell how long ago it was, because clocks were set, the next run comes at once
        known = bool(ran) and ran[0].verified and self._age.age(now) is not None
        last = (wall - ran[0].began).total_seconds() if known else None
        self._backing.remember([one.seconds for one in reversed(ran) if one.verified], last)

    # The promise --------------------------------------------------------------------------------------------------

    async def _keep_watching(self) -> None:
        for turn in itertools.count():
            if turn % LOOK == 0:
                await self._look_again()
                await self._look_half_way()
                self._reload()
            change = self._promise.judge(self._age.age(since_boot()), since_boot())
            if change is not None:
                missed = change.new is Promise.MISSED
                self._observer.tell(
                    told.Kind.BACKUP_PROMISE_CHANGED, self._who[0],
                    level=told.Level.ERROR if missed else told.Level.INFO,
                    reason=change.reason, detail=change.detail, before=change.old, now=change.new,
                )  # fmt: skip
                if missed:
                    self._reporter.holds("rpo_missed", self._who[0], change.detail)
                else:
                    self._reporter.over("rpo_missed")
            await asyncio.sleep(JUDGE)

    async def _look_again(self) -> None:
        """Points may come and go by command, too."""
        try:
            newest = await asyncio.to_thread(lambda: cycle.newest_verified(self._stock.catalog()))
        except AgentFault as fault:
            _log.warning("catalog_failed", every=60.0, reason=str(fault))
            self._reporter.holds("catalog_failed", self._who[0], str(fault))
            return
        self._reporter.over("catalog_failed")
        at = newest.consistent_at if newest is not None else None
        name = newest.id if newest is not None and at is not None else None
        self._age.seen(name, at.timestamp() if at else 0.0, datetime.now(UTC).timestamp(), since_boot())

    async def _look_half_way(self) -> None:
        self._half_way.tell(await asyncio.to_thread(self._half_way.look))

    # What the doors ask (agent.admin.Program) ---------------------------------------------------------------------

    async def metrics(self) -> Snapshot:
        return self._registry.snapshot()

    async def status(self) -> dict[str, Any]:
        now = since_boot()

        def look() -> tuple[list[history.Ran], list[DrillReport], str | None]:
            catalog = self._stock.catalog()
            return history.runs(catalog, 1), drills(catalog, 1), history.key_proved(catalog)

        try:
            ran, drilled, proved = await asyncio.to_thread(look)
        except AgentFault:  # a condition says so
            ran, drilled, proved = [], [], None
        repository = self._config.repository
        last = ran[0] if ran else None
        age = self._age.age(now)
        return {
            "service": self._who[0],
            "instance": self._who[1],
            "version": sidecar.__version__,
            "pid": os.getpid(),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "uptime_seconds": round(now - self._began, 1),
            "state": "ready" if self._ready else "stopping" if self._stop.is_set() else "starting",
            "rpo": {
                "state": self._promise.state,
                "target_seconds": self._config.rpo,
                "age_seconds": None if age is None else round(age, 1),
                "point": self._age.point,
                "unreachable": self._backing.schedule.unreachable,
            },
            "rto": {"target_seconds": self._config.rto},
            "run": {
                **self._backing.view(),
                "last": None if last is None else {
                    "began": last.began.isoformat(timespec="seconds"), "seconds": round(last.seconds, 3),
                    "point": last.point, "verified": last.verified, "asked": last.asked, "why": last.why,
                },
            },
            "drill": None if not drilled else {
                "at": drilled[0].at.isoformat(timespec="seconds"), "passed": drilled[0].passed, "why": drilled[0].why,
                "rto_seconds": drilled[0].rto_seconds, "rpo_seconds": drilled[0].rpo_seconds,
                "running": self._drilling.lane.busy,
            },
            "repository": {"url": repository.url, "engine": repository.engine, "key_copy_proved_at": proved},
            "sources": [source.name for source in self._config.sources],
            "conditions": [
                {"reason": one.reason, "subject": one.subject, "level": one.level, "detail": one.detail}
                for one in self._reporter.conditions
            ],
        }  # fmt: skip

    async def backups(self) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]]:
            catalog = self._stock.catalog()
            known = records(catalog)
            return [as_plain(point, known.get(point.id)) for point in catalog.points()]

        try:
            return await asyncio.to_thread(look)
        except AgentFault as fault:
            raise Refused(503, str(fault)) from None

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return self._ready and not self._stop.is_set()

    def run_now(self, kind: str | None) -> str:
        if kind is not None and kind not in {Kind.FULL, Kind.INCREMENTAL, Kind.DIFFERENTIAL}:
            raise Refused(400, f"kind is full, incremental or differential, not {kind!r}")
        busy = self._backing.lane.busy
        self._backing.order(Kind(kind) if kind else Kind.INCREMENTAL)
        return "a backup begins when the one under way is done" if busy else "a backup begins now"

    def stop(self) -> None:
        """SIGTERM: what runs gets a moment. A second one: it does not."""
        if self._stop.is_set():
            self._backing.lane.stop()
        self._stop.set()
