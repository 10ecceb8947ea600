"""`protocol: tcp`: bytes pass both ways untouched, ends and breaks included."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import PATIENCE, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar
from tests.real.procfs import descriptors_of

MEBIBYTE = bytes(range(256)) * 4096


def tcp(name: str, to: str, **keys: Any) -> dict[str, Any]:
    section = listener(name, [route("all", to, **keys)], protocol="tcp")
    del section["routes"][0]["match"]
    return section


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    """By the first line: echoes, swallows all, floods, resets, or says nothing."""

    def converse(peer: Wire) -> None:
        match peer.line():
            case b"echo":
                while peer.held or peer.fill():
                    peer.send(peer.held)
                    peer.held = b""
                peer.send(b"goodbye")
            case b"swallow":
                digest = hashlib.sha256()
                while peer.held or peer.fill():
                    digest.update(peer.held)
                    peer.held = b""
                peer.send(digest.hexdigest().encode())
            case b"flood":
                for _ in range(32):
                    peer.send(MEBIBYTE)
                peer.half_close()
                peer.read_rest()
            case b"some":
                peer.send(bytes(int(peer.line())))
            case b"reset":
                peer.reset()
                return
            case b"silence":
                peer.read_rest()
        peer.close()

    with ScriptedUpstream() as running:
        yield running.on_connect(converse)


@pytest.fixture(scope="module")
def greeter() -> Iterator[ScriptedUpstream]:
    """Speaks first, as mail servers and databases do."""

    def greet(peer: Wire) -> None:
        peer.send(b"220 hello\r\n")
        peer.read_rest()
        peer.close()

    with ScriptedUpstream() as running:
        yield running.on_connect(greet)


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, greeter: ScriptedUpstream) -> dict[str, Any]:
    dead = f"127.0.0.1:{free_port()}"
    return document(
        [
            tcp("greeted", "greeter"),
            tcp("bytes", "app"),
            tcp("impatient", "impatient"),
            tcp("nobody", "nobody"),
            tcp("saved", "tripping", fallback=[{"upstream": "nobody"}, {"upstream": "greeter"}]),
            tcp("watched", "watched"),
            tcp("narrow", "narrow"),
        ],
        [
            upstream("tripping", dead, breaker={"consecutive_failures": 2}),
            upstream(
                "watched",
                dead,
                greeter.address,
                balance="round_robin",
                outlier={"consecutive_gateway_failures": 2, "max_ejected": 0.5},
            ),
            upstream("narrow", greeter.address, breaker={"consecutive_failures": 1}, limits={"max_connections": 1}),
            upstream("app", server.address),
            upstream("greeter", greeter.address),
            upstream("impatient", server.address, tunnel_timeout="300ms"),
            upstream("nobody", f"127.0.0.1:{free_port()}"),
        ],
    )


@pytest.fixture
def tunnel(proxy: Sidecar) -> Iterator[Wire]:
    with proxy.client("bytes") as wire:
        yield wire


def test_both_directions(tunnel: Wire) -> None:
    tunnel.send(b"echo\r\n")
    for word in (b"one", b"\0\xff", b"GET / HTTP/1.1\r\n\r\n"):
        assert tunnel.send(word).exactly(len(word)) == word


def test_a_server_that_speaks_first(proxy: Sidecar) -> None:
    """Its first word may come before the proxy has finished connecting."""
    for _ in range(50):
        with proxy.client("greeted") as client:
            assert client.line() == b"220 hello"


def test_a_half_close_passes_and_the_answer_comes_back(tunnel: Wire) -> None:
    assert tunnel.send(b"echo\r\nlast").half_close().read_rest() == (b"lastgoodbye", "eof")


def test_a_big_upload_arrives_whole(tunnel: Wire) -> None:
    tunnel.send(b"swallow\r\n", *[MEBIBYTE] * 32).half_close()
    assert tunnel.read_rest() == (hashlib.sha256(MEBIBYTE * 32).hexdigest().encode(), "eof")


def test_a_big_download_arrives_whole(tunnel: Wire) -> None:
    assert tunnel.send(b"flood\r\n").discard_rest() == (32 * len(MEBIBYTE), "eof")


def test_a_client_that_never_reads_the_rest_keeps_nothing_open(proxy: Sidecar) -> None:
    """Both sides said their last. What the kernel holds differs; of so many clients some leave a little with us."""

    def ended() -> float:
        return proxy.metrics().sum("sidecar_requests_total", listener="impatient")

    earlier = ended()
    with contextlib.ExitStack() as stack:
        before = descriptors_of(proxy.pid)
        for count in range(12, 36):
            client = stack.enter_context(proxy.client("impatient", receive_buffer=4096))
            client.send(b"some\r\n%d\r\n" % (count << 17)).half_close()
        proxy.wait_until(lambda: ended() == earlier + 24, "the tunnels' end")
        proxy.wait_until(lambda: descriptors_of(proxy.pid) <= before, "their descriptors' end")


def test_the_servers_reset_ends_the_tunnel(tunnel: Wire) -> None:
    assert tunnel.send(b"reset\r\n").read_rest()[0] == b""


def test_the_clients_reset_ends_the_tunnel(server: ScriptedUpstream, tunnel: Wire) -> None:
    tunnel.send(b"echo\r\nx").exactly(1)
    tunnel.reset()
    server.wait_until(lambda: server.open_now == 0, "the tunnel's end")


def test_a_client_that_stops_reading_and_leaves(server: ScriptedUpstream, tunnel: Wire) -> None:
    tunnel.send(b"flood\r\n").exactly(1000)
    tunnel.close()
    server.wait_until(lambda: server.open_now == 0, "the tunnel's end")


def test_a_silent_tunnel_is_closed(proxy: Sidecar) -> None:
    with proxy.client("impatient") as wire:
        assert wire.send(b"silence\r\n").read_rest()[0] == b""


def test_nobody_there(proxy: Sidecar) -> None:
    with proxy.client("nobody") as wire:
        assert wire.read_rest()[0] == b""


def test_many_at_once(server: ScriptedUpstream, proxy: Sidecar) -> None:
    answers: list[bytes] = []

    def converse(number: int) -> None:
        with proxy.client("bytes") as wire:
            answers.append(wire.send(b"echo\r\n%d;" % number).half_close().read_rest()[0])

    threads = [threading.Thread(target=converse, args=[number]) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers) == sorted(b"%d;goodbye" % number for number in range(50))


def test_another_upstream_is_connected_to_when_the_first_cannot_be(proxy: Sidecar) -> None:
    for _ in range(4):
        with proxy.client("saved") as client:
            assert client.line() == b"220 hello"
    metrics = proxy.metrics()
    assert metrics.sum("sidecar_breaker_state", upstream="tripping", state="open") == 1
    assert metrics.sum("sidecar_breaker_rejected_total", upstream="tripping") == 2, "it was not connected to any more"
    assert metrics.sum("sidecar_fallbacks_total", upstream="tripping", tier="upstream") == 8, "two tiers, four clients"

    def ended() -> bool:
        found = proxy.metrics()
        return (
            found.sum("sidecar_requests_total", listener="saved", outcome="fallback_upstream") == 4
            and found.sum("sidecar_inflight_requests", listener="saved") == 0
        )

    proxy.wait_until(ended, "four ends")


def test_an_endpoint_that_cannot_be_connected_to_is_ejected(proxy: Sidecar) -> None:
    for _ in range(8):
        with proxy.client("watched") as client:
            assert client.line() == b"220 hello"
    ejections = "sidecar_outlier_ejections_total"
    assert proxy.metrics().sum(ejections, upstream="watched", reason="consecutive_gateway_failures") == 1
    assert proxy.metrics().sum("sidecar_upstream_connects_total", upstream="watched", result="refused") == 2


def test_limits_of_our_own_are_no_failure_of_the_upstream(proxy: Sidecar) -> None:
    with proxy.client("narrow") as first:
        assert first.line() == b"220 hello"
        with proxy.client("narrow") as second:
            assert second.read_rest()[0] == b""
    assert proxy.metrics().sum("sidecar_requests_total", listener="narrow", outcome="overflow") == 1
    assert proxy.metrics().sum("sidecar_breaker_state", upstream="narrow", state="closed") == 1
