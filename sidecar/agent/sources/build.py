"""From the configuration to the source that does it."""

from sidecar.agent.faults import SourceFailure
from sidecar.agent.ports import SourcePort
from sidecar.agent.sources.files import FilesSource
from sidecar.agent.sources.sqlite import SqliteSource
from sidecar.config.backup import Source


def build(source: Source, state_dir: str) -> SourcePort:
    """Raises SourceFailure for a sort that cannot be backed up yet: it must not look as if it were."""
    if source.sqlite is not None:
        return SqliteSource(source.name, source.sqlite.path)
    if source.files is not None:
        return FilesSource(source.name, source.files.paths, source.files.exclude)
    if source.postgres is not None:
        from sidecar.agent.sources.postgres import PostgresSource

        return PostgresSource(source.name, source.postgres, state_dir)
    raise SourceFailure(
        f"{source.name}: a source of the sort redis is not supported yet; take it out of backup.sources"
    )
