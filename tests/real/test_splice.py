"""What is left of a long answer passes inside the kernel (`proxy/splice.py`), and ends as any other does."""

import hashlib
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import Message, Truncated, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask
from tests.real.procfs import descriptors_of, pipes_of

BODY = hashlib.shake_128(b"long").digest(8 << 20)
WHOLE = answer(BODY)


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return patient(server)


def patient(server: ScriptedUpstream) -> dict[str, Any]:
    """Time is not the matter, but where a test says so."""
    return both_codecs([route("all", "app", timeout="30s")], [upstream("app", server.address)])


@pytest.fixture(scope="module")
def impatient(server: ScriptedUpstream) -> Any:
    tree = both_codecs(
        [route("all", "app", timeout="30s")],
        [upstream("app", server.address, idle_timeout="300ms")],
        write_timeout="300ms",
    )
    with Sidecar(tree) as running:
        yield running


class Taken:
    """What the proxy holds beyond what it held when this was made, with one connection to the upstream at rest."""

    def __init__(self, proxy: Sidecar, codec: str) -> None:
        proxy.get(codec, "/warm-up")
        self._proxy = proxy
        self._before = descriptors_of(proxy.pid), pipes_of(proxy.pid)

    def pipes(self) -> int:
        return pipes_of(self._proxy.pid) - self._before[1]

    def wait_for_none(self) -> None:
        """An upstream's connection that broke may be missing."""
        self._proxy.wait_until(
            lambda: self.pipes() == 0 and descriptors_of(self._proxy.pid) <= self._before[0], "all given back"
        )


@pytest.fixture
def taken(proxy: Sidecar, codec: str) -> Taken:
    return Taken(proxy, codec)


class Halfway:
    """A script that sends the head and half of a long body, and goes on when told."""

    def __init__(self, then: str = "go on") -> None:
        self.go_on = threading.Event()
        self._then = then

    def __call__(self, peer: Wire, request: Message) -> None:
        half = len(WHOLE) // 2
        peer.send(WHOLE[:half])
        assert self.go_on.wait(20)
        if self._then == "close":
            peer.close()
        elif self._then == "reset":
            peer.reset()
        else:
            peer.send(WHOLE[half:])


def read_half(client: Wire) -> bytes:
    """The head and a third of the body: half of it is on its way."""
    got = client.read_status()
    assert got.status == 200
    return client.exactly(len(BODY) // 3)


def test_it_passes_by_a_pipe_and_all_is_given_back(
    server: ScriptedUpstream, proxy: Sidecar, taken: Taken, codec: str
) -> None:
    script = Halfway()
    server.on("/long", script)
    with proxy.client(codec) as client:
        client.send(ask("/long"), ask("/next"))  # the second waits for its turn
        first = read_half(client)
        proxy.wait_until(lambda: taken.pipes() == 2, "the pipe's two ends")
        script.go_on.set()
        assert first + client.exactly(len(BODY) - len(first)) == BODY
        assert client.read_answer().json()["target"] == "/next"
        long, after = server.requests("/long")[-1], server.requests("/next")[-1]
        assert long.connection == after.connection, "the connection to the upstream serves again"
    taken.wait_for_none()


def test_many_at_once(server: ScriptedUpstream, proxy: Sidecar, taken: Taken, codec: str) -> None:
    server.on("/many", lambda peer, _: peer.send(WHOLE))
    clients = [proxy.client(codec, receive_buffer=65536).send(ask("/many")) for _ in range(12)]
    for client in clients:
        with client:
            assert client.read_answer().body == BODY
    proxy.wait_until(lambda: taken.pipes() == 0, "no pipe left")


def test_what_an_upstream_adds_is_nobody_s_answer(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """It lies in the socket behind the body; the request that follows goes another way."""
    server.on("/adds", lambda peer, _: peer.send(WHOLE + answer(b"poison")))
    with proxy.client(codec) as client:
        client.send(ask("/adds"), ask("/next"))
        assert client.read_answer().body == BODY
        assert client.read_answer().json()["target"] == "/next"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upstream_that_goes(server: ScriptedUpstream, proxy: Sidecar, taken: Taken, codec: str, how: str) -> None:
    """The client must not take what it got for whole."""
    script = Halfway(then=how)
    server.on("/goes", script)
    with proxy.client(codec) as client:
        client.send(ask("/goes"))
        first = read_half(client)
        script.go_on.set()
        with pytest.raises(Truncated):
            client.exactly(len(BODY) - len(first))
    taken.wait_for_none()


def test_a_client_that_goes(server: ScriptedUpstream, proxy: Sidecar, taken: Taken, codec: str) -> None:
    script = Halfway()
    server.on("/left", script)
    with proxy.client(codec) as client:
        client.send(ask("/left"))
        read_half(client)
        client.reset()
    taken.wait_for_none()
    script.go_on.set()


def test_an_upstream_that_stalls(server: ScriptedUpstream, impatient: Sidecar, codec: str) -> None:
    script, taken = Halfway(), Taken(impatient, codec)
    server.on("/stalls", script)
    with impatient.client(codec) as client:
        client.send(ask("/stalls"))
        first = read_half(client)
        with pytest.raises(Truncated):
            client.exactly(len(BODY) - len(first))
    taken.wait_for_none()
    script.go_on.set()
    assert impatient.metrics().sum("sidecar_requests_total", outcome="timeout") >= 1


def test_a_client_that_stalls(server: ScriptedUpstream, impatient: Sidecar, codec: str) -> None:
    """It is its own fault, not the upstream's."""
    taken = Taken(impatient, codec)
    server.on("/deaf", lambda peer, _: peer.send(answer(bytes(64 << 20))))
    with impatient.client(codec, receive_buffer=4096) as client:
        client.send(ask("/deaf"))
        impatient.wait_until(
            lambda: impatient.metrics().sum("sidecar_requests_total", outcome="client_timeout") >= 1, "it is cut off"
        )
    taken.wait_for_none()


def test_connections_need_descriptors_more(server: ScriptedUpstream) -> None:
    script = Halfway()
    server.on("/scarce", script)
    with Sidecar(patient(server), nofile=64) as proxy, proxy.client("fast") as client:
        taken = Taken(proxy, "fast")
        idle = [proxy.client("fast") for _ in range(12)]
        client.send(ask("/scarce"))
        first = read_half(client)
        assert taken.pipes() == 0
        script.go_on.set()
        assert first + client.exactly(len(BODY) - len(first)) == BODY
        for one in idle:
            one.close()


def test_a_stop_waits_for_its_end_and_no_longer(server: ScriptedUpstream) -> None:
    script = Halfway()
    server.on("/stop", script)
    tree = patient(server) | {"shutdown": {"drain_timeout": "5m"}}  # too long to be waited for
    with Sidecar(tree) as proxy, proxy.client("fast") as client:
        client.send(ask("/stop"))
        first = read_half(client)
        proxy.command("stop")
        script.go_on.set()
        assert first + client.exactly(len(BODY) - len(first)) == BODY
        assert proxy.wait_exit() == 0
