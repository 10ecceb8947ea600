"""What every engine keeps, whatever it is made of: one suite, run over all of them through the commands."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.wire import PATIENCE
from tests.real.estate import Estate, flip
from tests.real.foreign_lock import GONE, foreign_lock
from tests.real.harness import ROOT, run_cli
from tests.real.procfs import children_of

pytestmark = pytest.mark.timeout(240)  # many processes, each of which derives its keys anew


@pytest.fixture(params=["sealed", pytest.param("restic", marks=pytest.mark.slow)])
def estate(request: pytest.FixtureRequest, tmp_path: Path) -> Estate:
    return Estate(tmp_path, request.param)


def restore(estate: Estate, target: Path, *words: str) -> None:
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target), *words)["hash"])


def start(estate: Estate, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words, "-c", str(estate.file)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def assert_restic_by_hand_brings_it_back(estate: Estate, into: Path) -> None:
    words = ["restic", "-r", str(estate.repository), "--password-file", str(estate.key), "--no-cache"]
    words += ["restore", "latest", "--tag", "sidecar,uploads", "--target", str(into)]
    subprocess.run(words, check=True, capture_output=True)
    assert (into / str(estate.uploads).lstrip("/") / "a.txt").read_text() == "second"


def data(estate: Estate) -> list[Path]:
    """The files that hold content."""
    directory = estate.repository / ("objects" if estate.engine == "sealed" else "data")
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "meta")


def writable(path: Path) -> Path:
    os.chmod(path, 0o600)
    return path


def test_a_tree_comes_back_as_it_was(estate: Estate, tmp_path: Path):
    uploads = estate.uploads
    (uploads / "a.txt").chmod(0o640)
    os.utime(uploads / "a.txt", ns=(10**18, 10**18 + 123_456_789))
    top = os.fsencode(uploads)
    odd = {b"no\xfftext [*] \\ name", b"new\nline", b"-dash", "e\u0301".encode(), b"y" * 255}
    for name in odd:
        Path(os.fsdecode(top + b"/" + name)).write_text("odd")
    os.symlink(b"no\xffwhere", top + b"/dangling")
    os.mkfifo(uploads / "pipe")
    (uploads / "empty").touch()
    os.link(uploads / "a.txt", uploads / "again")
    os.setxattr(uploads / "a.txt", "user.note", b"\x00\xff")
    with (uploads / "holes").open("wb") as holes:
        holes.seek(8 << 20)
        holes.write(b"end")
    os.chown(uploads / "empty", 1234, 4321)
    (uploads / "cache.tmp").write_text("leave me")
    (uploads / "deep" / "skip").mkdir()
    (uploads / "deep" / "skip" / "x").write_text("leave me too")
    outside = tmp_path / "data" / "outside"
    outside.mkdir()
    (outside / "version").write_text("1")
    mounted = tmp_path / "data" / "mounted"
    mounted.symlink_to(outside)
    sources = [
        {"name": "db", "sqlite": {"path": str(estate.database)}},
        {"name": "up", "files": {
            "paths": [str(uploads), str(mounted)],
            "exclude": ["*.tmp", f"{uploads}/deep/[!a-r]kip"],
        }},
    ]  # fmt: skip
    estate.write(sources=sources)
    estate.run("backup", "run")
    estate.run("backup", "verify", "--level", "read")
    restore(estate, tmp_path / "t")

    back = tmp_path / "t" / "up" / str(uploads).lstrip("/")
    found = {os.fsencode(os.path.relpath(path, back)) for path in back.rglob("*")}
    plain = {b"a.txt", b"again", b"deep", b"deep/b.bin", b"link", b"dangling", b"pipe", b"empty", b"holes"}
    assert found == plain | odd
    assert (back / "again").stat().st_ino == (back / "a.txt").stat().st_ino
    assert os.getxattr(back / "a.txt", "user.note") == b"\x00\xff"
    assert (back / "holes").read_bytes() == (uploads / "holes").read_bytes()
    assert (back / "holes").stat().st_blocks < 100 or estate.engine == "restic", "holes take no room"
    assert os.readlink(os.fsencode(back) + b"/dangling") == b"no\xffwhere"
    assert ((back / "empty").stat().st_uid, (back / "empty").stat().st_gid) == (1234, 4321)
    status = (back / "a.txt").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 10**18 + 123_456_789)
    assert os.readlink(back / "link") == "a.txt"
    assert (back / "deep" / "b.bin").read_bytes() == (uploads / "deep" / "b.bin").read_bytes()
    assert (tmp_path / "t" / "up" / str(mounted).lstrip("/") / "version").read_text() == "1"


def test_what_cannot_be_read_or_brought_back_fails_its_source_and_is_named(estate: Estate):
    endless = "/".join([str(estate.uploads), *["d"] * 600])
    os.makedirs(endless)
    unreadable = "/proc/sys/vm/compact_memory"  # for root, too
    for path, why in ((unreadable, "Permission denied"), (str(estate.uploads), "levels deep: exclude it")):
        estate.write(sources=[{"name": "files", "files": {"paths": [path]}}])
        assert re.search(f"files: .*{path}.*{why}", estate.run("backup", "run", code=1).stderr, re.IGNORECASE)
    assert estate.json("backup", "list") == []
    while endless != str(estate.uploads):
        os.rmdir(endless)
        endless = os.path.dirname(endless)


def test_what_is_stored_is_what_was_new_and_is_called_what_it_is(estate: Estate, tmp_path: Path):
    (estate.uploads / "large").write_bytes(os.urandom(2 << 20))
    first = estate.json("backup", "run", "--kind", "full")
    (estate.uploads / "a.txt").write_text("second")
    estate.order("tea")
    second = estate.json("backup", "run")
    full, more = (one["sources"][1] for one in (first, second))
    kinds = ("full", "incremental") if estate.engine == "sealed" else ("deduplicated", "deduplicated")
    assert (full["kind"], more["kind"]) == kinds
    assert second["requested"] == "incremental"
    assert second["sources"][0]["kind"] == kinds[0], "a database that changed comes whole, and says so"
    assert (full["parent"], more["parent"]) == (None, first["id"])
    assert more["bytes_added"] < 100_000 < 2 << 20 < full["bytes_added"]
    if estate.engine == "restic":
        assert_restic_by_hand_brings_it_back(estate, tmp_path / "by-hand")
    restore(estate, tmp_path / "t", "--only", "uploads")
    back = tmp_path / "t" / "uploads" / str(estate.uploads).lstrip("/")
    assert (back / "a.txt").read_text() == "second"
    assert (back / "large").read_bytes() == (estate.uploads / "large").read_bytes()


def test_files_that_are_written_to_meanwhile_verify_against_what_was_stored(estate: Estate):
    (estate.uploads / "large").write_bytes(os.urandom(8 << 20))
    stop = threading.Event()

    def service() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with (estate.uploads / "log").open("a") as log:
                log.write(f"{number}\n")
            (estate.uploads / f"short-{number % 7}").write_text(f"{number}")
            (estate.uploads / f"short-{(number + 3) % 7}").unlink(missing_ok=True)
            time.sleep(0.001)

    thread = threading.Thread(target=service)
    thread.start()
    try:
        for _ in range(2):
            assert estate.json("backup", "run")["verified"]
    finally:
        stop.set()
        thread.join()


def test_bit_rot_is_named_and_the_older_point_is_offered(estate: Estate, tmp_path: Path):
    first = estate.backup()
    known = set(data(estate))
    (estate.uploads / "new").write_bytes(os.urandom(1 << 20))
    second = estate.backup()
    rotten = max((path for path in data(estate) if path not in known), key=lambda path: path.stat().st_size)
    flip(writable(rotten))
    found = estate.json("backup", "verify", second, "--level", "read", code=1)
    assert [(one["what"], Path(one["where"]).name) for one in found["troubles"]] == [("damaged", rotten.name)]
    assert found["offered"] == first
    assert estate.json("backup", "verify", first, "--level", "read")["ok"], "what is hit is not needed by it"
    assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == first
    rotten.unlink()
    gone = estate.json("backup", "verify", second, "--level", "manifest", code=1)
    assert [(one["what"], Path(one["where"]).name) for one in gone["troubles"]] == [("missing", rotten.name)]
    plan = estate.json("restore", "plan", "--backup", second, "--target", str(tmp_path / "t"))
    refused = estate.run("restore", "apply", plan["hash"], code=1)
    assert rotten.name[:10] in refused.stderr
    assert not any((tmp_path / "t").rglob("new"))
    assert estate.json("backup", "run")["verified"], "what is lost is stored again"


def test_killed_at_any_moment_nothing_half_is_left_and_the_next_run_heals(estate: Estate):
    (estate.uploads / "large").write_bytes(os.urandom(16 << 20))
    whole = estate.backup()
    for moment in (0.0, 0.3):
        (estate.uploads / "large").write_bytes(os.urandom(16 << 20))
        before = len(data(estate))
        process = start(estate, "backup", "run", "--kind", "full")
        deadline = time.monotonic() + PATIENCE
        while len(data(estate)) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moment)
        helpers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        while any(Path(f"/proc/{pid}").exists() for pid in helpers):
            assert time.monotonic() < deadline, "what it had started lives on"
            time.sleep(0.01)
        assert whole in [one["id"] for one in estate.json("backup", "list")]
    estate.backup()
    size = sum(path.stat().st_size for path in data(estate))
    estate.run("backup", "prune")
    assert sum(path.stat().st_size for path in data(estate)) < size, "what the killed runs left is gone"
    estate.run("backup", "verify", whole)


def test_who_may_not_writes_nothing(estate: Estate):
    estate.run("backup", "run")
    before = {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")}
    with (estate.repository / "sidecar" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "works on the repository" in estate.run("backup", "run", code=1).stderr
    was, estate.engine = estate.engine, "restic" if estate.engine == "sealed" else "sealed"
    estate.write()
    assert f"was made with engine {was}" in estate.run("backup", "run", code=1).stderr
    estate.engine = was
    estate.write()
    estate.key.write_text("another\n")
    for words in (["backup", "run"], ["backup", "prune"]):
        assert "the password does not open this repository" in estate.run(*words, code=4).stderr
    assert {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")} == before


def test_the_key_is_in_no_argument_and_no_environment(estate: Estate):
    (estate.uploads / "large").write_bytes(os.urandom(32 << 20))
    process = start(estate, "backup", "run")
    looked_at: set[str] = set()
    while process.poll() is None:
        for pid in [process.pid, *children_of(process.pid)]:
            for about in ("cmdline", "environ"):
                try:
                    text = Path(f"/proc/{pid}/{about}").read_bytes()
                except OSError:
                    continue
                assert b"passphrase" not in text
                looked_at |= {about} if text else set()
        time.sleep(0.01)
    process.communicate()
    assert looked_at == {"cmdline", "environ"}


def test_what_is_forgotten_is_pruned_and_the_rest_stays_whole(estate: Estate):
    (estate.uploads / "large").write_bytes(os.urandom(2 << 20))
    first = estate.backup()
    (estate.uploads / "large").write_bytes(os.urandom(1 << 20))
    second = estate.json("backup", "run", "--kind", "full")["id"]
    estate.run("backup", "forget", first)
    freed = estate.json("backup", "prune")["bytes_freed"]
    assert freed > 2 << 20
    assert [one["id"] for one in estate.json("backup", "list")] == [second]
    estate.run("backup", "verify")


@pytest.mark.slow
def test_what_restic_needs_to_open_itself_is_never_made_anew_over_what_is_there(tmp_path: Path):
    estate = Estate(tmp_path, "restic")
    point = estate.backup()
    shutil.rmtree(estate.repository / "sidecar" / "spare")  # it would be put back from there
    (estate.repository / "config").rename(tmp_path / "config")
    keys = {path: path.read_bytes() for path in (estate.repository / "keys").iterdir()}
    for words in (["backup", "run"], ["backup", "prune"], ["backup", "verify"]):
        assert re.search("put it back from a copy", estate.run(*words, code=1).stderr), words
    assert {path: path.read_bytes() for path in (estate.repository / "keys").iterdir()} == keys
    (tmp_path / "config").rename(estate.repository / "config")
    estate.run("backup", "verify", point, "--level", "read")
    (tmp_path / "other").write_text("another\n")
    words = ["restic", "-r", str(estate.repository), "--password-file", str(estate.key), "--no-cache"]
    subprocess.run([*words, "key", "passwd", "--new-password-file", str(tmp_path / "other")], check=True)
    assert "the password does not open" in estate.run("backup", "run", code=4).stderr


@pytest.mark.slow
@pytest.mark.parametrize("level", ["manifest", "read"])
def test_what_looks_missing_while_a_prune_goes_on_beside_is_looked_for_twice(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    estate = Estate(tmp_path, "restic")
    estate.backup()
    said, wrapper = tmp_path / "said", tmp_path / "bin" / "restic"
    wrapper.parent.mkdir()
    word = "--read-data-subset" if level == "read" else "--with-cache"
    wrapper.write_text(
        f"""#!/bin/sh
        if [ "${{*#*{word}}}" != "$*" ] && mkdir {said} 2>/dev/null; then
          echo 'error: pack {"0123" * 16}: does not exist' >&2; exit 1
        fi
        exec {shutil.which("restic")} "$@"
        """
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert estate.json("backup", "verify", "--level", level)["ok"]
    assert said.exists()


@pytest.mark.slow
def test_a_lock_that_a_gone_pod_left_delays_what_removes_data_and_no_restore(tmp_path: Path):
    estate = Estate(tmp_path, "restic")
    estate.backup()
    with foreign_lock(estate.repository, estate.key):
        assert estate.json("backup", "run")["verified"]
        told = estate.run("backup", "prune", code=1).stderr
        assert GONE in told
        assert re.search(r"stale at \d\d:\d\d:\d\d UTC and is removed then", told)
    with foreign_lock(estate.repository, estate.key, exclusive=True) as lock:
        assert "exclusively by PID" in estate.run("backup", "run", code=1).stderr
        words = ["restic", "-r", str(estate.repository), "--password-file", str(estate.key), "--no-cache"]
        told = subprocess.run(
            [*words, "--no-lock", "cat", "lock", lock.name], capture_output=True, check=True, text=True
        ).stdout
        assert (json.loads(told)["hostname"], json.loads(told)["exclusive"]) == (GONE, True)
        lock.rename(tmp_path / lock.name)  # by somebody who knows that its holder is gone
        estate.backup()
        (tmp_path / lock.name).rename(lock)
        restore(estate, tmp_path / "t")
        assert estate.json("drill", "run")["passed"]
    estate.run("backup", "prune")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_keeps_nothing_half(estate: Estate, small_disk: Path):
    estate.repository = small_disk / "repository"
    estate.write()
    whole = estate.backup()
    (estate.uploads / "large").write_bytes(os.urandom(30 << 20))
    assert re.search("No space left|no space left", estate.run("backup", "run", code=1).stderr)
    assert [one["id"] for one in estate.json("backup", "list")] == [whole]
    (estate.uploads / "large").unlink()
    estate.run("backup", "prune")
    estate.backup()


def test_what_opens_restics_part_is_put_back_and_never_made_anew_beside_its_data(tmp_path: Path):
    estate = Estate(tmp_path, "restic")
    estate.backup()
    [key] = (estate.repository / "keys").iterdir()
    was = {path: path.read_bytes() for path in (key, estate.repository / "config")}
    flip(writable(key))
    (estate.repository / "config").unlink()
    estate.backup()
    assert {path: path.read_bytes() for path in was} == was
    shutil.rmtree(estate.repository / "sidecar" / "spare")
    (estate.repository / "config").unlink()
    assert "config is gone" in estate.run("backup", "run", code=1).stderr
    assert key.read_bytes() == was[key], "the only key to all that is there"


def test_without_restic_the_other_engine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    estate = Estate(tmp_path, "restic")
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = run_cli("backup", "run", "-c", str(estate.file))
    assert failed.returncode == 1
    assert "engine: sealed" in failed.stderr
    assert not estate.repository.exists()
