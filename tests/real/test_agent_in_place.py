"""A restore in place of a service in use: the proxy fences it off, stops it, and lets callers back when it is well."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.real.agent import Agent, Estate
from tests.real.documents import free_port
from tests.real.harness import Sidecar

HAPPENED = "sidecar_happenings_total"


def listens(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def orders(proxy: Sidecar) -> set[str]:
    return {one["item"] for one in json.loads(proxy.get("in", "/orders").body)}


def place(proxy: Sidecar, item: str) -> int:
    body = json.dumps({"item": item, "quantity": 1}).encode()
    return proxy.get("in", "/orders", "Content-Type: application/json\r\n", "POST", body).status


def test_callers_are_fenced_off_and_the_service_comes_back_with_the_old_state(tmp_path: Path):
    estate = Estate(tmp_path)
    estate.database.unlink()  # the service makes its own
    port = free_port()
    routes = [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "app"}]
    health = {"url": f"http://127.0.0.1:{port}/healthz", "within": "20s"}
    config = {
        "version": 1,
        "service": {"name": "orders"},
        "listeners": [{"name": "in", "bind": f"127.0.0.1:{free_port()}", "routes": routes}],
        "upstreams": [{"name": "app", "endpoints": [{"address": f"127.0.0.1:{port}"}]}],
        "backup": estate.section(restore={"fence": ["app"], "health": health}),
    }
    service = [sys.executable, "-m", "sidecar.demo.service", "--port", str(port), "--database", str(estate.database)]
    with Sidecar(config, directory=tmp_path, command=service) as proxy:
        proxy.wait_until(lambda: listens(port), "the service")
        assert place(proxy, "tea") == 201
        estate.run("backup", "run")
        assert place(proxy, "cake") == 201
        before = json.loads(proxy.admin("/api/v1/status").body)["child"]["pid"]

        stop, answers = threading.Event(), set()

        def customer() -> None:
            while not stop.is_set():
                answers.add(proxy.get("in", "/orders").status)

        thread = threading.Thread(target=customer)
        thread.start()
        try:
            plan = estate.json("restore", "plan")
            assert plan["steps"][2:4] == ["fence", "stop"]
            assert estate.json("restore", "apply", plan["hash"])["ok"]
        finally:
            stop.set()
            thread.join()
        heard = [value for labels, value in proxy.metrics().named(HAPPENED) if "agent_event" in labels.values()]
        assert heard == [2.0], "its begin and its end, for the incidents' timelines"
        assert orders(proxy) == {"tea"}
        assert answers == {200, 503}, "never a refused connection: the fence closes before the service stops"
        assert proxy.metrics().sum("sidecar_requests_total", outcome="manual_open") > 0
        after = json.loads(proxy.admin("/api/v1/status").body)["child"]
        assert after["state"] == "running"
        assert after["pid"] != before
        assert place(proxy, "soap") == 201
        assert orders(proxy) == {"tea", "soap"}
        listed = estate.json("backup", "list")
        safety = next(one for one in listed if len(listed) == 2 and one["id"] != plan["backup"])
        with closing(sqlite3.connect(estate.database)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        estate.run("backup", "verify", safety["id"])
        target = tmp_path / "before"
        again = estate.json("restore", "plan", "--backup", safety["id"], "--target", str(target))
        estate.run("restore", "apply", again["hash"])
        with closing(sqlite3.connect(target / "db" / "orders.db")) as db:
            assert {item for (item,) in db.execute("SELECT item FROM orders")} == {"tea", "cake"}


def test_half_way_through_nobody_gets_at_the_data_whoever_is_started_anew(tmp_path: Path):
    estate = Estate(tmp_path)
    estate.database.unlink()
    port = free_port()
    health = {"url": f"http://127.0.0.1:{port}/healthz", "within": "20s"}
    routes = [
        {"name": "own", "match": {"path_prefix": "/orders"}, "upstream": "app", "breaker": "own"},
        {"name": "all", "match": {"path_prefix": "/"}, "upstream": "app"},
    ]
    config = {
        "version": 1,
        "service": {"name": "orders"},
        "listeners": [{"name": "in", "bind": f"127.0.0.1:{free_port()}", "routes": routes}],
        "upstreams": [{"name": "app", "endpoints": [{"address": f"127.0.0.1:{port}"}]}],
        "backup": estate.section(rpo="10m", restore={"fence": ["app"], "health": health}),
    }
    service = [sys.executable, "-m", "sidecar.demo.service", "--port", str(port), "--database", str(estate.database)]

    def fenced(proxy: Sidecar) -> bool:
        answers = [proxy.get("in", target) for target in ("/orders", "/healthz")]
        child = json.loads(proxy.admin("/api/v1/status").body)["child"]
        return all("manual_open" in str(one) for one in answers) and (child["state"], child["pid"]) == ("held", None)

    killed = -signal.SIGKILL
    with Sidecar(config, directory=tmp_path, command=service, exit_code=killed) as proxy:
        proxy.wait_until(lambda: listens(port), "the service")
        assert place(proxy, "tea") == 201
        estate.run("backup", "run")
        assert place(proxy, "cake") == 201
        plan = estate.json("restore", "plan")
        half = [*plan["steps"][: plan["steps"].index("fetch db")], "swap db"]
        journal = tmp_path / "state" / "restores" / f"{plan['hash']}.journal"
        with journal.open("w") as file:  # as a crash leaves it; with the machine the proxy's memory went, too
            for step in half:
                act, _, source = step.partition(" ")
                for mark in ("begun", "done")[: 1 if act == "swap" else 2]:
                    file.write(json.dumps({"step": {"act": act, "source": source}, "mark": mark, "detail": ""}) + "\n")
        with Agent(estate) as agent:
            proxy.wait_until(lambda: fenced(proxy), "the agent's word")
            assert agent.conditions() == ["restore_unfinished"]
            proxy.signal(signal.SIGKILL)
            proxy.wait_exit()
            with Sidecar(config, directory=tmp_path, command=service) as another:
                assert fenced(another), "from its first moment"
                assert not listens(port)
                estate.run("restore", "resume")
                assert orders(another) == {"tea"}
                agent.wait_until(lambda: agent.conditions() == [], "all well")
    with Sidecar(config, directory=tmp_path, command=service) as later:
        later.wait_until(lambda: listens(port), "the service")
        assert orders(later) == {"tea"}, "nothing is fenced any more"


def empty(estate: Estate) -> None:
    """Volumes that are new."""
    for path in estate.database.parent.glob("orders.db*"):
        path.unlink()
    shutil.rmtree(estate.uploads)
    estate.uploads.mkdir()


@pytest.mark.parametrize("engine", ["sealed", "restic"])
def test_a_fresh_volume_is_filled_and_a_used_one_left_alone(tmp_path: Path, engine: str):
    """What an init container does."""
    estate = Estate(tmp_path, engine)
    assert estate.json("restore", "apply", "--if-empty")["hash"] is None, "the very first start: no backup yet"
    estate.order("tea")
    estate.run("backup", "run")
    assert estate.json("restore", "plan", "--if-empty")["hash"] is None
    estate.order("cake")
    estate.run("restore", "apply", "--if-empty")
    empty(estate)
    assert estate.json("restore", "apply", "--if-empty")["ok"]
    with closing(sqlite3.connect(estate.database)) as db:
        assert db.execute("SELECT item FROM orders").fetchall() == [("tea",)]
    assert (estate.uploads / "a.txt").read_text() == "first"
    assert os.readlink(estate.uploads / "link") == "a.txt"
    assert "no unfinished restore" in estate.run("restore", "resume").stdout
    shutil.rmtree(estate.uploads)
    plan = estate.json("restore", "plan", "--if-empty")
    assert plan["places"] == [str(estate.uploads)]
    assert list(plan["skipped"]) == ["db"]
    estate.run("restore", "apply", code=2)


def test_a_file_that_names_what_is_not_there_is_refused_by_check(tmp_path: Path):
    estate = Estate(tmp_path)
    assert "a restore in place of db, uploads would keep nobody away" in estate.run("check").stdout
    estate.write(restore={"fence": ["nobody"], "stop": ["x"]})
    said = estate.run("check", code=78)
    assert "there is no upstream" in said.stdout + said.stderr
    assert "stop and start go together" in said.stdout + said.stderr
