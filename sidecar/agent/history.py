"""What the agent did, in the catalog's file: it outlives a restart, so that a schedule goes on where it was.

Only what can be lost: with an empty file the next run comes at once, and its time is measured anew.
"""

from datetime import UTC, datetime

import msgspec

from sidecar.agent.catalog import Catalog

REMEMBERED = 2000
"""Runs."""
_RUNS = """
CREATE TABLE IF NOT EXISTS runs (
  began TEXT NOT NULL, seconds REAL NOT NULL, point TEXT, verified INTEGER NOT NULL, asked TEXT NOT NULL,
  why TEXT NOT NULL
)"""
_RESTORES = "CREATE TABLE IF NOT EXISTS restores (at TEXT NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL)"
_KEYS = "CREATE TABLE IF NOT EXISTS keys (at TEXT NOT NULL)"


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One run, verification included."""

    began: datetime
    seconds: float
    point: str | None
    """None: it made none."""
    verified: bool
    asked: str
    """By whom: schedule, operator, safety."""
    why: str = ""
    """Why it failed."""


def note(catalog: Catalog, one: Ran) -> None:
    """Remember a run."""
    with catalog.connect() as connection:
        connection.execute(_RUNS)
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)",
            (one.began.isoformat(), one.seconds, one.point, one.verified, one.asked, one.why),
        )
        connection.execute("DELETE FROM runs WHERE rowid <= (SELECT max(rowid) FROM runs) - ?", (REMEMBERED,))


def runs(catalog: Catalog, count: int = 100) -> list[Ran]:
    """The last ones, newest first."""
    with catalog.connect() as connection:
        connection.execute(_RUNS)
        rows = connection.execute("SELECT * FROM runs ORDER BY rowid DESC LIMIT ?", (count,)).fetchall()
    return [
        Ran(
            began=datetime.fromisoformat(began), seconds=seconds, point=point, verified=bool(good), asked=asked, why=why
        )
        for began, seconds, point, good, asked, why in rows
    ]


def note_restore(catalog: Catalog, size: int, seconds: float) -> None:
    """A restore of so many bytes took so long."""
    with catalog.connect() as connection:
        connection.execute(_RESTORES)
        connection.execute("INSERT INTO restores VALUES (?, ?, ?)", (datetime.now(UTC).isoformat(), size, seconds))


def restore_rate(catalog: Catalog) -> float | None:
    """Bytes per second of the restores so far that were large enough to tell; None: there was none."""
    with catalog.connect() as connection:
        connection.execute(_RESTORES)
        rows = connection.execute(
            "SELECT bytes, seconds FROM restores WHERE bytes >= 1000000 ORDER BY rowid DESC LIMIT 5"
        ).fetchall()
    seconds = sum(float(row[1]) for row in rows)
    return sum(int(row[0]) for row in rows) / seconds if seconds > 0.0 else None


def note_key(catalog: Catalog) -> None:
    """A copy of the password that is kept elsewhere has opened the repository."""
    with catalog.connect() as connection:
        connection.execute(_KEYS)
        connection.execute("DELETE FROM keys")
        connection.execute("INSERT INTO keys VALUES (?)", (datetime.now(UTC).isoformat(timespec="seconds"),))


def key_proved(catalog: Catalog) -> str | None:
    """When one last did, ISO 8601; None: never."""
    with catalog.connect() as connection:
        connection.execute(_KEYS)
        row = connection.execute("SELECT at FROM keys").fetchone()
    return None if row is None else str(row[0])
