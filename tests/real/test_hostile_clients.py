"""Too much of everything: heads, fields, connections, descriptors. The proxy refuses, waits and goes on serving."""

import contextlib
import select
import socket
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Truncated, Wire
from tests.real.documents import both_codecs, document, listener, route, upstream
from tests.real.harness import Sidecar, ask, dial
from tests.real.procfs import rss_of

MIB = 1 << 20


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs([route("all", "app")], [upstream("app", server.address)], max_body="1MiB")


def push(client: Wire, piece: bytes, times: int) -> None:
    """Send until the other side has had enough."""
    try:
        for _ in range(times):
            client.send(piece)
    except OSError:
        pass


def refused(client: Wire) -> int:
    """The status of the refusal; the connection is closed behind it."""
    got = client.read_answer()
    assert got.decision == "bad_request"
    assert not got.keeps
    assert client.read_rest()[0] == b""
    return got.status


def sender(client: Wire, start: bytes, piece: bytes, times: int) -> threading.Thread:
    client.send(start)
    thread = threading.Thread(target=push, args=(client, piece, times), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("start", "piece", "times", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"y" * 65_536, 160, {431}),
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b"x: y\r\n" * 10_000, 100, {431}),
        (b"GET /", b"y" * 65_536, 160, {414, 431}),
        (b"", b"y" * 65_536, 160, {400, 414, 431, 501}),
        (b"", b"\r\n" * 32_768, 160, {400, 431}),
    ],
    ids=["a head of 10 MiB", "a million fields", "a target of 10 MiB", "a method of 10 MiB", "nothing but line ends"],
)
def test_heads_without_measure(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, start: bytes, piece: bytes, times: int, status: set[int]
) -> None:
    before, seen = rss_of(proxy.pid), len(server.seen)
    thread = sender(client, start, piece, times)
    assert refused(client) in status
    thread.join()
    assert rss_of(proxy.pid) - before < 8 * MIB
    assert len(server.seen) == seen


def test_the_longest_head_that_is_taken(client: Wire) -> None:
    echoed = client.send(ask("/" + "p" * 8000, "x-long: " + "y" * 50_000 + "\r\n")).read_answer().json()
    assert ["x-long", "y" * 50_000] in echoed["fields"]
    assert len(echoed["target"]) == 8001


@pytest.mark.parametrize(("count", "status"), [(95, 200), (101, 431)])
def test_as_many_fields_as_are_taken(client: Wire, count: int, status: int) -> None:
    assert client.send(ask("/", "".join(f"x-{n}: y\r\n" for n in range(count)))).read_answer().status == status


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_beyond_the_limit(server: ScriptedUpstream, client: Wire, framing: str) -> None:
    """413; a length that says so beforehand does not reach the upstream at all."""
    seen = len(server.requests("/too-big"))
    if framing == "length":
        thread = sender(client, ask("/too-big", f"content-length: {2 * MIB}\r\n", "POST"), bytes(65_536), 32)
    else:
        chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
        thread = sender(client, ask("/too-big", "transfer-encoding: chunked\r\n", "POST"), chunk, 32)
    assert refused(client) == 413
    thread.join()
    if framing == "length":
        assert len(server.requests("/too-big")) == seen


def test_silent_connections_disturb_nobody(proxy: Sidecar, codec: str) -> None:
    """A thousand of them, while real requests go on."""
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(dial(proxy.port(codec)))
        with proxy.client(codec) as client:
            for number in range(200):
                assert client.send(ask(f"/{number}")).read_answer().status == 200
        assert proxy.metrics().sum("sidecar_connections", listener=codec) >= 1000
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_connections", listener=codec) < 10, "they have left")


def test_clients_beyond_max_connections_wait(server: ScriptedUpstream) -> None:
    tree = document([listener("in", [route("all", "app")], max_connections=5)], [upstream("app", server.address)])
    with Sidecar(tree) as proxy, contextlib.ExitStack() as stack:
        inside = [stack.enter_context(proxy.client("in")) for _ in range(5)]
        for client in inside:
            assert client.send(ask("/inside")).read_answer().status == 200
        outside = stack.enter_context(proxy.client("in")).send(ask("/outside"))
        assert not select.select([outside.sock], [], [], 0.2)[0]
        assert inside[0].send(ask("/inside")).read_answer().status == 200
        inside[0].close()
        assert outside.read_answer().status == 200


def test_descriptors_run_out(server: ScriptedUpstream) -> None:
    """Accepting pauses without spinning, who is inside is served, and all is well once there is room again."""
    tree = document([listener("in", [route("all", "app")])], [upstream("app", server.address)])
    with Sidecar(tree, nofile=64) as proxy:
        with contextlib.ExitStack() as stack:
            inside = stack.enter_context(proxy.client("in"))
            assert inside.send(ask("/before")).read_answer().status == 200
            crowd = [stack.enter_context(dial(proxy.port("in"))) for _ in range(200)]
            proxy.wait_log("accept_paused.*open files")
            before = proxy.cpu()
            assert not select.select([client.sock for client in crowd], [], [], 1.5)[0]
            assert proxy.cpu() - before < 0.5, "it spins"
            assert inside.send(ask("/within")).read_answer().status == 200
            assert len(proxy.log) < 20_000, "it says so again and again"
        with proxy.client("in") as client:
            assert client.send(ask("/afterwards")).read_answer().status == 200
        proxy.wait_until(lambda: proxy.metrics().sum("sidecar_connections") <= 1, "the crowd has left")
        assert proxy.metrics().sum("sidecar_accept_paused_total") >= 1


def test_a_taken_port(server: ScriptedUpstream) -> None:
    """The program says which one and ends; it does not serve with half of its listeners."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tree = document(
            [listener("free", [route("all", "app")]), listener("taken", [route("all", "app")])],
            [upstream("app", server.address)],
        )
        tree["listeners"][1]["bind"] = f"127.0.0.1:{port}"
        proxy = Sidecar(tree, ready=False, exit_code=78)
        code = proxy.wait_exit()
        log = proxy.log
        proxy.exit_code = code
        proxy.stop()
    assert code in {1, 78}
    assert str(port) in log
    assert "taken" in log
    with pytest.raises(OSError), dial(proxy.port("free")):
        raise Truncated("open")


def test_scanners_and_tls_handshakes(proxy: Sidecar, client: Wire) -> None:
    """What is no HTTP at all is refused in one line and closed."""
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300))
    assert refused(client) == 400


def test_http2_prior_knowledge_is_refused(client: Wire) -> None:
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert refused(client) in {400, 505}
