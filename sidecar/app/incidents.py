"""Wires the incidents: what happens in the pod, the book, its file, the admin interface.

Runs in the program's process, once, however many workers serve. Without an `incidents` section the book is kept in
memory. Where the file is, is taken from the first configuration; how long is long and who hears, from the latest.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from typing import TYPE_CHECKING, Any

from sidecar.app.neighbours import instance, member
from sidecar.config.incidents import Incidents as Settings
from sidecar.control.incidents.answers import Answers
from sidecar.control.incidents.deliveries import Deliveries, Receiver
from sidecar.control.incidents.detect import Detector, Names
from sidecar.control.incidents.keeper import Keeper
from sidecar.control.incidents.measure import Measure
from sidecar.control.incidents.senders.build import build
from sidecar.control.incidents.senders.post import Post
from sidecar.control.incidents.telling import figures_view
from sidecar.control.incidents.writer import Writer
from sidecar.machines.incidents.book import IncidentBook
from sidecar.machines.incidents.escalation import Step
from sidecar.machines.incidents.incident import Patience
from sidecar.machines.incidents.outbox import Outbox
from sidecar.runtime.observer import Happening, Kind, Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.document import Config
    from sidecar.control.incidents.ledger import Ledger, Loaded
    from sidecar.control.redis_link import RedisLink
    from sidecar.runtime.admin_doors import Tables
    from sidecar.runtime.metrics import Registry, Snapshot
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor


class Incidents:
    """The incidents of one program."""

    def __init__(
        self,
        config: Config,
        tasks: Supervisor,
        registry: Registry,
        observer: Observer,
        health: Callable[[], list[dict[str, Any]]],
        snapshot: Callable[[], Awaitable[Snapshot]],
    ) -> None:
        """`health`: as `HealthChecks.view` has it; `snapshot`: everybody's numbers."""
        self._config = config
        self._tasks = tasks
        settings = config.incidents
        self._writer = Writer(_store(settings.store if settings is not None else None), registry, observer)
        self._book = IncidentBook(config.service.name, instance(config), _new_id)
        names = Names(
            lambda: {one.name for one in self._config.upstreams},
            lambda: {one.name for one in self._config.dependencies},
        )
        detector = Detector(health, self._enforced, names)
        self.keeper = Keeper(self._book, detector, self._writer, registry, observer)
        self._post = Post()
        self._deliveries = Deliveries(Outbox(random.random, _message_id), self.keeper, self._writer, registry)
        self._writer.adopt = self._adopt
        self._writer.owe_everything = self._owe_everything
        self._measure = Measure(snapshot, self.keeper, registry, config.service.name)
        self._retime()
        self.tables: Tables = Answers(self.keeper, observer, self.figures).tables
        observer.subscribe(self.keeper.hear)

    async def start(self) -> None:
        """Take over what an earlier run left, and begin."""
        self._hear()
        await self._writer.load()
        self._tasks.start("incidents", self.keeper.run)
        self._tasks.start("notifications", self._deliveries.run)
        self._tasks.start("incident-measure", self._measure.run)
        self._tasks.start("incident-store", self._writer.run)

    def share(self, link: RedisLink | None, config: Config) -> None:
        """Agree with the other replicas over `link` who tells people; None: there are none."""
        if link is not None and config.shared_state is not None:
            from sidecar.control.incidents.shared import SharedCauses

            service = config.service.name
            self._deliveries.agreement.share(SharedCauses(link, config.shared_state.namespace, service, member(config)))

    def apply(self, config: Config) -> None:
        """A reload."""
        self._config = config
        self._retime()
        self._hear()

    def see(self, breakers: list[dict[str, Any]]) -> None:
        """Breakers that were open already when another process handed them to us."""
        for one in breakers:
            if one["machine"] == "open":
                fields = {"upstream": one["name"], "old": "closed", "new": "open"}
                self.keeper.hear(
                    Happening(Kind.BREAKER_CHANGED, one["name"], time.time(), Level.WARNING, "taken_over",
                              str(one["detail"]), fields, os.getpid())
                )  # fmt: skip

    async def stop(self) -> None:
        """Write down what is owed."""
        self.keeper.catch_up()
        self.keeper.seen()
        await self._tasks.end("incidents")
        await self._tasks.end("notifications")
        await self._tasks.end("incident-measure")
        await self._deliveries.agreement.part()
        await self._post.close()
        await self._tasks.end("incident-store")
        await self._writer.close()

    def open_ones(self) -> list[dict[str, Any]]:
        """Open incidents, for the status."""
        return self.keeper.open_ones()

    def figures(self) -> dict[str, Any]:
        """What is known about ourselves, over 30 days; null: nothing is."""
        return {**figures_view(self.keeper.figures()), **self._measure.view()}

    def _retime(self) -> None:
        settings = self._config.incidents or Settings()
        self._book.patience = Patience(settings.resolve_after, settings.reopen_within)
        self._measure.objective = settings.objective

    def _adopt(self, loaded: Loaded) -> None:
        self.keeper.adopt(loaded)
        self._deliveries.restore(loaded.messages)

    def _owe_everything(self) -> None:
        self.keeper.owe_everything()
        self._deliveries.owe_everything()

    def _hear(self) -> None:
        settings = self._config.incidents
        notify = settings.notify if settings is not None else ()
        receivers = {one.name: Receiver(build(one, self._post), one.least, one.hears == "all") for one in notify}
        steps = [Step(one.after, one.to) for one in settings.escalate] if settings is not None else []
        self._deliveries.apply(receivers, steps)

    def _enforced(self, breaker: str) -> bool:
        """Whether the breaker of this name is there and refuses."""
        upstream, _, route = breaker.partition("/")
        owners = [one for one in self._config.upstreams if one.name == upstream and one.breaker.mode == "enforce"]
        if not route:
            return bool(owners)
        return bool(owners) and any(
            one.name == route and one.upstream == upstream for each in self._config.listeners for one in each.routes
        )


def _store(path: str | None) -> Ledger | None:
    if path is None:
        return None
    from sidecar.control.incidents.store import Store  # SQLite is for those who keep a file

    return Store(path)


def _message_id() -> str:
    return secrets.token_hex(8)


def _new_id(now: float) -> str:
    """Short enough to type, in the order of time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(2)}"
