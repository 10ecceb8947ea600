"""Clients that leave: half-closed ones get their answer, gone ones cost the upstream nothing more."""

import contextlib
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, never
from tests.fakes.wire import PATIENCE, Message, Truncated, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    """A half-closed client is waited for, but not long."""
    return both_codecs(
        [route("all", "app", timeout="30s")], [upstream("app", server.address)], half_close_timeout="500ms"
    )


def test_a_client_that_half_closed_gets_its_answer(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str
) -> None:
    go = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        assert go.wait(PATIENCE)
        peer.send(answer(b"late"))

    server.on("/half-closed", script)
    client.send(ask("/half-closed")).half_close()
    assert proxy.get(codec, "/somebody-else").status == 200  # the loop has turned: the half-close has been seen
    go.set()
    assert client.read_answer().body == b"late"
    assert client.read_rest() == (b"", "eof")


def test_a_client_that_half_closed_gets_all_of_its_pipeline(client: Wire) -> None:
    client.send(ask("/1") + ask("/2") + ask("/3")).half_close()
    assert [client.read_answer().json()["target"] for _ in range(3)] == ["/1", "/2", "/3"]
    assert client.read_rest() == (b"", "eof")


def test_a_client_that_says_nothing_and_half_closes(client: Wire) -> None:
    assert client.half_close().read_rest() == (b"", "eof")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_while_it_waits(server: ScriptedUpstream, client: Wire, how: str) -> None:
    path = f"/leaves-by-{how}"
    server.on(path, never)
    before = len(server.requests(path))
    client.send(ask(path))
    server.wait_until(lambda: len(server.requests(path)) > before, "the request")
    number = server.requests(path)[-1].connection
    getattr(client, how)()
    server.wait_until(lambda: not server.is_open(number), "the upstream connection's end")


def test_a_client_that_leaves_in_the_middle_of_an_answer(server: ScriptedUpstream, client: Wire) -> None:
    stopped = threading.Event()

    def endless(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                peer.send_chunk(bytes(65_536))
        finally:
            stopped.set()

    server.on("/endless", endless)
    got = client.send(ask("/endless")).read_status()
    assert len(client.read_chunk(got)) > 0
    client.close()
    assert stopped.wait(PATIENCE), "the upstream still sends"


def test_a_client_that_leaves_in_the_middle_of_its_upload(server: ScriptedUpstream, client: Wire) -> None:
    outcome: list[str] = []

    def script(peer: Wire, request: Message) -> None:
        try:
            peer.read_body(request)
            outcome.append("whole")
        except Truncated as cut:
            outcome.append(cut.how)
        finally:
            server.note()

    server.on("/upload", script)
    before = len(server.requests("/upload"))
    client.send(ask("/upload", "content-length: 100000\r\n", "POST"), b"x" * 5000)
    server.wait_until(lambda: len(server.requests("/upload")) > before, "the request")
    client.reset()
    server.wait_until(lambda: outcome, "the upload's end")
    assert outcome != ["whole"]


def test_leaving_counts_and_leaves_nothing_behind(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/abandoned", never)
    gone = proxy.metrics().sum("sidecar_requests_total", listener=codec, outcome="client_gone")
    before = len(server.requests("/abandoned"))
    clients = [proxy.client(codec).send(ask("/abandoned")) for _ in range(20)]
    server.wait_until(lambda: len(server.requests("/abandoned")) == before + 20, "twenty requests")
    for client in clients:
        client.reset()
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_inflight_requests", listener=codec) == 0, "nothing in flight")
    assert proxy.metrics().sum("sidecar_requests_total", listener=codec, outcome="client_gone") == gone + 20


def test_clients_that_come_and_go_leave_no_descriptors(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/comes-and-goes", never)
    before = proxy.metrics().sum("sidecar_connections", listener=codec)
    for _ in range(50):
        with contextlib.closing(proxy.client(codec)) as client:
            client.send(ask("/comes-and-goes")[:-2])
    proxy.wait_until(
        lambda: proxy.metrics().sum("sidecar_connections", listener=codec) <= before, "the connections' end"
    )
