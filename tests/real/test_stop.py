"""How the proxy goes away: drained it is unready and serves, stopped it finishes what runs, told twice it goes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, never
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import ROOT, Sidecar, ask, run_cli
from tests.real.load import Load

Start = Callable[..., Sidecar]


@pytest.fixture
def start(server: ScriptedUpstream) -> Iterator[Start]:
    """A proxy of the test's own, with these keys of `shutdown`."""
    with contextlib.ExitStack() as stack:

        def begin(**shutdown: str) -> Sidecar:
            tree = document(
                [
                    listener(
                        "in",
                        [
                            route("spared", "app", "/spared", fallback=[{"respond": {"status": 503}}]),
                            route("all", "app", timeout="30s", upgrades=["chat"]),
                        ],
                    )
                ],
                [upstream("app", server.address)],
                shutdown={"delay": "0s", "drain_timeout": "10s", **shutdown},
            )
            return stack.enter_context(Sidecar(tree))

        yield begin


class Held:
    """A request that runs until the test lets its upstream answer."""

    def __init__(self, proxy: Sidecar, server: ScriptedUpstream, path: str = "/held") -> None:
        self._go = threading.Event()
        server.on(path, self._answer)
        before = len(server.requests(path))
        self.client = proxy.client("in").send(ask(path))
        server.wait_until(lambda: len(server.requests(path)) > before, "the request")

    def _answer(self, peer: Wire, request: Message) -> None:
        assert self._go.wait(PATIENCE)
        peer.send(answer(b"whole"))

    def let_go(self) -> None:
        self._go.set()


# -------------------------------------------------------------------------------------------------- drain
def test_drain_makes_unready_and_goes_on_serving(start: Start) -> None:
    proxy = start()
    with proxy.client("in") as kept:
        assert kept.send(ask("/")).read_answer().keeps
        proxy.command("drain")
        assert proxy.probe("/readyz") == 503
        assert proxy.probe("/healthz") == 503
        assert proxy.probe("/livez") == 200
        assert proxy.status()["state"] == "draining"
        for _ in range(3):
            got = proxy.get("in", "/")
            assert (got.status, got.keeps) == (200, False)
        last = kept.send(ask("/")).read_answer()
        assert (last.status, last.keeps) == (200, False)
        assert kept.read_rest() == (b"", "eof")
    proxy.command("drain")  # again: nothing changes
    assert proxy.get("in", "/").status == 200


def test_no_request_is_lost_over_a_drain_under_load(start: Start) -> None:
    """Clients that obey `Connection: close` notice nothing but new connections."""
    proxy = start()
    with Load(proxy.port("in")) as load:
        load.go_on_for(300)
        proxy.command("drain")
        load.go_on_for(300)
    assert load.failures == []
    assert load.closed >= 250
    proxy.stop()


# --------------------------------------------------------------------------------------------------- stop
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished(start: Start, server: ScriptedUpstream, number: int) -> None:
    proxy = start()
    held = Held(proxy, server)
    proxy.signal(number)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    assert proxy.process.poll() is None
    held.let_go()
    got = held.client.read_answer()
    assert (got.body, got.keeps) == (b"whole", False)
    assert proxy.wait_exit() == 0


def refuses(proxy: Sidecar) -> bool:
    try:
        proxy.client("in").close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_answer_on_its_way_is_finished(start: Start, server: ScriptedUpstream) -> None:
    """Its head went out before the signal: the rest follows."""
    proxy = start()
    go = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(answer(bytes(300_000))[:-300_000])
        assert go.wait(PATIENCE)
        peer.send(bytes(300_000))

    server.on("/on-its-way", script)
    with proxy.client("in") as client:
        got = client.send(ask("/on-its-way")).read_status()
        proxy.signal(signal.SIGTERM)
        proxy.wait_until(lambda: refuses(proxy), "no new connections")
        go.set()
        assert client.read_body(got).body == bytes(300_000)
    assert proxy.wait_exit() == 0


def test_an_upload_on_its_way_is_finished(start: Start, server: ScriptedUpstream) -> None:
    proxy = start()
    before = len(server.requests("/upload"))
    with proxy.client("in") as client:
        client.send(ask("/upload", "content-length: 1000\r\n", "POST"), b"x" * 500)
        server.wait_until(lambda: len(server.requests("/upload")) > before, "the request")
        proxy.signal(signal.SIGTERM)
        proxy.wait_until(lambda: refuses(proxy), "no new connections")
        assert client.send(b"x" * 500).read_answer().json()["length"] == 1000
    assert proxy.wait_exit() == 0


def test_idle_connections_do_not_hold_it_up(start: Start) -> None:
    proxy = start()
    clients = [proxy.client("in").send(ask("/")) for _ in range(20)]
    assert all(client.read_answer().keeps for client in clients)
    silent = proxy.client("in")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit(8) == 0
    for client in [*clients, silent]:
        client.close()


@pytest.mark.parametrize("path", ["/never", "/spared/never"])
def test_drain_timeout_ends_what_does_not_end(start: Start, server: ScriptedUpstream, path: str) -> None:
    """A fallback does not stand in for us, who are going."""
    server.on(path, never)
    proxy = start(drain_timeout="300ms")
    with proxy.client("in") as client:
        client.send(ask(path))
        server.wait_until(lambda: server.requests(path), "the request")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit(8) == 0
        got = client.read_answer()
        assert (got.status, got.get("x-sidecar-decision"), got.keeps) == (503, "draining", False)


def test_a_second_signal_forces(start: Start, server: ScriptedUpstream) -> None:
    proxy = start(drain_timeout="1h")
    held = Held(proxy, server)
    proxy.signal(signal.SIGTERM)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    proxy.signal(signal.SIGTERM)
    proxy.exit_code = proxy.wait_exit(8)
    assert proxy.exit_code in {0, 1}
    held.let_go()


def test_a_delay_lets_load_balancers_notice(start: Start) -> None:
    """A bare SIGTERM with a delay is as gentle as a preStop hook: unready first, refusing later."""
    proxy = start(delay="700ms")
    proxy.signal(signal.SIGTERM)
    proxy.wait_until(lambda: proxy.probe("/readyz") == 503, "unready")
    got = proxy.get("in", "/")
    assert (got.status, got.keeps) == (200, False)
    assert proxy.wait_exit() == 0


def test_a_tunnel_ends_with_the_drain(start: Start, server: ScriptedUpstream) -> None:
    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        peer.read_rest()
        peer.close()

    server.on("/tunnel", script)
    proxy = start(drain_timeout="300ms")
    with proxy.client("in") as client:
        assert client.send(ask("/tunnel", "connection: upgrade\r\nupgrade: chat\r\n")).read_answer().status == 101
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit(8) == 0
        assert client.read_rest()[0] == b""


def test_nothing_is_cut_by_a_stop_under_load(start: Start) -> None:
    """Whoever was served is served whole; afterwards the door is shut."""
    proxy = start()
    with Load(proxy.port("in")) as load:
        load.go_on_for(300)
        load.may_leave = True
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit() == 0
    assert load.failures == []


def test_drain_then_stop_as_kubernetes_does(start: Start) -> None:
    """preStop drains, the endpoints are withdrawn, then SIGTERM: no client notices."""
    proxy = start()
    load = Load(proxy.port("in"))
    with load:
        load.go_on_for(200)
        proxy.command("drain")
        load.go_on_for(200)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert load.failures == []


# ----------------------------------------------------------------------------------------------- commands
def test_the_command_stops(start: Start) -> None:
    proxy = start()
    proxy.command("stop")
    assert proxy.wait_exit() == 0


def test_the_status_command_tells_by_its_exit_code(start: Start) -> None:
    proxy = start()
    assert proxy.command("status", "--json").returncode == 0
    proxy.command("drain")
    assert proxy.command("status", check=False).returncode == 3
    proxy.stop()
    assert run_cli("status", "--socket", proxy.socket_path).returncode == 3


def test_the_admin_answers_until_the_end(start: Start, server: ScriptedUpstream) -> None:
    """The kubelet and Prometheus still ask while the last requests run."""
    proxy = start()
    held = Held(proxy, server)
    proxy.signal(signal.SIGTERM)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    assert proxy.probe("/livez") == 200
    assert proxy.probe("/readyz") == 503
    assert proxy.metrics().sum("sidecar_inflight_requests") == 1
    held.let_go()
    assert held.client.read_answer().body == b"whole"
    assert proxy.wait_exit() == 0


def test_sockets_are_gone_afterwards(start: Start, tmp_path: Any) -> None:
    proxy = start()
    path = proxy.directory / "admin.sock"
    assert path.exists()
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert not path.exists()


# -------------------------------------------------------------------------------------------- while it starts
def starting(server: ScriptedUpstream, **root: Any) -> Sidecar:
    """One that has workers to wait for; its service is there already."""
    command = [sys.executable, "-c", "print('service up', flush=True); import time; time.sleep(600)"]
    tree = document([listener("in", [route("all", "app")])], [upstream("app", server.address)], workers=2, **root)
    proxy = Sidecar(tree, ready=False, command=command)
    proxy.wait_log("service up")
    return proxy


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_cuts_the_start_short(server: ScriptedUpstream, number: int) -> None:
    with starting(server) as proxy:
        proxy.signal(number)
        assert proxy.wait_exit() == 0
        assert '"event": "child_stopped"' in proxy.log
        assert '"event": "started"' not in proxy.log
        assert not os.path.exists(proxy.socket_path)


def test_a_worker_whose_program_dies_before_its_first_word_ends_without_one() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        words = [sys.executable, "-m", "sidecar.app.process", str(theirs.fileno())]
        done = subprocess.run(words, cwd=ROOT, pass_fds=[theirs.fileno()], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reload_waits_for_the_end_of_the_start(server: ScriptedUpstream) -> None:
    """Else the start would go on with what was read before, and undo half of it."""

    def rule(name: str) -> list[dict[str, Any]]:
        return [{"name": name, "when": {"upstream": "app", "unhealthy_for": "60s"}, "do": {"restart": "process"}}]

    with starting(server, recovery=rule("before")) as proxy:
        proxy.write({**proxy.config, "recovery": rule("after")})
        proxy.signal(signal.SIGHUP)
        proxy.wait_log('"event": "config_reloaded"')
        proxy.wait_ready()
        rules = lambda: [one["name"] for one in proxy.admin("/api/v1/recovery").json()["rules"]]
        proxy.wait_until(lambda: rules() == ["after"], "the new rule")
