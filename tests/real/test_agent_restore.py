"""Backups as their users meet them: commands on a YAML file, a service that writes meanwhile, a disaster, a restore.

Nothing of the program is imported: only its commands, their exit codes and what is on the disk.
"""

import fcntl
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.wire import PATIENCE
from tests.real.estate import Estate, flip, orders
from tests.real.harness import ROOT

pytestmark = pytest.mark.timeout(180)  # many processes, each of which derives its keys anew


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


def test_what_was_destroyed_comes_back(estate: Estate, tmp_path: Path):
    estate.order("tea")
    estate.run("backup", "run")
    assert "is sound (level sample" in estate.run("backup", "verify").stdout
    estate.database.unlink()
    shutil.rmtree(estate.uploads)

    target = tmp_path / "back"
    plan = estate.json("restore", "plan", "--target", str(target))
    assert set(plan) >= {"hash", "backup", "steps", "bytes", "seconds"}
    assert not target.exists(), "a plan touches nothing"
    done = estate.json("restore", "apply", plan["hash"])
    assert done["ok"]
    assert orders(target / "db" / "orders.db") == ["tea"]
    back = target / "uploads" / str(estate.uploads).lstrip("/")
    assert (back / "a.txt").read_text() == "first"
    assert (back / "deep" / "b.bin").stat().st_size == 300_000
    assert os.readlink(back / "link") == "a.txt"
    assert sorted(path.name for path in target.iterdir()) == ["db", "uploads"]


def test_a_database_under_writes_comes_back_whole(estate: Estate, tmp_path: Path):
    stop = threading.Event()

    def customer() -> None:
        number = 0
        while not stop.is_set():
            estate.order(f"{number}")
            number += 1

    thread = threading.Thread(target=customer)
    thread.start()
    try:
        time.sleep(0.05)
        estate.backup()
    finally:
        stop.set()
        thread.join()
    target = tmp_path / "back"
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target))["hash"])
    found = orders(target / "db" / "orders.db")
    assert found == [str(number) for number in range(len(found))], "a prefix of what was written, nothing torn"


@pytest.mark.parametrize("engine", ["sealed", "restic"])
def test_a_database_with_a_wal_is_read_where_it_lies_and_comes_back_as_it_was(tmp_path: Path, engine: str):
    estate = Estate(tmp_path, engine)
    estate.database.chmod(0o640)
    with closing(sqlite3.connect(estate.database, isolation_level=None)) as service:
        service.execute("INSERT INTO orders (item) VALUES ('tea')")  # in the log only
        estate.backup()
        again = estate.json("backup", "run")
    assert [one["bytes_added"] < 10_000 for one in again["sources"]] == [True, True], "what nobody wrote to is known"
    target = tmp_path / "back"
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target))["hash"])
    (back,) = (target / "db").iterdir()
    assert back.name == "orders.db"
    assert stat.S_IMODE(back.stat().st_mode) == 0o640
    with closing(sqlite3.connect(back)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",), "no copy of ours: that has none"
    assert orders(back) == ["tea"]


def test_the_state_of_an_earlier_moment(estate: Estate, tmp_path: Path):
    estate.order("tea")
    first = estate.backup()
    estate.order("cake")
    second = estate.backup()
    points = {one["id"]: one for one in estate.json("backup", "list")}
    early = estate.json("restore", "plan", "--target", str(tmp_path / "e"), "--to", points[first]["consistent_at"])
    assert early["backup"] == first
    assert estate.json("restore", "plan", "--target", str(tmp_path / "l"))["backup"] in {first, second}
    refused = estate.run("restore", "plan", "--target", str(tmp_path / "x"), "--to", "2999-01-01T00:00:00Z", code=1)
    assert "that is the latest --to" in refused.stderr
    both = ("--backup", first, "--to", points[second]["consistent_at"])
    refused = estate.run("restore", "plan", "--target", str(tmp_path / "x"), *both, code=1)
    assert f"{first} cannot be brought to" in refused.stderr
    estate.run("restore", "apply", early["hash"])
    assert orders(tmp_path / "e" / "db" / "orders.db") == ["tea"]


def test_one_source_only(estate: Estate, tmp_path: Path):
    estate.backup()
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"), "--only", "uploads")
    estate.run("restore", "apply", plan["hash"])
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["uploads"]
    assert (
        "it has: db, uploads"
        in estate.run("restore", "plan", "--target", str(tmp_path / "u"), "--only", "nothing", code=1).stderr
    )


def test_a_wrong_key_is_4_and_writes_nothing(estate: Estate, tmp_path: Path):
    estate.backup()
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"))
    before = {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")}
    estate.key.write_text("another\n")
    (tmp_path / "copy").write_text("a copy that is not one")
    assert "itself" in estate.run("backup", "verify", "--key-file", str(estate.key), code=1).stderr
    stale = ["backup", "verify", "--key-file", str(tmp_path / "copy")]
    for words in (stale, ["backup", "run"], ["backup", "verify"], ["restore", "apply", plan["hash"]]):
        assert "the password does not open this repository" in estate.run(*words, code=4).stderr
    assert {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")} == before
    assert not (tmp_path / "t").exists()


def test_targets_that_would_do_harm_are_refused(estate: Estate, tmp_path: Path):
    estate.backup()
    full, link = tmp_path / "full", tmp_path / "link"
    full.mkdir()
    (full / "precious").write_text("mine")
    link.symlink_to(tmp_path)
    for target, advice in (
        (full, "is not empty"),
        (link, "overlaps|not a directory"),
        (estate.uploads / "inner", "overlaps .* what the source uploads backs up"),
        (estate.repository / "inner", "overlaps"),
        (tmp_path / "no" / "such", "make it first"),
        (Path("back"), "write an absolute path"),
        (Path("/"), "write an absolute path"),
    ):
        refused = estate.run("restore", "plan", "--target", str(target), code=1)
        assert re.search(advice, refused.stderr), (target, refused.stderr)
    assert (full / "precious").read_text() == "mine"
    nothing = estate.json("restore", "plan", "--target", str(full), "--if-empty")
    assert nothing["hash"] is None


def test_a_symlink_that_appears_after_the_plan_is_not_followed(estate: Estate, tmp_path: Path):
    estate.backup()
    target, elsewhere = tmp_path / "t", tmp_path / "elsewhere"
    elsewhere.mkdir()
    plan = estate.json("restore", "plan", "--target", str(target))
    target.symlink_to(elsewhere)
    assert "symlink" in estate.run("restore", "apply", plan["hash"], code=1).stderr
    assert list(elsewhere.iterdir()) == []
    target.unlink()
    target.mkdir()
    inner = target / f".sidecar-restore-{plan['hash']}"
    inner.symlink_to(elsewhere)
    assert "is a symlink that somebody put there" in estate.run("restore", "apply", plan["hash"], code=1).stderr
    assert list(elsewhere.iterdir()) == []
    inner.unlink()
    estate.run("restore", "apply", plan["hash"])


def test_a_restore_that_was_killed_is_resumed(estate: Estate, tmp_path: Path):
    estate.order("tea")
    (estate.uploads / "large").write_bytes(os.urandom(24 << 20))
    estate.backup()
    for number, moment in enumerate((0.0, 0.05, 0.15, 0.3)):
        target = tmp_path / f"t{number}"
        plan = estate.json("restore", "plan", "--target", str(target))
        words = [sys.executable, "-m", "sidecar", "restore", "apply", plan["hash"], "-c", str(estate.file)]
        process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        journal = tmp_path / "state" / "restores" / f"{plan['hash']}.journal"
        deadline = time.monotonic() + PATIENCE
        while not journal.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        estate.run("restore", "resume")
        if journal.with_suffix(".applied").exists():
            assert orders(target / "db" / "orders.db") == ["tea"]
            assert sorted(path.name for path in target.iterdir()) == ["db", "uploads"]
        else:
            raise AssertionError("it is neither done nor open")
    assert "no unfinished restore" in estate.run("restore", "resume").stdout


def test_bit_rot_is_found_and_named_and_the_older_point_is_offered(estate: Estate, tmp_path: Path):
    estate.order("tea")
    first = estate.backup()
    estate.run("backup", "verify", first)
    known = set(estate.sealed_objects())
    estate.order("cake")
    (estate.uploads / "new").write_bytes(os.urandom(100_000))
    second = estate.backup()
    fresh = [path for path in estate.sealed_objects() if path not in known]
    rotten = max(fresh, key=lambda path: path.stat().st_size)
    flip(rotten)
    found = estate.json("backup", "verify", second, "--level", "read", code=1)
    assert not found["ok"]
    assert found["troubles"]
    assert found["offered"] == first
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"))
    assert plan["backup"] == first, "what is known to be damaged is not planned from"
    rotten.unlink()
    missing = estate.run("backup", "verify", second, "--level", "manifest", code=1)
    assert "missing" in missing.stderr


def test_rot_in_a_large_file_is_found_where_there_are_only_such(estate: Estate):
    estate.write(sources=[{"name": "uploads", "files": {"paths": [str(estate.uploads / "large")]}}])
    (estate.uploads / "large").write_bytes(os.urandom(6 << 20))
    estate.backup()
    flip(max(estate.sealed_objects(), key=lambda path: path.stat().st_size))
    assert [one["where"] for one in estate.json("backup", "verify", code=1)["troubles"]] == ["uploads"]


def test_retention_forgets_what_no_rule_keeps(estate: Estate):
    points = [estate.backup() for _ in range(3)]
    estate.run("backup", "verify", points[0])
    estate.write(retention={"keep_within": "0s", "daily": 1, "weekly": 0, "monthly": 0})
    told = estate.json("backup", "forget", "--dry-run")
    assert points[0] in told["keep"], "the only verified one"
    assert len(estate.json("backup", "list")) == 3
    estate.run("backup", "forget")
    left = {one["id"] for one in estate.json("backup", "list")}
    assert left == set(told["keep"])
    estate.run("backup", "prune")
    assert {path.name for path in (estate.repository / "sidecar" / "findings" / "verification").iterdir()} == left
    estate.run("backup", "verify", points[0], "--level", "read")


def test_a_source_that_is_missing_fails_and_is_never_planned_from(estate: Estate, tmp_path: Path):
    whole = estate.backup()
    shutil.rmtree(estate.uploads)
    failed = estate.run("backup", "run", code=1)
    assert f"uploads is not in it: uploads: {estate.uploads} is not there" in failed.stderr
    assert [one["complete"] for one in estate.json("backup", "list")] == [False, True]
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == whole


def test_a_source_that_is_damaged_itself_is_told_apart_from_a_bad_copy(estate: Estate, tmp_path: Path):
    whole = estate.backup()
    with estate.database.open("r+b") as database:
        database.seek(4096)
        database.write(os.urandom(2048))
    (tmp_path / "data" / "orders.db-wal").unlink(missing_ok=True)
    assert re.search("db: .*the source itself was so", estate.run("backup", "run", code=1).stderr)
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == whole


def test_an_incremental_point_stores_what_changed_and_comes_back_whole(estate: Estate, tmp_path: Path):
    (estate.uploads / "large").write_bytes(os.urandom(5 << 20))
    first = estate.json("backup", "run", "--kind", "full")
    (estate.uploads / "a.txt").write_text("second")
    second = estate.json("backup", "run")
    uploads = {one["id"]: one["sources"][1] for one in (first, second)}
    assert uploads[first["id"]]["kind"] == "full"
    assert uploads[second["id"]]["kind"] == "incremental"
    assert uploads[second["id"]]["parent"] == first["id"]
    assert uploads[second["id"]]["bytes_added"] < 10_000 < uploads[first["id"]]["bytes_added"]
    target = tmp_path / "t"
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target))["hash"])
    back = target / "uploads" / str(estate.uploads).lstrip("/")
    assert (back / "a.txt").read_text() == "second"
    assert (back / "large").read_bytes() == (estate.uploads / "large").read_bytes()


def test_a_command_that_is_interrupted_says_so(estate: Estate):
    estate.key.unlink()
    os.mkfifo(estate.key)
    words = [sys.executable, "-m", "sidecar", "restore", "plan", "-c", str(estate.file)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        with estate.key.open("wb"):  # it reads now
            process.send_signal(signal.SIGINT)
            assert process.communicate()[1] == (
                "sidecar restore: interrupted; what was begun goes on with: sidecar restore resume\n"
            )
        assert process.returncode == 1


def test_a_backup_that_was_killed_leaves_nothing_half_and_the_next_one_heals(estate: Estate):
    (estate.uploads / "large").write_bytes(os.urandom(16 << 20))
    whole = estate.backup()
    words = [sys.executable, "-m", "sidecar", "backup", "run", "--kind", "full", "-c", str(estate.file)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    before, deadline = len(estate.sealed_objects()), time.monotonic() + PATIENCE
    while len(estate.sealed_objects()) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert [one["id"] for one in estate.json("backup", "list")] == [whole]
    again = estate.backup()
    estate.run("backup", "prune")
    for name in (whole, again):
        estate.run("backup", "verify", name, "--level", "read")


def test_of_two_at_once_one_runs(estate: Estate):
    estate.backup()
    with (estate.repository / "sidecar" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "works on the repository" in estate.run("backup", "run", code=1).stderr
    estate.backup()


def test_a_machine_that_lost_its_state_restores_all_the_same(estate: Estate, tmp_path: Path):
    estate.order("tea")
    estate.backup()
    shutil.rmtree(tmp_path / "state")
    assert "1 points" in estate.run("catalog", "rebuild").stdout
    shutil.rmtree(tmp_path / "state")
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"))
    estate.run("restore", "apply", plan["hash"])
    assert orders(tmp_path / "t" / "db" / "orders.db") == ["tea"]


def test_what_was_found_out_about_points_outlives_the_machine(estate: Estate, tmp_path: Path):
    first = estate.backup()
    (estate.uploads / "new").write_bytes(os.urandom(100_000))
    second = estate.backup()
    manifests = {path: path.read_bytes() for path in (estate.repository / "sidecar" / "manifests").iterdir()}
    drilled = estate.json("drill", "run", "--backup", first)
    before = set(estate.sealed_objects())
    third = estate.backup()
    flip(max((path for path in estate.sealed_objects() if path not in before), key=lambda path: path.stat().st_size))
    estate.run("backup", "verify", third, "--level", "read", code=1)
    shutil.rmtree(tmp_path / "state")
    estate.run("catalog", "rebuild")
    standing = {one["id"]: (one["verified"], one["level"]) for one in estate.json("backup", "list")}
    assert standing == {first: (True, "sample"), second: (True, "sample"), third: (False, "read")}
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == second
    assert estate.json("backup", "forget", "--dry-run")["keep"][second] == "the newest verified point"
    assert estate.json("drill", "report")[0] == drilled
    assert all(path.read_bytes() == content for path, content in manifests.items())

    flip(next((estate.repository / "sidecar" / "findings" / "verification" / second).iterdir()))
    shutil.rmtree(tmp_path / "state")
    assert second in estate.run("catalog", "rebuild", code=1).stderr
    listed = {one["id"]: one["verified"] for one in estate.json("backup", "list")}
    assert listed == {first: True, second: None, third: False}, "nobody vouches for it any more"


def test_a_first_run_that_was_killed_is_no_obstacle(estate: Estate):
    left = estate.repository / "sidecar" / "tmp" / "0123"
    left.parent.mkdir(parents=True)
    left.write_text("half a description")
    estate.backup()
    assert not left.exists()


def test_two_first_runs_at_once_make_one_repository(estate: Estate):
    words = [sys.executable, "-m", "sidecar", "backup", "run", "-c", str(estate.file)]
    runs = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [run.communicate(timeout=PATIENCE)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert 0 in codes, told
    assert all(code == 0 or "works on the repository" in said for code, said in zip(codes, told, strict=True)), told
    for one in estate.json("backup", "list"):
        estate.run("backup", "verify", one["id"], "--level", "read")


def test_a_rotten_manifest_is_named_costs_its_point_only_and_can_be_given_up(estate: Estate, tmp_path: Path):
    first = estate.backup()
    second = estate.backup()
    flip(estate.repository / "sidecar" / "manifests" / second)
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"))
    assert plan["backup"] == second, "nobody has looked yet"
    assert "nothing was changed" in estate.run("restore", "apply", plan["hash"], code=1).stderr
    found = estate.json("backup", "verify", second, code=1)
    assert [(one["what"], one["where"]) for one in found["troubles"]] == [("damaged", f"sidecar/manifests/{second}")]
    assert found["offered"] == first
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == first
    assert second in estate.run("catalog", "rebuild", code=1).stderr
    third = estate.backup()
    assert "sidecar backup forget" in estate.run("backup", "prune", code=1).stderr, "who knows what it needs?"
    estate.run("backup", "forget", second)
    estate.run("backup", "prune")
    assert [one["id"] for one in estate.json("backup", "list")] == [third, first]


def test_a_description_that_rots_or_goes_is_put_back_from_its_copy(estate: Estate):
    """Without it all backups are noise."""
    estate.backup()
    description = estate.repository / "sidecar" / "repository"
    was = description.read_bytes()
    flip(description)
    estate.run("backup", "verify")
    estate.backup()
    assert description.read_bytes() == was
    description.unlink()
    copy = description.with_suffix(".copy")
    assert estate.json("snapshot", "create")["id"]
    flip(copy)
    estate.run("backup", "prune")
    assert description.read_bytes() == copy.read_bytes() == was


def test_nothing_new_leans_on_what_is_known_to_be_damaged(estate: Estate):
    first = estate.backup()
    for rotten in estate.sealed_objects():
        flip(rotten)
    estate.run("backup", "verify", first, "--level", "read", code=1)
    second = estate.json("backup", "run")
    assert [one["kind"] for one in second["sources"]] == ["full", "full"]
    estate.run("backup", "verify", second["id"], "--level", "read")


def test_the_repository_of_another_service_is_neither_added_to_nor_restored_from(estate: Estate):
    theirs = estate.backup()
    estate.file.write_text(estate.file.read_text().replace("name: orders", "name: payments"))
    assert "holds backups of orders, and this is payments" in estate.run("backup", "run", code=1).stderr
    assert f"{theirs} is a backup of orders" in estate.run("restore", "apply", "--if-empty", code=1).stderr
    assert estate.json("restore", "plan", "--backup", theirs)["backup"] == theirs, "a service may get another name"
    assert [one["id"] for one in estate.json("backup", "list")] == [theirs]


def test_a_place_that_holds_something_else_does_not_become_a_repository(estate: Estate):
    estate.repository.mkdir()
    (estate.repository / "thesis.tex").write_text("precious")
    assert "not empty" in estate.run("backup", "run", code=1).stderr
    assert [path.name for path in estate.repository.iterdir()] == ["thesis.tex"]
