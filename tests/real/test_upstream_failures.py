"""Upstreams that cannot be reached, break, stall or talk nonsense: each has its answer, and poisons nothing."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, chunked, drip, never, resets, sends
from tests.fakes.wire import PATIENCE, Message, Truncated, Wire
from tests.real.documents import black_hole, both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar, ask


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> Iterator[dict[str, Any]]:
    with black_hole() as nowhere:
        yield both_codecs(
            [
                route("refused", "refused", "/refused"),
                route("nowhere", "nowhere", "/nowhere"),
                route("hurried", "app", "/hurried", timeout="300ms"),
                route("all", "app", timeout="10s"),
            ],
            [
                upstream("app", server.address, idle_timeout="400ms"),
                upstream("refused", f"127.0.0.1:{free_port()}"),
                upstream("nowhere", nowhere, connect_timeout="200ms"),
            ],
        )


def verdict(got: Message) -> tuple[int, str | None]:
    return got.status, got.decision


def in_step(client: Wire, got: Message) -> None:
    """After one of our answers the client's connection is what the answer said: usable, or closed."""
    if got.keeps:
        assert client.send(ask("/in-step")).read_answer().json()["target"] == "/in-step"
    else:
        assert client.read_rest()[0] == b""


# ------------------------------------------------------------------------------------- before the answer
def test_a_refused_connection(client: Wire) -> None:
    got = client.send(ask("/refused")).read_answer()
    assert verdict(got) == (502, "connect_failure")
    in_step(client, got)


def test_a_connection_that_never_opens(client: Wire) -> None:
    got = client.send(ask("/nowhere")).read_answer()
    assert verdict(got) == (502, "connect_failure")
    in_step(client, got)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-le"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_breaks_before_the_answer(
    server: ScriptedUpstream, client: Wire, said: bytes, how: str
) -> None:
    server.on("/breaks", sends(said, then=how))
    got = client.send(ask("/breaks", method="POST", body=b"x")).read_answer()
    assert got.status == 502
    assert got.decision in ({"reset"} if not said else {"reset", "bad_response"})
    in_step(client, got)


def test_an_upstream_that_never_answers(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/hurried/never", never)
    got = client.send(ask("/hurried/never")).read_answer()
    assert verdict(got) == (504, "timeout")
    server.wait_until(
        lambda: not server.is_open(server.requests("/hurried/never")[-1].connection), "the connection's end"
    )
    in_step(client, got)


def test_an_upstream_that_dribbles_its_head(server: ScriptedUpstream, client: Wire) -> None:
    """Each byte comes in time, the head does not."""
    server.on("/hurried/drips", drip(answer(b"x", fields=[("x-pad", "p" * 200)]), 0.05))
    assert verdict(client.send(ask("/hurried/drips")).read_answer()) == (504, "timeout")


def test_an_upstream_that_only_promises(server: ScriptedUpstream, client: Wire) -> None:
    """103s without end are not an answer."""
    server.on("/hurried/promises", drip(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, 0.01))
    assert verdict(client.send(ask("/hurried/promises")).read_answer()) == (504, "timeout")


def test_a_slow_answer_in_time(server: ScriptedUpstream, client: Wire) -> None:
    """The time-out ends with the head: a body may take longer, as long as it moves."""
    server.on("/hurried/slowly", drip_body)
    assert client.send(ask("/hurried/slowly")).read_answer().body == b"x" * 20


def drip_body(peer: Wire, request: Message) -> None:
    peer.send(answer(b"x" * 20)[:-20])
    drip(b"x" * 20, 0.04)(peer, request)


# --------------------------------------------------------------------------------------- within the body
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [LENGTH + b"some", CHUNKED + b"4\r\nsome\r\n", CHUNKED + b"8\r\nsome", CHUNKED + b"4\r\nsome\r\n0\r\n"],
    ids=["length", "between chunks", "within a chunk", "before the last line"],
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_cut_answer_looks_cut(server: ScriptedUpstream, client: Wire, sent: bytes, how: str) -> None:
    server.on("/cut", sends(sent, then=how))
    with pytest.raises(Truncated):
        _whole(client.send(ask("/cut")))


def _whole(client: Wire) -> None:
    """Reads an answer. A reset may overtake its first bytes: then our own 502 says the same as a cut."""
    got = client.read_answer()
    if got.decision == "reset":
        raise Truncated("reset", got)


def test_a_reset_ends_no_answer_cleanly(server: ScriptedUpstream, client: Wire) -> None:
    """Without framing only a proper close ends an answer."""
    server.on("/until-reset", sends(b"HTTP/1.1 200 OK\r\n\r\nsome", then="reset"))
    with pytest.raises(Truncated):
        _whole(client.send(ask("/until-reset")))


def test_an_answer_that_stalls(server: ScriptedUpstream, client: Wire) -> None:
    """The upstream's idle time bounds the silence within an answer."""

    def script(peer: Wire, request: Message) -> None:
        peer.send(LENGTH + b"some")
        peer.read_rest()
        peer.close()

    server.on("/stalls", script)
    with pytest.raises(Truncated):
        client.send(ask("/stalls")).read_answer()


# ------------------------------------------------------------------------------------------- bad answers
BAD_ANSWERS = {
    "no http": b"hello there\r\n\r\n",
    "binary": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "http/0.9": b"<html>hi</html>",
    "status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    "bare lf": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "bare lf within": b"HTTP/1.1 200 OK\r\nx: y\ncontent-length: 0\r\n\r\n",
    "bare cr": b"HTTP/1.1 200 OK\r\nx: y\rz\r\ncontent-length: 0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\ncontent-length: 0\r\n\r\n",
    "empty name": b"HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab",
    "signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\na",
    "hexadecimal length": b"HTTP/1.1 200 OK\r\ncontent-length: 0x1\r\n\r\na",
    "empty length": b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
    "endless length": b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 400 + b"\r\n\r\n",
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "head too long": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
@pytest.mark.parametrize("pieces", ["at once", "in pieces"])
def test_a_bad_answer(server: ScriptedUpstream, client: Wire, bad: bytes, pieces: str) -> None:
    """502, and the connection it came on is closed, though the upstream would go on."""
    step = len(bad) if pieces == "at once" else max(1, len(bad) // 500)
    split = [bad[at : at + step] for at in range(0, len(bad), step)]
    server.on("/bad", sends(*split))
    got = client.send(ask("/bad")).read_answer()
    assert verdict(got) == (502, "bad_response")
    server.wait_until(lambda: not server.is_open(server.requests("/bad")[-1].connection), "the connection's end")
    in_step(client, got)


BAD_BODIES = {
    "size without digits": b"zz\r\nab\r\n0\r\n\r\n",
    "signed size": b"+2\r\nab\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "endless size": b"f" * 40 + b"\r\nab",
    "data too long": b"2\r\nabc\r\n0\r\n\r\n",
    "bare lf after the size": b"2\nab\r\n0\r\n\r\n",
    "bare lf after the data": b"2\r\nab\n0\r\n\r\n",
    "endless extension": b"2;" + b"x" * 1_000_000,
    "nonsense for trailers": b"2\r\nab\r\n0\r\nnonsense\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_cut_off(server: ScriptedUpstream, client: Wire, bad: bytes) -> None:
    """The client has the head: what follows can only be cut, never be made to look whole."""
    go = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        peer.send(CHUNKED)
        assert go.wait(PATIENCE)
        peer.send(bad)

    server.on("/bad-body", script)
    got = client.send(ask("/bad-body")).read_status()
    go.set()
    with pytest.raises(Truncated):
        client.read_body(got)
    server.wait_until(lambda: not server.is_open(server.requests("/bad-body")[-1].connection), "the connection's end")


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_that_is_seen_in_time(server: ScriptedUpstream, client: Wire, bad: bytes) -> None:
    """Nothing has gone to the client yet: it gets an answer, not a bare close."""
    server.on("/bad-body-at-once", sends(CHUNKED + bad))
    assert verdict(client.send(ask("/bad-body-at-once")).read_answer()) == (502, "bad_response")


# ------------------------------------------------------------------------------------------------ poison
@pytest.mark.parametrize(
    "answered",
    [
        answer(b"mine") + answer(b"poison"),
        answer(b"mine") + b"x",
        CHUNKED + chunked(b"mine") + answer(b"poison"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n" + answer(b"poison"),
        b"HTTP/1.1 204 No Content\r\n\r\npoison",
    ],
    ids=["answer", "byte", "behind chunks", "behind 304", "behind 204"],
)
def test_more_than_an_answer_poisons_nobody(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str, answered: bytes
) -> None:
    server.on("/extra", sends(answered))
    got = client.send(ask("/extra")).read_answer()
    assert got.body in (b"mine", b"")
    poisoned = server.requests("/extra")[-1].connection
    for echoed in (client.send(ask("/mine")).read_answer().json(), proxy.get(codec, "/theirs").json()):
        assert echoed["target"] in {"/mine", "/theirs"}
        assert echoed["connection"] != poisoned


def test_a_late_word_poisons_nobody(server: ScriptedUpstream, proxy: Sidecar, client: Wire) -> None:
    """The upstream speaks on its idle connection: that connection is not used again."""
    assert client.send(ask("/first")).read_answer().status == 200
    number = server.requests("/first")[-1].connection
    server.say(number, answer(b"poison"))
    server.wait_until(lambda: not server.is_open(number), "the connection's end")
    assert client.send(ask("/second")).read_answer().json()["target"] == "/second"


def test_head_with_a_body_poisons_nobody(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/head", sends(answer(b"a body that HEAD must not have")))
    assert client.send(ask("/head", method="HEAD")).read_answer("HEAD").status == 200
    assert client.send(ask("/mine")).read_answer().json()["target"] == "/mine"


def test_failures_are_counted_by_their_word(server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str) -> None:
    server.on("/resets", resets)
    before = proxy.metrics().sum("sidecar_requests_total", listener=codec, code="502", outcome="reset")
    client.send(ask("/resets")).read_answer()
    assert proxy.metrics().sum("sidecar_requests_total", listener=codec, code="502", outcome="reset") == before + 1
