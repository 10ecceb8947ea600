"""Incidents in the running program: they open from what happens, outlive a kill, and hear what people say of them."""

import json
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import ROOT, Sidecar, ask, run_cli

OUT = says(b"out", "503 Service Unavailable")
QUICK = {"consecutive_failures": 2, "open_for": "100ms", "half_open_successes": 1}


@pytest.fixture
def config(server: ScriptedUpstream, tmp_path: Path) -> dict[str, Any]:
    server.on("/", says(b"fine"))
    return document(
        [listener("in", [route("all", "app")])],
        [upstream("app", server.address, breaker=QUICK)],
        incidents={"store": str(tmp_path / "store" / "incidents.db"), "resolve_after": "200ms"},
    )


@pytest.fixture
def proxy(config: dict[str, Any]) -> Iterator[Sidecar]:
    with Sidecar(config) as running:
        yield running


def incidents(proxy: Sidecar) -> list[dict[str, Any]]:
    found = proxy.admin("/api/v1/incidents").json()
    assert isinstance(found, list)
    return found


def whole(proxy: Sidecar, one: str) -> dict[str, Any]:
    found = proxy.admin(f"/api/v1/incidents/{one}").json()
    assert isinstance(found, dict)
    return found


def kinds(incident: dict[str, Any]) -> list[str]:
    return [line["kind"] for line in incident["timeline"]]


def fail(proxy: Sidecar, server: ScriptedUpstream) -> dict[str, Any]:
    """Let the upstream fail until its breaker opens; the incident."""
    server.on("/", OUT)
    while proxy.get("in").decision != "breaker_open":
        pass
    wait_for(proxy, "an open incident", lambda found: any(one["open"] for one in found if one["subject"] == "app"))
    return next(one for one in incidents(proxy) if one["subject"] == "app")


def wait_for(proxy: Sidecar, what: str, true: Any) -> dict[str, Any]:
    """The first of the incidents, once `true` of all."""
    proxy.wait_until(lambda: true(incidents(proxy)), what)
    return incidents(proxy)[0]


def mend(proxy: Sidecar, server: ScriptedUpstream) -> None:
    server.on("/", says(b"fine"))
    proxy.wait_until(lambda: proxy.get("in").status == 200, "a trial call succeeds")


def report(proxy: Sidecar, body: Any) -> Any:
    """POST /api/v1/happenings over the Unix socket, as the agent does."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(proxy.socket_path)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with Wire(sock) as wire:
        return wire.send(ask("/api/v1/happenings", "connection: close\r\n", "POST", text)).read_answer("POST")


def test_an_outage_is_an_incident_from_its_first_sign_to_its_resolution(
    proxy: Sidecar, server: ScriptedUpstream
) -> None:
    assert incidents(proxy) == []
    opened = fail(proxy, server)
    assert opened["fingerprint"] == "tested/upstream_failing/app"
    assert (opened["severity"], opened["status"]) == ("critical", "detected")
    assert "breaker of app is open" in opened["title"]
    listed = proxy.command("incidents", "list", "--open").stdout
    assert opened["id"] in listed and "detected" in listed
    assert opened["id"] in proxy.admin("/").body.decode(), "the page tells of it"

    proxy.command("incidents", "ack", opened["id"], "--why", "looking at the logs")
    assert incidents(proxy)[0]["status"] == "acknowledged"
    assert proxy.command("incidents", "show", opened["id"], check=False).returncode == 3

    mend(proxy, server)
    done = wait_for(proxy, "a resolution", lambda found: found[0]["status"] == "resolved")
    assert done["down_seconds"] > 0
    told = kinds(whole(proxy, done["id"]))
    expected = [
        "breaker_changed",
        "incident_opened",
        "incident_acknowledged",
        "incident_mitigated",
        "incident_resolved",
    ]
    assert [kind for kind in told if kind in expected][:1] == ["breaker_changed"]
    assert [kind for kind in told if kind.startswith("incident_")] == expected[1:]
    metrics = proxy.metrics()
    assert metrics.sum("sidecar_incidents_open") == 0
    for figure in ("detect", "ack", "resolve"):
        assert metrics.sum(f"sidecar_incident_{figure}_seconds_count") == 1, figure
    assert 0 < metrics.sum("sidecar_availability_ratio") < 1

    text = proxy.command("incidents", "export", done["id"]).stdout
    assert text.startswith("# Post-mortem: ") and "looking at the logs" in text and "## Timeline" in text
    exported = json.loads(proxy.command("incidents", "export", done["id"], "--format", "json").stdout)
    assert exported["seconds"]["to_acknowledge"] > 0 and exported["timeline"]


def test_what_comes_back_soon_is_the_same_incident(proxy: Sidecar, server: ScriptedUpstream) -> None:
    first = fail(proxy, server)
    proxy.command("incidents", "resolve", first["id"], "--why", "a false alarm, I thought")
    assert incidents(proxy)[0]["resolved_by"]
    again = proxy.command("incidents", "resolve", first["id"], check=False)
    assert again.returncode == 1 and "resolved already" in again.stderr
    mend(proxy, server)
    proxy.wait_until(
        lambda: "not any more" in str(whole(proxy, first["id"])) or not incidents(proxy)[0]["holds"], "gone"
    )
    back = fail(proxy, server)
    assert (back["id"], back["reopened"], len(incidents(proxy))) == (first["id"], 1, 1)


def test_a_killed_sidecar_forgets_nothing_that_it_said(config: dict[str, Any], server: ScriptedUpstream) -> None:
    with Sidecar(config, exit_code=-signal.SIGKILL) as proxy:
        before = fail(proxy, server)
        proxy.command("incidents", "ack", before["id"])
        store = ("--store", config["incidents"]["store"])
        assert "ask it" in run_cli("incidents", "list", *store).stderr, "the file is the proxy's"
        proxy.signal(signal.SIGKILL)
        proxy.process.wait()
    assert before["id"] in run_cli("incidents", "list", *store).stdout, "read without the proxy"
    assert "incident acknowledged" in run_cli("incidents", "export", before["id"], *store).stdout
    with Sidecar(config) as proxy:
        after = incidents(proxy)[0]
        assert (after["id"], after["status"], after["started"]) == (before["id"], "acknowledged", before["started"])
        assert kinds(whole(proxy, after["id"]))[-1] == "incident_acknowledged"
        assert len(incidents(proxy)) == 1


def test_a_damaged_file_is_set_aside_and_told(config: dict[str, Any], server: ScriptedUpstream) -> None:
    store = Path(config["incidents"]["store"])
    store.parent.mkdir()
    store.write_bytes(b"this was a database once" * 500)
    with Sidecar(config) as proxy:
        proxy.wait_log("incident_store_set_aside")
        found = wait_for(proxy, "an incident about it", lambda found: found)
        assert found["failure"] == "incident_store" and "damaged" in found["title"]
        assert [one.read_bytes()[:8] for one in store.parent.glob("incidents.db.corrupt-*")] == [b"this was"]
        fail(proxy, server)
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM incidents").fetchone() == (2,)


def test_a_full_disk_is_told_and_everything_goes_on(
    config: dict[str, Any], server: ScriptedUpstream, tmp_path: Path
) -> None:
    service = [sys.executable, str(ROOT / "tests/fakes/service.py"), str(free_port()), str(tmp_path)]
    with Sidecar(config, command=service) as proxy:
        _, hard = resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (4096, hard))
        opened = fail(proxy, server)
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_incident_store_ok") == 0, "the loss is told")
        proxy.command("incidents", "ack", opened["id"])
        failing = wait_for(proxy, "an incident about it", lambda all_: len(all_) == 2)
        assert {one["failure"] for one in incidents(proxy)} == {"incident_store", "upstream_failing"}, failing
        assert proxy.get("in").status == 503, "requests go on as ever"
        os.kill(proxy.status()["child"]["pid"], signal.SIGKILL)
        proxy.wait_until(lambda: proxy.status()["child"]["restarts"] == 1, "and so does recovery")
        assert "process_died" in {one["failure"] for one in incidents(proxy)}
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (hard, hard))
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_incident_store_ok") == 1, "it is written after all")
        proxy.signal(signal.SIGKILL)
        proxy.process.wait()
        proxy.exit_code = -signal.SIGKILL
    with Sidecar(config) as proxy:
        assert {one["id"]: one["status"] for one in incidents(proxy)}[opened["id"]] == "acknowledged"


def test_without_a_section_incidents_are_in_memory_and_a_dead_service_is_one(tmp_path: Path) -> None:
    gone = upstream(
        "app",
        f"127.0.0.1:{free_port()}",
        health_check={"tcp": {}, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1},
    )
    config = document([listener("in", [route("all", "app")])], [gone])
    with Sidecar(config) as proxy:
        found = wait_for(proxy, "checks find out", lambda found: found)
        assert found["failure"] == "upstream_failing" and "No endpoint of app passes its checks" in found["title"]
        assert proxy.metrics().named("sidecar_incident_store_ok") == []
        proxy.config["upstreams"][0]["name"] = "other"
        proxy.config["listeners"][0]["routes"][0]["upstream"] = "other"
        proxy.write(proxy.config)
        proxy.command("reload")
        was = found["id"]
        proxy.wait_until(lambda: not whole(proxy, was)["holds"], "nothing holds of what is not there any more")


def test_the_agent_s_reports_open_and_clear(proxy: Sidecar) -> None:
    condition = {"kind": "agent_condition", "subject": "db", "level": "error", "reason": "rpo_missed",
                 "detail": "newest verified point is 22 min old; target 15m"}  # fmt: skip
    event = {"kind": "agent_event", "subject": "db", "reason": "backup_finished", "detail": "full, 12 MiB in 3.1 s"}
    assert report(proxy, [event, condition]).json() == {"ok": True, "accepted": 2}
    found = wait_for(proxy, "an incident", lambda found: found)
    assert found["fingerprint"] == "tested/rpo_missed/db" and found["severity"] == "error"
    assert kinds(whole(proxy, found["id"])) == ["agent_event", "agent_condition", "incident_opened"]
    assert report(proxy, condition).status == 200
    assert report(proxy, {**condition, "fields": {"holds": False}}).status == 200
    wait_for(proxy, "a resolution", lambda found: found[0]["status"] == "resolved")
    assert len(incidents(proxy)) == 1
    assert report(proxy, {**condition, "reason": "drill_failed", "fields": {"expires_seconds": 0.2}}).status == 200
    wait_for(proxy, "another", lambda found: len(found) == 2)
    wait_for(proxy, "it expires", lambda found: all(one["status"] == "resolved" for one in found))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not a report"),
        ({"kind": "breaker_changed", "subject": "app"}, "agent_condition or agent_event"),
        ({"kind": "agent_condition", "subject": "db"}, "needs its word"),
        ({"kind": "agent_condition", "subject": "db", "reason": "x", "fields": {"expires_seconds": -1}}, "expires_sec"),
        ({"kind": "agent_event", "subject": "db", "fields": {"a": {"b": 1}}}, "fields"),
        ([{"kind": "agent_event", "subject": "db"}] * 101, "too many"),
        (b'{"kind": "agent_event", "subject": "db", "fields": {"a": ' + b"[" * 20_000, "not a report"),
        ({"kind": "agent_condition", "subject": "db", "reason": "x", "fields": {"severity": ["a"]}}, "severity"),
        ({"kind": "agent_event", "subject": "db", "detail": "x" * 5000}, "not a report"),
    ],
)
def test_a_bad_report_is_refused_with_the_reason(proxy: Sidecar, body: Any, why: str) -> None:
    answer = report(proxy, body)
    assert answer.status == 400 and why in answer.body.decode()
    assert incidents(proxy) == []


def test_changes_are_not_made_over_tcp_nor_by_get(proxy: Sidecar, server: ScriptedUpstream) -> None:
    one = fail(proxy, server)["id"]
    assert proxy.admin(f"/api/v1/incidents/{one}/ack", "POST").status == 403
    assert proxy.admin("/api/v1/incidents/none").status == 404
    assert proxy.admin("/api/v1/incidents/none/ack", "POST", unix=True).status == 404
    assert proxy.admin(f"/api/v1/incidents/{one}/eat", "POST", unix=True).status == 400
    assert proxy.admin(f"/api/v1/incidents/{one}/ack").status == 405
    assert proxy.admin("/api/v1/happenings", "GET", unix=True).status == 405


def test_what_a_worker_sees_is_an_incident_of_the_pod(config: dict[str, Any], server: ScriptedUpstream) -> None:
    config["upstreams"][0]["breaker"] = {**QUICK, "open_for": "60s"}
    with Sidecar({**config, "workers": 2}) as proxy:
        found = fail(proxy, server)
        assert len(incidents(proxy)) == 1 and found["severity"] == "critical"


def test_what_is_known_about_ourselves_outlives_a_kill(config: dict[str, Any], server: ScriptedUpstream) -> None:
    with Sidecar(config, exit_code=-signal.SIGKILL) as proxy:
        one = fail(proxy, server)["id"]
        proxy.command("incidents", "ack", one)
        mend(proxy, server)
        wait_for(proxy, "a resolution", lambda found: found[0]["status"] == "resolved")
        proxy.signal(signal.SIGKILL)
        proxy.process.wait()
    with Sidecar(config) as proxy:
        known = proxy.admin("/api/v1/figures").json()
        assert isinstance(known, dict)
        assert (known["incidents"], known["failures"], known["objective"]) == (1, 1, 0.999)
        for name in ("down", "unknown", "mtta", "mttr", "mtbf"):
            assert known[f"{name}_seconds"] > 0, f"{name}: {known}"
        assert 0 < known["availability"] < 1
        text = proxy.command("incidents", "figures").stdout
        assert "availability" in text and "MTBF" in text
        metrics = proxy.metrics()
        assert metrics.sum("sidecar_mttr_seconds") == pytest.approx(known["mttr_seconds"], abs=0.01)
        assert metrics.sum("sidecar_unknown_seconds") > 0


def test_failures_that_nothing_else_explains_burn_the_budget(config: dict[str, Any], server: ScriptedUpstream) -> None:
    config["upstreams"][0]["breaker"] = {"mode": "disabled"}
    with Sidecar(config) as proxy:
        server.on("/", OUT)
        with proxy.client("in") as client:
            for _ in range(20):
                client.send(ask("/")).read_answer()
        found = wait_for(proxy, "the burn", lambda found: found)
        assert found["fingerprint"] == "tested/error_budget_burn/tested" and found["severity"] == "critical"
        assert proxy.metrics().sum("sidecar_error_budget_burn_rate", window="5m") == pytest.approx(1000)


def test_what_recovery_tried_and_that_it_gave_up_is_in_the_story(server: ScriptedUpstream, tmp_path: Path) -> None:
    server.on("/help", says(b"no", "500 Internal Server Error"))
    check = {"tcp": {}, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1}
    gone = upstream("app", f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}", health_check=check)
    rule = {
        "name": "call",
        "when": {"upstream": "app", "unhealthy_for": "100ms"},
        "do": {"webhook": {"url": f"http://{server.address}/help"}},
        "attempts": 1,
    }
    dead = {**gone, "endpoints": gone["endpoints"][:1]}
    with Sidecar(document([listener("in", [route("all", "app")])], [dead], recovery=[rule])) as proxy:
        wait_for(proxy, "it gives up", lambda found: any("gave up" in text for text in found and found[0]["holds"]))
        found = whole(proxy, incidents(proxy)[0]["id"])
        assert (found["severity"], len(incidents(proxy))) == ("critical", 1)
        told = kinds(found)
        assert told.index("endpoint_health_changed") < told.index("recovery_started") < told.index("recovery_escalated")
        text = proxy.command("incidents", "export", found["id"]).stdout
        assert "recovery started" in text.partition("## What was tried")[2].partition("## Timeline")[0]
        proxy.config["upstreams"] = [{**gone, "endpoints": gone["endpoints"][1:]}]
        proxy.write(proxy.config)
        proxy.command("reload")
        wait_for(proxy, "it is over", lambda found: found[0]["status"] in {"mitigated", "resolved"})
