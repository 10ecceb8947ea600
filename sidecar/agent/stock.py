"""What the agent works with: the catalog, the open repository, the sources; opened when first asked for."""

from sidecar.agent.catalog import Catalog
from sidecar.agent.ports import SourcePort
from sidecar.agent.repository.repository import Repository
from sidecar.agent.sources.build import build
from sidecar.config.backup import Backup


class Stock:
    """Of one agent."""

    def __init__(self, config: Backup) -> None:
        self.config = config
        self._catalog: Catalog | None = None
        self._repository: Repository | None = None

    def catalog(self) -> Catalog:
        """Raises StorageFailure."""
        if self._catalog is None:
            self._catalog = Catalog(self.config.state_dir)
        return self._catalog

    def repository(self, *, create: bool = False) -> Repository:
        """Opened once: the password is slow on purpose. A machine that lost its catalog gets it back."""
        if self._repository is None:
            repository = Repository.open(self.config, create=create)
            if not self.catalog().points():
                self.catalog().rebuild(repository)
            self._repository = repository
        return self._repository

    def close(self) -> None:
        """The repository failed: it is opened anew the next time."""
        self._repository = None

    def sources(self) -> dict[str, SourcePort]:
        """The configured ones by name. Raises SourceFailure."""
        return {source.name: build(source) for source in self.config.sources}
