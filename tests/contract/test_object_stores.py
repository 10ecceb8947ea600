"""Both engines on a real S3 server, on good days and on bad ones."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.wire import PATIENCE
from tests.real.estate import Estate, orders
from tests.real.harness import ROOT, run_cli
from tests.real.object_store import KEY, SECRET, BadLink, ObjectStore, files_of
from tests.real.procfs import children_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        yield store


class Remote(Estate):
    """An estate whose repository is in the object store."""

    def __init__(self, directory: Path, engine: str, store: ObjectStore, endpoint: str = "") -> None:
        self.store = store
        self.endpoint = endpoint or store.endpoint
        self.prefix = directory.name
        (directory / "id").write_text(f"{KEY}\n")
        (directory / "secret").write_text(f"{SECRET}\n")
        super().__init__(directory, engine)

    def write(self, **backup: object) -> None:
        s3 = {
            "endpoint": self.endpoint,
            "access_key_id_file": str(self.directory / "id"),
            "secret_access_key_file": str(self.directory / "secret"),
        }
        url = f"s3://backups/{self.prefix}"
        repository = {"url": url, "engine": self.engine, "password_file": str(self.key), "s3": s3}
        super().write(**{"repository": repository, **backup})

    def objects(self) -> dict[str, Path]:
        mine = f"{self.prefix}/"
        return {name.removeprefix(mine): path for name, path in files_of(self.store).items() if name.startswith(mine)}


@pytest.fixture(params=["sealed", pytest.param("restic", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def restore(estate: Estate, target: Path) -> None:
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target))["hash"])


def test_it_is_kept_pruned_and_comes_back(engine: str, store: ObjectStore, tmp_path: Path):
    estate = Remote(tmp_path, engine, store)
    estate.order("tea")
    first = estate.backup()
    (estate.uploads / "more").write_bytes(b"x" * 100_000)
    second = estate.json("backup", "run")
    assert second["sources"][1]["parent"] == first
    estate.run("backup", "verify", "--level", "read")
    estate.run("backup", "forget", first)
    estate.run("backup", "prune")
    assert not [name for name in estate.objects() if name.startswith("sidecar/claims/")], "a lease was left"
    restore(estate, tmp_path / "t")
    assert orders(tmp_path / "t" / "db" / "orders.db") == ["tea"]
    (tmp_path / "secret").write_text("a guess\n")
    refused = estate.run("backup", "run", code=4)
    assert "refuses the credentials" in refused.stderr
    assert SECRET not in refused.stderr + "guess"


def test_a_store_that_is_busy_for_a_while_is_asked_again(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        link.refuse = 5
        assert estate.json("backup", "run")["verified"]
        assert link.refused == 5


def test_an_upload_that_was_acknowledged_and_lost_is_found_and_named(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        (estate.uploads / "large").write_bytes(b"y" * 300_000)
        good = estate.backup()
        part = "/objects/" if engine == "sealed" else "/data/"
        link.lose = lambda path: part in path and not path.endswith("/meta") and not link.lost
        (estate.uploads / "large").write_bytes(bytes(range(256)) * 2000)
        told = estate.run("backup", "run", code=1)
        assert len(link.lost) == 1
        assert f"missing: {link.lost[0].partition(part)[1].strip('/')}" in told.stderr.replace(
            link.lost[0], part.strip("/")
        )
        listed = {one["id"]: one["verified"] for one in estate.json("backup", "list")}
        assert listed[good] is True
        assert list(listed.values()).count(False) == 1
        assert estate.json("restore", "plan", "--target", str(tmp_path / "t"))["backup"] == good
        assert estate.json("backup", "run")["verified"], "nothing leans on what is known to be lost"


@pytest.mark.slow
def test_a_slow_link_takes_its_time(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        link.rate = 10_000.0
        (estate.uploads / "deep" / "b.bin").write_bytes(os.urandom(60_000))
        began = time.monotonic()
        assert estate.json("backup", "run")["verified"]
        assert time.monotonic() - began > 6


def test_one_agent_at_a_time_and_a_dead_ones_lease_is_taken_over(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        estate.backup()
        (estate.uploads / "large").write_bytes(os.urandom(1 << 20))
        link.rate = 100_000.0
        process = start(estate, "backup", "run")
        deadline = time.monotonic() + PATIENCE
        while not any(name.startswith("sidecar/claims/") for name in estate.objects()):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        estate.endpoint = store.endpoint
        estate.write()
        assert "works on the repository" in estate.run("backup", "run", code=1).stderr
        kill(process)
        estate.backup()
        estate.run("backup", "verify", "--level", "read")
        assert not [name for name in estate.objects() if name.startswith("sidecar/claims/")]


@pytest.mark.slow
def test_the_lease_of_a_pod_that_is_gone_is_taken_over(store: ObjectStore, tmp_path: Path):
    estate = Remote(tmp_path, "sealed", store)
    estate.backup()
    claim = store.bucket / tmp_path.name / "sidecar" / "claims" / "000000000009-0123456789ab"
    claim.parent.mkdir(exist_ok=True)
    claim.write_text(json.dumps({"who": "gone", "why": "backup", "pid": 7, "machine": "another", "started": "5"}))
    began = time.monotonic()
    assert run_cli("backup", "run", "-c", str(estate.file), patience=120).returncode == 0
    assert time.monotonic() - began > 45, "as long as it may live"
    assert not [name for name in estate.objects() if name.startswith("sidecar/claims/")]


# Killed -------------------------------------------------------------------------------------------------------------


def start(estate: Estate, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words, "-c", str(estate.file)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> None:
    """It, and so what it had started."""
    helpers = children_of(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < deadline, "what it had started lives on"
        time.sleep(0.005)


def killed_before(estate: Estate, link: BadLink, number: int, methods: str, *words: str) -> bool:
    """Run a command that is killed when its n-th request of these methods is under way; False: it has fewer."""
    counted, lock = 0, threading.Lock()
    fatal = threading.Event()

    def before(method: str, _path: str) -> bool:
        nonlocal counted
        with lock:
            counted += method in methods
            if counted == number and not fatal.is_set():
                fatal.set()
                kill(process)
        return not fatal.is_set()

    link.before = before
    process = start(estate, *words)
    code = process.wait(PATIENCE * 4)
    with lock:  # whoever kills is done
        link.before = lambda _method, _path: True
    assert fatal.is_set() or code == 0, f"killed by nobody, and failed: {words}"
    return fatal.is_set()


CHANGES = "PUT POST DELETE"


def assert_all_sound(estate: Remote) -> None:
    for one in estate.json("backup", "list"):
        estate.run("backup", "verify", one["id"], "--level", "read")
    assert not [name for name in estate.objects() if name.startswith(("sidecar/claims/", "locks/"))]


def test_a_backup_by_restic_killed_in_the_middle_is_healed_by_the_next(store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, "restic", store, link.endpoint)
        link.refuse = 3
        assert killed_before(estate, link, 12, CHANGES, "backup", "run")
        assert estate.json("backup", "run")["verified"]
        assert link.refused == 3
        assert not [name for name in estate.objects() if name.startswith(("sidecar/claims/", "locks/"))]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_backup_killed_before_each_of_its_changes(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        number, kinds = 1, ("full", "incremental")
        while killed_before(estate, link, number, CHANGES, "backup", "run", "--kind", kinds[number % 2]):
            (estate.uploads / "more").write_bytes(os.urandom(20_000))
            number += 1
        assert number > {"restic": 15, "sealed": 10}[engine]  # of small sources sealed makes fewer objects
        estate.backup()
        assert_all_sound(estate)
        estate.run("backup", "prune")
        assert_all_sound(estate)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_prune_killed_before_each_of_its_changes(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        points = []
        for _ in range(4):
            (estate.uploads / "more").write_bytes(os.urandom(20_000))
            points.append(estate.json("backup", "run", "--kind", "full")["id"])
        for name in points[:3]:
            estate.run("backup", "forget", name)
        number = 1
        while killed_before(estate, link, number, CHANGES, "backup", "prune"):
            number += 1
        assert number > 5
        assert [one["id"] for one in estate.json("backup", "list")] == points[3:]
        assert_all_sound(estate)
        estate.backup()
        assert_all_sound(estate)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_restore_killed_before_each_of_its_requests(engine: str, store: ObjectStore, tmp_path: Path):
    with BadLink(store) as link:
        estate = Remote(tmp_path, engine, store, link.endpoint)
        estate.order("tea")
        estate.backup()
        number, died = 1, True
        while died:
            target = tmp_path / f"t{number}"
            plan = estate.json("restore", "plan", "--target", str(target))
            died = killed_before(estate, link, number, f"GET HEAD {CHANGES}", "restore", "apply", plan["hash"])
            if "no unfinished restore" in estate.run("restore", "resume").stdout and not target.exists():
                estate.run("restore", "apply", plan["hash"])
            assert orders(target / "db" / "orders.db") == ["tea"]
            assert sorted(path.name for path in target.iterdir()) == ["db", "uploads"]
            back = target / "uploads" / str(estate.uploads).lstrip("/")
            assert (back / "deep" / "b.bin").read_bytes() == (estate.uploads / "deep" / "b.bin").read_bytes()
            number += 1
        assert number > 10
