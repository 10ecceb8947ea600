"""Files and directories as they are. One that is missing fails the run: it never counts as backed up."""

import os
from datetime import UTC, datetime

from sidecar.agent.faults import SourceFailure
from sidecar.agent.paths import spell
from sidecar.agent.ports import Parent, Placement, Root, SourcePoint, Staged, Tell


class FilesSource:
    """Some paths, and patterns of what is left out."""

    sort = "files"

    def __init__(self, name: str, paths: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        self.name = name
        self._paths = paths
        self._exclude = exclude

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:  # noqa: ARG002 - the port's
        at = datetime.now(UTC)
        roots = []
        for path in self._paths:
            if not os.path.lexists(path):
                raise SourceFailure(f"{self.name}: {path} is not there")
            # a ConfigMap is a symlink: what is mounted is meant, and comes back under the name that is configured
            roots.append(Root(path=os.path.realpath(path), at=spell(os.fsencode(path.strip("/")))))
        details = {"paths": [*self._paths]}
        return Staged(roots=tuple(roots), consistent_at=at, exclude=self._exclude, details=details, live=True)

    def validate(self, restored: str, point: SourcePoint) -> list[str]:  # noqa: ARG002 - the port's
        return []

    def placements(self, point: SourcePoint) -> list[Placement]:  # noqa: ARG002 - the port's
        return [Placement(restored=path.strip("/"), live=path) for path in self._paths]

    def beside(self, placement: Placement) -> list[str]:  # noqa: ARG002 - the port's
        return []
