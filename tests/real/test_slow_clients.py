"""Clients that take their time at our expense are given up, those that are merely slow are not."""

import contextlib
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, says
from tests.fakes.wire import Message, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs(
        [route("all", "app", timeout="30s")],
        [upstream("app", server.address)],
        header_read_timeout="300ms",
        body_timeout="300ms",
        idle_timeout="300ms",
        write_timeout="300ms",
    )


def client_timeout(got: Message) -> bool:
    return (got.status, got.decision, got.keeps) == (408, "client_timeout", False)


def dribble(client: Wire, data: bytes, gap: float = 0.02) -> None:
    """One byte at a time until all is sent or an answer is there."""
    for at in range(len(data)):
        if select.select([client.sock], [], [], gap)[0]:
            return
        client.send(data[at : at + 1])


def test_a_head_that_dribbles_in(server: ScriptedUpstream, client: Wire) -> None:
    """Each byte comes in time, the head does not: slowloris."""
    dribble(client, ask("/dribbled", "x-pad: " + "p" * 500 + "\r\n"))
    assert client_timeout(client.read_answer())
    assert client.read_rest()[0] == b""
    assert server.requests("/dribbled") == []


def test_a_head_that_stops(client: Wire) -> None:
    assert client_timeout(client.send(b"GET / HTTP/1.1\r\nhost: exam").read_answer())


def test_a_second_head_that_stops(client: Wire) -> None:
    assert client.send(ask("/1")).read_answer().status == 200
    assert client_timeout(client.send(b"GET / HT").read_answer())


def test_a_client_that_says_nothing(client: Wire) -> None:
    """Not even a first byte: closed, whether with a word or without."""
    rest, _ = client.read_rest()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_without_a_word(client: Wire) -> None:
    assert client.send(ask("/1")).read_answer().keeps
    assert client.read_rest() == (b"", "eof")


def test_a_slow_head_in_time(client: Wire) -> None:
    dribble(client, ask("/slow"), gap=0.001)
    assert client.read_answer().status == 200


@pytest.mark.parametrize("framing", ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"])
def test_a_body_that_stops(server: ScriptedUpstream, client: Wire, framing: str) -> None:
    piece = b"x" * 100 if "length" in framing else b"64\r\n" + b"x" * 100 + b"\r\n"
    got = client.send(ask("/stops", framing, "POST"), piece).read_answer()
    assert client_timeout(got)
    assert client.read_rest()[0] == b""
    server.wait_until(
        lambda: not server.is_open(server.requests("/stops")[-1].connection), "the request's end upstream"
    )


def test_a_slow_body_that_moves(client: Wire) -> None:
    """The time is counted between two pieces: a whole second of upload passes."""
    client.send(ask("/moves", "content-length: 20\r\n", "POST"))
    for _ in range(20):
        time.sleep(0.05)  # the pace of this client; nothing waits for it
        client.send(b"x")
    assert client.read_answer().json()["length"] == 20


def flood(stopped: threading.Event) -> Callable[[Wire, Message], None]:
    def script(peer: Wire, request: Message) -> None:
        try:
            peer.send(answer(b"", length=False)[:-2] + b"content-length: 1000000000\r\n\r\n")
            for _ in range(1000):
                peer.send(bytes(1_000_000))
        finally:
            stopped.set()

    return script


def test_a_client_that_does_not_read(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """It is dropped, and its upstream connection with it."""
    stopped = threading.Event()
    server.on("/flood", flood(stopped))
    with proxy.client(codec, receive_buffer=4096) as client:
        client.send(ask("/flood"))
        assert stopped.wait(15), "the upstream still sends to nobody"
        received, _ = client.discard_rest()
        assert received < 1_000_000_000


def test_a_client_that_reads_slowly(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """As long as it takes something in every write_timeout it is served."""
    body = bytes(2_000_000)
    server.on("/slowly", lambda peer, _: peer.send(answer(body)))
    with proxy.client(codec, receive_buffer=65_536) as client:
        client.send(ask("/slowly"))
        got = client.read_status()
        count = len(client.held)
        while count < len(body):
            piece = len(client.sock.recv(50_000))
            assert piece, f"cut after {count} bytes"
            count += piece
            time.sleep(0.02)  # the pace of this client
        assert got.status == 200


def test_giving_up_is_counted(proxy: Sidecar, client: Wire, codec: str) -> None:
    before = proxy.metrics().sum("sidecar_requests_total", listener=codec, code="408", outcome="client_timeout")
    client.send(b"GET / HTTP/1.1\r\n").read_answer()
    assert (
        proxy.metrics().sum("sidecar_requests_total", listener=codec, code="408", outcome="client_timeout")
        == before + 1
    )


def test_a_client_that_never_reads_the_little_that_is_left_is_given_up(
    server: ScriptedUpstream, proxy: Sidecar
) -> None:
    """What the kernel holds differs; of so many clients some leave less with us than makes us stop reading them."""
    server.on("/little", says(bytes(1 << 17)))
    with contextlib.ExitStack() as stack:
        for count in range(12, 36):
            client = stack.enter_context(proxy.client("fast", receive_buffer=4096))
            client.send(ask("/little") * count)
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_connections") == 0, "the clients' end")
