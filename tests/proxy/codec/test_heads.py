"""Request and response heads by example: what is taken and what it means, what is refused and with which status."""

from typing import Any

import pytest

from sidecar.base.errors import ClientFault, UpstreamFault
from sidecar.base.names import Decision
from sidecar.proxy.codec import FAST, REFERENCE, Codec
from sidecar.proxy.codec.fast import FastCodec
from sidecar.proxy.codec.head import CHUNKED, UNTIL_CLOSE, Limits, RequestHead, ResponseHead, head_end
from tests.proxy.codec import corpus
from tests.proxy.codec.oracle import (
    LIMITS,
    MORE,
    contents,
    cuts_agree,
    request_agrees,
    request_outcome,
    response_agrees,
    response_outcome,
)

CODECS = pytest.mark.parametrize("codec", [FAST, REFERENCE], ids=["fast", "reference"])


class NoReference:
    """Stands where the slow lane is, to show that a head does not take it."""

    def request(self, data: bytes, limits: Limits) -> RequestHead | None:
        raise AssertionError(f"took the slow lane: {data!r}")

    def response(self, data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
        raise AssertionError(f"took the slow lane: {data!r}")

    def body(self, length: int, decode: bool = False) -> Any:
        raise AssertionError("bodies need no reference")


LANE = FastCodec(NoReference())


def request(data: bytes, codec: Codec = FAST) -> RequestHead:
    head = codec.request(data, LIMITS)
    assert head is not None
    return head


def response(data: bytes, method: bytes = b"GET", codec: Codec = FAST) -> ResponseHead:
    head = codec.response(data, method, LIMITS)
    assert head is not None
    return head


# ------------------------------------------------------------------------------------------------ what is refused


@CODECS
@pytest.mark.parametrize("name", corpus.REFUSED_REQUESTS)
def test_a_bad_request_is_the_clients_fault_however_it_is_cut(name: str, codec: Codec) -> None:
    data, status = corpus.REFUSED_REQUESTS[name]
    outcome = request_outcome(codec, data)
    assert outcome == ("fault", ClientFault, status, Decision.BAD_REQUEST)
    cuts_agree((request_outcome(codec, data[:cut]) for cut in range(len(data) + 1)), outcome)


@CODECS
@pytest.mark.parametrize("name", corpus.REFUSED_RESPONSES)
def test_a_bad_response_is_the_upstreams_fault_however_it_is_cut(name: str, codec: Codec) -> None:
    data = corpus.REFUSED_RESPONSES[name]
    outcome = response_outcome(codec, data)
    assert outcome == ("fault", UpstreamFault, 502, Decision.BAD_RESPONSE)
    cuts_agree((response_outcome(codec, data[:cut]) for cut in range(len(data) + 1)), outcome)


@CODECS
def test_a_bare_line_feed_is_refused_as_soon_as_it_is_seen(codec: Codec) -> None:
    assert request_outcome(codec, b"GET / HTTP/1.1\r\nHost: a") == MORE
    assert request_outcome(codec, b"GET / HTTP/1.1\r\nHost: a\n")[0] == "fault"


@CODECS
@pytest.mark.parametrize("name", corpus.REFUSED_REQUESTS)
def test_no_fault_repeats_what_the_network_said(name: str, codec: Codec) -> None:
    with pytest.raises(ClientFault) as caught:
        codec.request(corpus.REFUSED_REQUESTS[name][0], LIMITS)
    assert caught.value.detail.isascii()
    assert len(caught.value.detail) < 60
    assert caught.value.__cause__ is None


# ------------------------------------------------------------------------------------------------ limits


@CODECS
@pytest.mark.parametrize(
    ("data", "limits", "status"),
    [
        (corpus.GET + b"X: " + b"a" * 100 + b"\r\n\r\n", Limits(100, 50, 10), 431),
        (corpus.GET + b"X: y\r\n" * 9 + b"\r\n", Limits(4096, 50, 9), 431),
        (b"GET /" + b"a" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Limits(4096, 50, 9), 414),
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Limits(4096, 50, 9), 414),
        (b"GET /" + b"a" * 200, Limits(4096, 50, 9), 414),
        (b"GET /" + b"a" * 200, Limits(100, 150, 9), 431),
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Limits(100, 90, 9), 431),
        (b"A" * 200 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", Limits(4096, 50, 9), 414),
    ],
    ids=["head", "fields", "target", "line", "endless line", "endless head", "small head", "endless method"],
)
def test_a_limit_that_is_passed(codec: Codec, data: bytes, limits: Limits, status: int) -> None:
    outcome = request_outcome(codec, data, limits)
    assert outcome == ("fault", ClientFault, status, Decision.BAD_REQUEST)
    cuts_agree((request_outcome(codec, data[:cut], limits) for cut in range(len(data) + 1)), outcome)


@CODECS
def test_a_limit_that_is_just_kept(codec: Codec) -> None:
    data = b"GET /" + b"a" * 49 + b" HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 9 + b"\r\n"
    assert request_outcome(codec, data, Limits(len(data), 50, 10))[0] == "head"
    assert request_outcome(codec, data, Limits(len(data) - 1, 50, 10))[2] == 431
    assert request_outcome(codec, data, Limits(len(data), 49, 10))[2] == 414
    assert request_outcome(codec, data, Limits(len(data), 50, 9))[2] == 431


@CODECS
def test_a_response_within_and_beyond_its_limits(codec: Codec) -> None:
    data = corpus.OK + b"X: y\r\n" * 9 + b"\r\n"
    assert response_outcome(codec, data, limits=Limits(len(data), 0, 9))[0] == "head"
    for limits in (Limits(len(data) - 1, 0, 9), Limits(len(data), 0, 8)):
        outcome = response_outcome(codec, data, limits=limits)
        assert outcome[:2] == ("fault", UpstreamFault)
        cuts_agree((response_outcome(codec, data[:cut], limits=limits) for cut in range(len(data) + 1)), outcome)


@CODECS
def test_a_million_fields_are_refused_at_the_first_too_many(codec: Codec) -> None:
    assert request_outcome(codec, corpus.GET + b"a: b\r\n" * 1_000_000)[2] == 431


# ------------------------------------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("name", [*corpus.FAST_REQUESTS, *corpus.SLOW_REQUESTS])
def test_the_codecs_agree_on_a_good_request_however_it_is_cut(name: str) -> None:
    data = {**corpus.FAST_REQUESTS, **corpus.SLOW_REQUESTS}[name]
    assert request_agrees(data, cuts=range(len(data)))[0] == "head"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("name", [*corpus.FAST_RESPONSES, *corpus.SLOW_RESPONSES])
def test_the_codecs_agree_on_a_good_response_however_it_is_cut(name: str, method: bytes) -> None:
    data = {**corpus.FAST_RESPONSES, **corpus.SLOW_RESPONSES}[name]
    assert response_agrees(data, method, cuts=range(len(data)))[0] == "head"


@pytest.mark.parametrize("name", corpus.FAST_REQUESTS)
def test_a_common_request_stays_on_the_fast_lane(name: str) -> None:
    assert LANE.request(corpus.FAST_REQUESTS[name], LIMITS) is not None


@pytest.mark.parametrize("name", corpus.FAST_RESPONSES)
def test_a_common_response_stays_on_the_fast_lane(name: str) -> None:
    assert LANE.response(corpus.FAST_RESPONSES[name], b"GET", LIMITS) is not None


@pytest.mark.parametrize("name", corpus.SLOW_REQUESTS)
def test_an_unusual_request_takes_the_slow_lane(name: str) -> None:
    with pytest.raises(AssertionError, match="slow lane"):
        LANE.request(corpus.SLOW_REQUESTS[name], LIMITS)


@CODECS
@pytest.mark.parametrize(
    ("special", "values"),
    [
        ("Host", ("a", "b")),
        ("Content-Length", ("1", "1")),
        ("Transfer-Encoding", ("chunked", "chunked")),
    ],
)
@pytest.mark.parametrize("between", [b"", b"X: y\r\n", b"Accept: z\r\nConnection: close\r\nHostess: x\r\n"])
@pytest.mark.parametrize("front", [b"", b"Te-x: y\r\n", b"Via: x\r\nX-Forwarded-For: 1\r\n"])
def test_a_second_line_of_what_frames_or_routes_is_never_missed(
    codec: Codec, special: str, values: tuple[str, str], between: bytes, front: bytes
) -> None:
    for spell in (str.title, str.lower, str.upper, str.swapcase):
        first = f"{special}: {values[0]}\r\n".encode()
        second = f"{spell(special)}: {values[1]}\r\n".encode()
        host = b"" if special == "Host" else b"Host: a\r\n"
        for lines in (first + between + second, second + between + first):
            for head in (host + front + lines, front + lines + host):
                data = b"POST / HTTP/1.1\r\n" + head + b"\r\n"
                assert request_outcome(codec, data)[2] == 400


@pytest.mark.parametrize("codec", [LANE, REFERENCE], ids=["fast", "reference"])
def test_what_a_common_request_means(codec: Codec) -> None:
    head = request(corpus.COMMON_REQUEST + b"next", codec)
    assert head.method == b"GET"
    assert head.target == b"/api/v1/orders/12345?expand=items&limit=50"
    assert head.path == b"/api/v1/orders/12345"
    assert head.host == b"orders.shop.svc:8080"
    assert (head.minor, head.length, head.keep_alive, head.expect_continue) == (1, 0, True, False)
    assert head.upgrade is None
    assert head.size == len(corpus.COMMON_REQUEST)
    assert head.wire == corpus.COMMON_REQUEST.replace(b"Connection: keep-alive\r\n\r\n", b"")
    assert head.field(b"X-TENANT") == b"gold"
    assert head.field(b"tenant") is None


@pytest.mark.parametrize("codec", [LANE, REFERENCE], ids=["fast", "reference"])
def test_forwarding_fields_are_cut_out_and_handed_over(codec: Codec) -> None:
    head = request(corpus.FAST_REQUESTS["forwarded"], codec)
    assert head.wire == corpus.GET + b"Via: 1.1 x\r\nX-Real-Ip: 10.0.0.1\r\nx-request-id: 7\r\n"
    assert head.claims == (b"10.0.0.1, 10.0.0.2", b"https", b"shop.example", b"for=10.0.0.1")
    assert head.request_id == b"7"
    assert head.field(b"X-Forwarded-Proto") == b"https"
    assert head.field(b"Forwarded") == b"for=10.0.0.1"
    assert not head.keep_alive


@CODECS
@pytest.mark.parametrize("name", ["client certificate", "client certificates"])
def test_what_a_client_says_of_its_certificate_is_cut_out(name: str, codec: Codec) -> None:
    head = request(corpus.SLOW_REQUESTS[name], codec)
    assert b"client-cert" not in head.wire.lower()
    assert head.field(b"X-Forwarded-Client-Cert") is None


@CODECS
def test_host_goes_first_and_can_be_replaced(codec: Codec) -> None:
    head = request(corpus.FAST_REQUESTS["Host last"], codec)
    assert head.wire == b"GET /a HTTP/1.1\r\nHost: a:8080\r\nAccept: */*\r\n"
    assert head.with_host(b"other") == b"GET /a HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n"


@pytest.mark.parametrize(
    ("name", "target", "path", "host"),
    [
        ("absolute", b"/x?y", b"/x", b"b.example:81"),
        ("absolute without path", b"/", b"/", b"b"),
        ("absolute with query alone", b"/?q", b"/", b"b"),
        ("absolute OPTIONS", b"*", b"*", b"b"),
        ("OPTIONS *", b"*", b"*", b"a"),
        ("IPv6", b"/", b"/", b"[::1]:80"),
        ("empty Host", b"/", b"/", b""),
        ("HTTP/1.0", b"/", b"/", b""),
    ],
)
def test_where_a_request_wants_to_go(name: str, target: bytes, path: bytes, host: bytes) -> None:
    head = request(corpus.SLOW_REQUESTS[name])
    assert (head.target, head.path, head.host) == (target, path, host)
    assert head.wire.startswith(b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, target, host))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("blanks around values", b"Content-Length: 5\r\nX: \r\nY: \r\nZ: z  z\r\n"),
        ("Connection names fields", b"X-C: 3\r\n"),
        (
            "Connection names what stays",
            b"Via: 1.1 x\r\nContent-Length: 1\r\nAuthorization: b\r\nX-Sidecar-X: d\r\nCookie: e\r\n",
        ),
        ("two Connections", b""),
        ("hop-by-hop", b"X: y\r\n"),
        ("h2c", b""),
        ("two X-Forwarded-For", b"X-Request-Id: 3\r\nX-Request-Id: 4\r\n"),
        ("coding in capitals", b"Transfer-Encoding: chunked\r\n"),
        ("expect", b"Content-Length: 5\r\nExpect: 100-Continue\r\n"),
        ("HTTP/1.0 keep-alive", b""),
    ],
)
def test_which_fields_of_a_request_cross(name: str, fields: bytes) -> None:
    assert request(corpus.SLOW_REQUESTS[name]).wire.split(b"\r\n", 2)[2] == fields


@pytest.mark.parametrize(
    ("name", "upgrade"),
    [
        ("websocket", b"websocket"),
        ("upgrade that Connection does not name", None),
        ("HTTP/1.0 upgrade", None),
        ("h2c", None),
        ("h2c or websocket", b"websocket/13"),
    ],
)
def test_which_upgrade_is_asked_for(name: str, upgrade: bytes | None) -> None:
    assert request(corpus.SLOW_REQUESTS[name]).upgrade == upgrade


@pytest.mark.parametrize(
    ("name", "minor", "keep_alive", "expect_continue", "length"),
    [
        ("HTTP/1.0", 0, False, False, 0),
        ("HTTP/1.0 keep-alive", 0, True, False, 0),
        ("two Connections", 1, False, False, 0),
        ("expect", 1, True, True, 5),
        ("coding in capitals", 1, True, False, CHUNKED),
        ("longest length", 1, True, False, 2**60),
    ],
)
def test_what_a_request_asks_of_its_connection(
    name: str, minor: int, keep_alive: bool, expect_continue: bool, length: int
) -> None:
    head = request(corpus.SLOW_REQUESTS[name])
    assert (head.minor, head.keep_alive, head.expect_continue, head.length) == (
        minor,
        keep_alive,
        expect_continue,
        length,
    )


def test_several_forwarding_lines_become_one_value() -> None:
    head = request(corpus.SLOW_REQUESTS["two X-Forwarded-For"])
    assert head.claims == (b"1, 2", None, None, b"for=1, for=2")
    assert head.request_id == head.field(b"x-request-id") == b"3, 4"


@pytest.mark.parametrize("codec", [LANE, REFERENCE], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("common", corpus.COMMON_RESPONSE.replace(b"Connection: keep-alive\r\n", b"")[:-2]),
        ("chunked", corpus.OK + b"Transfer-Encoding: chunked\r\n"),
        ("lower case", corpus.OK + b"date: x\r\ncontent-length: 3\r\n"),
        ("lower-case coding", corpus.OK + b"Transfer-Encoding: chunked\r\nserver: x\r\n"),
        ("no reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n"),
    ],
)
def test_which_fields_of_a_response_cross(codec: Codec, name: str, wire: bytes) -> None:
    assert response(corpus.FAST_RESPONSES[name], codec=codec).wire == wire


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("HTTP/1.0", corpus.OK),
        ("no space after the status", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n"),
        ("blanks in the reason", corpus.OK + b"Content-Length: 0\r\n"),
        ("103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"),
        ("101", b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: x\r\n"),
        ("204 with a length", b"HTTP/1.1 204 No Content\r\n"),
        ("204 with a coding", b"HTTP/1.1 204 No Content\r\n"),
        ("upgrade offered", corpus.OK + b"Content-Length: 1\r\n"),
        ("leading zeros", corpus.OK + b"Content-Length: 10\r\n"),
        ("Connection names a field", corpus.OK + b"Content-Length: 1\r\n"),
        ("proxy challenge", b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n"),
    ],
)
def test_which_fields_of_an_unusual_response_cross(name: str, wire: bytes) -> None:
    assert response(corpus.SLOW_RESPONSES[name]).wire == wire


@pytest.mark.parametrize(
    ("data", "method", "length", "keep_alive"),
    [
        (corpus.FAST_RESPONSES["common"], b"GET", 1024, True),
        (corpus.FAST_RESPONSES["common"], b"HEAD", 0, True),
        (corpus.FAST_RESPONSES["chunked"], b"GET", CHUNKED, True),
        (corpus.FAST_RESPONSES["chunked"], b"HEAD", 0, True),
        (corpus.FAST_RESPONSES["lower case"], b"GET", 3, False),
        (corpus.FAST_RESPONSES["until close"], b"GET", UNTIL_CLOSE, False),
        (corpus.FAST_RESPONSES["until close"], b"HEAD", 0, True),
        (corpus.FAST_RESPONSES["304"], b"GET", 0, True),
        (corpus.FAST_RESPONSES["204"], b"GET", 0, True),
        (corpus.SLOW_RESPONSES["HTTP/1.0"], b"GET", UNTIL_CLOSE, False),
        (corpus.SLOW_RESPONSES["HTTP/1.0 keep-alive"], b"GET", 1, True),
        (corpus.SLOW_RESPONSES["100"], b"GET", 0, True),
        (corpus.SLOW_RESPONSES["101"], b"GET", 0, False),
    ],
)
@CODECS
def test_how_an_answers_body_ends(codec: Codec, data: bytes, method: bytes, length: int, keep_alive: bool) -> None:
    head = response(data, method, codec)
    assert (head.length, head.keep_alive) == (length, keep_alive)


@CODECS
def test_an_answer_that_switches_protocols_says_to_which(codec: Codec) -> None:
    assert response(corpus.SLOW_RESPONSES["101"], codec=codec).upgrade == b"websocket"
    assert response(corpus.FAST_RESPONSES["common"], codec=codec).upgrade is None


def test_length_and_coding_of_an_answer_without_a_body_stay() -> None:
    assert response(corpus.FAST_RESPONSES["304"]).field(b"content-length") == b"99"
    assert response(corpus.FAST_RESPONSES["common"], b"HEAD").field(b"content-length") == b"1024"
    assert response(corpus.FAST_RESPONSES["chunked"], b"HEAD").field(b"transfer-encoding") == b"chunked"


def test_fields_that_come_several_times_are_found_as_one() -> None:
    assert response(corpus.FAST_RESPONSES["cookies"]).field(b"set-cookie") == b"a=1, b=2"


def test_where_a_line_ended() -> None:
    data = b"GET / HTTP/1.1\r\nHost"
    assert head_end(data, 0) == 16
    assert head_end(data, 15) == 16
    assert head_end(data, 16) == -1
    assert head_end(b"", 0) == -1


def test_contents_compare_every_attribute() -> None:
    names = [name for name, _ in contents(request(corpus.COMMON_REQUEST))[1:]]
    assert sorted([*names, "raw"]) == sorted(RequestHead.__slots__)
