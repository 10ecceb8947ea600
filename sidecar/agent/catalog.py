"""What this machine knows of the repository's points, in an SQLite file: fast to ask, and all of it can be rebuilt.

So one that turns out to be damaged is set aside, and a new one takes its place: no backup waits for a person because of
it. Whoever finds that his is `fresh` fills it from the repository.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import msgspec

from sidecar.agent import findings
from sidecar.agent.faults import StorageFailure
from sidecar.agent.ports import Manifest, Signed
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from sidecar.agent.repository.repository import Repository

_SCHEMA = """
CREATE TABLE IF NOT EXISTS points (
  id TEXT PRIMARY KEY, generation INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL
)"""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WRITABLE = "backup.state_dir must be writable"
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room in backup.state_dir",
    sqlite3.SQLITE_IOERR: "is there room in backup.state_dir?",
    sqlite3.SQLITE_BUSY: "another process holds it; try again",
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_PERM: _WRITABLE,
}
_ADD = "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)"


_log = Log(__name__)


class _SetAside(StorageFailure):
    """It was damaged, and is where it was no longer."""


class Catalog:
    """The catalog in `state_dir`."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, "catalog.db")
        try:
            os.makedirs(state_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailure(f"backup.state_dir: {state_dir}: {error.strerror}; it must be writable") from None
        try:
            self._make()
        except _SetAside:
            self._make()

    def _make(self) -> None:
        self.fresh = not os.path.exists(self._path)
        """There was none."""
        with self.connect() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)

    @contextlib.contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; committed at the end, closed in any case."""
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=30.0)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                self._set_aside(str(error))
            raise StorageFailure(f"{self._path}: {error}; {_ADVICE.get(code, 'look at backup.state_dir')}") from None

    def _set_aside(self, why: str) -> NoReturn:
        with contextlib.suppress(OSError):
            os.replace(self._path, f"{self._path}.damaged")
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + suffix)
        _log.warning("catalog_set_aside", path=f"{self._path}.damaged", reason=why)
        raise _SetAside(f"{self._path}: {why}; it is set aside, try again: the repository knows all of it") from None

    def points(self) -> list[Manifest]:
        """Newest first."""
        with self.connect() as connection:
            rows = connection.execute("SELECT body FROM points ORDER BY generation DESC, id DESC").fetchall()
        return [msgspec.json.decode(body, type=Manifest) for (body,) in rows]

    def add(self, signed: Signed) -> None:
        """A point that exists."""
        with self.connect() as connection:
            connection.execute(_ADD, _row(signed))

    def remove(self, name: str) -> None:
        """A point that exists no longer."""
        with self.connect() as connection:
            connection.execute("DELETE FROM points WHERE id = ?", (name,))

    def rebuild(self, repository: "Repository") -> tuple[int, list[str]]:
        """Know again what the repository holds: how many points, and what of it cannot be read.

        At once: who looks meanwhile, or a kill in the middle, never finds fewer points than there are.
        """
        found, damages = repository.readable()
        rows = [_row(repository.signed(manifest.id)) for manifest in found]
        with self.connect() as connection:
            connection.execute("DELETE FROM points")
            connection.executemany(_ADD, rows)
        return len(found), damages + findings.collect(repository, self)


def _row(signed: Signed) -> tuple[str, int, bytes, bytes]:
    manifest = msgspec.json.decode(signed.body, type=Manifest)
    return manifest.id, manifest.generation, signed.body, signed.signature
