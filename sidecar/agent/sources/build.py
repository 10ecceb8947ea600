"""From the configuration to the source that does it."""

from sidecar.agent.ports import SourcePort
from sidecar.agent.sources.files import FilesSource
from sidecar.agent.sources.sqlite import SqliteSource
from sidecar.config.backup import Backup, Source


def build(source: Source, config: Backup) -> SourcePort:
    """The one sort that it names."""
    if source.sqlite is not None:
        return SqliteSource(source.name, source.sqlite.path, near=config.repository.url.startswith("/"))
    if source.files is not None:
        return FilesSource(source.name, source.files.paths, source.files.exclude)
    if source.postgres is not None:
        from sidecar.agent.sources.postgres import PostgresSource

        return PostgresSource(source.name, source.postgres, config.state_dir)
    assert source.redis is not None, "exactly one sort is given"
    from sidecar.agent.sources.redis import RedisSource

    return RedisSource(source.name, source.redis)
