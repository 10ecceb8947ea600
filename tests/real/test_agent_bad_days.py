"""The agent on bad days: clocks that are set, disks that are full. It tells, goes on, and never lets the good go."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.real.agent import Agent, Estate
from tests.real.harness import ROOT
from tests.real.test_clock import HOUR, faked, jump


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Mounts file systems of so many MiB."""
    mounted: list[Path] = []

    def mount(name: str, mib: int) -> Path:
        place = tmp_path / name
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_wall_clock_that_is_set_changes_neither_the_age_nor_the_schedule(estate: Estate, tmp_path: Path):
    clock = tmp_path / "clock"
    jump(clock, 0)
    environment = dict(word.split("=", 1) for word in faked(clock)[1:])
    estate.write(rpo="10m", retention={"keep_within": "0s", "daily": 1, "weekly": 0, "monthly": 0})
    with Agent(estate, **environment) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
        for number, seconds in enumerate((HOUR, -HOUR, 0), 2):
            jump(clock, seconds)
            age = agent.metrics().named("sidecar_backup_rpo_seconds")[0][1]
            assert 0 <= age < 300, "counted on a clock that nobody sets"
            status = agent.json("/api/v1/status")
            assert status["rpo"]["state"] == "kept"
            assert status["run"]["next_in_seconds"] is None or status["run"]["next_in_seconds"] <= 200
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_log('"backup_finished".*"verified": true', count=number)
            newest = agent.wait_log('"backup_finished", "point": "([^"]+)"', count=number)[1]
            agent.wait_until(
                lambda newest=newest: agent.json("/api/v1/status")["rpo"]["point"] == newest, "the new point"
            )
            assert newest in {one["id"] for one in agent.json("/api/v1/backups")}, "the newest never goes"
    jump(clock, -HOUR)
    with Agent(estate, **environment) as agent:  # its points are of the future now
        agent.wait_until(lambda: agent.metrics().named("sidecar_backup_rpo_seconds"), "an age that is known")
        assert agent.metrics().sum("sidecar_backup_rpo_seconds") < 300


def test_a_full_repository_is_told_and_once_there_is_room_it_goes_on(
    estate: Estate, small_disk: Callable[[str, int], Path]
):
    disk = small_disk("disk", 12)
    estate.repository = disk / "repository"
    estate.write(rpo="6s")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
        (disk / "ballast").write_bytes(b"x" * (11 << 20))
        (estate.uploads / "large").write_bytes(os.urandom(4 << 20))
        agent.wait_log('"backup_failed".*No space left on device; make room or prune')
        conditions = agent.json("/api/v1/status")["conditions"]
        assert "repository_unreachable" in {one["reason"] for one in conditions}
        (disk / "ballast").unlink()
        before = agent.json("/api/v1/status")["rpo"]["point"]
        agent.wait_until(lambda: agent.json("/api/v1/status")["rpo"]["point"] != before, "a new point")
        agent.wait_until(
            lambda: "repository_unreachable" not in str(agent.json("/api/v1/status")["conditions"]), "all well"
        )
    for one in estate.json("backup", "list"):
        estate.run("backup", "verify", one["id"], "--level", "read")


def test_a_target_without_room_is_refused_before_anything_is_written(
    estate: Estate, small_disk: Callable[[str, int], Path]
):
    estate.backup()
    target = small_disk("target", 12)
    plan = estate.json("restore", "plan", "--target", str(target))
    assert re.search(
        r"has room for \d+ bytes; \d+ are to be", estate.run("restore", "apply", plan["hash"], code=1).stderr
    )
    assert list(target.iterdir()) == []


def test_a_restore_whose_journal_has_no_room_stops_and_goes_on_when_there_is(
    estate: Estate, tmp_path: Path, small_disk: Callable[[str, int], Path]
):
    estate.backup()
    journals = small_disk("state/restores", 1)
    plan = estate.json("restore", "plan", "--target", str(tmp_path / "t"))
    with (journals / "fill").open("wb") as fill, contextlib.suppress(OSError):
        fill.write(bytes(2 << 20))
    assert "make room in backup.state_dir" in estate.run("restore", "apply", plan["hash"], code=1).stderr
    assert not (tmp_path / "t").exists()
    (journals / "fill").unlink()
    estate.run("restore", "resume")
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["db", "uploads"]


def test_a_damaged_journal_keeps_nobody_from_backing_up_and_is_told(estate: Estate):
    estate.backup()
    plan = estate.json("restore", "plan")
    journal = estate.directory / "state" / "restores" / f"{plan['hash']}.journal"
    journal.write_bytes(b"\x00\xff\n")
    assert "how far the restore came is not known" in estate.run("restore", "resume", code=1).stderr
    with Agent(estate) as agent:
        assert agent.conditions() == ["restore_unfinished"]
        assert agent.command("/api/v1/backups/run") == 200
        agent.wait_log('"backup_finished".*"verified": true')


def test_a_full_staging_area_is_named_and_nothing_half_is_kept(estate: Estate, small_disk: Callable[[str, int], Path]):
    state = small_disk("small-state", 2)
    for _ in range(40):
        estate.order("x" * 100_000)
    with closing(sqlite3.connect(estate.database)) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # with a WAL nothing is copied
    estate.write(state_dir=str(state))
    failed = estate.run("backup", "run", code=1)
    assert "db" in failed.stderr
    assert "full" in failed.stderr
    assert "backup.state_dir" in failed.stderr, "it says where room is missing"
    assert not [path for path in (state / "staging").rglob("*") if path.is_file()]
    estate.write()
    estate.run("backup", "run")


def test_a_database_with_a_wal_that_cannot_be_read_says_what_it_needs(
    estate: Estate, small_disk: Callable[[str, int], Path]
):
    place = small_disk("read-only", 2)
    shutil.copy(estate.database, place)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    estate.write(sources=[{"name": "db", "sqlite": {"path": str(place / "orders.db")}}])
    assert "let the agent's user write to its directory" in estate.run("backup", "run", code=1).stderr


@pytest.mark.slow
def test_a_full_staging_area_is_named_by_restic_too(tmp_path: Path, small_disk: Callable[[str, int], Path]):
    estate = Estate(tmp_path, "restic")
    state = small_disk("small-state", 2)
    for number in range(12_000):  # their index has no room
        (estate.uploads / f"{number}").write_text("x")
    estate.write(state_dir=str(state), sources=[{"name": "up", "files": {"paths": [str(estate.uploads)]}}])
    assert "backup.state_dir" in estate.run("backup", "run", code=1).stderr
    estate.write()
    estate.run("backup", "run")


def test_a_copy_that_a_killed_verification_left_goes_with_the_next(estate: Estate):
    for _ in range(8):
        estate.order("x" * 4_000_000)
    estate.backup()
    scratch = estate.directory / "state" / "scratch"
    words = [sys.executable, "-m", "sidecar", "backup", "verify", "-c", str(estate.file)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (left := list(scratch.glob("verify-*"))):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert left[0].exists(), "a copy in plain text"
    estate.run("backup", "verify")
    assert list(scratch.iterdir()) == []


def test_a_catalog_that_is_damaged_or_gone_is_filled_again_while_the_agent_runs(estate: Estate):
    state = estate.directory / "state"
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
        points = agent.json("/api/v1/backups")
        (state / "catalog.db-wal").unlink(missing_ok=True)
        (state / "catalog.db").write_bytes(os.urandom(20_000))
        assert agent.json("/api/v1/backups") == points, "what is verified is known, too"
        assert "catalog_set_aside" in agent.log
        shutil.rmtree(state)
        assert agent.json("/api/v1/status")["rpo"]["point"] == points[0]["id"]
        assert agent.command("/api/v1/backups/run") == 200
        agent.wait_log('"backup_finished".*"verified": true', count=2)
        shutil.rmtree(state)
        state.touch()
        assert agent.json("/api/v1/status")["rpo"]["state"] == "kept"
        agent.wait_until(lambda: "catalog_failed" in str(agent.json("/api/v1/status")["conditions"]), "it is told")
        state.unlink()
