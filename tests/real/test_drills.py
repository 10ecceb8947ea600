"""Drills as their users meet them: by command and on the agent's schedule, on a real repository, a started service."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.wire import PATIENCE
from tests.real.agent import Agent, Estate
from tests.real.harness import ROOT
from tests.real.procfs import processes_naming

SERVE = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", "{restored}", "{port}"]


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


def scratch_of(estate: Estate) -> list[str]:
    directory = estate.directory / "state" / "scratch"
    return sorted(os.listdir(directory)) if directory.exists() else []


def running_on(estate: Estate) -> list[str]:
    """Command lines of processes that were started on a copy."""
    return processes_naming(f"{estate.directory}/state/scratch")


def drill(**more: Any) -> dict[str, Any]:
    return {"random": 0, "checks": [{"source": "db", "sql": "SELECT count(*) > 0 FROM orders"}], **more}


def test_a_drill_restores_starts_asks_measures_and_leaves_nothing(estate: Estate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the agent, not of what it starts")
    checks = [
        {"source": "db", "sql": "SELECT count(*) = 1 FROM orders"},
        {"source": "uploads", "exists": str(estate.uploads / "a.txt")},
        {"http": {"path": f"/uploads{estate.uploads}/a.txt", "contains": "first"}},
        {"source": "db", "command": [sys.executable, "-c", "import os; assert os.path.isfile('orders.db')"]},
        {"command": ["sh", "-c", "test -f {restored}/db/orders.db && ! env | grep AWS_"]},
    ]
    estate.write(drill=drill(checks=checks, start={"command": SERVE}))
    estate.order("tea")
    estate.run("backup", "run")
    before = estate.database.read_bytes()
    told = estate.json("drill", "run")
    assert told["passed"], told
    assert told["why"] == ""
    assert [one["wrong"] for one in told["checks"]] == [""] * 5
    assert told["checks"][0]["median_seconds"] > 0
    assert 0 < told["rto_seconds"] < told["rto_target_seconds"]
    assert told["rpo_seconds"] > 0
    assert {"choosing", "restoring", "starting", "checking"} <= set(told["steps"])
    assert told["forecast"]["bytes"] == 100 << 30
    assert told["forecast"]["seconds"] > told["rto_seconds"]
    assert scratch_of(estate) == []
    assert running_on(estate) == []
    assert estate.database.read_bytes() == before

    page = estate.run("drill", "report").stdout
    assert "UTC: passed" in page
    assert "| RTO: until the last check had held |" in page
    assert f"| GET /uploads{estate.uploads}/a.txt | yes |" in page
    assert [one["point"] for one in estate.json("drill", "report")] == [told["point"]]


def test_a_check_that_does_not_hold_fails_the_drill_and_says_which(estate: Estate):
    checks = [
        {"source": "db", "sql": "SELECT count(*) > 0 FROM orders"},
        {"source": "db", "sql": "SELECT broken FROM nowhere"},
        {"source": "uploads", "exists": str(estate.uploads / "no.txt")},
        {"http": {"path": "/nothing", "expect": [200]}},
        {"command": ["sh", "-c", "echo dear me >&2; exit 3"]},
        {"command": ["sleep", "60"], "timeout": "200ms"},
    ]
    estate.write(drill=drill(checks=checks, start={"command": SERVE}))
    estate.run("backup", "run")
    told = estate.json("drill", "run", code=1)
    assert not told["passed"]
    wrong = [one["wrong"] for one in told["checks"]]
    for said, expected in zip(
        wrong, ("not true", "no such table", "not in the copy", "answered 404", "dear me", "within"), strict=True
    ):
        assert expected in said
    assert told["rto_seconds"] is None
    assert "FAILED" in estate.run("drill", "report", code=1).stdout
    assert scratch_of(estate) == []
    assert running_on(estate) == []


def test_a_service_that_does_not_come_up_on_the_copy_fails_it(estate: Estate):
    estate.run("backup", "run")
    words = [sys.executable, "-c", "import sys; sys.exit('no such table: orders')"]
    estate.write(drill=drill(checks=[], start={"command": words}))
    assert "no such table: orders" in estate.json("drill", "run", code=1)["why"]
    estate.write(drill=drill(checks=[], start={"command": ["sleep", "60"], "timeout": "300ms"}))
    assert "not up after" in estate.json("drill", "run", code=1)["why"]
    assert running_on(estate) == []
    assert scratch_of(estate) == []


def test_what_it_would_overwrite_is_refused(estate: Estate, tmp_path: Path):
    estate.order("tea")
    estate.run("backup", "run")
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("mine")
    assert "is not empty" in estate.run("drill", "run", "--target", str(full), code=1).stderr
    inner = estate.uploads / "inner"
    assert "backs up" in estate.run("drill", "run", "--target", str(inner), code=1).stderr
    assert not inner.exists()
    assert (full / "precious").read_text() == "mine"
    assert estate.run("drill", "report", code=1).stdout == "", "nothing was drilled"
    (older,) = (one["id"] for one in estate.json("backup", "list"))
    estate.run("backup", "run")
    told = estate.json("drill", "run", "--target", str(tmp_path / "empty"), "--backup", older)
    assert (told["passed"], told["rpo_seconds"]) == (True, None), "an older point says nothing of what would be lost"
    assert not (tmp_path / "empty").exists(), "it was not there before"


def test_rot_fails_the_drill(estate: Estate):
    estate.write(drill=drill())
    estate.order("tea")
    point = estate.json("backup", "run")["id"]
    for object_ in (estate.repository / "objects").rglob("*"):
        if object_.is_file() and object_.name != "meta":
            content = bytearray(object_.read_bytes())
            content[len(content) // 2] ^= 1
            object_.write_bytes(content)
    told = estate.json("drill", "run", "--backup", point, code=1)
    assert "damaged" in told["why"]
    assert scratch_of(estate) == []


def test_without_a_backup_there_is_nothing_to_drill(estate: Estate):
    estate.run("drill", "run", code=1)
    assert "there was no drill yet" in estate.run("drill", "report", code=1).stderr


def test_a_killed_drill_takes_its_service_along_and_the_next_clears_up(estate: Estate):
    estate.write(drill=drill(start={"command": SERVE, "ready": "/never", "timeout": "60s"}))
    estate.order("tea")
    estate.run("backup", "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "drill", "run", "-c", str(estate.file)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not running_on(estate):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    assert "a drill runs already" in estate.run("drill", "run", code=1).stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    while running_on(estate):
        assert time.monotonic() < deadline, "the started service lives on"
        time.sleep(0.02)
    assert scratch_of(estate)
    estate.write(drill=drill())
    estate.run("drill", "run")
    assert scratch_of(estate) == []


def test_the_agent_drills_on_schedule_and_tells(estate: Estate):
    estate.write(rpo="1h", rto="2h", drill=drill(every="1s"))
    estate.order("tea")
    with Agent(estate) as agent:
        agent.wait_log('"drill_ended".*"passed": true')
        metrics = agent.metrics()
        assert metrics.sum("sidecar_backup_drill_rto_seconds") > 0
        assert metrics.sum("sidecar_backup_drill_rpo_seconds") > 0
        assert metrics.sum("sidecar_backup_drill_last_success_timestamp_seconds") > 1.7e9
        shutil.rmtree(estate.repository / "objects")
        agent.wait_log('"drill_ended".*"passed": false')
        agent.wait_until(
            lambda: "drill_failed" in [one["reason"] for one in agent.json("/api/v1/status")["conditions"]],
            "a condition",
        )
    told = json.loads(estate.run("drill", "report", "--json", code=1).stdout)
    assert {one["asked"] for one in told} == {"schedule"}
    assert scratch_of(estate) == []
    estate.write(drill=drill(every="1d"))
    with Agent(estate) as agent:
        agent.wait_until(
            lambda: agent.metrics().named("sidecar_backup_drill_rto_seconds"), "what the last good one took"
        )
        assert agent.json("/api/v1/status")["conditions"] == []
