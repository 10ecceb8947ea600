"""A changed file is taken up by whoever tells it, under load and without a lost request; a bad one changes nothing."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask, run_cli
from tests.real.load import Load


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return document([listener("in", [route("all", "app")])], [upstream("app", server.address)])


def towards(config: dict[str, Any], server: ScriptedUpstream, **root: Any) -> dict[str, Any]:
    """The same file with another upstream."""
    return {**config, "upstreams": [upstream("app", server.address)], **root}


def serves(proxy: Sidecar, server: ScriptedUpstream) -> bool:
    return bool(proxy.get("in", "/who").json()["port"] == server.port)


WAYS: dict[str, Callable[[Sidecar], object]] = {
    "SIGHUP": lambda proxy: proxy.signal(signal.SIGHUP),
    "admin": lambda proxy: proxy.admin("/reload", "POST", unix=True),
    "command": lambda proxy: proxy.command("reload"),
    "by itself": lambda proxy: None,
}


@pytest.fixture(scope="module")
def proxy(config: dict[str, Any]) -> Iterator[Sidecar]:
    with Sidecar(config) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
def test_no_request_is_lost_over_a_reload(
    proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream, other: ScriptedUpstream, way: str
) -> None:
    with Load(proxy.port("in")) as load:
        load.go_on_for(100)
        for target in (other, server):
            proxy.write(towards(config, target))
            WAYS[way](proxy)
            proxy.wait_until(lambda target=target: serves(proxy, target), "the other upstream")  # type: ignore[misc]
            load.go_on_for(100)
    assert load.failures == []
    assert load.closed == 0, "a reload is no reason to close a client's connection"


def test_what_was_undone_between_two_looks_is_seen(
    proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    """Another content than the one read last counts, not another than at the watch's own last look."""
    proxy.write(towards(config, other))
    proxy.wait_until(lambda: serves(proxy, other), "the other upstream")  # a look, just now
    proxy.write(towards(config, server))
    proxy.admin("/reload", "POST", unix=True)
    proxy.write(towards(config, other))
    proxy.wait_until(lambda: serves(proxy, other), "the other upstream again")
    proxy.write(towards(config, server))
    proxy.admin("/reload", "POST", unix=True)


def test_many_reloads_under_load(
    proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    with Load(proxy.port("in")) as load:
        for turn in range(20):
            proxy.write(towards(config, other if turn % 2 == 0 else server))
            assert proxy.admin("/reload", "POST", unix=True).status == 200
            load.go_on_for(20)
    assert load.failures == []
    assert proxy.metrics().sum("sidecar_config_last_reload_successful") == 1


def test_a_config_map_is_swapped(server: ScriptedUpstream, other: ScriptedUpstream, config: dict[str, Any]) -> None:
    """Kubernetes points `..data` at another directory; nobody touches the file's own path."""
    tree = {**config, "listeners": [listener("in", [route("all", "app")])]}
    with Sidecar(tree, configmap=True) as proxy, Load(proxy.port("in"), 4) as load:
        assert os.readlink(proxy.file) == "..data/sidecar.yaml"
        for target in (other, server):
            proxy.write(towards(tree, target))
            proxy.wait_until(lambda target=target: serves(proxy, target), "the other upstream")  # type: ignore[misc]
        load.go_on_for(50)
        load.stop()
        assert load.failures == []


def test_a_running_request_keeps_what_it_began_with(
    proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    """Its upstream is gone from the file; its answer still comes, whole and in pieces."""
    go = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        peer.send_chunk(b"before ")
        assert go.wait(PATIENCE)
        peer.send_chunk(b"after")
        peer.send(b"0\r\n\r\n")

    def late(peer: Wire, request: Message) -> None:
        assert go.wait(PATIENCE)
        peer.send(answer(b"late"))

    server.on("/streams", script).on("/late", late)
    proxy.write(towards(config, server))
    assert proxy.admin("/reload", "POST", unix=True).status == 200
    with proxy.client("in") as streaming, proxy.client("in") as waiting:
        got = streaming.send(ask("/streams")).read_status()
        waiting.send(ask("/late"))
        server.wait_until(lambda: server.requests("/late"), "the request")
        proxy.write(towards(config, other))
        assert proxy.admin("/reload", "POST", unix=True).status == 200
        assert serves(proxy, other)
        go.set()
        assert streaming.read_body(got).body == b"before after"
        assert waiting.read_answer().body == b"late"
        assert streaming.send(ask("/next")).read_answer().json()["port"] == other.port
    server.wait_until(lambda: server.open_now == 0, "the end of the connections to the old upstream")


BAD_FILES = {
    "no yaml": "listeners: [",
    "empty": "",
    "unknown key": "version: 1\nlistenerz: []\n",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_changes_nothing(
    proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream, text: str
) -> None:
    proxy.write(towards(config, server))
    assert proxy.admin("/reload", "POST", unix=True).status == 200
    good = proxy.metrics().sum("sidecar_config_hash")
    with Load(proxy.port("in"), 2) as load:
        proxy.write_text(text)
        refused = proxy.admin("/reload", "POST", unix=True)
        assert 400 <= refused.status < 600
        load.go_on_for(50)
        assert proxy.probe("/readyz") == 200
        metrics = proxy.metrics()
        assert metrics.sum("sidecar_config_last_reload_successful") == 0
        assert metrics.sum("sidecar_config_hash") == good
        told = proxy.status()["config"]
        assert told["last_reload_ok"] is False
        assert told["last_reload_error"]
        assert run_cli("reload", "--socket", proxy.socket_path).returncode == 78
        assert serves(proxy, server)
        proxy.write(towards(config, server))
        assert proxy.admin("/reload", "POST", unix=True).status == 200
    assert load.failures == []
    assert proxy.metrics().sum("sidecar_config_last_reload_successful") == 1
    assert proxy.status()["config"]["last_reload_error"] is None


def test_a_bad_file_that_is_noticed_by_itself(proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream) -> None:
    proxy.write_text("nonsense: [")
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_config_last_reload_successful") == 0, "the refusal")
    assert serves(proxy, server)
    proxy.write(towards(config, server))
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_config_last_reload_successful") == 1, "the good file")


def test_control_verbs_work_beside_a_bad_file(server: ScriptedUpstream, config: dict[str, Any]) -> None:
    tree = {**config, "listeners": [listener("in", [route("all", "app")])]}
    with Sidecar(tree) as proxy:
        text = proxy.file.read_text()
        proxy.write_text(text + "\nnonsense: true\n")
        assert proxy.command("status").returncode == 0
        proxy.write_text("")  # names no socket any more
        assert proxy.command("status").returncode == 0
        proxy.file.unlink()
        assert proxy.command("reload", check=False).returncode == 78
        proxy.command("drain")
        assert proxy.probe("/readyz") == 503


def test_what_needs_a_restart_is_told(proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream) -> None:
    proxy.write(towards(config, server, workers=2))
    assert proxy.admin("/reload", "POST", unix=True).status == 200
    assert any("workers" in one for one in proxy.status()["config"]["restart_needed"])
    assert proxy.status()["workers"] == len(proxy.status()["worker_pids"] or [proxy.pid])


def test_a_needed_restart_is_told_until_it_is_done_or_undone(
    proxy: Sidecar,
    config: dict[str, Any],
    server: ScriptedUpstream,
) -> None:
    """What runs is what the program was started with: that is what a new file is compared to."""

    def needed() -> list[str]:
        assert proxy.admin("/reload", "POST", unix=True).status == 200
        return [one for one in proxy.status()["config"]["restart_needed"] if "workers" in one]

    proxy.write(towards(config, server, workers=2))
    assert len(needed()) == 1
    proxy.write(towards(config, server, workers=2, shutdown={"drain_timeout": "9s"}))
    assert len(needed()) == 1
    proxy.write(towards(config, server))
    assert needed() == []


def test_routes_and_times_are_live(proxy: Sidecar, config: dict[str, Any], server: ScriptedUpstream) -> None:
    """On a connection that stands: its next request sees the new routes."""
    with proxy.client("in") as client:
        assert client.send(ask("/a")).read_answer().status == 200
        changed = towards(config, server)
        changed["listeners"] = [{**config["listeners"][0], "routes": [route("only", "app", "/only")]}]
        proxy.write(changed)
        assert proxy.admin("/reload", "POST", unix=True).status == 200
        assert client.send(ask("/a")).read_answer().decision == "no_route"
        assert client.send(ask("/only")).read_answer().status == 200
    proxy.write(towards(config, server))
    assert proxy.admin("/reload", "POST", unix=True).status == 200


@pytest.mark.parametrize("verb", ["reload", "drain", "stop"])
def test_changes_are_not_for_everybody(proxy: Sidecar, verb: str) -> None:
    """Not by GET, and over TCP not without a token."""
    assert proxy.admin(f"/{verb}").status == 405
    assert proxy.admin(f"/{verb}", unix=True).status == 405
    assert proxy.admin(f"/{verb}", "POST").status in {401, 403}
    assert proxy.probe("/readyz") == 200


def test_the_log_s_level_changes_live(server: ScriptedUpstream) -> None:
    """Louder while somebody looks for something, quieter again afterwards; nothing restarts."""
    check = {"tcp": {}, "interval": "50ms", "timeout": "50ms"}
    one = document([listener("in", [route("all", "app")])], [upstream("app", server.address, health_check=check)])
    with Sidecar(one) as proxy:
        assert "health_checked" not in proxy.log
        proxy.write({**one, "log": {"level": "debug"}})
        assert "restart" not in proxy.command("reload").stdout
        proxy.wait_log(r'"level": "debug", "event": "health_checked", "endpoint": "app"')
        proxy.write({**one, "log": {"level": "error"}})
        proxy.command("reload")
        before = len(proxy.log)
        proxy.command("drain")  # an info, otherwise
        assert "phase_changed" not in proxy.log[before:]
