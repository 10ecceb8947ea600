"""A restore in place of what is there: fenced, with a safety copy, beside, compared, and exchanged by renames.

Until the first exchange the service's data is untouched. What stood there is kept next to it until everything is well.
"""

import os
import shutil
from collections.abc import Callable, Iterator

from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import StorageFailure, Unknown
from sidecar.agent.ports import Kind, Manifest, Placement, SourcePort, Tell
from sidecar.agent.repository.lease import HeldLease
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore.exchange import Exchange, settling
from sidecar.agent.restore.fence import Fence
from sidecar.agent.restore.plan import HEADROOM, RestorePlan
from sidecar.agent.restore.restoring import look_through, source_of
from sidecar.agent.run import run_backup
from sidecar.config.backup import Backup
from sidecar.machines.backup.restore import Act, Step


class InPlace:
    """The hands of one restore in place."""

    def __init__(
        self,
        config: Backup,
        who: tuple[str, str],
        repository: Repository,
        catalog: Catalog,
        sources: dict[str, SourcePort],
        plan: RestorePlan,
        fence: Fence,
        tell: Tell,
    ) -> None:
        self._config = config
        self._who = who
        self._repository = repository
        self._catalog = catalog
        self._sources = sources
        self._plan = plan
        self._fence = fence
        self._tell = tell
        self._point: Manifest | None = None
        self._lease: HeldLease | None = None

    def take(self, point: Manifest, lease: HeldLease) -> None:
        self._point, self._lease = point, lease

    def acts(self) -> dict[Act, Callable[[Step], None]]:
        return {
            Act.PREFLIGHT: self._preflight,
            Act.LEASE: lambda _step: None,  # held around all of it
            Act.FENCE: lambda _step: self._fence.close(),
            Act.STOP: lambda _step: self._fence.stop([place.live for place in self._plan.places]),
            Act.SAFETY: self._safety,
            Act.FETCH: self._fetch,
            Act.VALIDATE: self._validate,
            Act.SWAP: self._swap,
            Act.START: lambda _step: self._fence.start(),
            Act.HEALTH: lambda _step: self._fence.healthy(),
            Act.UNFENCE: lambda _step: self._fence.open(),
            Act.CLEAR: self._clear,
        }

    def _preflight(self, _step: Step) -> None:
        for _, _, exchange in self._places():
            exchange.check()
            free = shutil.disk_usage(exchange.directory).free
            if free < self._plan.bytes + HEADROOM:
                raise StorageFailure(
                    f"{exchange.directory} has room for {free} bytes; {self._plan.bytes} are restored beside what is "
                    "there: make room"
                )

    def _safety(self, _step: Step) -> None:
        """What is there now becomes a point of its own, as well as it can."""
        sources = list(self._sources.values())
        run_backup(
            self._config, self._who, self._repository, self._catalog, sources, Kind.INCREMENTAL, self._tell, "safety",
            held=self._lease,
        )  # fmt: skip

    def _fetch(self, step: Step) -> None:
        point = source_of(self._point, step.source)
        for _, place, exchange in self._places(step.source):
            into = exchange.fetch_into()
            with settling(exchange.directory):
                self._repository.engine.restore(
                    point, lambda: self._repository.index(point), into, [place.restored], self._tell
                )
            if not os.path.lexists(os.path.join(into, place.restored)):  # nothing would take the place of what is there
                raise Unknown(f"{place.live} is not in {self._plan.backup}: take it out of the source, or use --target")

    def _validate(self, step: Step) -> None:
        point, port = source_of(self._point, step.source), self._sources[step.source]
        for _, place, exchange in self._places(step.source):
            look_through(self._repository, point, exchange.fresh, port, place.restored)

    def _swap(self, step: Step) -> None:
        port = self._sources[step.source]
        for _, place, exchange in self._places(step.source):
            exchange.swap(place.restored, port.beside(Placement(restored=place.restored, live=place.live)))

    def _clear(self, _step: Step) -> None:
        for _, _, exchange in self._places():
            exchange.clear()

    def _places(self, source: str | None = None) -> Iterator[tuple[str, Placement, Exchange]]:
        for number, place in enumerate(self._plan.places):
            if source in {None, place.source}:
                exchange = Exchange(place.live, self._plan.hash, number)
                yield place.source, Placement(restored=place.restored, live=place.live), exchange
