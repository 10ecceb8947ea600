"""What the agent works with: the catalog, the open repository, the sources; opened when first asked for.

The catalog is only this machine's memory. Damaged or gone while the agent runs, it is filled again from the repository.
"""

import threading
from typing import TYPE_CHECKING

from sidecar.agent import findings
from sidecar.agent.catalog import Catalog
from sidecar.agent.ports import SourcePort
from sidecar.agent.repository.repository import Repository
from sidecar.agent.sources.build import build
from sidecar.config.backup import Backup

if TYPE_CHECKING:
    from sidecar.agent.sources.postgres import PostgresSource


class Stock:
    """Of one agent."""

    def __init__(self, config: Backup) -> None:
        self.config = config
        self._filling = threading.Lock()
        self._repository: Repository | None = None

    def catalog(self) -> Catalog:
        """Raises StorageFailure, and what the repository raises when it has to be filled."""
        with self._filling:  # nobody takes one that is being filled for empty
            catalog = Catalog(self.config.state_dir)
            if catalog.fresh and self._repository is not None:
                catalog.rebuild(self._repository)
            return catalog

    def repository(self, *, create: bool = False) -> Repository:
        """Opened once: the password is slow on purpose. A machine that lost its catalog gets it back."""
        if self._repository is None:
            repository = Repository.open(self.config, create=create)
            if not self.catalog().points():
                self.catalog().rebuild(repository)
            self._repository = repository
        return self._repository

    def align(self) -> None:
        """Know what the repository holds: another machine may have added or forgotten points, or our disk was full."""
        repository, catalog = self.repository(), self.catalog()
        if set(repository.ids()) != {point.id for point in catalog.points()}:
            catalog.rebuild(repository)
        else:
            findings.collect(repository, catalog)

    def close(self) -> None:
        """The repository failed: it is opened anew the next time."""
        self._repository = None

    def sources(self) -> dict[str, SourcePort]:
        """The configured ones by name. Raises SourceFailure."""
        return {source.name: build(source, self.config) for source in self.config.sources}

    def streamed(self) -> "list[PostgresSource]":
        """Those whose log is streamed."""
        if not any(source.postgres is not None for source in self.config.sources):
            return []  # nothing of it is imported
        from sidecar.agent.sources.postgres import PostgresSource

        return [
            PostgresSource(source.name, source.postgres, self.config.state_dir)
            for source in self.config.sources
            if source.postgres is not None and source.postgres.stream
        ]
