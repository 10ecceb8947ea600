"""The lane of backups in a loop: what is let go is pruned in the time until the next run."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.agent.figures import Figures
from sidecar.agent.lanes.backing import Backing
from sidecar.agent.ports import Kind as PortKind
from sidecar.agent.report import Reporter
from sidecar.agent.stock import Stock
from sidecar.base.clock import since_boot
from sidecar.config.backup import Backup, FilesSource, Retention, Source
from sidecar.config.backup import Repository as RepositoryConfig
from sidecar.machines.backup.point_age import PointAge
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind, Observer
from tests.real.foreign_lock import GONE, foreign_lock


class Stage:
    """A lane of backups of some files."""

    def __init__(self, directory: Path, engine: str = "sealed") -> None:
        self.files = directory / "files"
        self.files.mkdir()
        self.key = directory / "key"
        self.key.write_text("secret")
        self.config = Backup(
            rpo=900.0,
            state_dir=str(directory / "state"),
            repository=RepositoryConfig(url=str(directory / "repo"), engine=engine, password_file=str(self.key)),
            sources=(Source(name="files", files=FilesSource(paths=(str(self.files),))),),
            retention=Retention(keep_within=0.0, daily=1, weekly=0, monthly=0),
        )
        self.heard: list[Happening] = []
        self.observer = Observer()
        self.observer.subscribe(self.heard.append)
        self.age, registry = PointAge(), Registry()
        self.reporter = Reporter(str(directory / "nobody.sock"))
        figures = Figures(registry, self.config.rpo, self.age, since_boot)
        self.backing = Backing(
            Stock(self.config), ("s", "i"), self.age, figures, self.reporter, self.observer
        )  # fmt: skip

    def count(self, kind: Kind) -> int:
        return sum(one.kind is kind for one in self.heard)

    @property
    def freed(self) -> list[object]:
        return [one.fields["bytes_freed"] for one in self.heard if one.kind is Kind.BACKUPS_FORGOTTEN]

    async def back_up(self) -> None:
        """One more run, and what comes after it."""
        number = self.count(Kind.BACKUP_FINISHED)
        (self.files / "a").write_bytes(os.urandom(1000 * (number + 1)))
        self.backing.order(PortKind.FULL)
        while self.count(Kind.BACKUP_FINISHED) == number or self.backing.lane.busy:
            await asyncio.sleep(0.01)


@pytest.fixture
def always_prune(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.agent.lanes.backing.PRUNE_EVERY", 0.0)


@pytest.mark.usefixtures("always_prune")
def test_forgotten_data_is_pruned_between_runs(tmp_path: Path):
    stage = Stage(tmp_path)

    async def live() -> None:
        running = asyncio.create_task(stage.backing.run())
        for _ in range(3):
            await stage.back_up()
            await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(asyncio.wait_for(live(), 60))
    assert any(stage.freed), "what no point needs is gone"
    snapshots = {path.parent.name for path in (tmp_path / "repo" / "objects").glob("*/*")}
    assert len(snapshots) <= 2
    assert stage.age.age(since_boot()) is not None


@pytest.mark.usefixtures("always_prune")
@pytest.mark.slow
def test_a_lock_of_another_machine_puts_pruning_off_and_nothing_else(tmp_path: Path):
    stage = Stage(tmp_path, "restic")

    async def live() -> None:
        running = asyncio.create_task(stage.backing.run())
        await stage.back_up()
        with foreign_lock(tmp_path / "repo", stage.key):
            await stage.back_up()
            while stage.backing.view()["prune_waits"] is None:
                await asyncio.sleep(0.01)
            assert GONE in stage.backing.view()["prune_waits"]
            assert stage.reporter.conditions == [], "nobody is woken for it"
        await stage.back_up()
        while not any(stage.freed):
            await asyncio.sleep(0.01)
        assert stage.backing.view()["prune_waits"] is None
        running.cancel()

    asyncio.run(asyncio.wait_for(live(), 60))
