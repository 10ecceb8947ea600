"""The lane of backups in a loop: what is let go is pruned in the time until the next run."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.agent.backing import Backing
from sidecar.agent.figures import Figures
from sidecar.agent.ports import Kind as PortKind
from sidecar.agent.report import Reporter
from sidecar.agent.stock import Stock
from sidecar.base.clock import since_boot
from sidecar.config.backup import Backup, FilesSource, Retention, Source
from sidecar.config.backup import Repository as RepositoryConfig
from sidecar.machines.point_age import PointAge
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Happening, Kind, Observer


def test_forgotten_data_is_pruned_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sidecar.agent.backing.PRUNE_EVERY", 0.0)
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "key").write_text("secret")
    config = Backup(
        rpo=60.0,
        state_dir=str(tmp_path / "state"),
        repository=RepositoryConfig(url=str(tmp_path / "repo"), engine="sealed", password_file=str(tmp_path / "key")),
        sources=(Source(name="files", files=FilesSource(paths=(str(files),))),),
        retention=Retention(keep_within=0.0, daily=1, weekly=0, monthly=0),
    )
    heard: list[Happening] = []
    observer = Observer()
    observer.subscribe(heard.append)
    age, registry = PointAge(), Registry()

    async def live() -> None:
        figures = Figures(registry, config.rpo, age, since_boot)
        reporter = Reporter(str(tmp_path / "nobody.sock"))
        backing = Backing(Stock(config), ("s", "i"), age, figures, reporter, observer)
        running = asyncio.create_task(backing.run())
        for number in range(1, 4):
            (files / "a").write_bytes(os.urandom(1000 * number))
            backing.order(PortKind.FULL)
            while sum(one.kind is Kind.BACKUP_FINISHED for one in heard) < number or backing.lane.busy:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(asyncio.wait_for(live(), 60))
    freed = [one.fields["bytes_freed"] for one in heard if one.kind is Kind.BACKUPS_FORGOTTEN]
    assert any(freed), "what no point needs is gone"
    snapshots = {path.parent.name for path in (tmp_path / "repo" / "objects").glob("*/*")}
    assert len(snapshots) <= 2
    assert age.age(since_boot()) is not None
