"""What every command about backups needs: the configuration, the repository, the catalog. Opened when asked for."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from sidecar.base.errors import ConfigError
from sidecar.cli import exits

if TYPE_CHECKING:
    from sidecar.agent.catalog import Catalog
    from sidecar.agent.ports import SourcePort
    from sidecar.agent.repository.repository import Repository
    from sidecar.config.backup import Backup
    from sidecar.config.document import Config


class Desk:
    """The things of one command."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._path = args.config
        self._key_file: str | None = getattr(args, "key_file", None)

    @cached_property
    def document(self) -> "Config":
        """The whole file."""
        from sidecar.config.load import load

        return load(self._path)

    @cached_property
    def config(self) -> "Backup":
        """Its `backup` section. Raises ConfigError."""
        found = self.document.backup
        if found is None:
            raise ConfigError(f"{self._path}: there is no `backup` section: nothing says what is backed up")
        return found if self._key_file is None else _opened_with(found, self._key_file)

    @cached_property
    def repository(self) -> "Repository":
        from sidecar.agent.repository.repository import Repository

        return Repository.open(self.config)

    @cached_property
    def catalog(self) -> "Catalog":
        """Rebuilt from the repository when this machine has none."""
        from sidecar.agent.catalog import Catalog
        from sidecar.agent.faults import NoRepository

        catalog = Catalog(self.config.state_dir)
        if not catalog.points():
            with contextlib.suppress(NoRepository):
                catalog.rebuild(self.repository)
        return catalog

    def sources(self) -> "dict[str, SourcePort]":
        """The configured sources by name."""
        from sidecar.agent.sources.build import build

        return {source.name: build(source, self.config) for source in self.config.sources}


def _opened_with(config: "Backup", key_file: str) -> "Backup":
    """The same, but for whence the password comes. Raises AgentFault."""
    import os

    from msgspec.structs import replace

    from sidecar.agent.faults import AgentFault

    if os.path.realpath(key_file) == os.path.realpath(config.repository.password_file):
        raise AgentFault(f"{key_file} is backup.repository.password_file itself: name the copy that is kept elsewhere")
    return replace(config, repository=replace(config.repository, password_file=os.path.abspath(key_file)))


def told(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; turn its fault into one sentence and an exit code: 4 for a wrong key, 1 for everything else.

    A fault is also that the package was installed without what backups need.
    """
    from sidecar.agent.faults import AgentFault, WrongKey

    try:
        return work(args)
    except WrongKey as fault:
        print(fault, file=sys.stderr)
        return exits.WRONG_KEY
    except AgentFault as fault:
        print(fault, file=sys.stderr)
        return exits.FAILED
    except KeyboardInterrupt:
        how = "; what was begun goes on with: sidecar restore resume" if args.verb == "restore" else ""
        print(f"sidecar {args.verb}: interrupted{how}", file=sys.stderr)
        return exits.FAILED
    except ModuleNotFoundError as missing:
        print(f"backups need more packages: pip install 'sidecar[all]' ({missing})", file=sys.stderr)
        return exits.FAILED
