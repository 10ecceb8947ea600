"""Backup, forget and prune, killed before each single change that they make to the repository's disk.

Each kill is a real one: a forked process ends itself by SIGKILL before the n-th link, rename, unlink or flush. Whatever
n: what was good before is still good, nothing half counts, and the next run goes well.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.agent import cycle
from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import LeaseLost
from sidecar.agent.ports import Kind, Level, Manifest
from sidecar.agent.repository.lease import HeldLease
from sidecar.agent.repository.repository import Repository
from sidecar.agent.retain import carry_out
from sidecar.agent.sources.build import build
from sidecar.agent.verdicts import offered
from sidecar.agent.verify import verify_point
from sidecar.config.backup import Backup, FilesSource, Source
from sidecar.config.backup import Repository as RepositoryConfig

DEEDS = ("link", "rename", "unlink", "fsync")


class Place:
    """Some files, their repository, and the catalog."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir(parents=True)
        (self.files / "a").write_bytes(os.urandom(50_000))
        (directory / "key").write_text("secret")
        self.config = Backup(
            state_dir=str(directory / "state"),
            repository=RepositoryConfig(
                url=str(directory / "repo"), engine="sealed", password_file=str(directory / "key")
            ),
            sources=(Source(name="files", files=FilesSource(paths=(str(self.files),))),),
        )
        self.repository = Repository.open(self.config, create=True)
        self.catalog = Catalog(self.config.state_dir)
        self.sources = {one.name: build(one, self.config) for one in self.config.sources}

    def backup(self, kind: Kind = Kind.INCREMENTAL) -> Manifest:
        sources = list(self.sources.values())
        turn = cycle.make_point(
            self.config, ("s", "i"), self.repository, self.catalog, sources, kind, lambda _: None, "test"
        )  # fmt: skip
        assert turn.good, turn.seen
        return turn.manifest

    def sound(self) -> set[str]:
        """Every point in the repository can be read to its last byte; which these are."""
        points, damages = self.repository.readable()
        assert damages == []
        for point in points:
            scratch = os.path.join(self.config.state_dir, "scratch")
            seen = verify_point(self.repository, point, Level.READ, self.sources, scratch, lambda _: None)
            assert seen.ok, seen
        return {point.id for point in points}


def killed_before(number: int, deed: Callable[[], object]) -> bool:
    """Do it in a forked process that dies before its n-th change of the disk; False: it has fewer."""
    pid = os.fork()
    if pid == 0:
        count = 0
        for name in DEEDS:
            real = getattr(os, name)

            def counting(*words: object, real: Callable[..., object] = real, **more: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*words, **more)

            setattr(os, name, counting)
        try:
            deed()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.timeout(180)  # a backup and a look at all of it, for each change
def test_a_backup_killed_before_each_of_its_changes(place: Place):
    known = {place.backup().id}
    number = 1
    while True:
        (place.files / "b").write_bytes(os.urandom(20_000))
        died = killed_before(number, place.backup)
        there = place.sound()
        assert known <= there
        known = there
        if not died:
            break
        number += 1
    assert number > 10
    place.catalog.rebuild(place.repository)
    known.add(place.backup().id)
    assert place.sound() == known
    cycle.prune(place.repository, lambda _: None)
    assert place.sound() == known
    assert {point.id for point in place.catalog.points()} == known


@pytest.mark.slow
def test_a_first_backup_killed_before_each_of_its_changes(tmp_path: Path):
    for number in range(1, 80, 5):  # a key is slow to make on purpose
        directory = tmp_path / f"{number}"
        directory.mkdir()
        died = killed_before(number, lambda directory=directory: Place(directory).backup())
        (directory / "files").rename(directory / "before") if (directory / "files").exists() else None
        place = Place(directory)
        place.catalog.rebuild(place.repository)
        place.backup()
        assert len(place.sound()) in {1, 2}
        if not died:
            break
    else:
        raise AssertionError("it never came to an end")


def test_forget_and_prune_killed_before_each_of_their_changes(place: Place):
    keep = [place.backup(Kind.FULL).id]
    number = 1
    while True:
        (place.files / "b").write_bytes(os.urandom(20_000))
        going = place.backup(Kind.FULL).id
        keep.append(place.backup(Kind.FULL).id)

        def deed(going: str = going) -> None:
            carry_out(place.repository, place.catalog, [going])
            cycle.prune(place.repository, lambda _: None)

        died = killed_before(number, deed)
        assert set(keep) <= place.sound(), "what is kept is whole"
        if not died:
            break
        carry_out(place.repository, place.catalog, [going])
        cycle.prune(place.repository, lambda _: None)
        assert place.sound() == set(keep)
        number += 1
    assert number > 5
    left = {path.parent.name for path in Path(place.config.repository.url, "objects").rglob("*") if path.is_file()}
    named = {source.snapshot for point in place.catalog.points() for source in point.sources}
    assert left == named, "nothing is left over of all the kills"
    told_of = {path.name for path in Path(place.config.repository.url, "sidecar/findings/verification").iterdir()}
    assert told_of == set(keep), "nor of what was found out about what is gone"


def test_a_lease_that_is_lost_in_the_middle_of_a_prune_lets_nothing_more_go(place: Place):
    going = place.backup(Kind.FULL)
    place.backup(Kind.FULL)
    carry_out(place.repository, place.catalog, [going.id])
    with place.repository.lease("prune") as lease:  # its index is the first to go
        indexes = sum(1 for _ in place.repository.store.list(going.sources[0].index))
        asked = 0

        def check() -> None:
            nonlocal asked
            asked += 1
            if asked > 1 + indexes:
                raise LeaseLost("somebody else took it")

        with pytest.raises(LeaseLost):
            place.repository.prune(HeldLease(lease.generation, check, lambda: None), lambda _: None)
    left = {one.name.split("/")[1] for one in place.repository.store.list("objects")}
    assert going.sources[0].snapshot in left


def test_rot_is_found_by_reading_a_part_each_day_and_the_older_point_counts_again(place: Place):
    first = place.backup(Kind.FULL)
    (place.files / "b").write_bytes(os.urandom(20_000))
    second = place.backup(Kind.FULL)
    assert cycle.newest_verified(place.catalog) == second
    rotten = next(Path(place.config.repository.url, "objects", second.sources[0].snapshot).glob("0*"))
    content = bytearray(rotten.read_bytes())
    content[len(content) // 2] ^= 1
    rotten.write_bytes(content)
    found = [
        one for part in range(1, 8) for one in cycle.read_part(place.repository, place.catalog, part, 7, lambda _: None)
    ]
    assert [one.point for one in found] == [second.id]
    assert rotten.name in found[0].troubles[0].where
    assert cycle.newest_verified(place.catalog) == first
    assert offered(place.catalog, found[0]) == first.id
    assert (cycle.last_read(place.catalog) or (0,))[0] == 7
    elsewhere = Catalog(str(Path(place.config.state_dir) / "elsewhere"))
    elsewhere.rebuild(place.repository)
    assert cycle.last_read(elsewhere) == cycle.last_read(place.catalog), "whoever comes next goes on with the next part"


def test_what_was_never_read_is_counted_from_the_oldest_point(place: Place):
    """Not from the agent's start: one that is restarted each day would never begin."""
    assert cycle.last_read(place.catalog) is None
    oldest = place.backup()
    place.backup()
    assert cycle.last_read(place.catalog) == (0, oldest.finished_at)


def test_a_manifest_and_an_index_that_rot_are_found_by_the_reading(place: Place):
    point = place.backup()
    top = Path(place.config.repository.url)
    index = next((top / point.sources[0].index).iterdir())
    for rotten in (index, top / "sidecar" / "manifests" / point.id):
        content = bytearray(rotten.read_bytes())
        content[len(content) // 2] ^= 1
        rotten.write_bytes(content)
    found = [
        one for part in range(1, 8) for one in cycle.read_part(place.repository, place.catalog, part, 7, lambda _: None)
    ]
    assert [{trouble.where for trouble in one.troubles} for one in found] == [
        {f"sidecar/manifests/{point.id}", point.sources[0].name}
    ], "once in a week"
    assert cycle.newest_verified(place.catalog) is None
