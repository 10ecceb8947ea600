"""What was found out about points, by verification and by drills: known here, and kept in the repository.

A restore, the RPO and retention go by what is verified, so that must outlive this machine. A finding goes into the
catalog first, and then, signed and sealed, into the repository, an object of its own; it never changes a manifest.

    sidecar/findings/SORT/SUBJECT/NUMBER-…    sort: verification, of a point; drill and reading, of all

* No finding replaces another. They are numbered for each subject, for clocks are set; the last one holds.
* Verification holds no lease, since it may run beside a backup: names are new each time, so nobody overwrites anybody.
* What cannot be written into the repository now waits in the catalog, and goes with the next one.
* One that cannot be read vouches for nothing, nor does what was found before it: somebody has to look again.
* What was found about a point goes with it, at the latest with the next prune.
"""

import secrets
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from sidecar.agent.faults import AgentFault, Damaged
from sidecar.agent.repository.store import Missing
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from sidecar.agent.catalog import Catalog
    from sidecar.agent.ports import Lease
    from sidecar.agent.repository.repository import Repository

FINDINGS = "sidecar/findings"
ALL = "all"
"""The subject of what is about no single point."""
REMEMBERED = 1000
"""Of all."""
_TABLE = """
CREATE TABLE IF NOT EXISTS findings (
  sort TEXT NOT NULL, subject TEXT NOT NULL, number INTEGER NOT NULL, place TEXT NOT NULL, body BLOB
)"""
_LAST_FIRST = "number = 0 DESC, number DESC, rowid DESC"
"""Number 0: it is not in the repository yet."""

_log = Log(__name__)


class Sort(StrEnum):
    """By what it was found out."""

    VERIFICATION = "verification"
    DRILL = "drill"
    READING = "reading"
    """Of a part of all data."""


def add(repository: "Repository", catalog: "Catalog", sort: Sort, subject: str, body: bytes) -> None:
    """Keep a finding."""
    with catalog.connect() as connection:
        connection.execute(_TABLE)
        connection.execute("INSERT INTO findings VALUES (?, ?, 0, '', ?)", (sort, subject, body))
    try:
        _publish(repository, catalog)
    except AgentFault as fault:
        _log.warning("finding_waits", every=600.0, reason=str(fault), advice="it is written with the next one")


def _publish(repository: "Repository", catalog: "Catalog") -> None:
    """Write what waits here into the repository."""
    with catalog.connect() as connection:
        waiting = connection.execute(
            "SELECT rowid, sort, subject, body FROM findings WHERE number = 0 ORDER BY rowid"
        ).fetchall()
    for row, sort, subject, body in waiting:
        above = f"{FINDINGS}/{sort}/{subject}"
        number = 1 + max((_number(found.name) for found in repository.store.list(above)), default=0)
        place = f"{above}/{number:06d}-{secrets.token_hex(4)}"
        repository.put_signed(place, body)
        with catalog.connect() as connection:
            connection.execute("UPDATE findings SET number = ?, place = ? WHERE rowid = ?", (number, place, row))


def collect(repository: "Repository", catalog: "Catalog") -> list[str]:
    """Know what the repository knows; which cannot be read."""
    there = {found.name for found in repository.store.list(FINDINGS)}
    with catalog.connect() as connection:
        connection.execute(_TABLE)
        known = {place for (place,) in connection.execute("SELECT place FROM findings WHERE number != 0")}
        connection.executemany("DELETE FROM findings WHERE place = ?", [(place,) for place in known - there])
    rows: list[tuple[str, str, int, str, bytes | None]] = []
    for place in sorted(there - known):
        sort, subject, _ = place.removeprefix(f"{FINDINGS}/").split("/", 2)
        try:
            body: bytes | None = repository.get_signed(place)
        except Missing:
            continue  # it was forgotten meanwhile
        except Damaged:
            body = None
        rows.append((sort, subject, _number(place), place, body))
    with catalog.connect() as connection:
        connection.executemany("INSERT INTO findings VALUES (?, ?, ?, ?, ?)", rows)
        bad = connection.execute("SELECT place FROM findings WHERE body IS NULL ORDER BY place").fetchall()
    return [f"{place} is damaged: what was found out is to be found out again" for (place,) in bad]


def found(catalog: "Catalog", sort: Sort, count: int = -1) -> list[tuple[str, bytes | None]]:
    """The last so many of a sort, newest first for each subject: whom it is about, and what it says.

    None: it cannot be read.
    """
    with catalog.connect() as connection:
        connection.execute(_TABLE)
        asked = f"SELECT subject, body FROM findings WHERE sort = ? ORDER BY {_LAST_FIRST} LIMIT ?"  # noqa: S608 - ours
        return connection.execute(asked, (sort, count)).fetchall()


def forget(repository: "Repository", catalog: "Catalog", lease: "Lease", points: Iterable[str]) -> None:
    """These points are no more."""
    for point in points:
        lease.check()
        for gone in list(repository.store.list(f"{FINDINGS}/{Sort.VERIFICATION}/{point}")):
            repository.store.delete(gone.name)
        with catalog.connect() as connection:
            connection.execute(_TABLE)
            connection.execute("DELETE FROM findings WHERE sort = ? AND subject = ?", (Sort.VERIFICATION, point))


def sweep(repository: "Repository", lease: "Lease") -> None:
    """Remove what is about points that are no more, and the oldest of what there is much of."""
    points = set(repository.ids())
    old: list[str] = []
    for sort in (Sort.DRILL, Sort.READING):
        old += sorted(one.name for one in repository.store.list(f"{FINDINGS}/{sort}"))[:-REMEMBERED]
    verified = [one.name for one in repository.store.list(f"{FINDINGS}/{Sort.VERIFICATION}")]
    for name in (*old, *(one for one in verified if one.split("/")[3] not in points)):
        lease.check()
        repository.store.delete(name)


def _number(place: str) -> int:
    digits = place.rpartition("/")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else 1
