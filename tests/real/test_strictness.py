"""The smuggling classics through the real port: refused, closed, and not a byte at the upstream, however they are cut.

Each message carries a second request behind it. If two readers could disagree about where the first one ends, that
second one would slip through; so the proof is that the upstream never hears of it.
"""

from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Message, Truncated, Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar, ask

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /outer HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /outer HTTP/1.1\r\nHost: a\r\n"

HEADS: dict[str, tuple[bytes, set[int]]] = {
    # Two ideas of the length
    "CL.TE": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "TE.CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", {400}),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n", {400}),
    "equal lengths": (POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", {400}),
    "list of lengths": (POST + b"Content-Length: 0, 0\r\n\r\n", {400}),
    "plus length": (POST + b"Content-Length: +0\r\n\r\n", {400}),
    "minus length": (POST + b"Content-Length: -1\r\n\r\n", {400}),
    "spaced length": (POST + b"Content-Length: 1 2\r\n\r\n", {400}),
    "hexadecimal length": (POST + b"Content-Length: 0x10\r\n\r\n", {400}),
    "underscored length": (POST + b"Content-Length: 1_0\r\n\r\n", {400}),
    "empty length": (POST + b"Content-Length: \r\n\r\n", {400}),
    "endless length": (POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n", {400, 413}),
    "unicode length": (POST + b"Content-Length: \xd9\xa1\r\n\r\n", {400}),
    # Transfer codings that somebody might read as chunked, or not
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", {400, 501}),
    "identity": (POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", {400, 501}),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked with vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked with a parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in quotes": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', {400, 501}),
    "empty coding": (POST + b"Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n", {400, 501}),
    "space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", {400}),
    "tab before the colon": (POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", {400}),
    "chunked in 1.0": (b"POST /outer HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    # Line ends and what hides in them
    "bare lf": (b"GET /outer HTTP/1.1\nHost: a\n\n", {400}),
    "bare lf between fields": (GET + b"X: y\nContent-Length: 10\r\n\r\n", {400}),
    "bare cr in a value": (GET + b"X: y\rContent-Length: 10\r\n\r\n", {400}),
    "lf cr": (b"GET /outer HTTP/1.1\n\rHost: a\n\r\n\r", {400}),
    "folded": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "folded first field": (b"GET /outer HTTP/1.1\r\n Host: a\r\n\r\n", {400}),
    "nul in a value": (GET + b"X: a\0b\r\n\r\n", {400}),
    "nul in a name": (GET + b"X\0: b\r\n\r\n", {400}),
    "control in a value": (GET + b"X: a\x01b\r\n\r\n", {400}),
    "no colon": (GET + b"nonsense\r\n\r\n", {400}),
    "empty name": (GET + b": x\r\n\r\n", {400}),
    "name with a space": (GET + b"X Y: z\r\n\r\n", {400}),
    "name in unicode": (GET + b"X\xc3\xa9: z\r\n\r\n", {400}),
    # Host
    "no host": (b"GET /outer HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (GET + b"Host: b\r\n\r\n", {400}),
    "equal hosts": (GET + b"Host: a\r\n\r\n", {400}),
    "host with a path": (b"GET /outer HTTP/1.1\r\nHost: a/b\r\n\r\n", {400}),
    "host with a space": (b"GET /outer HTTP/1.1\r\nHost: a b\r\n\r\n", {400}),
    "host with a user": (b"GET /outer HTTP/1.1\r\nHost: a@b\r\n\r\n", {400}),
    "host list": (b"GET /outer HTTP/1.1\r\nHost: a, b\r\n\r\n", {400}),
    "host with a port of letters": (b"GET /outer HTTP/1.1\r\nHost: a:http\r\n\r\n", {400}),
    # The request line
    "two spaces": (b"GET  /outer HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "tab for a space": (b"GET\t/outer HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "leading space": (b" GET /outer HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "trailing space": (b"GET /outer HTTP/1.1 \r\nHost: a\r\n\r\n", {400, 505}),
    "space in the target": (b"GET /out er HTTP/1.1\r\nHost: a\r\n\r\n", {400, 505}),
    "nul in the target": (b"GET /out\0er HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "fragment in the target": (b"GET /outer#x HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "raw bytes in the target": (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "relative target": (b"GET outer HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "asterisk with GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "method with a slash": (b"G/T /outer HTTP/1.1\r\nHost: a\r\n\r\n", {400, 501}),
    "no version": (b"GET /outer\r\nHost: a\r\n\r\n", {400, 505}),
    "version 0.9": (b"GET /outer HTTP/0.9\r\nHost: a\r\n\r\n", {400, 505}),
    "version 1.2": (b"GET /outer HTTP/1.2\r\nHost: a\r\n\r\n", {400, 505}),
    "version 2.0": (b"GET /outer HTTP/2.0\r\nHost: a\r\n\r\n", {400, 505}),
    "version in lower case": (b"GET /outer http/1.1\r\nHost: a\r\n\r\n", {400, 505}),
    "version 1.10": (b"GET /outer HTTP/1.10\r\nHost: a\r\n\r\n", {400, 505}),
    "version 01.1": (b"GET /outer HTTP/01.1\r\nHost: a\r\n\r\n", {400, 505}),
    "version with unicode digits": (b"GET /outer HTTP/1.\xd9\xa1\r\nHost: a\r\n\r\n", {400, 505}),
}

CHUNKED = b"POST /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BODIES = {
    "no size": b"\r\nab\r\n0\r\n\r\n",
    "signed size": b"+2\r\nab\r\n0\r\n\r\n",
    "negative size": b"-2\r\nab\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "underscored size": b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "size of letters": b"xyz\r\nab\r\n0\r\n\r\n",
    "leading space": b" 2\r\nab\r\n0\r\n\r\n",
    "endless size": b"0" * 2000 + b"2\r\nab\r\n0\r\n\r\n",
    "overflowing size": b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "bare lf after the size": b"2\nab\r\n0\r\n\r\n",
    "bare cr after the size": b"2\rab\r\n0\r\n\r\n",
    "bare lf after the data": b"2\r\nab\n0\r\n\r\n",
    "data longer than the size": b"2\r\nabc\r\n0\r\n\r\n",
    "bare lf in an extension": b"2;a\nb\r\nab\r\n0\r\n\r\n",
    "nul in an extension": b"2;a=\0\r\nab\r\n0\r\n\r\n",
    "endless extension": b"2;" + b"a" * 100_000 + b"\r\nab\r\n0\r\n\r\n",
    "bare lf at the end": b"2\r\nab\r\n0\r\n\n",
    "nonsense for a trailer": b"2\r\nab\r\n0\r\nnonsense\r\n\r\n",
    "folded trailer": b"2\r\nab\r\n0\r\nX: a\r\n b\r\n\r\n",
}


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs([route("all", "app", timeout="10s")], [upstream("app", server.address)])


def sent(client: Wire, data: bytes, cut: str) -> Wire:
    """As far as the proxy takes it."""
    try:
        return client.send(data) if cut == "at once" else client.bytewise(data)
    except OSError:
        return client


@pytest.mark.parametrize("cut", ["at once", "bytewise"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_could_be_read_twice(server: ScriptedUpstream, client: Wire, name: str, cut: str) -> None:
    head, statuses = HEADS[name]
    before = len(server.seen)
    got = sent(client, head + SMUGGLED, cut).read_answer()
    assert got.status in statuses
    assert got.decision == "bad_request"
    assert not got.keeps
    assert client.read_rest()[0] == b"", "a second answer"
    assert len(server.seen) == before, "it reached the upstream"


@pytest.mark.parametrize("cut", ["at once", "bytewise"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_could_be_read_twice(server: ScriptedUpstream, client: Wire, name: str, cut: str) -> None:
    """Its head may have gone on already; its end does not, nor what stands behind it."""
    outcome: list[object] = []

    def script(peer: Wire, request: Message) -> None:
        try:
            outcome.append(peer.read_body(request).body)
        except Truncated as broken:
            outcome.append(broken.how)
        server.note()
        peer.close()

    server.on("/outer", script)
    before = len(server.seen)
    if len(BODIES[name]) > 10_000 and cut == "bytewise":
        cut = "at once"
    got = sent(client, CHUNKED + BODIES[name] + SMUGGLED, cut).read_answer()
    assert (got.status, got.decision, got.keeps) == (400, "bad_request", False)
    assert client.read_rest()[0] == b"", "a second answer"
    reached = server.seen[before:]
    if reached:
        server.wait_until(lambda: outcome, "the end of the cut request")
    assert [request.target for request in reached] in ([], ["/outer"])
    assert outcome in ([], ["eof"], ["reset"])


def test_what_is_unusual_but_right_is_taken(client: Wire) -> None:
    """Strict is not timid: all of this is HTTP."""
    client.send(
        b"PROPFIND /%7Euser/a;b=c?x=%00&y=[1] HTTP/1.1\r\nhOST:   A.example:80\t\r\nX-Empty:\r\n"
        b'Transfer-Encoding: Chunked\r\n\r\n00A;a=b;c="d;\\"e"\r\n0123456789\r\n000\r\nX-T: 1\r\n\r\n'
    )
    assert client.read_answer().json()["length"] == 10


def test_a_line_end_before_a_request(client: Wire) -> None:
    """RFC 9112 §2.2 lets one pass for old clients; refusing it is right too. What comes is one verdict, not a guess."""
    got = client.send(b"\r\n" + ask("/after-crlf")).read_answer()
    if got.status == 200:
        assert got.json()["target"] == "/after-crlf"
    else:
        assert got.status == 400
        assert not got.keeps


def test_verdicts_are_counted_not_logged_in_full(proxy: Sidecar, client: Wire, codec: str) -> None:
    before = proxy.metrics().sum("sidecar_requests_total", listener=codec, code="400", outcome="bad_request")
    client.send(b"SECRET-TOKEN\r\n\r\n").read_answer()
    assert (
        proxy.metrics().sum("sidecar_requests_total", listener=codec, code="400", outcome="bad_request") == before + 1
    )
    assert "SECRET-TOKEN" not in proxy.log
    assert "SECRET-TOKEN" not in proxy.metrics().text
