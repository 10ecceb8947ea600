"""An SQLite database, copied by its backup API while others write: the copy is the state of one moment, never torn."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sidecar.agent.faults import SourceFailure
from sidecar.agent.ports import Parent, Placement, Progress, Root, SourcePoint, Staged, Tell

BUSY_SECONDS = 30.0


class SqliteSource:
    """One database."""

    sort = "sqlite"

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:  # noqa: ARG002 - the port's
        if not os.path.isfile(self._path):
            raise SourceFailure(f"{self.name}: there is no database {self._path}")
        copy = os.path.join(into, os.path.basename(self._path))
        tell(Progress(phase="stage", source=self.name, total=os.path.getsize(self._path)))
        at = datetime.now(UTC)
        try:
            with (
                closing(sqlite3.connect(f"file:{quote(self._path)}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)  # in one step: a read transaction, which writers of a WAL do not wait for
                target.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise SourceFailure(
                f"{self.name}: {self._path} cannot be copied to {into} (backup.state_dir): {error}"
            ) from None
        return Staged(roots=(Root(path=into),), consistent_at=at, details={"file": os.path.basename(self._path)})

    def validate(self, restored: str, point: SourcePoint) -> list[str]:
        path = os.path.join(restored, str(point.details.get("file", "")))
        try:
            with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as db:
                said = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
        except sqlite3.Error as error:
            return [f"the database cannot be opened: {error}"]
        return [] if said == ["ok"] else said

    @contextlib.contextmanager
    def opened(self, restored: str, point: SourcePoint, scratch: str) -> Iterator[Callable[[str, float], Any]]:  # noqa: ARG002
        """The copy, to read (`ports.Database`)."""
        path = os.path.join(restored, str(point.details.get("file", "")))

        def ask(query: str, patience: float) -> Any:
            until = time.monotonic() + patience
            try:
                with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as db:
                    db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
                    row = db.execute(query).fetchone()
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise SourceFailure(f"the copy does not answer: {error}") from None
            return row[0] if row else None

        yield ask

    def placements(self, point: SourcePoint) -> list[Placement]:
        return [Placement(restored=str(point.details.get("file", "")), live=self._path)]

    def beside(self, placement: Placement) -> list[str]:
        return [f"{placement.live}{suffix}" for suffix in ("-wal", "-shm", "-journal")]
