"""What is read of an SQLite database is one moment's, whatever another process does between two pieces of it."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from sidecar.agent.faults import Stirred
from sidecar.agent.ports import Kind, Parent, Progress, SourcePoint, Staged
from sidecar.agent.sources import sqlite, sqlite_still
from sidecar.agent.sources.sqlite import SqliteSource

ACCOUNTS, EACH = 200, 100
SERVICE = f"""
import random, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
db.execute("PRAGMA wal_autocheckpoint = 0")
db.execute("PRAGMA synchronous = OFF")
rng = random.Random(int(sys.argv[2]))
paid = 0
for line in sys.stdin:
    word = line.strip()
    try:
        if word != "pay":
            db.execute(word).fetchall()
        else:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(8):
                one, other = rng.sample(range({ACCOUNTS}), 2)
                db.execute("UPDATE accounts SET has = has - 1, note = randomblob(3000) WHERE id = ?", [one])
                db.execute("UPDATE accounts SET has = has + 1, note = randomblob(3000) WHERE id = ?", [other])
            db.execute("UPDATE paid SET times = times + 1")
            db.execute("COMMIT")
            paid += 1
    except sqlite3.OperationalError:  # locked
        if db.in_transaction:
            db.execute("ROLLBACK")
    print(paid, flush=True)
"""
POINT = SourcePoint(
    name="db", sort="sqlite", snapshot="s", requested=Kind.FULL, kind=Kind.FULL, parent=None, seconds=1.0, files=1,
    bytes=1, bytes_added=1, index="i", index_bytes=1, index_sha256="", consistent_at=datetime.now(UTC),
    began_at=datetime.now(UTC),
)  # fmt: skip
CHECKPOINTS = tuple(f"PRAGMA wal_checkpoint({how})" for how in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"))


class Service:
    """Another process that pays from one account to another; `say` has it do something, and returns when it is done."""

    def __init__(self, path: Path, seed: int) -> None:
        words = [sys.executable, "-c", SERVICE, str(path), str(seed)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.paid = 0

    def say(self, *words: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for word in words:
            print(word, file=self.process.stdin, flush=True)
            self.paid = int(self.process.stdout.readline())


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], Service]]:
    monkeypatch.setattr(sqlite, "PIECE", 64 << 10)
    started: list[Service] = []

    def start(mode: str, seed: int = 1) -> Service:
        (tmp_path / "real").mkdir()
        with closing(sqlite3.connect(tmp_path / "real" / "bank.db")) as db, db:
            db.execute(f"PRAGMA journal_mode = {mode}")
            db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, has INTEGER, note BLOB)")
            db.execute("CREATE TABLE paid (times INTEGER)")
            db.execute("INSERT INTO paid VALUES (0)")
            rows = [(number, EACH) for number in range(ACCOUNTS)]
            db.executemany("INSERT INTO accounts VALUES (?, ?, randomblob(3000))", rows)
        (tmp_path / "bank.db").symlink_to(tmp_path / "real" / "bank.db")  # its log lies beside the file itself
        started.append(Service(tmp_path / "real" / "bank.db", seed))
        return started[0]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def payments(copy: Path) -> int:
    """How many the copy knows of, which is whole."""
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), sum(has) FROM accounts").fetchone() == (ACCOUNTS, ACCOUNTS * EACH)
        (times,) = db.execute("SELECT times FROM paid").fetchone()
    return int(times)


def staged(tmp_path: Path, tell: Callable[[Progress], None]) -> int:
    """Copy it; how many payments the copy knows of."""
    into = tmp_path / "into"
    into.mkdir()
    source = SqliteSource("db", str(tmp_path / "bank.db"), near=False)
    source.stage(str(into), None, tell)
    (copy,) = into.iterdir()
    times = payments(copy)
    copy.unlink()
    into.rmdir()
    return times


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE"])
def test_the_copy_is_of_one_moment_whatever_comes_between_two_pieces(at_work, tmp_path: Path, mode: str):
    service, rng = at_work(mode), random.Random(3)
    meant = ["pay"] * 6 + list(CHECKPOINTS)
    during = 0
    for _ in range(12):
        service.say(*rng.choices(meant, k=6))
        before = service.paid
        times = staged(tmp_path, lambda _: service.say(*rng.choices(meant, k=3)))
        assert before <= times <= service.paid, "what was committed is in it"
        during += service.paid - before
    assert during > 100 if mode == "WAL" else during == 0, "writers wait only where SQLite makes them"


def test_a_log_begun_anew_while_it_is_copied_is_copied_again(at_work, tmp_path: Path):
    service = at_work("WAL")
    service.say(*["pay"] * 30, "PRAGMA wal_checkpoint(PASSIVE)")  # all of the log is in the file: nobody needs it
    log = (tmp_path / "real" / "bank.db-wal").stat().st_size
    before, copied = service.paid, []

    def tell(progress: Progress) -> None:
        if progress.total >= log and progress.done == 8 * sqlite.PIECE:
            copied.append(progress.total)
            service.say(*["pay"] * 12)  # over what is copied already and what is not yet

    assert before <= staged(tmp_path, tell) <= service.paid
    assert len(copied) > 1


def near(tmp_path: Path) -> tuple[SqliteSource, Callable[[Parent | None], Staged]]:
    """A source that may read where the database lies, and its next staging."""
    source, into = SqliteSource("db", str(tmp_path / "bank.db"), near=True), tmp_path / "into"
    into.mkdir()

    def stage(parent: Parent | None = None) -> Staged:
        return source.stage(str(into), parent, lambda _: None)

    return source, stage


def test_read_where_it_lies_it_is_of_one_moment_whatever_comes_between_two_pieces(at_work, tmp_path: Path):
    service, rng = at_work("WAL"), random.Random(5)
    _, stage = near(tmp_path)
    during = 0
    for _ in range(12):
        service.say(*rng.choices(["pay"] * 6 + list(CHECKPOINTS), k=6))
        before, there = service.paid, stage()
        assert there.still is not None
        (root,) = there.roots
        assert (root.path, root.at) == (str(tmp_path / "real" / "bank.db"), "bank.db")
        copy = tmp_path / "copy.db"
        with there.still, Path(root.path).open("rb") as file, copy.open("wb") as target:
            while piece := file.read(sqlite.PIECE):
                target.write(piece)
                service.say(*rng.choices(["pay"] * 3 + list(CHECKPOINTS), k=3))
            there.still.check()
        assert payments(copy) == before, "what was committed when it was staged, and nothing else"
        during += service.paid - before
    assert during > 100, "nobody waited"
    assert not any((tmp_path / "into").iterdir()), "no room is taken"


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE"])
def test_where_a_reader_would_keep_everybody_from_writing_it_is_copied(at_work, tmp_path: Path, mode: str):
    at_work(mode)
    there = near(tmp_path)[1]()
    assert there.still is None
    assert payments(tmp_path / "into" / "bank.db") == 0


def test_an_older_reader_is_no_reason_to_wait(at_work, tmp_path: Path):
    service = at_work("WAL")
    with closing(sqlite3.connect(tmp_path / "real" / "bank.db", isolation_level=None)) as older:
        older.execute("BEGIN")
        older.execute("SELECT count(*) FROM paid").fetchone()
        service.say("pay", "pay")  # which no checkpoint may write into the file now
        assert near(tmp_path)[1]().still is None
    assert payments(tmp_path / "into" / "bank.db") == 2


def test_without_a_keeper_it_is_copied(at_work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = at_work("WAL")
    service.say("pay")
    monkeypatch.setattr(sys, "executable", str(tmp_path))  # which nobody can start
    assert near(tmp_path)[1]().still is None
    assert payments(tmp_path / "into" / "bank.db") == 1


def test_a_log_that_grows_too_long_ends_it_and_for_a_day_it_is_copied(at_work, tmp_path: Path, monkeypatch):
    service = at_work("WAL")
    monkeypatch.setattr(sqlite_still, "_LEAST_GROWTH", 1 << 20)
    _, stage = near(tmp_path)
    there = stage()
    assert there.still is not None
    with there.still, pytest.raises(Stirred, match="wrote more than 1048576 bytes"):
        there.still.check()
        service.say(*["pay"] * 40)
        there.still.check()
    copied = stage()
    assert copied.still is None
    assert payments(tmp_path / "into" / "bank.db") == 40

    def since(**ago: float) -> Parent:
        then = copied.consistent_at - timedelta(**ago)
        point = msgspec.structs.replace(POINT, details=copied.details | {"stirred_at": then.isoformat()})
        return Parent(point="earlier", source=point, index=lambda: iter(()))

    assert stage(since(hours=23)).still is None
    again = stage(since(hours=25)).still
    assert again is not None
    with again:
        again.check()


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "alone"])
def test_what_did_not_stay_as_it_was_is_found_out(at_work, tmp_path: Path, how: str):
    at_work("WAL")
    real = tmp_path / "real" / "bank.db"
    _, stage = near(tmp_path)
    there = stage()
    assert there.still is not None
    with there.still:
        there.still.check()
        match how:
            case "written":  # by somebody who knows no locks
                with real.open("r+b") as file:
                    file.write(file.read(1))
                os.utime(real)
            case "replaced":
                shutil.copy(real, tmp_path / "other")
                os.replace(tmp_path / "other", real)
            case "removed":
                real.unlink()
            case "alone":
                (keeper,) = keepers(real)
                os.kill(keeper, signal.SIGKILL)
                os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Stirred):
            there.still.check()
    assert not keepers(real)


def keepers(path: Path) -> list[int]:
    """The pids of those who keep this database still."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if len(words) > 4 and words[3].endswith(b"sqlite_keeper.py") and words[4] == os.fsencode(path):
                found.append(int(process.name))
    return found
