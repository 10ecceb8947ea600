"""`workers: 2`: one parent, two processes that serve; one of them dies and nobody notices but who was with it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Wire
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask, dial
from tests.real.load import Load
from tests.real.procfs import session_members


def tree(server: ScriptedUpstream) -> dict[str, Any]:
    return document([listener("in", [route("all", "app")])], [upstream("app", server.address)], workers=2)


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return tree(server)


@pytest.fixture
def own(server: ScriptedUpstream) -> Iterator[Sidecar]:
    """A proxy of the test's own, to be stopped or maimed."""
    with Sidecar(tree(server)) as running:
        yield running


def requests(proxy: Sidecar) -> float:
    return proxy.metrics().sum("sidecar_requests_total", listener="in", code="200")


def test_both_serve_and_are_counted_together(proxy: Sidecar) -> None:
    """Many clients at once: each worker has some, and the sum is right."""
    workers = proxy.status()["worker_pids"]
    assert len(workers) == 2
    assert set(workers) <= set(proxy.children())
    before = requests(proxy)
    clients = [proxy.client("in") for _ in range(60)]
    for client in clients:
        client.send(ask("/"))
    assert all(client.read_answer().status == 200 for client in clients)
    assert requests(proxy) == before + 60
    assert proxy.metrics().sum("sidecar_connections", listener="in") == 60
    for client in clients:
        client.close()
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_connections", listener="in") == 0, "they have left")


def test_load(proxy: Sidecar) -> None:
    before = requests(proxy)
    with Load(proxy.port("in")) as load:
        load.go_on_for(500)
    assert load.failures == []
    proxy.wait_until(lambda: requests(proxy) == before + load.answered, "the right sum")


def test_a_killed_worker_is_replaced(own: Sidecar) -> None:
    """Clients that come in that moment wait in the queue of a socket that the parent owns."""
    for _ in range(2):
        before = own.status()["worker_pids"]
        os.kill(before[0], signal.SIGKILL)
        for _ in range(30):
            assert own.get("in", "/").status == 200
        own.wait_until(lambda before=before: _replaced(own, before), "a new worker")  # type: ignore[misc]
    assert own.probe("/readyz") == 200


def _replaced(proxy: Sidecar, before: list[int]) -> bool:
    now = proxy.status()["worker_pids"]
    return len(now) == 2 and before[0] not in now and before[1] in now


def test_the_other_workers_connections_go_on(own: Sidecar) -> None:
    """Which worker takes a client is the kernel's choice, and one may have taken all: then once more."""
    for _ in range(8):
        clients = [own.client("in") for _ in range(30)]
        for client in clients:
            assert client.send(ask("/")).read_answer().status == 200
        os.kill(own.status()["worker_pids"][0], signal.SIGKILL)
        survived = _still_served(clients)
        for client in survived:
            client.close()
        own.wait_until(lambda: len(own.status()["worker_pids"]) == 2, "both workers again")
        if survived:
            return
    raise AssertionError("whoever is killed, nobody's connection goes on")


def _still_served(clients: list[Wire]) -> list[Wire]:
    """Those whose connection still answers; the others are closed."""
    alive = []
    for client in clients:
        try:
            assert client.send(ask("/")).read_answer().status == 200
            alive.append(client)
        except (OSError, EOFError):
            client.close()
    return alive


def test_all_workers_killed_at_once(own: Sidecar) -> None:
    for pid in own.status()["worker_pids"]:
        os.kill(pid, signal.SIGKILL)
    assert own.get("in", "/").status == 200  # it waits in the kernel until somebody accepts
    own.wait_until(lambda: len(own.status()["worker_pids"]) == 2, "both workers again")


def test_counters_never_go_back(own: Sidecar) -> None:
    for _ in range(40):
        assert own.get("in", "/").status == 200
    own.wait_until(lambda: requests(own) == 40, "all counted")
    time.sleep(1.2)  # the parent keeps what it fetched last, once a second
    for pid in own.status()["worker_pids"]:
        os.kill(pid, signal.SIGKILL)
    assert own.get("in", "/").status == 200
    assert requests(own) >= 40
    own.wait_until(lambda: len(own.status()["worker_pids"]) == 2, "both workers again")


def test_drain_reaches_all(own: Sidecar) -> None:
    kept = [own.client("in") for _ in range(20)]
    for client in kept:
        assert client.send(ask("/")).read_answer().keeps
    own.command("drain")
    assert own.probe("/readyz") == 503
    for client in kept:
        got = client.send(ask("/")).read_answer()
        assert (got.status, got.keeps) == (200, False)
        client.close()
    assert all(not own.get("in", "/").keeps for _ in range(20))


def test_reload_reaches_all(server: ScriptedUpstream, own: Sidecar) -> None:
    with ScriptedUpstream() as other, Load(own.port("in"), 4) as load:
        own.write({**own.config, "upstreams": [upstream("app", other.address)]})
        assert own.admin("/reload", "POST", unix=True).status == 200
        clients = [own.client("in") for _ in range(30)]
        for client in clients:
            assert client.send(ask("/")).read_answer().json()["port"] == other.port
            client.close()
        own.write_text("nonsense: [")
        assert own.admin("/reload", "POST", unix=True).status >= 400
        load.go_on_for(50)
        load.stop()
        assert load.failures == []
        assert own.get("in", "/").json()["port"] == other.port


def test_a_worker_that_is_born_after_a_reload_knows_the_new_file(server: ScriptedUpstream, own: Sidecar) -> None:
    with ScriptedUpstream() as other:
        own.write({**own.config, "upstreams": [upstream("app", other.address)]})
        assert own.admin("/reload", "POST", unix=True).status == 200
        for pid in own.status()["worker_pids"]:
            os.kill(pid, signal.SIGKILL)
        assert {own.get("in", "/").json()["port"] for _ in range(20)} == {other.port}
        own.wait_until(lambda: len(own.status()["worker_pids"]) == 2, "both workers again")


def test_nothing_is_cut_by_a_stop_under_load(own: Sidecar) -> None:
    with Load(own.port("in")) as load:
        load.go_on_for(200)
        load.may_leave = True
        own.signal(signal.SIGTERM)
        assert own.wait_exit() == 0
    assert load.failures == []


def test_a_taken_port_is_an_error_here_too(server: ScriptedUpstream, proxy: Sidecar) -> None:
    """Two programs on one port would each get half of the clients."""
    second = tree(server)
    second["listeners"][0]["bind"] = f"127.0.0.1:{proxy.port('in')}"
    running = Sidecar(second, ready=False)
    running.exit_code = running.wait_exit()
    log = running.log
    running.stop()
    assert running.exit_code in {1, 78}
    assert str(proxy.port("in")) in log
    assert proxy.get("in", "/").status == 200


def test_workers_do_not_outlive_their_parent(server: ScriptedUpstream) -> None:
    """A parent that is killed cannot tell them; nobody may go on accepting behind its back."""
    proxy = Sidecar(tree(server), exit_code=-signal.SIGKILL)
    proxy.signal(signal.SIGKILL)
    proxy.process.wait(10)
    deadline = time.monotonic() + 10
    while session_members(proxy.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    proxy.stop()
    with pytest.raises(ConnectionRefusedError):
        dial(proxy.port("in"))


def test_breakers_are_shown_as_one(server: ScriptedUpstream) -> None:
    """Each worker counts its own; who looks sees the strictest state and what all of them counted."""
    config = tree(server)
    config["upstreams"] = [upstream("app", server.address, breaker={"consecutive_failures": 0, "failure_rate": 0})]
    with Sidecar(config) as proxy:
        for _ in range(40):
            assert proxy.get("in", "/").status == 200
        (shown,) = json.loads(proxy.command("breaker", "list", "--json").stdout)
        assert shown["window"]["total"] == 40
        proxy.command("breaker", "open", "app")
        assert {proxy.get("in", "/").decision for _ in range(20)} == {"manual_open"}
        (shown,) = json.loads(proxy.command("breaker", "list", "--json").stdout)
        assert (shown["state"], shown["refused"]) == ("open", 20)
