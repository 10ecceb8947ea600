"""Connections are kept on both sides, used one request at a time, and their ends are told apart."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, says, sends
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask


@pytest.fixture(scope="module")
def resting() -> Iterator[ScriptedUpstream]:
    """Its connections are closed by the proxy after a short rest."""
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, resting: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs(
        [
            route("resting", "resting", "/resting"),
            {**route("all", "app", timeout="10s"), "match": {"host": "example.test"}},
        ],
        [upstream("app", server.address), upstream("resting", resting.address, idle_timeout="200ms")],
    )


def test_one_client_connection_uses_one_upstream_connection(client: Wire) -> None:
    used = {client.send(ask(f"/{index}")).read_answer().json()["connection"] for index in range(20)}
    assert len(used) == 1


def test_clients_one_after_the_other_share_an_upstream_connection(proxy: Sidecar, codec: str) -> None:
    used = {proxy.get(codec, "/shared").json()["connection"] for _ in range(10)}
    assert len(used) == 1


def test_clients_at_once_never_share_an_upstream_connection(
    server: ScriptedUpstream, proxy: Sidecar, codec: str
) -> None:
    meet = threading.Barrier(3, timeout=PATIENCE)

    def script(peer: Wire, request: Message) -> None:
        meet.wait()
        peer.send(answer(b"%d" % request.connection))

    server.on("/meet", script)
    clients = [proxy.client(codec).send(ask("/meet")) for _ in range(3)]
    assert len({client.read_answer().body for client in clients}) == 3
    for client in clients:
        client.close()


def test_pipelined_requests_are_answered_in_order(server: ScriptedUpstream, client: Wire) -> None:
    """The first answer waits until the upstream is told to go on; local answers wait for their turn too."""
    go = threading.Event()

    def slow(peer: Wire, request: Message) -> None:
        assert go.wait(PATIENCE)
        peer.send(answer(b"slow"))

    server.on("/slow", slow)
    client.send(
        ask("/slow")
        + ask("/p/1")
        + ask("/p/2", method="POST", body=b"x" * 1000)
        + ask("/nowhere", host="unknown.test")
        + ask("/p/3", method="HEAD")
        + ask("/p/4", "transfer-encoding: chunked\r\n", "PUT")
        + b"3\r\nabc\r\n0\r\n\r\n"
        + ask("/p/5")
    )
    go.set()
    assert client.read_answer().body == b"slow"
    assert client.read_answer().json()["target"] == "/p/1"
    assert client.read_answer().json()["length"] == 1000
    assert client.read_answer().decision == "no_route"
    assert client.read_answer("HEAD").status == 200
    assert client.read_answer().json()["length"] == 3
    assert client.read_answer().json()["target"] == "/p/5"


def test_a_long_pipeline_loses_nothing(client: Wire) -> None:
    """Far more than the proxy reads ahead, written while nothing is read."""
    writer = threading.Thread(target=client.send, args=[ask(f"/many/{index}") for index in range(1000)])
    writer.start()
    targets = [client.read_answer().json()["target"] for _ in range(1000)]
    writer.join()
    assert targets == [f"/many/{index}" for index in range(1000)]


def test_nothing_is_served_behind_a_request_that_closes(server: ScriptedUpstream, client: Wire) -> None:
    client.send(ask("/last", "connection: close\r\n") + ask("/behind-the-last"))
    got = client.read_answer()
    assert not got.keeps
    assert client.read_rest() == (b"", "eof")
    assert server.requests("/behind-the-last") == []


def test_nothing_is_served_behind_an_answer_that_was_cut_off(
    server: ScriptedUpstream, proxy: Sidecar, codec: str
) -> None:
    """The client will not hear of it, and it must not be told of a request that was done for nobody."""
    together = threading.Barrier(2)
    server.on("/together", lambda peer, _: (together.wait(PATIENCE), peer.send(answer())))
    server.on("/cut", sends(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", then="close"))
    with proxy.client(codec) as one, proxy.client(codec) as other:
        for client in (one, other):
            client.send(ask("/together"))
        for client in (one, other):
            assert client.read_answer().status == 200
        one.send(ask("/cut") + ask("/behind-the-cut", method="POST", body=b"x"))
        assert one.read_rest()[1] == "reset"
    proxy.get(codec, "/somebody-else")
    assert server.requests("/behind-the-cut") == []


def test_the_upstreams_close_is_its_own_affair(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/closing", sends(answer(b"bye", fields=[("connection", "close")]), then="close"))
    got = client.send(ask("/closing")).read_answer()
    assert got.keeps
    assert client.send(ask("/next")).read_answer().status == 200


def test_an_old_upstreams_connection_is_not_used_again(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/1.0", says_1_0)
    client.send(ask("/1.0")).read_answer()
    client.send(ask("/1.0")).read_answer()
    one, two = server.requests("/1.0")[-2:]
    assert one.connection != two.connection


def says_1_0(peer: Wire, request: Message) -> None:
    peer.send(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")


def test_an_upstream_that_closed_its_idle_connection(server: ScriptedUpstream, client: Wire) -> None:
    first = client.send(ask("/before")).read_answer().json()["connection"]
    server.close_idle()
    server.wait_until(lambda: server.open_now == 0, "all connections closed")
    second = client.send(ask("/after")).read_answer().json()["connection"]
    assert first != second


def test_idle_upstream_connections_are_closed_in_time(resting: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    assert proxy.get(codec, "/resting").status == 200
    resting.wait_until(lambda: resting.open_now == 0, "the idle connection's end")


def test_the_upstreams_keep_alive_field_stays_behind(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/hint", says(b"ok", fields=[("Connection", "keep-alive"), ("Keep-Alive", "timeout=5, max=100")]))
    got = client.send(ask("/hint")).read_answer()
    assert got.all("keep-alive") == []
    assert got.keeps
