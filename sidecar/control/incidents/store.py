"""The file that incidents, their timelines, what is still to be told and our hours of watch are kept in: SQLite.

One thread works on it; the event loop never waits for a disk. A batch is one transaction, synced to the disk (WAL,
synchronous FULL) before anybody is told of what it holds: it survives kill -9 and a power cut. Timelines are only ever
added to, which a trigger sees to. A file that is no database, or a damaged one, is set aside under its name with
`.corrupt-TIMESTAMP`, and a new one begun: an incident at night is no time to repair a file. A file of a later version
is left alone, and so is one that another process has open: the lock is exclusive and ends with its process. What a
failing disk does not take is the caller's to keep and to bring again.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from sidecar.control.incidents.ledger import Batch, Loaded, StoreDamaged, StoreFailed
from sidecar.machines.incidents.book import Entry
from sidecar.machines.incidents.incident import Incident
from sidecar.machines.incidents.outbox import Message

VERSION = 1
KEEP_CLOSED = 1000
_BUSY_SECONDS = 2.0
_SCHEMA = """
CREATE TABLE incidents (id TEXT PRIMARY KEY, alerted REAL NOT NULL, closed INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE timeline (incident TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
                       PRIMARY KEY (incident, number)) WITHOUT ROWID;
CREATE TRIGGER timeline_is_only_added_to BEFORE UPDATE ON timeline BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TABLE outbox (id TEXT PRIMARY KEY, created REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE runs (began REAL PRIMARY KEY, seen REAL NOT NULL);
"""

T = TypeVar("T")


class Store:
    """One file. Every call raises StoreFailed when the file cannot be used."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="incidents")
        self._connection: sqlite3.Connection | None = None

    async def load(self, latest: int, timelines: int) -> Loaded:
        """Open the file, made when absent, and read what is not closed and the `latest` closed incidents, `timelines`
        of these with theirs.
        """
        return await self._do(lambda: self._load(latest, timelines))

    async def read(self, incident: str) -> tuple[Incident, list[Entry]] | None:
        """One incident with its timeline; None: it is not in the file."""
        return await self._do(lambda: self._read(incident))

    async def write(self, batch: Batch) -> None:
        """Write all of it, or nothing."""
        rows = (
            [
                (one.id, one.alerted, one.closed is not None, msgspec.json.encode(one))
                for one in batch.incidents.values()
            ],
            [(incident, number, msgspec.json.encode(entry)) for incident, number, entry in batch.entries],
            [(one.id, one.created, msgspec.json.encode(one)) for one in batch.messages.values() if one is not None],
            [(key,) for key, one in batch.messages.items() if one is None],
            batch.run,
        )
        await self._do(lambda: self._write(*rows))

    async def close(self) -> None:
        """Close the file; not for ever, should the disk hang."""
        with contextlib.suppress(StoreFailed, TimeoutError):
            async with asyncio.timeout(_BUSY_SECONDS):
                await self._do(self._close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return work()
            except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
                advice = "; another process has it open: give each sidecar a file of its own" * ("locked" in str(error))
                raise StoreFailed(f"{self.path}: {error}{advice}") from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    # In the thread ----------------------------------------------------------------------------------------------------

    def _load(self, latest: int, timelines: int) -> Loaded:
        set_aside, why = "", ""
        try:
            found = self._open_and_read(latest, timelines)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            if not _damaged(error):
                raise
            self._close()
            set_aside, why = self._set_aside(), str(error)
            found = self._open_and_read(latest, timelines)
        return Loaded(*found, set_aside, why)

    def _read(self, incident: str) -> tuple[Incident, list[Entry]] | None:
        connection = self._open()
        row = connection.execute("SELECT body FROM incidents WHERE id = ?", (incident,)).fetchone()
        if row is None:
            return None
        return msgspec.json.decode(row[0], type=Incident), self._timeline(connection, incident)

    def _open_and_read(
        self, latest: int, timelines: int
    ) -> tuple[list[tuple[Incident, list[Entry]]], list[Message], list[tuple[float, float]]]:
        connection = self._open()
        rows = connection.execute("SELECT body FROM incidents WHERE NOT closed ORDER BY alerted").fetchall()
        closed = connection.execute(
            "SELECT body FROM incidents WHERE closed ORDER BY alerted DESC LIMIT ?", (latest,)
        ).fetchall()
        incidents = [msgspec.json.decode(body, type=Incident) for (body,) in [*reversed(closed), *rows]]
        bare = {one.id for one in incidents[: max(0, len(closed) - timelines)]}
        return (
            [(one, [] if one.id in bare else self._timeline(connection, one.id)) for one in incidents],
            _decoded(connection.execute("SELECT body FROM outbox ORDER BY created"), Message),
            list(connection.execute("SELECT began, seen FROM runs ORDER BY began")),
        )

    def _timeline(self, connection: sqlite3.Connection, incident: str) -> list[Entry]:
        rows = connection.execute("SELECT body FROM timeline WHERE incident = ? ORDER BY number", (incident,))
        return _decoded(rows, Entry)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise OSError(f"written by a later version ({version}); this one knows {VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            if version < VERSION:
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _write(
        self,
        incidents: Iterable[tuple[str, float, bool, bytes]],
        entries: Iterable[tuple[str, int, bytes]],
        messages: Iterable[tuple[str, float, bytes]],
        gone: Iterable[tuple[str]],
        run: tuple[float, float] | None,
    ) -> None:
        if self._connection is not None and not os.path.exists(self.path):
            self._close()
            raise StoreDamaged("somebody removed the file", "")
        try:
            self._write_all(self._open(), incidents, entries, messages, gone, run)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            self._close()  # the next write opens it anew: after a full disk SQLite may hold on to what it saw
            if _damaged(error):
                raise StoreDamaged(str(error), self._set_aside()) from None
            raise

    def _write_all(
        self,
        connection: sqlite3.Connection,
        incidents: Iterable[tuple[str, float, bool, bytes]],
        entries: Iterable[tuple[str, int, bytes]],
        messages: Iterable[tuple[str, float, bytes]],
        gone: Iterable[tuple[str]],
        run: tuple[float, float] | None,
    ) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?)", incidents)
            connection.executemany("INSERT OR IGNORE INTO timeline VALUES (?, ?, ?)", entries)
            connection.executemany("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?)", messages)
            connection.executemany("DELETE FROM outbox WHERE id = ?", gone)
            if run is not None:
                connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", run)
                connection.execute("DELETE FROM runs WHERE seen < ?", (run[1] - 40 * 86400.0,))
            connection.execute(
                "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents WHERE closed ORDER BY alerted DESC"
                " LIMIT -1 OFFSET ?)",
                (KEEP_CLOSED,),
            )
            connection.execute("DELETE FROM timeline WHERE incident NOT IN (SELECT id FROM incidents)")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _set_aside(self) -> str:
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        os.replace(self.path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + suffix, aside + suffix)
        return aside

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _decoded(rows: Iterable[tuple[bytes]], kind: type[T]) -> list[T]:
    return [msgspec.json.decode(body, type=kind) for (body,) in rows]


def _damaged(error: Exception) -> bool:
    """Whether it is the file's fault: no database, torn pages, or rows that are not ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # what quick_check found, or a row
        return type(error) is sqlite3.DatabaseError or isinstance(error, msgspec.MsgspecError)
    return (code & 0xFF) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
