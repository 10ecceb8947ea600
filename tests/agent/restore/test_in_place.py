"""A restore in place, killed at every step and between any two renames, and resumed: it ends as if it never was.

Each kill is a real one: a forked process that ends itself by SIGKILL at the chosen point.
"""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sidecar.agent.catalog import Catalog
from sidecar.agent.cycle import make_point
from sidecar.agent.faults import StorageFailure, Unknown
from sidecar.agent.ports import Kind
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore import exchange
from sidecar.agent.restore.exchange import Exchange
from sidecar.agent.restore.fence import Fence, Unfenced
from sidecar.agent.restore.in_place import InPlace
from sidecar.agent.restore.journal import unfinished
from sidecar.agent.restore.plan import Place, Refusal, RestorePlan, choose, keep, make
from sidecar.agent.restore.restoring import Restoring, Stopped
from sidecar.agent.sources import files
from sidecar.agent.sources.build import build
from sidecar.config.backup import (
    Backup,
    FilesSource,
    RestoreHealth,
    RestoreRules,
    Source,
    SqliteSource,
)
from sidecar.config.backup import Repository as RepositoryConfig

WHO = ("orders", "here")


class Estate:
    """A database and files, one point of them, and what was written since."""

    def __init__(self, directory: Path, rules: RestoreRules | None = None, engine: str = "sealed") -> None:
        self.database = directory / "data" / "orders.db"
        self.uploads = directory / "data" / "uploads"
        self.uploads.mkdir(parents=True)
        (directory / "key").write_text("secret")
        (self.uploads / "a").write_text("old")
        self.insert("tea")
        self.config = Backup(
            state_dir=str(directory / "state"),
            repository=RepositoryConfig(
                url=str(directory / "repo"), engine=engine, password_file=str(directory / "key")
            ),
            sources=(
                Source(name="db", sqlite=SqliteSource(path=str(self.database))),
                Source(name="uploads", files=FilesSource(paths=(str(self.uploads),))),
            ),
            restore=rules or RestoreRules(),
        )
        self.sources = {one.name: build(one, self.config) for one in self.config.sources}
        self.repository = Repository.open(self.config, create=True)
        self.catalog = Catalog(self.config.state_dir)
        make_point(
            self.config, WHO, self.repository, self.catalog, list(self.sources.values()), Kind.FULL,
            lambda _: None, "test",
        )  # fmt: skip
        self.insert("cake")
        (self.uploads / "a").write_text("new")
        (self.uploads / "b").write_text("new")

    def insert(self, item: str) -> None:
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE IF NOT EXISTS orders (item TEXT)")
            db.execute("INSERT INTO orders VALUES (?)", [item])

    def plan(self, only: str | None = None) -> RestorePlan:
        point, verified = choose(self.catalog, None, None)
        plan = make(self.config, point, "", verified=verified, only=only, sources=self.sources)
        keep(self.config, plan)
        return plan

    def restoring(self, plan: RestorePlan, step: Callable[[str, str], None] = lambda *_: None) -> Restoring:
        fence = Fence(self.config.restore, str(self.database) + ".no-proxy", "test")
        hands = InPlace(
            self.config, WHO, self.repository, self.catalog, self.sources, plan, fence, lambda _: None
        )  # fmt: skip
        return Restoring(self.config, self.repository, self.catalog, plan, hands, step)

    def state(self) -> tuple[list[str], dict[str, str], list[str]]:
        """The orders, the files, and what else lies about."""
        with closing(sqlite3.connect(self.database)) as db:
            orders = [item for (item,) in db.execute("SELECT item FROM orders ORDER BY rowid")]
        files = {path.name: path.read_text() for path in self.uploads.iterdir()}
        known = {"orders.db", "orders.db-wal", "orders.db-shm", "uploads"}
        return orders, files, sorted(path.name for path in self.database.parent.iterdir() if path.name not in known)


RESTORED = (["tea"], {"a": "old"}, [])
UNTOUCHED = (["tea", "cake"], {"a": "new", "b": "new"}, [])


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


def killed(deed: Callable[[], object]) -> bool:
    """Do it in a forked process; whether that killed itself."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_there_comes_back_and_nothing_is_left_behind(estate: Estate):
    plan = estate.plan()
    assert plan.steps[:5] == ("preflight", "lease", "fence", "stop", "safety")
    assert estate.state() == UNTOUCHED, "a plan touches nothing"
    estate.restoring(plan).run()
    assert estate.state() == RESTORED
    safety = estate.catalog.points()[0]
    assert safety.reason == "safety"
    assert safety.complete


@pytest.mark.parametrize(
    "engine", ["sealed", pytest.param("restic", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_killed_at_every_step_and_resumed(engine: str, tmp_path: Path):
    estate = Estate(tmp_path, engine=engine)
    pristine = estate.database.parent.with_name("pristine")
    shutil.copytree(estate.database.parent, pristine)
    number, plan = 0, estate.plan()
    while True:
        count = -number - 1

        def step(_name: str, _mark: str) -> None:
            nonlocal count
            count += 1
            if count == 0:
                die()

        if not killed(lambda plan=plan, step=step: estate.restoring(plan, step).run()):
            break
        assert unfinished(estate.config) == [plan.hash]
        estate.restoring(plan).run()
        assert estate.state() == RESTORED, f"killed at event {number}"
        assert unfinished(estate.config) == []
        shutil.rmtree(estate.database.parent)
        shutil.copytree(pristine, estate.database.parent)
        number += 1
    assert number == 2 * len(plan.steps), "each step's begin and end were hit"


@pytest.mark.parametrize("mounted", [False, True])
def test_killed_between_any_two_renames_of_an_exchange(tmp_path: Path, mounted: bool):
    for kill_at in range(1, 12):
        live = tmp_path / f"{kill_at}" / "live"
        live.mkdir(parents=True)
        (live / "x").write_text("old")
        (live / "gone").write_text("old")

        def exchange(live: Path = live) -> Exchange:
            one = Exchange(str(live), "hash", 0)
            if mounted:
                one.mounted, one.directory = True, str(live)
                one.fresh, one.old = str(live / ".sidecar-restore-hash-0"), str(live / ".sidecar-old-hash-0")
            return one

        into = Path(exchange().fetch_into())
        (into / "at").mkdir()
        (into / "at" / "x").write_text("new")
        (into / "at" / "y").write_text("new")

        def deed(exchange: Callable[[], Exchange] = exchange, kill_at: int = kill_at) -> None:
            rename, count = os.rename, 0

            def counting(source: str, target: str) -> None:
                nonlocal count
                count += 1
                if count == kill_at:
                    die()
                rename(source, target)

            os.rename = counting  # type: ignore[assignment]  # in a process of its own
            exchange().swap("at", [])

        died = killed(deed)
        exchange().swap("at", [])
        exchange().clear()
        assert {path.name: path.read_text() for path in live.iterdir()} == {"x": "new", "y": "new"}
        assert [path.name for path in live.parent.iterdir()] == ["live"]
        if not died:
            break
    else:
        raise AssertionError("it never came to an end")


def test_what_was_restored_is_on_the_disk_before_anything_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "live").write_text("old")
    one = Exchange(str(tmp_path / "live"), "hash", 0)
    (Path(one.fetch_into()) / "x").write_text("new")
    done: list[str] = []
    settle, rename = exchange.settle, os.rename
    monkeypatch.setattr(exchange, "settle", lambda path: done.append("settle") or settle(path))
    monkeypatch.setattr(os, "rename", lambda source, target: done.append("rename") or rename(source, target))
    one.swap("x", [])
    assert done == ["settle", "rename", "rename"]
    assert (tmp_path / "live").read_text() == "new"


def test_nothing_is_changed_when_somebody_has_the_data_open(estate: Estate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sidecar.agent.restore.fence.CLOSE_WITHIN", 0.2)
    plan = estate.plan()
    with closing(sqlite3.connect(estate.database)) as db:
        db.execute("SELECT * FROM orders").fetchall()
        outcome: list[str] = []

        def deed() -> None:  # from another process, as a restore is
            try:
                estate.restoring(plan).run()
            except Unfenced as fault:
                if f"pid {os.getppid()}" in str(fault) and "backup.restore.stop" in str(fault):
                    die()

        assert killed(deed), outcome
    assert estate.state() == UNTOUCHED
    assert unfinished(estate.config) == [], "nothing was touched: it may be applied anew"
    estate.restoring(plan).run()
    assert estate.state() == RESTORED


def test_a_rotten_point_is_found_before_anything_is_exchanged(estate: Estate):
    plan = estate.plan()
    for path in Path(estate.config.repository.url, "objects").glob("*/0*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(Exception, match="damaged"):
        estate.restoring(plan).run()
    assert estate.state() == UNTOUCHED


def test_a_service_that_does_not_get_well_stops_it_and_the_old_data_is_kept(tmp_path: Path):
    estate = Estate(tmp_path, RestoreRules(health=RestoreHealth(url="http://127.0.0.1:9/", within=0.2)))
    plan = estate.plan()
    with pytest.raises(Stopped, match=r"does not answer well.*restore resume"):
        estate.restoring(plan).run()
    orders, files, left = estate.state()
    assert (orders, files) == RESTORED[:2]
    assert any(name.startswith(".sidecar-old-") for name in left)
    assert unfinished(estate.config) == [plan.hash]


def test_the_commands_that_stop_and_start_are_run_and_see_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BACKUP_SECRET", "nobody sees me")
    said = tmp_path / "said"
    commands = {key: ("sh", "-c", f"echo {key} >> {said}; env >> {said}") for key in ("stop", "start")}
    estate = Estate(tmp_path, RestoreRules(**commands))
    estate.restoring(estate.plan()).run()
    told = said.read_text()
    assert told.startswith("stop\n")
    assert "\nstart\n" in told
    assert "nobody sees me" not in told
    assert estate.state() == RESTORED


def test_symlinks_in_its_way_are_not_followed(estate: Estate, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plan = estate.plan()
    attack = estate.database.parent / f".sidecar-restore-{plan.hash}-0"
    attack.symlink_to(elsewhere)
    with pytest.raises(StorageFailure, match="symlink"):
        estate.restoring(plan).run()
    attack.unlink()
    assert list(elsewhere.iterdir()) == []
    shutil.rmtree(estate.uploads)
    estate.uploads.symlink_to(elsewhere)
    with pytest.raises(Refusal, match="symlink"):
        estate.plan("uploads")
    whole = estate.plan()
    assert list(whole.skipped) == ["uploads"], "the rest can still be restored"


def test_what_was_not_backed_up_then_stays(estate: Estate, tmp_path: Path):
    (more := tmp_path / "more").mkdir()
    (more / "x").write_text("its only copy")
    estate.sources["uploads"] = files.FilesSource("uploads", (str(estate.uploads), str(more)), ())
    plan = estate.plan()
    assert plan.skipped == {str(more): "it was not backed up then"}
    estate.restoring(plan).run()
    assert estate.state() == RESTORED
    old = Place("uploads", str(more).strip("/"), str(more))  # as for a point that does not say what is in it
    plan = msgspec.structs.replace(estate.plan(), places=(*plan.places, old))
    with pytest.raises(Unknown, match="more is not in"):
        estate.restoring(plan).run()
    assert (more / "x").read_text() == "its only copy"


def test_one_source_only_leaves_the_others(estate: Estate):
    estate.restoring(estate.plan("db")).run()
    assert estate.state() == (["tea"], {"a": "new", "b": "new"}, [])


def test_a_database_that_is_gone_comes_back_and_its_old_log_does_not(estate: Estate):
    estate.database.unlink()
    Path(f"{estate.database}-wal").write_bytes(b"another database's log")
    estate.restoring(estate.plan("db")).run()
    assert estate.state()[0] == ["tea"]
