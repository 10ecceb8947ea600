"""Beyond its limits an upstream is not asked: 503 `overflow`; within them nothing is refused, and places come back."""

import select
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, says
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs(
        [route("two", "two", "/two"), route("queue", "queue", "/queue"), route("hasty", "hasty", "/hasty")],
        [
            upstream("two", server.address, limits={"max_requests": 2}),
            upstream("queue", server.address, limits={"max_connections": 1, "max_pending": 2}),
            upstream("hasty", server.address, limits={"max_connections": 1, "pending_timeout": "100ms"}),
        ],
    )


class Gate:
    """A script that holds its requests until it is opened."""

    def __init__(self, server: ScriptedUpstream, path: str) -> None:
        self._open = threading.Event()
        self._server, self._path = server, path
        self._before = len(server.requests(path))
        server.on(path, self._hold)

    def _hold(self, peer: Wire, request: Message) -> None:
        assert self._open.wait(PATIENCE)
        peer.send(answer(b"through"))

    def holds(self, count: int) -> None:
        """Wait until so many requests are at the upstream."""
        path, wanted = self._path, self._before + count
        self._server.wait_until(lambda: len(self._server.requests(path)) == wanted, f"{count} requests")

    def open(self) -> None:
        self._open.set()


def overflow(got: Message) -> bool:
    return (got.status, got.decision) == (503, "overflow")


def test_more_requests_than_allowed(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    gate = Gate(server, "/two")
    clients = [proxy.client(codec).send(ask("/two")) for _ in range(2)]
    gate.holds(2)
    refused = proxy.get(codec, "/two")
    gate.open()
    assert overflow(refused)
    for client in clients:
        assert client.read_answer().body == b"through"
        client.close()
    for _ in range(5):
        assert proxy.get(codec, "/two").status == 200


def test_a_request_waits_for_a_connection(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """One connection: the first request has it, two wait for it, the fourth is refused at once."""
    gate = Gate(server, "/queue")
    first = proxy.client(codec).send(ask("/queue"))
    gate.holds(1)
    waiting = [proxy.client(codec).send(ask("/queue")) for _ in range(2)]
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_pending_requests", upstream="queue") == 2, "two waiting")
    assert overflow(proxy.get(codec, "/queue"))
    gate.open()
    for client in [first, *waiting]:
        assert client.read_answer().body == b"through"
        client.close()
    assert len({request.connection for request in server.requests("/queue")[-3:]}) == 1
    assert proxy.metrics().sum("sidecar_pending_requests", upstream="queue") == 0


def test_nobody_waits_for_ever(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    gate = Gate(server, "/hasty")
    first = proxy.client(codec).send(ask("/hasty"))
    gate.holds(1)
    assert overflow(proxy.get(codec, "/hasty"))
    gate.open()
    assert first.read_answer().body == b"through"
    first.close()


def test_who_leaves_the_queue_gives_its_place_back(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    gate = Gate(server, "/queue")
    first = proxy.client(codec).send(ask("/queue"))
    gate.holds(1)
    for _ in range(3):
        gone = [proxy.client(codec).send(ask("/queue")) for _ in range(2)]
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_pending_requests", upstream="queue") == 2, "two waiting")
        for client in gone:
            client.reset()
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_pending_requests", upstream="queue") == 0, "none waiting")
    stays = proxy.client(codec).send(ask("/queue"))
    gate.open()
    for client in (first, stays):
        assert client.read_answer().body == b"through"
        client.close()


def test_places_survive_every_way_to_end(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """Answers, resets of either side, cuts: afterwards both places are free again."""

    def script(peer: Wire, request: Message) -> None:
        match request.get("x-end"):
            case "reset":
                peer.reset()
            case "cut":
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut").close()
            case "nonsense":
                peer.send(b"nonsense\r\n\r\n")
            case _:
                peer.send(answer(b"through"))

    server.on("/two/ends", script)
    for end in ("reset", "cut", "nonsense", "none") * 3:
        with proxy.client(codec) as client:
            client.send(ask("/two/ends", f"connection: close\r\nx-end: {end}\r\n")).read_rest()
    gate = Gate(server, "/two")
    clients = [proxy.client(codec).send(ask("/two")) for _ in range(2)]
    gate.holds(2)
    gate.open()
    assert [client.read_answer().status for client in clients] == [200, 200]
    for client in clients:
        client.close()


def test_an_upstream_that_answers_early_and_never_reads_gets_its_connection_closed(
    server: ScriptedUpstream, proxy: Sidecar, codec: str
) -> None:
    """The client's body lies here and has nowhere to go; the only connection of this upstream must be free again."""
    full, done = threading.Event(), threading.Event()

    def script(peer: Wire, request: Message) -> None:
        assert full.wait(PATIENCE)
        peer.send(answer(b"early"))
        done.wait(PATIENCE)
        peer.reset()

    server.on("/queue/deaf", script)
    with proxy.client(codec) as client:
        client.send(ask("/queue/deaf", f"content-length: {1 << 30}\r\n", "POST"))
        while select.select([], [client.sock], [], 0.5)[1]:
            client.send(bytes(1 << 18))
        full.set()
        assert client.read_answer().body == b"early"
    server.on("/queue/next", says(b"next"))
    assert proxy.get(codec, "/queue/next").body == b"next"
    done.set()
