"""WebSocket through the proxy, spoken by a real client and a real server; other upgrades by hand."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask

BIG = bytes(range(256)) * 16_384  # 4 MiB
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
UPGRADE = "connection: Upgrade\r\nupgrade: %s\r\n"


@pytest.fixture(scope="module")
def closed_codes() -> list[int]:
    """The close codes that the server saw."""
    return []


@pytest.fixture(scope="module")
def websocket_server(closed_codes: list[int]) -> Iterator[str]:
    """Echoes; `close me` closes with 4001; its address."""

    def talk(connection: ServerConnection) -> None:
        try:
            while True:
                message = connection.recv()
                if message == "close me":
                    connection.close(4001, "as you wish")
                    return
                connection.send(message)
        except ConnectionClosed as closed:
            closed_codes.append(closed.rcvd.code if closed.rcvd else 1006)

    with serve(talk, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(PATIENCE)


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, websocket_server: str) -> dict[str, Any]:
    """The route's timeout is short on purpose: tunnels outlast it."""
    return both_codecs(
        [
            route("ws", "ws", "/ws", timeout="500ms"),
            route("chat", "app", "/chat", upgrades=["chat"]),
            route("all", "app"),
        ],
        [upstream("app", server.address), upstream("ws", websocket_server, idle_timeout="500ms")],
        idle_timeout="500ms",
        body_timeout="500ms",
    )


@pytest.fixture
def websocket(proxy: Sidecar, codec: str) -> Iterator[ClientConnection]:
    with _connect(proxy, codec) as connection:
        yield connection


def _connect(proxy: Sidecar, codec: str, path: str = "/ws") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{proxy.port(codec)}{path}", max_size=None, proxy=None, open_timeout=PATIENCE)


def test_text_and_binary(websocket: ClientConnection) -> None:
    for message in ("grüße", b"\x00\xff", "", "x" * 70_000):
        websocket.send(message)
        assert websocket.recv(PATIENCE) == message


def test_big_messages_both_ways(websocket: ClientConnection) -> None:
    websocket.send(BIG)
    assert websocket.recv(PATIENCE) == BIG


def test_many_messages(websocket: ClientConnection) -> None:
    def send_all() -> None:
        for number in range(500):
            websocket.send(str(number))

    sender = threading.Thread(target=send_all)
    sender.start()
    assert [websocket.recv(PATIENCE) for _ in range(500)] == [str(number) for number in range(500)]
    sender.join()


def test_ping(websocket: ClientConnection) -> None:
    assert websocket.ping().wait(PATIENCE)


def test_the_client_closes(websocket: ClientConnection, closed_codes: list[int], proxy: Sidecar) -> None:
    before = len(closed_codes)
    websocket.send("hello")
    websocket.recv(PATIENCE)
    websocket.close(4002)
    proxy.wait_until(lambda: len(closed_codes) > before, "the close at the server")
    assert closed_codes[-1] == 4002


def test_the_server_closes(websocket: ClientConnection) -> None:
    websocket.send("close me")
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


def test_a_tunnel_is_not_bound_by_the_times_of_requests(websocket: ClientConnection) -> None:
    """Silence longer than every request's time-out of this proxy: the tunnel still stands."""
    with pytest.raises(TimeoutError):
        websocket.recv(timeout=1.2)
    websocket.send("still here")
    assert websocket.recv(PATIENCE) == "still here"


def test_tunnels_are_counted_while_they_stand(proxy: Sidecar, codec: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(_connect(proxy, codec))
        assert proxy.metrics().sum("sidecar_tunnels", listener=codec) == 5
    proxy.wait_until(lambda: proxy.metrics().sum("sidecar_tunnels", listener=codec) == 0, "no tunnel left")


def test_a_refused_upgrade_is_an_answer(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/no", lambda peer, _: peer.send(answer(b"no", "403 Forbidden")))
    with pytest.raises(InvalidStatus) as refused:
        _connect(proxy, codec, "/no")
    assert refused.value.response.status_code == 403


def test_an_upgrade_that_the_route_does_not_know_is_a_plain_request(client: Wire) -> None:
    got = client.send(ask("/plain", UPGRADE % "h2c")).read_answer()
    names = {name.lower() for name, _ in got.json()["fields"]}
    assert names.isdisjoint({"upgrade", "connection"})
    assert client.send(ask("/after")).read_answer().status == 200


def test_the_first_bytes_after_the_switch_are_not_lost(server: ScriptedUpstream, client: Wire) -> None:
    """The server's first words come in the segment of its 101, and everything after is not HTTP at all."""

    def script(peer: Wire, request: Message) -> None:
        assert request.get("upgrade") == "chat"
        assert "upgrade" in request.words_of("connection")
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n\0welcome")
        assert peer.exactly(5) == b"\0\r\n\r\n"
        peer.send(b"bye").half_close()
        assert peer.read_rest() == (b"last words", "eof")
        peer.close()

    server.on("/chat", script)
    got = client.send(ask("/chat", UPGRADE % "chat")).read_answer()
    assert got.status == 101
    assert got.get("upgrade") == "chat"
    assert client.exactly(8) == b"\0welcome"
    client.send(b"\0\r\n\r\n")
    assert client.read_rest() == (b"bye", "eof")  # the server's half-close came through, ours still stands
    client.send(b"last words").half_close()
    server.wait_until(lambda: not server.is_open(server.requests("/chat")[-1].connection), "the tunnel's end")


def test_a_switch_that_nobody_asked_for_is_a_bad_answer(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/unasked", lambda peer, _: peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\n\r\n"))
    got = client.send(ask("/unasked")).read_answer()
    assert (got.status, got.decision) == (502, "bad_response")


def test_a_switch_before_the_request_is_whole_is_a_bad_answer(server: ScriptedUpstream, client: Wire) -> None:
    """What is still to come of its body would pass unread, framing and all."""
    server.on("/chat/early", lambda peer, _: peer.send(SWITCH))
    got = client.send(ask("/chat/early", UPGRADE % "chat" + "transfer-encoding: chunked\r\n", "POST")).read_answer()
    assert (got.status, got.decision) == (502, "bad_response")


def test_a_client_that_said_its_last_before_the_switch(server: ScriptedUpstream, proxy: Sidecar, client: Wire) -> None:
    switch, heard = threading.Event(), []

    def script(peer: Wire, request: Message) -> None:
        assert switch.wait(PATIENCE)
        heard.append(peer.send(SWITCH).read_rest())
        peer.send(b"bye").close()

    server.on("/chat/last", script)
    client.send(ask("/chat/last", UPGRADE % "chat") + b"all I say").half_close()
    assert proxy.get("fast", "/somebody-else").status == 200  # the loop has turned: the half-close has been seen
    switch.set()
    assert client.read_answer().status == 101
    assert client.read_rest() == (b"bye", "eof")
    assert heard == [(b"all I say", "eof")]


def test_a_server_that_breaks_the_tunnel(server: ScriptedUpstream, client: Wire) -> None:
    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        peer.exactly(2)
        peer.reset()

    server.on("/chat/breaks", script)
    assert client.send(ask("/chat/breaks", UPGRADE % "chat")).read_answer().status == 101
    assert client.send(b"go").read_rest()[0] == b""


def test_a_client_that_breaks_the_tunnel(server: ScriptedUpstream, client: Wire) -> None:
    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        peer.read_rest()
        peer.close()

    server.on("/chat/left", script)
    assert client.send(ask("/chat/left", UPGRADE % "chat")).read_answer().status == 101
    client.reset()
    server.wait_until(lambda: not server.is_open(server.requests("/chat/left")[-1].connection), "the tunnel's end")
