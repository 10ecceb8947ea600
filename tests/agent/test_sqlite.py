"""The copy of an SQLite database is one moment's, whatever another process does between two pieces of it."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.agent.ports import Progress
from sidecar.agent.sources import sqlite
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


def staged(tmp_path: Path, tell: Callable[[Progress], None]) -> int:
    """Stage it; how many payments the copy knows of, which is whole."""
    into = tmp_path / "into"
    into.mkdir()
    source = SqliteSource("db", str(tmp_path / "bank.db"))
    source.stage(str(into), None, tell)
    (copy,) = into.iterdir()
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), sum(has) FROM accounts").fetchone() == (ACCOUNTS, ACCOUNTS * EACH)
        (times,) = db.execute("SELECT times FROM paid").fetchone()
    copy.unlink()
    into.rmdir()
    return int(times)


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
