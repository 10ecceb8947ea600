"""Big bodies pass without lying in our memory, whoever is slow."""

import contextlib
import hashlib
import select
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask
from tests.real.procfs import rss_of

MIB = 1 << 20
SIZE = 256 * MIB
BLOCK = bytes(hashlib.shake_128(b"block").digest(MIB))
GROWTH = 8 * MIB
"""What streaming may add to the resident memory: the allocator's habits, not the stream."""


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs([route("all", "app", timeout="30s")], [upstream("app", server.address)])


@pytest.fixture(scope="module")
def whole() -> str:
    """The hash of the body that goes up and down."""
    digest = hashlib.sha256()
    for _ in range(SIZE // MIB):
        digest.update(BLOCK)
    return digest.hexdigest()


@pytest.fixture
def grown(proxy: Sidecar, codec: str) -> "Growth":
    for _ in range(50):
        proxy.get(codec, "/warm-up")
    return Growth(proxy.pid)


class Growth:
    """How many bytes a process has grown since it was first looked at."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = rss_of(pid)

    def __call__(self) -> int:
        return rss_of(self._pid) - self._before


def blocks(peer: Wire, framing: str) -> None:
    for _ in range(SIZE // MIB):
        if framing == "chunked":
            peer.send_chunk(BLOCK)
        else:
            peer.send(BLOCK)
    if framing == "chunked":
        peer.send(b"0\r\n\r\n")


def head_of(framing: str) -> str:
    return "transfer-encoding: chunked\r\n" if framing == "chunked" else f"content-length: {SIZE}\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_big_download(server: ScriptedUpstream, client: Wire, grown: Growth, whole: str, framing: str) -> None:
    def script(peer: Wire, request: Message) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\n{head_of(framing)}\r\n".encode())
        blocks(peer, framing)

    server.on("/download", script)
    got = client.send(ask("/download")).read_status()
    digest, left = hashlib.sha256(), SIZE
    if framing == "chunked":
        while data := client.read_chunk(got):
            digest.update(data)
    else:
        buffer = memoryview(bytearray(MIB))
        digest.update(client.held)
        left -= len(client.held)
        client.held = b""
        while left:
            count = client.sock.recv_into(buffer)
            assert count, f"{left} bytes are missing"
            digest.update(buffer[:count])
            left -= count
    assert digest.hexdigest() == whole
    assert grown() < GROWTH


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_big_upload(client: Wire, grown: Growth, whole: str, framing: str) -> None:
    client.send(ask("/upload", head_of(framing), "PUT"))
    blocks(client, framing)
    echoed = client.read_answer().json()
    assert (echoed["length"], echoed["sha256"]) == (SIZE, whole)
    assert grown() < GROWTH


def stalls(sock: Any) -> bool:
    """Whether the socket takes nothing for a good while."""
    return not select.select([], [sock], [], 0.7)[1]


def test_a_client_that_reads_nothing(server: ScriptedUpstream, proxy: Sidecar, grown: Growth, codec: str) -> None:
    """It asks for a GiB: the upstream is stopped early, and little of it lies here."""
    stalled, done = threading.Event(), threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {1 << 30}\r\n\r\n".encode())
        for _ in range(1024 * 4):
            if stalls(peer.sock):
                stalled.set()
                break
            peer.send(bytes(MIB // 4))
        assert done.wait(PATIENCE)
        peer.reset()

    server.on("/gibibyte", script)
    with proxy.client(codec, receive_buffer=4096) as client:
        client.send(ask("/gibibyte"))
        assert stalled.wait(30), "the upstream was never stopped"
        assert grown() < 4 * MIB
        done.set()
    server.wait_until(lambda: not server.is_open(server.requests("/gibibyte")[-1].connection), "the end")


def unread(server: ScriptedUpstream, client: Wire, path: str) -> int:
    """Ask on, one request after the other, and read nothing, until one does not get through; how many were sent."""
    server.on(path, says(bytes(MIB // 8)))
    before = len(server.requests(path))
    for count in range(1, 200):
        client.send(ask(path))
        with contextlib.suppress(AssertionError):
            server.wait_until(lambda count=count: len(server.requests(path)) - before == count, patience=0.7)  # type: ignore[misc]
            continue
        return count
    pytest.fail("it was served on and on")


def test_a_client_that_asks_on_and_reads_nothing(
    server: ScriptedUpstream, proxy: Sidecar, grown: Growth, codec: str
) -> None:
    """It gets no more than lies in the kernel and a little here; all of it when it reads, though it said its last."""
    with proxy.client(codec, receive_buffer=4096) as client:
        count = unread(server, client, f"/unread/{codec}")
        assert grown() < 4 * MIB
        client.send(ask("/last")).half_close()
        for _ in range(count):
            assert len(client.read_answer().body) == MIB // 8
        assert client.read_answer().json()["target"] == "/last"
        assert client.read_rest() == (b"", "eof")


def test_an_upstream_that_reads_nothing(server: ScriptedUpstream, proxy: Sidecar, grown: Growth, codec: str) -> None:
    done = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        assert done.wait(30)
        peer.reset()

    server.on("/deaf", script)
    with proxy.client(codec) as client:
        client.send(ask("/deaf", f"content-length: {1 << 30}\r\n", "PUT"))
        for _ in range(1024 * 4):
            if stalls(client.sock):
                break
            client.send(bytes(MIB // 4))
        else:
            pytest.fail("the client was never stopped")
        assert grown() < 4 * MIB
        done.set()


def test_many_slow_readers(server: ScriptedUpstream, proxy: Sidecar, grown: Growth, codec: str) -> None:
    """Twenty of them: less than a MiB each."""
    stalled = threading.Semaphore(0)
    done = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {1 << 30}\r\n\r\n".encode())
        while not stalls(peer.sock):
            peer.send(bytes(MIB // 4))
        stalled.release()
        assert done.wait(30)
        peer.reset()

    server.on("/many", script)
    clients = [proxy.client(codec, receive_buffer=4096).send(ask("/many")) for _ in range(20)]
    for _ in clients:
        assert stalled.acquire(timeout=30)
    assert grown() < 20 * MIB
    done.set()
    for client in clients:
        client.close()
