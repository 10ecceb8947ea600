"""The overview: what can be seen of the program, brought together for whoever asks.

Numbers, breakers, what is around, the last minutes, and one dictionary of it all for the status page, the API and
`sidecar status`. It asks those who know, and changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar import __version__
from sidecar.app.history import PERIOD, History, Point
from sidecar.app.neighbours import instance
from sidecar.app.rates import Rates
from sidecar.app.view import Counted, Seen, totals, view
from sidecar.config.effective import to_plain
from sidecar.runtime import series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.app.crew import Crew
    from sidecar.app.neighbours import Neighbours
    from sidecar.app.served_file import ServedFile
    from sidecar.app.sharing import Sharing
    from sidecar.control.health import HealthChecks
    from sidecar.runtime.metrics import Registry, Snapshot
    from sidecar.runtime.observer import Happening, Observer


class Overview:
    """What one program shows of itself (`control.admin.Overview`)."""

    def __init__(
        self,
        file: ServedFile,
        crew: Crew,
        sharing: Sharing | None,
        neighbours: Neighbours,
        health: HealthChecks,
        sections: Mapping[str, Callable[[], Any]],
        registry: Registry,
        observer: Observer,
    ) -> None:
        """`sections`: what other parts tell of themselves, by its key in the status."""
        self._file = file
        self._crew = crew
        self._sharing = sharing
        self._neighbours = neighbours
        self._health = health
        self._sections = sections
        self._registry = registry
        self._began = monotonic()
        self._rates: Rates[Counted] = Rates(self._began)
        self._history = History()
        self._happened = 0
        self._news = asyncio.Event()  # set, and replaced, whenever something happens
        observer.subscribe(self._note)

    async def run(self) -> None:
        """Keep the last minutes until cancelled."""
        while True:
            self._history.take(time.time(), monotonic(), await self.metrics())
            await asyncio.sleep(PERIOD)

    async def metrics(self) -> Snapshot:
        return await self._crew.snapshot()

    async def status(self) -> dict[str, Any]:
        config, snapshot = self._file.config, await self.metrics()
        breakers, fleet = await self._breakers_and_fleet()
        now = monotonic()
        seen = Seen(
            snapshot,
            await self._crew.endpoints(),
            breakers,
            await self.health(),
            await self.registry(),
            self._rates.take(now, totals(snapshot)),
            fleet,
        )
        return {
            "service": config.service.name,
            "instance": instance(config),
            "version": __version__,
            "pid": os.getpid(),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "uptime_seconds": round(now - self._began, 1),
            "workers": self._file.started_with.workers,  # a reload starts no processes
            "worker_pids": self._crew.pids(),
            "config": self._file.view(),
            **{key: tell() for key, tell in self._sections.items()},
            **view(config, seen),
        }

    async def breakers(self) -> list[dict[str, Any]]:
        return (await self._breakers_and_fleet())[0]

    async def _breakers_and_fleet(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """All breakers, and the fleet that shares them; None: nothing is shared."""
        found = await self._crew.breakers()
        return found, None if self._sharing is None else await self._sharing.look(found)

    async def health(self) -> list[dict[str, Any]]:
        return self._health.view()

    async def registry(self) -> list[dict[str, Any]]:
        return self._neighbours.view()

    async def recovery(self) -> dict[str, Any]:
        found: dict[str, Any] = self._sections["recovery"]()
        return found

    def config(self) -> dict[str, Any]:
        return to_plain(self._file.config)

    def history(self, after: int) -> list[Point]:
        return self._history.after(after)

    async def news(self, seen: int) -> int:
        while self._happened <= seen:
            await self._news.wait()
        return self._happened

    def _note(self, happening: Happening) -> None:
        self._registry.cell(series.HAPPENINGS, happening.kind).value += 1
        self._happened += 1
        self._news.set()
        self._news = asyncio.Event()
