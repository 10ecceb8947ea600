"""What happens before the final answer: 103, 100-continue, and answers that overtake their request's body."""

import threading

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.harness import Sidecar, ask

HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n"


def test_early_hints_pass(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/hints", lambda peer, _: peer.send(HINTS + HINTS + answer(b"done")))
    got = client.send(ask("/hints")).read_answer()
    assert [hint.status for hint in got.interim] == [103, 103]
    assert got.interim[0].all("link") == ["</a.css>; rel=preload", "</b.js>"]
    assert got.body == b"done"
    assert client.send(ask("/after")).read_answer().status == 200


def test_early_hints_arrive_before_the_answer_exists(server: ScriptedUpstream, client: Wire) -> None:
    seen = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(HINTS)
        assert seen.wait(PATIENCE)
        peer.send(answer(b"done"))

    server.on("/hints-first", script)
    assert client.send(ask("/hints-first")).read_status().status == 103
    seen.set()
    assert client.read_answer().body == b"done"


def test_an_old_client_gets_no_interim_answer(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/hints-1.0", lambda peer, _: peer.send(HINTS + answer(b"done")))
    with proxy.client(codec) as client:
        got = client.send(ask("/hints-1.0", version="1.0")).read_answer()
    assert got.interim == []
    assert got.body == b"done"


def test_nothing_is_sent_again_after_an_interim_answer(server: ScriptedUpstream, client: Wire) -> None:
    """The connection was kept alive and breaks; but the client has heard of this request."""
    server.on("/hints-and-end", lambda peer, _: peer.send(HINTS).close())
    client.send(ask("/warm-up")).read_answer()
    before = len(server.requests("/hints-and-end"))
    got = client.send(ask("/hints-and-end")).read_answer()
    assert (got.status, len(got.interim)) == (502, 1)
    assert len(server.requests("/hints-and-end")) == before + 1


EXPECTING = b"POST %b HTTP/1.1\r\nhost: example.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"


def test_continue_goes_end_to_end(server: ScriptedUpstream, client: Wire) -> None:
    """The client sends its body only after the upstream's own 100 has come through."""
    for _ in range(2):
        assert client.send(EXPECTING % b"/expect").read_status().status == 100
        assert client.send(b"body").read_answer().json()["length"] == 4
    assert server.requests("/expect")[-1].get("expect") == "100-continue"


def test_a_refused_expectation(server: ScriptedUpstream, client: Wire) -> None:
    """The final answer comes without a 100, and what the connection does next is what it says."""
    server.on("/refused", lambda peer, _: peer.send(answer(b"too big", "413 Content Too Large")).close())
    got = client.send(EXPECTING % b"/refused").read_answer()
    assert (got.status, got.interim, got.body) == (413, [], b"too big")
    if got.keeps:
        assert client.send(b"body", ask("/after")).read_answer().json()["target"] == "/after"
    else:
        assert client.read_rest() == (b"", "eof")


def test_a_client_that_expects_and_does_not_wait(client: Wire) -> None:
    got = client.send(EXPECTING % b"/impatient" + b"body").read_answer()
    assert got.json()["length"] == 4
    assert client.send(ask("/after")).read_answer().json()["target"] == "/after"


def test_an_unknown_expectation(server: ScriptedUpstream, client: Wire) -> None:
    """RFC 9110 §10.1.1: a server may answer 417; passing it on would be its upstream's choice. Never a silent wait."""
    got = client.send(ask("/wishes", "expect: miracles\r\n")).read_answer()
    assert got.status in {200, 417}


def test_an_answer_overtakes_the_upload(server: ScriptedUpstream, client: Wire) -> None:
    """The upstream refuses at once; the client, with most of its body still to send, hears of it."""
    server.on("/early", lambda peer, _: peer.send(answer(b"no", "403 Forbidden", [("connection", "close")])).close())
    client.send(ask("/early", "content-length: 1000000\r\n", "POST"), b"x" * 1000)
    got = client.read_answer()
    assert (got.status, got.body) == (403, b"no")


def test_an_early_answer_from_an_upstream_that_reads_on(server: ScriptedUpstream, client: Wire) -> None:
    took = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(answer(b"accepted", "202 Accepted"))
        peer.read_body(request)
        took.set()

    server.on("/accepted", script)
    client.send(ask("/accepted", "content-length: 100000\r\n", "POST"), b"x" * 1000)
    got = client.read_answer()
    assert (got.status, got.body) == (202, b"accepted")
    if got.keeps:
        client.send(b"x" * 99_000, ask("/after"))
        assert client.read_answer().json()["target"] == "/after"
        assert took.wait(PATIENCE)


def test_a_big_upload_that_is_refused_is_answered(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    """The upstream closes with the upload unread, so its kernel resets; the client gets an answer all the same."""
    server.on(
        "/lost", lambda peer, _: peer.send(answer(b"no", "413 Content Too Large", [("connection", "close")])).close()
    )
    for _ in range(5):
        with proxy.client(codec) as client:
            client.send(ask("/lost", "content-length: 3000000\r\n", "POST"))
            uploading = threading.Thread(target=_upload, args=(client, b"x" * 3_000_000))
            uploading.start()
            got = client.read_answer()
            assert (got.status, got.body, got.decision) == (413, b"no", None)
            uploading.join()


def _upload(client: Wire, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        pass  # the proxy stopped taking it: that is its right once it has answered


def test_question_and_answer_within_one_exchange(server: ScriptedUpstream, client: Wire) -> None:
    """Both bodies stream at the same time: each piece is answered before the next is sent."""

    def script(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while data := peer.read_chunk(request):
            peer.send_chunk(data.upper())
        peer.send(b"0\r\n\r\n")

    server.on("/talk", script)
    client.send(ask("/talk", "transfer-encoding: chunked\r\n", "POST"))
    got = client.read_status()
    for word in (b"one", b"two", b"three"):
        client.send_chunk(word)
        assert client.read_chunk(got) == word.upper()
    client.send(b"0\r\n\r\n")
    assert client.read_chunk(got) == b""
    if got.keeps:
        assert client.send(ask("/after")).read_answer().status == 200


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "199 Odd"])
def test_other_interim_answers_do_not_end_the_exchange(server: ScriptedUpstream, client: Wire, status: str) -> None:
    server.on("/interim", lambda peer, _: peer.send(f"HTTP/1.1 {status}\r\n\r\n".encode() + answer(b"done")))
    assert client.send(ask("/interim")).read_answer().body == b"done"
