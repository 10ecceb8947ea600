"""The file of incidents and who writes it: what fails is told, kept and brought again; what is damaged is set aside."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sidecar.control.incidents import writer as writer_module
from sidecar.control.incidents.ledger import Batch, Loaded, StoreFailed
from sidecar.control.incidents.store import VERSION, Store
from sidecar.control.incidents.writer import Writer
from sidecar.machines.incidents.book import IncidentBook
from sidecar.machines.incidents.incident import Condition, Severity, Status
from sidecar.machines.incidents.outbox import Message, Stored
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind, Observer

DOWN = Condition("upstream_failing", "app", "breaker", Severity.CRITICAL, "it is open")


class Stage:
    """A book whose changes a writer brings to a file."""

    def __init__(self, ledger: Any) -> None:
        self.told: list[Happening] = []
        observer = Observer()
        observer.subscribe(self.told.append)
        self.book = IncidentBook("shop", "one", lambda now: f"i{now:g}")
        self.writer = Writer(ledger, Registry(), observer)
        self.loaded: list[Loaded] = []
        self.writer.adopt = self.loaded.append

    def opens(self, now: float = 1.0) -> None:
        for change in self.book.hold(DOWN, now):
            self.writer.owe(change)

    @property
    def kinds(self) -> list[str]:
        return [str(one.kind) for one in self.told]


def run(story: Callable[[Stage], Coroutine[Any, Any, None]], ledger: Any) -> Stage:
    async def main() -> Stage:
        stage = Stage(ledger)
        await stage.writer.load()
        working = asyncio.ensure_future(stage.writer.run())
        try:
            await asyncio.wait_for(story(stage), 30)
        finally:
            working.cancel()
            await asyncio.wait({working})
            await stage.writer.close()
        return stage

    return asyncio.run(main())


async def nothing(stage: Stage) -> None:
    """Only look at what is there."""


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def held(path: Path) -> Loaded:
    (found,) = run(nothing, Store(str(path))).loaded
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "incidents.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_PAUSE", 0.01)


def test_what_was_written_is_there_again(path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.opens()
        stage.writer.owe_message(Stored(Message("a", "ops", "i1", "opened", 1.0), gone=False))
        stage.writer.owe_message(Stored(Message("b", "ops", "i2", "opened", 1.0), gone=True))
        stage.writer.owe_run(1.0, 2.0)
        await stage.writer.settled()

    run(story, Store(str(path)))
    found = held(path)
    ((incident, timeline),) = found.incidents
    assert (incident.id, incident.conditions["breaker"], len(timeline)) == ("i1", DOWN, 1)
    assert ([one.id for one in found.messages], found.runs) == (["a"], [(1.0, 2.0)])
    assert path.stat().st_mode & 0o077 == 0


def test_a_timeline_is_only_added_to(path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.opens()
        await stage.writer.settled()

    run(story, Store(str(path)))
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append only"):
        connection.execute("UPDATE timeline SET body = '{}'")


def test_two_sidecars_do_not_share_a_file(path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.opens()
        await stage.writer.settled()
        other = Stage(Store(str(path)))
        await other.writer.load()
        assert other.kinds == [Kind.INCIDENT_STORE_FAILED] and "file of its own" in other.told[0].reason
        other.opens(5.0)
        await other.writer.settled()
        await stage.writer.close()
        working = asyncio.ensure_future(other.writer.run())
        await until(lambda: other.loaded)
        await until(lambda: Kind.INCIDENT_STORE_RECOVERED in other.kinds)
        assert [one.id for one, _ in other.loaded[0].incidents] == ["i1"]
        working.cancel()
        await other.writer.close()

    run(story, Store(str(path)))
    assert {one.id for one, _ in held(path).incidents} == {"i1", "i5"}


def test_a_file_that_cannot_be_read_at_first_is_read_later(path: Path) -> None:
    path.parent.write_text("in the way")

    async def story(stage: Stage) -> None:
        stage.opens()
        await stage.writer.settled()
        assert stage.kinds == [Kind.INCIDENT_STORE_FAILED] and stage.loaded == []
        path.parent.unlink()
        await until(lambda: stage.kinds[1:] == [Kind.INCIDENT_STORE_RECOVERED])

    run(story, Store(str(path)))
    assert [one.id for one, _ in held(path).incidents] == ["i1"]


@pytest.mark.parametrize("damage", ["removed", "garbage"])
def test_what_is_damaged_under_us_is_begun_anew_with_everything(path: Path, damage: str) -> None:
    store = Store(str(path))

    async def story(stage: Stage) -> None:
        def everything() -> None:
            for change in stage.book.tick(0.0):
                stage.writer.owe(change)
            stage.writer.owe_run(7.0, 8.0)

        stage.writer.owe_everything = everything
        stage.opens()
        await stage.writer.settled()
        if damage == "removed":
            path.unlink()
        else:
            store._close()
            path.write_bytes(b"garbage" * 1000)
        stage.writer.owe_message(Stored(Message("a", "ops", "i1", "opened", 1.0), gone=False))
        await stage.writer.settled()
        assert stage.kinds == [Kind.INCIDENT_STORE_SET_ASIDE]

    run(story, store)
    found = held(path)
    assert ([one.id for one in found.messages], found.runs) == (["a"], [(7.0, 8.0)])
    assert len(list(path.parent.glob("*.corrupt-*"))) == (damage == "garbage")


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    stage = run(nothing, Store(str(path)))
    assert stage.kinds == [Kind.INCIDENT_STORE_FAILED] and "later version" in stage.told[0].reason
    assert path.read_bytes() == before


class Sick:
    """A disk that hangs or fails until it is well again."""

    path = "/sick"

    def __init__(self) -> None:
        self.well = asyncio.Event()
        self.hangs = False
        self.batches: list[Batch] = []

    async def load(self, latest: int, timelines: int) -> Loaded:
        return Loaded([], [], [])

    async def read(self, incident: str) -> None:
        raise StoreFailed("sick")

    async def write(self, batch: Batch) -> None:
        if self.hangs:
            await self.well.wait()
        elif not self.well.is_set():
            raise StoreFailed("no space left")
        self.batches.append(batch)

    async def close(self) -> None:
        pass


def test_a_full_disk_owes_the_latest_and_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        stage.opens()
        await stage.writer.settled()
        for change in stage.book.ack("i1", 2.0, "alice") or ():
            stage.writer.owe(change)
        await asyncio.sleep(0.05)
        sick.well.set()
        await until(lambda: sick.batches)
        await until(lambda: len(stage.kinds) == 2)

    sick = Sick()
    stage = run(story, sick)
    assert stage.kinds == [Kind.INCIDENT_STORE_FAILED, Kind.INCIDENT_STORE_RECOVERED], "told once each"
    entries = [entry.kind for batch in sick.batches for _, _, entry in batch.entries]
    assert entries == ["incident_opened", "incident_acknowledged"]
    assert sick.batches[-1].incidents["i1"].status is Status.ACKNOWLEDGED


def test_a_disk_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "HANGS_AFTER", 0.05)

    async def story(stage: Stage) -> None:
        sick.hangs = True
        stage.opens()
        await asyncio.wait_for(stage.writer.settled(), 10)
        await until(lambda: stage.writer.failing)
        await asyncio.wait_for(stage.writer.settled(), 10)
        sick.well.set()
        await until(lambda: not stage.writer.failing)

    sick = Sick()
    assert run(story, sick).kinds == [Kind.INCIDENT_STORE_FAILED, Kind.INCIDENT_STORE_RECOVERED]


def test_what_is_owed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_ENTRIES", 10)
    stage = Stage(Sick())
    for now in range(30):
        stage.opens(float(now))
        for change in stage.book.clear("upstream_failing", "app", "breaker", float(now)):
            stage.writer.owe(change)
    assert (len(stage.writer._owed.entries), stage.writer.lost) == (10, 50)
