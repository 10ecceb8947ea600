"""`sidecar agent run` as its users meet it: it backs up by itself, tells how it is, and goes on whatever happens."""

import copy
import itertools
import re
import signal
from pathlib import Path

import pytest

from tests.real.agent import Agent, Estate
from tests.real.documents import free_port
from tests.real.procfs import thread_heaps_of


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


def test_it_backs_up_by_itself_and_tells_how_old_the_newest_verified_point_is(estate: Estate, tmp_path: Path):
    estate.write(rpo="10m")
    estate.order("tea")
    escrow = tmp_path / "escrow"
    escrow.write_bytes(estate.key.read_bytes())
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"asked": "schedule".*"verified": true')
        assert "opens it" in estate.run("backup", "verify", "--key-file", str(escrow)).stdout
        assert agent.command("/api/v1/backups/run") == 200
        agent.wait_log('"backup_finished".*"asked": "operator".*"verified": true')
        metrics = agent.metrics()
        assert metrics.sum("sidecar_backup_rpo_target_seconds") == 600
        assert metrics.sum("sidecar_backup_runs_total", result="ok", source="db") >= 2
        assert metrics.sum("sidecar_backup_runs_total", result="ok", source="uploads", kind="full") == 1
        assert metrics.sum("sidecar_backup_verify_total", level="sample", result="ok") >= 2
        assert metrics.sum("sidecar_backup_recovery_point_timestamp_seconds") > 1.7e9
        assert metrics.sum("sidecar_backup_last_verified_timestamp_seconds") > 1.7e9
        first = metrics.named("sidecar_backup_rpo_seconds")
        assert len(first) == 1
        points = agent.json("/api/v1/backups")
        assert points[0]["verified"] is True
        status = agent.json("/api/v1/status")
        assert status["rpo"]["point"] in {one["id"] for one in points}
        assert status["rpo"]["state"] == "kept"
        assert status["conditions"] == []
        assert [agent.status_of(probe) for probe in ("/livez", "/readyz", "/startupz")] == [200, 200, 200]
        assert agent.rss < 80 << 20
        assert thread_heaps_of(agent.process.pid) == 0, "its threads share one heap"
        assert estate.json("agent", "status")["rpo"]["state"] == "kept"
        told = estate.run("agent", "status").stdout
        assert "newest verified point: " in told
        assert "a copy of its password: opened it: 2" in told
    listed = estate.json("backup", "list")
    assert [one["verified"] for one in listed] == [True] * len(listed)
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(tmp_path / "t"))["hash"])
    assert '"agent_stopped"' in agent.log
    assert "does not answer" in estate.run("agent", "status", code=3).stderr


def test_before_the_first_verified_point_the_age_is_not_told_as_0(estate: Estate):
    estate.key.unlink()
    with Agent(estate) as agent:
        agent.wait_log('"backup_failed".*password_file')
        metrics = agent.metrics()
        assert metrics.named("sidecar_backup_rpo_seconds") == []
        assert len(metrics.named("sidecar_backup_rpo_target_seconds")) == 1
        assert agent.json("/api/v1/status")["rpo"]["age_seconds"] is None
        assert agent.status_of("/readyz") == 200, "the pod stays in service"


def test_it_goes_on_where_the_last_one_was_and_makes_up_for_what_was_missed_once(estate: Estate):
    estate.write(rpo="15m")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished"')
    with Agent(estate) as agent:
        status = agent.json("/api/v1/status")
        assert status["rpo"]["age_seconds"] is not None
        assert 0 < status["run"]["next_in_seconds"] <= 300, "no run on each restart"
    estate.write(rpo="3s")  # the next is overdue by now, or will be in a second
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished"')


def test_an_rpo_that_cannot_be_kept_is_said_out_loud(estate: Estate):
    estate.write(rpo="10ms")
    with Agent(estate) as agent:
        agent.wait_log('"rpo_unreachable".*make backup.rpo longer')
        agent.wait_until(lambda: agent.json("/api/v1/status")["rpo"]["unreachable"], "the reason")
        assert "rpo_unreachable" in {one["reason"] for one in agent.json("/api/v1/status")["conditions"]}
        agent.wait_log('"backup_promise_changed".*"now": "missed"')


def test_a_run_that_fails_is_told_and_the_next_one_heals_it(estate: Estate):
    estate.write(rpo="6s")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
        aside = estate.uploads.with_name("aside")
        estate.uploads.rename(aside)
        agent.wait_log('"backup_failed".*uploads is not there|"backup_failed".*is not there')
        agent.wait_until(lambda: agent.json("/api/v1/status")["conditions"], "a condition")
        reasons = {(one["reason"], one["subject"]) for one in agent.json("/api/v1/status")["conditions"]}
        assert ("backup_failed", "uploads") in reasons
        assert agent.metrics().sum("sidecar_backup_conditions", reason="backup_failed") == 1
        assert agent.metrics().sum("sidecar_backup_runs_total", source="uploads", result="failed") >= 1
        agent.wait_log('"backup_promise_changed".*"now": "missed"')
        aside.rename(estate.uploads)
        agent.wait_log('"backup_promise_changed".*"now": "kept"')
        agent.wait_until(
            lambda: "backup_failed" not in str(agent.json("/api/v1/status")["conditions"]), "all well again"
        )
        assert agent.metrics().named("sidecar_backup_conditions")
        assert agent.metrics().sum("sidecar_backup_conditions", reason="backup_failed") == 0


def test_a_repository_that_is_away_is_no_crash(estate: Estate, tmp_path: Path):
    estate.write(rpo="6s")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished"')
        away = tmp_path / "away"
        estate.repository.rename(away)
        (tmp_path / "repository").write_text("not a directory")
        agent.wait_log('"backup_failed".*"reason": "repository_unreachable"')
        (tmp_path / "repository").unlink()
        away.rename(estate.repository)
        before = len(agent.json("/api/v1/backups"))
        agent.wait_until(lambda: len(agent.json("/api/v1/backups")) > before, "the next point")


def test_a_wrong_key_is_told_and_writes_nothing(estate: Estate):
    estate.run("backup", "run")
    before = {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")}
    estate.key.write_text("another\n")
    estate.write(rpo="2s")
    with Agent(estate) as agent:
        agent.wait_log('"backup_failed".*"reason": "wrong_key"', count=2)
    assert {path: path.stat().st_mtime_ns for path in estate.repository.rglob("*")} == before


def test_retention_is_applied_and_never_to_the_newest_verified(estate: Estate):
    estate.write(rpo="4s", retention={"keep_within": "0s", "daily": 1, "weekly": 0, "monthly": 0})
    with Agent(estate) as agent:
        agent.wait_log('"backups_forgotten"', count=2)
        newest = agent.json("/api/v1/status")["rpo"]["point"]
        assert newest in {one["id"] for one in agent.json("/api/v1/backups")}
    assert len(estate.json("backup", "list")) <= 3


def objects(estate: Estate) -> int:
    return sum(1 for _ in (estate.repository / "objects").glob("*/*"))


def test_killed_in_the_middle_it_leaves_nothing_half(estate: Estate):
    estate.write(rpo="3s")
    (estate.uploads / "large").write_bytes(b"x" * (32 << 20))
    for _ in range(3):
        before = objects(estate)
        agent = Agent(estate)
        agent.wait_until(lambda before=before: objects(estate) > before, "something stored")
        agent.process.send_signal(signal.SIGKILL)
        agent.process.wait()
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
    for one in estate.json("backup", "list"):
        estate.run("backup", "verify", one["id"], "--level", "read")


def test_a_file_without_a_backup_section_is_a_configuration_that_cannot_work(estate: Estate):
    estate.file.write_text(
        "version: 1\nservice: {name: orders}\n"
        "listeners: [{name: in, bind: 127.0.0.1:1, routes: [{name: all, match: {path_prefix: /}, upstream: app}]}]\n"
        "upstreams: [{name: app, endpoints: [{address: 127.0.0.1:2}]}]\n"
    )
    assert "no `backup` section" in estate.run("agent", "run", code=78).stderr


def test_a_file_that_changes_counts_once_it_is_good(estate: Estate):
    estate.write(rpo="10m")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished"')
        good = estate.file.read_text()
        estate.file.write_text("backup: [")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log('"config_reload_failed"')
        assert agent.metrics().sum("sidecar_backup_rpo_target_seconds") == 600
        estate.file.write_text(good.replace("rpo: 10m", "rpo: 20m"))
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_log('"agent_started".*"rpo_seconds": 1200')
        agent.wait_until(lambda: agent.status_of("/readyz") == 200, "ready again")
        assert agent.metrics().sum("sidecar_backup_rpo_target_seconds") == 1200
        assert agent.json("/api/v1/status")["rpo"]["age_seconds"] is not None, "it goes on where it was"


def test_points_that_others_make_or_forget_are_known_from_the_next_run_on(estate: Estate, tmp_path: Path):
    first = estate.backup()
    away = tmp_path / "catalog-of-this-machine"
    (tmp_path / "state" / "catalog.db").rename(away)
    second = estate.backup()  # by a machine that has a catalog of its own
    for path in (tmp_path / "state").glob("catalog.db*"):
        path.unlink()
    away.rename(tmp_path / "state" / "catalog.db")
    assert [one["id"] for one in estate.json("backup", "list")] == [first]
    with Agent(estate) as agent:
        assert agent.command("/api/v1/backups/run") == 200
        agent.wait_log('"backup_finished"')
        assert {first, second} < {one["id"] for one in agent.json("/api/v1/backups")}


def test_two_agents_at_once_take_turns_and_see_each_others_points(estate: Estate, tmp_path: Path):
    estate.write(rpo="9s")
    other = copy.copy(estate)
    other.port, other.socket, other.file = free_port(), str(tmp_path / "other.sock"), tmp_path / "other.yaml"
    other.write(rpo="9s", state_dir=str(tmp_path / "other-state"))
    finished = '"backup_finished", "point": "([^"]+)".*"verified": true'
    with Agent(estate) as one, Agent(other) as two:
        for agent in (one, two):
            agent.wait_log(finished, count=2)
        points = {found[1] for agent in (one, two) for found in re.finditer(finished, agent.log)}
        for agent in (one, two):
            agent.wait_until(
                lambda agent=agent: points <= {p["id"] for p in agent.json("/api/v1/backups")}, "all of it"
            )
            assert "no backup has been verified" not in agent.log
        assert "another sidecar answers" in estate.run("agent", "run", code=78).stderr, "the same file, by mistake"
    made = sorted((one["consistent_at"], one["finished_at"]) for one in other.json("backup", "list"))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(made)), "never two at the same time"
