"""An SQLite database, backed up while others write: what is stored is the state of one moment, never torn.

Theory. While a read transaction is held, SQLite keeps what the reader sees. There are two ways to get it:

*Read where it lies.* With a WAL the file can be kept as it is while others write to the log (`sqlite_still.py`). It
needs neither time nor room for a copy; the log grows meanwhile, by an eighth of the database at most, else the database
is copied after all. So it is done where the repository is a directory; over a network it would last as long as that.

*Copied.* With a rollback journal the file stands still. With a WAL a checkpoint writes into the file only what the
reader sees of the log, and the log goes on at its end. So under that lock the file is copied as it is, then the log,
and SQLite puts the copies together as it does after a crash, up to the last whole commit: this is the reader's state,
or one committed since. The backup API copies under the same lock, but page by page, at three times the price, and
cannot be stopped in between. One exception: a log that was in the file already when the reader came is needed no more,
and a writer may begin it anew, once. Its header then is another than before, and it is copied again.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import FileIO
from typing import Any
from urllib.parse import quote

from sidecar.agent.faults import SourceFailure
from sidecar.agent.paths import spell
from sidecar.agent.ports import Parent, Placement, Progress, Root, SourcePoint, Staged, Tell
from sidecar.agent.sources.sqlite_still import Still, keep_still

BUSY_SECONDS = 30.0
PIECE = 4 << 20
"""Bytes copied at once."""
_WAL_HEADER = 32
_STIRRED = "stirred_at"
"""In a source's details: when it was too restless to be read where it lies; for a day it is copied then."""
_FORGIVEN = timedelta(days=1)
_NO_INDEX = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_ADVICE = (
    "; a database with a WAL has an index beside it: let the agent's user write to its directory, on a mount that is "
    "not read-only, or back it up while its service runs"
)


class SqliteSource:
    """One database."""

    sort = "sqlite"

    def __init__(self, name: str, path: str, *, near: bool) -> None:
        """`near`: what is stored gets to the repository about as fast as it is read."""
        self.name = name
        self._path = path
        self._file = os.path.basename(path)
        self._near = near
        self._still: Still | None = None

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:
        if not os.path.isfile(self._path):
            raise SourceFailure(f"{self.name}: there is no database {self._path}")
        at = datetime.now(UTC)
        details = {"file": self._file}
        if self._near:
            if (stirred := self._stirred(parent, at)) is not None:
                details[_STIRRED] = stirred
            elif (still := keep_still(self._path)) is not None:
                self._still = still
                root = Root(path=os.path.realpath(self._path), at=spell(os.fsencode(self._file)))
                return Staged(roots=(root,), consistent_at=at, details=details, still=still)
        try:
            self._copy_database(os.path.join(into, self._file), tell)
        except (sqlite3.Error, OSError) as error:
            advice = _ADVICE if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_INDEX else ""
            raise SourceFailure(
                f"{self.name}: {self._path} cannot be copied to {into} (backup.state_dir): {error}{advice}"
            ) from None
        return Staged(roots=(Root(path=into),), consistent_at=at, details=details)

    def _stirred(self, parent: Parent | None, at: datetime) -> str | None:
        """When it last was too restless to be read where it lies; None: not within a day."""
        last, self._still = self._still, None
        if last is not None and last.stirred:
            return at.isoformat()
        said = None if parent is None else parent.source.details.get(_STIRRED)
        return said if said is not None and datetime.fromisoformat(said) > at - _FORGIVEN else None

    def _copy_database(self, copy: str, tell: Tell) -> None:
        # ours is closed last: closing any descriptor of a file lets go of the locks that SQLite holds on it
        with open(self._path, "rb", buffering=0) as file, self._reading() as logged:
            self._copy(file, copy, tell)
            if logged:
                self._copy_log(f"{copy}-wal", tell)
        with closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA synchronous = OFF")  # a copy that is cut off is thrown away
            db.execute("PRAGMA journal_mode = DELETE")
        shutil.copystat(self._path, copy)
        live = os.stat(self._path)
        with contextlib.suppress(PermissionError):
            os.chown(copy, live.st_uid, live.st_gid)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[bool]:
        """Hold a read transaction; whether there is a WAL."""
        where = f"file:{quote(self._path)}?mode=ro"
        with closing(sqlite3.connect(where, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
            yield db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def _copy_log(self, copy: str, tell: Tell) -> None:
        """Copy the WAL as it was from one moment on."""
        try:
            with open(f"{os.path.realpath(self._path)}-wal", "rb", buffering=0) as log:
                before = None
                while before != (before := os.pread(log.fileno(), _WAL_HEADER, 0)):
                    log.seek(0)
                    self._copy(log, copy, tell)
        except FileNotFoundError:
            return  # nothing is logged

    def _copy(self, file: FileIO, copy: str, tell: Tell) -> None:
        """Copy as much as there is now."""
        done, size = 0, os.fstat(file.fileno()).st_size
        with open(copy, "wb", buffering=0) as target:
            while count := os.sendfile(target.fileno(), file.fileno(), done, min(PIECE, size - done)):
                done += count
                tell(Progress(phase="stage", source=self.name, done=done, total=size))

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
