"""Bodies cross whole in either framing, whatever the segments; messages without a body have none."""

import base64
import threading

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, chunked, drip, resets, sends
from tests.fakes.wire import PATIENCE, Message, Truncated, Wire
from tests.real.harness import Sidecar, ask

CHUNKED_POST = (
    b"POST %b HTTP/1.1\r\nhost: example.test\r\ntransfer-encoding: chunked\r\n\r\n"
    b'4;name="a;b"\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nx-sum: 42\r\n\r\n'
)


# ---------------------------------------------------------------------------------------------- requests
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1_000_000])
def test_request_body_with_a_length(client: Wire, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    length = "content-length: 0\r\n" if size == 0 else ""
    echoed = client.send(ask("/length", length, "POST", body)).read_answer().json()
    assert echoed["length"] == size
    assert base64.b64decode(echoed["body"]) == body[: len(base64.b64decode(echoed["body"]))]
    assert ["content-length", str(size)] in [[name.lower(), value] for name, value in echoed["fields"]]


def test_chunked_request_with_trailers_and_without_extensions(client: Wire) -> None:
    """That the extensions are gone is the upstream's reader's verdict: it takes bare sizes only."""
    echoed = client.send(CHUNKED_POST % b"/chunked").read_answer().json()
    assert base64.b64decode(echoed["body"]) == b"Wikipedia"
    assert [[name.lower(), value] for name, value in echoed["trailers"]] == [["x-sum", "42"]]


def test_segments_change_nothing_about_a_request(client: Wire) -> None:
    whole = client.send(CHUNKED_POST % b"/pieces").read_answer().json()
    pieces = client.bytewise(CHUNKED_POST % b"/pieces").read_answer().json()
    for volatile in ("fields", "connection"):
        del whole[volatile], pieces[volatile]
    assert pieces == whole


def test_trailers_cannot_smuggle_framing(server: ScriptedUpstream, client: Wire) -> None:
    """A length among the trailers is refused or dropped; it never goes on."""
    client.send(
        b"POST /trailers HTTP/1.1\r\nhost: example.test\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\ncontent-length: 5\r\n\r\n"
    )
    got = client.read_answer()
    if got.status == 200:
        assert got.json()["trailers"] == []
    else:
        assert got.status == 400
        assert not got.keeps
        assert all(request.trailers == [] for request in server.requests("/trailers"))


def test_a_get_without_framing_has_no_body(client: Wire) -> None:
    echoed = client.send(ask("/none")).read_answer().json()
    names = {name.lower() for name, _ in echoed["fields"]}
    assert names.isdisjoint({"content-length", "transfer-encoding"})


# ----------------------------------------------------------------------------------------------- answers
@pytest.mark.parametrize("size", [0, 1, 1024, 65_536, 1_000_000])
def test_answer_with_a_length(server: ScriptedUpstream, client: Wire, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    server.on(f"/answer-{size}", sends(answer(body)))
    got = client.send(ask(f"/answer-{size}")).read_answer()
    assert got.body == body
    assert got.get("content-length") == str(size)
    assert client.send(ask("/after")).read_answer().status == 200


def test_chunked_answer_with_trailers_and_without_extensions(server: ScriptedUpstream, client: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b'3;x="y"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: 7\r\n\r\n'
    server.on("/chunked-answer", sends(head + body))
    server.on("/chunked-answer-slowly", drip(head + body, 0))
    for path in ("/chunked-answer", "/chunked-answer-slowly"):
        got = client.send(ask(path)).read_answer()
        assert got.body == b"abc0123456789abcdef"
        assert got.trailers == [("x-sum", "7")]


def test_chunks_arrive_as_they_are_sent(server: ScriptedUpstream, client: Wire) -> None:
    """Streaming: the next chunk is sent only after the client has told that it saw the one before."""
    saw = [threading.Event() for _ in range(3)]

    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for index, event in enumerate(saw):
            peer.send_chunk(b"part %d" % index)
            assert event.wait(PATIENCE)
        peer.send(b"0\r\n\r\n")

    server.on("/stream", script)
    got = client.send(ask("/stream")).read_status()
    for index, event in enumerate(saw):
        assert client.read_chunk(got) == b"part %d" % index
        event.set()
    assert client.read_chunk(got) == b""


def test_answer_that_ends_with_the_connection(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/until-close", sends(b"HTTP/1.1 200 OK\r\n\r\n", b"as long ", b"as it takes", then="close"))
    assert client.send(ask("/until-close")).read_answer().body == b"as long as it takes"


def test_answer_of_an_old_upstream(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/until-close-1.0", sends(b"HTTP/1.0 200 OK\r\n\r\nold", then="close"))
    got = client.send(ask("/until-close-1.0")).read_answer()
    assert (got.version, got.body) == ("HTTP/1.1", b"old")


@pytest.mark.parametrize("framing", ["content-length: 1000", "transfer-encoding: chunked"])
def test_head_has_no_body(server: ScriptedUpstream, client: Wire, framing: str) -> None:
    path = "/head-" + framing[0]
    server.on(path, sends(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode()))
    got = client.send(ask(path, method="HEAD")).read_answer("HEAD")
    name, _, value = framing.partition(": ")
    assert got.get(name) == value
    assert client.send(ask("/after")).read_answer().json()["target"] == "/after"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n',
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\n\r\n",
    ],
)
def test_answers_without_a_body(server: ScriptedUpstream, client: Wire, head: bytes) -> None:
    server.on("/bare", sends(head))
    got = client.send(ask("/bare")).read_answer()
    assert got.status == int(head[9:12])
    assert client.send(ask("/after")).read_answer().json()["target"] == "/after"


# ---------------------------------------------------------------------------------------------- HTTP/1.0
def test_an_old_client_gets_one_answer_and_a_close(proxy: Sidecar, codec: str) -> None:
    with proxy.client(codec) as client:
        got = client.send(ask("/old", version="1.0")).read_answer()
        assert got.status == 200
        assert not got.keeps
        assert client.read_rest() == (b"", "eof")


def test_an_old_client_never_sees_chunks(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/chunks", sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(b"one", b"two")))
    with proxy.client(codec) as client:
        got = client.send(ask("/chunks", version="1.0")).read_answer()
        assert got.all("transfer-encoding") == []
        assert got.body == b"onetwo"


@pytest.mark.parametrize(
    ("framing", "body"), [("Transfer-Encoding: chunked", chunked(b"one")), ("Content-Length: 3", b"one")]
)
def test_an_old_client_keeps_a_field_whose_name_ends_like_the_coding(
    server: ScriptedUpstream, proxy: Sidecar, codec: str, framing: str, body: bytes
) -> None:
    head = f"HTTP/1.1 200 OK\r\nX-Transfer-Encoding: chunked\r\nX-Next: 1\r\n{framing}\r\n\r\n"
    server.on("/like-the-coding", sends(head.encode() + body))
    with proxy.client(codec) as client:
        got = client.send(ask("/like-the-coding", version="1.0")).read_answer()
    assert (got.get("x-transfer-encoding"), got.get("x-next"), got.body) == ("chunked", "1", b"one")


def test_an_old_client_sees_a_cut_as_a_reset(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """Without chunks the only sign of a broken answer is RST: a clean end would say that it is whole."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    server.on("/cut-chunks", sends(head, b"3\r\none\r\n", then="close"))
    with proxy.client(codec) as client:
        client.send(ask("/cut-chunks", version="1.0"))
        assert client.read_rest()[1] == "reset"


def test_an_old_client_may_ask_to_keep_the_connection(proxy: Sidecar, codec: str) -> None:
    """Kept or not, the answer says which, and what it says is true."""
    with proxy.client(codec) as client:
        got = client.send(ask("/old-keep", "connection: keep-alive\r\n", version="1.0")).read_answer()
        if got.keeps:
            assert client.send(ask("/old-next", version="1.0")).read_answer().json()["target"] == "/old-next"
        else:
            assert client.read_rest() == (b"", "eof")


def test_an_old_client_is_told_what_becomes_of_the_connection_by_our_own_answers_too(
    server: ScriptedUpstream, proxy: Sidecar, codec: str
) -> None:
    server.on("/old-broken", resets)
    with proxy.client(codec) as client:
        got = client.send(ask("/old-broken", "connection: keep-alive\r\n", version="1.0")).read_answer()
        assert (got.status, got.keeps) == (502, False)
        assert client.read_rest() == (b"", "eof")


def test_the_upstream_is_spoken_to_in_1_1(proxy: Sidecar, codec: str) -> None:
    with proxy.client(codec) as client:
        assert client.send(ask("/old", version="1.0")).read_answer().json()["version"] == "HTTP/1.1"


def test_an_old_request_without_host(proxy: Sidecar, codec: str) -> None:
    with proxy.client(codec) as client:
        assert client.send(b"GET /hostless HTTP/1.0\r\n\r\n").read_answer().status == 200


def test_half_a_request_is_never_completed(server: ScriptedUpstream, client: Wire) -> None:
    """A client that ends in the middle of its body does not get its request done."""
    outcome: list[object] = []

    def script(peer: Wire, request: Message) -> None:
        try:
            outcome.append(peer.read_body(request).body)
        except Truncated as cut:
            outcome.append(cut.how)
        server.note()
        peer.close()

    server.on("/half", script)
    client.send(b"POST /half HTTP/1.1\r\nhost: example.test\r\ncontent-length: 10\r\n\r\nhalf").half_close()
    rest, _ = client.read_rest()
    assert b" 200 " not in rest[:20]
    if server.requests("/half"):
        server.wait_until(lambda: outcome, "the end of the cut request")
    assert outcome in ([], ["eof"], ["reset"])
