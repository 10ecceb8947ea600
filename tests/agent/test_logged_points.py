"""Points that share a base backup and differ by their log: what is verified of them, and whose the rot is."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.agent import cycle
from sidecar.agent.catalog import Catalog
from sidecar.agent.ports import Kind, Level, Manifest, Parent, Placement, Root, SourcePoint, Staged, Tell
from sidecar.agent.repository.repository import Repository
from sidecar.agent.run import run_backup
from sidecar.agent.verdicts import offered, records, verified
from sidecar.agent.verify import verify_point
from sidecar.agent.wal import PARTIAL, WalArchive, name_of
from sidecar.config.backup import Backup, PostgresSource, Source
from sidecar.config.backup import Repository as RepositoryConfig
from tests.fakes.wal import BLOCK, SIZE, segment
from tests.real.estate import flip

FIRST = 4


class Scripted:
    """A source whose log grows by a segment for each point after the first."""

    name = sort = "postgres"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "file").write_bytes(os.urandom(50_000))
        self.directory = directory
        self.archive: WalArchive
        self.last = FIRST
        self.bases = 0

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:
        at = datetime.now(UTC)
        if parent is None:
            self.bases += 1
            first = name_of("00000001", self.last, SIZE)
            details = {"system": "7", "segment_bytes": SIZE, "wal_from": first, "wal_to": first, "streamed": False}
            details["end_lsn"] = self.last * SIZE + BLOCK
            return Staged(roots=(Root(path=str(self.directory)),), consistent_at=at, details=details)
        whole = name_of("00000001", self.last, SIZE)
        self.archive.put(whole, segment(self.last * SIZE, SIZE // BLOCK))
        self.archive.delete(whole + PARTIAL)
        self.last += 1
        self.archive.put(name_of("00000001", self.last, SIZE) + PARTIAL, segment(self.last * SIZE, 2))
        details = {**parent.source.details, "end_lsn": self.last * SIZE + 2 * BLOCK, "streamed": True}
        return Staged(roots=(), consistent_at=at, details=details, unchanged=True)

    def validate(self, restored: str, point: SourcePoint) -> list[str]:
        return []

    def placements(self, point: SourcePoint) -> list[Placement]:
        return []

    def beside(self, placement: Placement) -> list[str]:
        return []


class Place:
    """Its repository and catalog."""

    def __init__(self, directory: Path) -> None:
        (directory / "key").write_text("secret")
        self.repo = directory / "repo"
        where = RepositoryConfig(url=str(self.repo), engine="sealed", password_file=str(directory / "key"))
        one = Source(name="postgres", postgres=PostgresSource(dsn_file="/nowhere"))
        self.config = Backup(state_dir=str(directory / "state"), repository=where, sources=(one,))
        self.repository = Repository.open(self.config, create=True)
        self.catalog = Catalog(self.config.state_dir)
        self.source = Scripted(directory / "data")
        self.source.archive = self.repository.log("postgres", "7")

    def common(self, kind: Kind = Kind.INCREMENTAL) -> tuple[Any, ...]:
        return self.config, ("s", "i"), self.repository, self.catalog, [self.source], kind, lambda _: None, "test"

    def point(self) -> Manifest:
        return cycle.make_point(*self.common()).manifest

    def rot(self, number: int) -> None:
        (path,) = self.repo.glob(f"sidecar/wal/*/7/{name_of('00000001', number, SIZE)}*")
        flip(path)

    def good(self) -> set[str]:
        known = records(self.catalog)
        return {point.id for point in self.catalog.points() if verified(known.get(point.id))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_rot_in_the_log_is_that_of_the_points_that_need_the_segment(place: Place):
    base, one, two, three = (place.point() for _ in range(4))
    assert [point.sources[0].kind for point in (one, two, three)] == [Kind.UNCHANGED] * 3
    assert place.good() == {base.id, one.id, two.id, three.id}
    place.rot(FIRST + 2)  # the last segment of the third point
    reading = (cycle.read_part(place.repository, place.catalog, part, 7, lambda _: None) for part in range(1, 8))
    found = {seen.point: seen for part in reading for seen in part}
    assert set(found) == {two.id, three.id}
    assert place.good() == {base.id, one.id}
    assert offered(place.catalog, found[three.id]) == one.id, "it shares the base backup, but not what is rotten"
    assert place.source.bases == 1
    place.point()
    assert place.source.bases == 2, "what comes next does not build on it"


def test_the_newest_segment_is_read_before_a_point_counts(place: Place):
    place.point()
    put = place.source.archive.put
    place.source.archive.put = lambda name, data: put(name, data if PARTIAL not in name else data[:BLOCK])  # type: ignore[method-assign]  # a disk that lies
    point = place.point()
    assert point.id not in place.good()
    assert [one.what for one in records(place.catalog)[point.id].troubles] == ["truncated"]


def test_what_nobody_has_sampled_is_not_verified_by_sharing_it(place: Place):
    first = run_backup(*place.common())  # killed before its verification
    for path in place.repo.glob("objects/*/0*"):
        flip(path)
    second = place.point()
    assert second.sources[0].snapshot == first.sources[0].snapshot
    assert place.good() == set()
    sources = {"postgres": place.source}
    asked = verify_point(place.repository, second, Level.SAMPLE, sources, str(place.repo) + "-scratch", lambda _: None)
    assert not asked.ok, "whoever asks for it has it looked at"
