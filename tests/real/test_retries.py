"""When a try that failed is followed by another, and when it must not be."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import Script, ScriptedUpstream, answer, never, resets, says, sends
from tests.fakes.wire import PATIENCE, Message, Truncated, Wire
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar, ask

Pair = tuple[ScriptedUpstream, ScriptedUpstream]
ROOMY = {"ratio": 1.0, "min_per_second": 100}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two endpoints of one upstream."""
    with ScriptedUpstream() as one, ScriptedUpstream() as two:
        yield one, two


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, pair: Pair) -> dict[str, Any]:
    dead = f"127.0.0.1:{free_port()}"
    quick = {"backoff": "1ms", "backoff_max": "2ms"}
    patient = {**quick, "per_try_timeout": "200ms", "retry_on": ["connect_failure", "reset", "timeout", 503]}
    return both_codecs(
        [
            route("half-dead", "half-dead", "/half-dead", retry=quick),
            route("tries", "pair", "/tries", timeout="10s", retry=patient),
            route("thrice", "app", "/thrice", retry={**quick, "attempts": 3}),
            route("poor", "poor", "/poor", retry={**quick, "attempts": 5}),
            route("all", "app", timeout="5s"),
        ],
        [
            upstream("app", server.address, retry_budget=ROOMY),
            upstream("pair", *(one.address for one in pair), balance="round_robin", retry_budget=ROOMY),
            upstream("half-dead", server.address, dead, balance="round_robin", retry_budget=ROOMY),
            upstream("poor", server.address, retry_budget={"ratio": 0.0, "min_per_second": 0}),
        ],
    )


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path of the test's own below /tries."""
    return f"/tries/{abs(hash(request.node.nodeid))}"


class Turns:
    """The n-th request that comes, at whichever endpoint, is answered by the n-th script; the last one repeats."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def __call__(self, peer: Wire, request: Message) -> None:
        with self._lock:
            turn = next(self._turn)
        self._scripts[min(turn, len(self._scripts) - 1)](peer, request)


def on_both(pair: Pair, path: str, *scripts: Script) -> None:
    turns = Turns(*scripts)
    for one in pair:
        one.on(path, turns)


def tries(pair: Pair, path: str) -> list[int]:
    """How many tries each endpoint saw."""
    return [len(one.requests(path)) for one in pair]


# ------------------------------------------------------------------------------------------- tried again
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_elsewhere(client: Wire, method: str) -> None:
    """Nothing was sent, so even a POST may go to the other endpoint, and the rest of its body follows."""
    body = b"x" * 1_000_000 if method == "POST" else b""
    for _ in range(6):
        assert client.send(ask("/half-dead", method=method, body=body)).read_answer().status == 200


def test_a_reset_is_tried_elsewhere(pair: Pair, client: Wire, path: str) -> None:
    on_both(pair, path, resets, says(b"ok"))
    assert client.send(ask(path)).read_answer().body == b"ok"
    assert tries(pair, path) == [1, 1]


def test_a_status_is_tried_elsewhere(pair: Pair, client: Wire, path: str) -> None:
    on_both(pair, path, says(b"busy", "503 Service Unavailable"), says(b"ok"))
    got = client.send(ask(path)).read_answer()
    assert (got.status, got.body) == (200, b"ok")
    assert tries(pair, path) == [1, 1]


def test_a_try_that_takes_too_long_is_tried_elsewhere(pair: Pair, client: Wire, path: str) -> None:
    on_both(pair, path, never, says(b"ok"))
    assert client.send(ask(path)).read_answer().body == b"ok"
    assert tries(pair, path) == [1, 1]


def test_a_body_is_sent_again_whole(pair: Pair, client: Wire, path: str) -> None:
    bodies = []

    def take(peer: Wire, request: Message) -> None:
        bodies.append(peer.read_body(request).body)
        if len(bodies) == 1:
            peer.reset()
        else:
            peer.send(answer(b"ok"))

    on_both(pair, path, take)
    body = bytes(range(256)) * 16
    assert client.send(ask(path, method="PUT", body=body)).read_answer().body == b"ok"
    assert bodies == [body, body]


def test_a_chunked_body_is_sent_again_whole(pair: Pair, client: Wire, path: str) -> None:
    bodies = []

    def take(peer: Wire, request: Message) -> None:
        bodies.append(peer.read_body(request).body)
        if len(bodies) == 1:
            peer.reset()
        else:
            peer.send(answer(b"ok"))

    on_both(pair, path, take)
    client.send(ask(path, "transfer-encoding: chunked\r\n", "PUT"), b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    assert client.read_answer().body == b"ok"
    assert bodies == [b"abcde", b"abcde"]


def test_the_last_try_is_the_answer(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/thrice", says(b"busy", "503 Service Unavailable"))
    before = len(server.requests("/thrice"))
    got = client.send(ask("/thrice")).read_answer()
    assert (got.status, got.body) == (503, b"busy")
    assert len(server.requests("/thrice")) == before + 3


def test_retries_are_counted(pair: Pair, proxy: Sidecar, client: Wire, path: str) -> None:
    on_both(pair, path, resets, says(b"ok"))
    before = proxy.metrics().sum("sidecar_retries_total", upstream="pair")
    client.send(ask(path)).read_answer()
    assert proxy.metrics().sum("sidecar_retries_total", upstream="pair") == before + 1


def test_retry_after_that_can_be_waited_for(pair: Pair, client: Wire, path: str) -> None:
    busy = says(b"busy", "503 Service Unavailable", [("retry-after", "0")])
    on_both(pair, path, busy, says(b"ok"))
    assert client.send(ask(path)).read_answer().body == b"ok"


# --------------------------------------------------------------------------------------- not tried again
def test_retry_after_that_outlasts_the_request(pair: Pair, client: Wire, path: str) -> None:
    busy = says(b"busy", "503 Service Unavailable", [("retry-after", "60")])
    on_both(pair, path, busy, says(b"ok"))
    got = client.send(ask(path)).read_answer()
    assert (got.status, got.get("retry-after")) == (503, "60")
    assert sum(tries(pair, path)) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    "script", [resets, says(b"busy", "503 Service Unavailable"), never], ids=["reset", "503", "never"]
)
def test_what_is_not_idempotent_is_sent_once(pair: Pair, client: Wire, path: str, method: str, script: Script) -> None:
    on_both(pair, path, script, says(b"ok"))
    got = client.send(ask(path, method=method, body=b"x")).read_answer()
    assert got.status in {502, 503, 504}
    assert sum(tries(pair, path)) == 1


def test_never_after_a_byte(pair: Pair, client: Wire, path: str) -> None:
    """The client has seen the answer's beginning: a second one would be a lie."""
    go = threading.Event()

    def half(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
        assert go.wait(PATIENCE)
        peer.reset()

    on_both(pair, path, half, says(b"ok"))
    got = client.send(ask(path)).read_status()
    go.set()
    with pytest.raises(Truncated):
        client.read_body(got)
    assert sum(tries(pair, path)) == 1


def test_a_body_too_big_to_keep_is_sent_once(pair: Pair, client: Wire, path: str) -> None:
    on_both(pair, path, resets, says(b"ok"))
    got = client.send(ask(path, method="PUT", body=b"x" * 300_000)).read_answer()
    assert (got.status, got.decision) == (502, "reset")
    assert sum(tries(pair, path)) == 1


def test_a_status_that_no_rule_names(pair: Pair, client: Wire, path: str) -> None:
    on_both(pair, path, says(b"broken", "500 Internal Server Error"), says(b"ok"))
    assert client.send(ask(path)).read_answer().status == 500
    assert sum(tries(pair, path)) == 1


def test_without_a_rule_nothing_is_tried_again(server: ScriptedUpstream, client: Wire) -> None:
    """On a fresh connection, that is: a kept-alive one may have been stale."""
    server.on("/once", resets)
    server.close_idle()
    server.wait_until(lambda: server.open_now == 0, "no connection left")
    before = len(server.requests("/once"))
    assert client.send(ask("/once")).read_answer().status == 502
    assert len(server.requests("/once")) == before + 1


def test_an_empty_budget_allows_no_retry(server: ScriptedUpstream, proxy: Sidecar, client: Wire) -> None:
    server.on("/poor", resets)
    server.close_idle()
    server.wait_until(lambda: server.open_now == 0, "no connection left")
    before = len(server.requests("/poor"))
    refused = proxy.metrics().sum("sidecar_retries_refused_total", upstream="poor", reason="budget")
    got = client.send(ask("/poor")).read_answer()
    assert (got.status, got.decision) == (502, "reset")
    assert len(server.requests("/poor")) == before + 1
    assert proxy.metrics().sum("sidecar_retries_refused_total", upstream="poor", reason="budget") == refused + 1


# --------------------------------------------------------------------------------------- stale connections
def stale_on_reuse(peer: Wire, request: Message) -> None:
    """Answers a connection's first request and hangs up on its second, as a server does whose idle time is over."""
    stale = getattr(peer, "used", False)
    peer.used = True  # type: ignore[attr-defined]
    if stale:
        peer.reset()
    else:
        peer.read_body(request)
        peer.send(answer(b"%d" % request.connection))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_stale_connection_costs_an_idempotent_request_nothing(
    server: ScriptedUpstream, client: Wire, method: str
) -> None:
    """No retry rule is set on this route: the kept-alive connection was stale, nothing else was wrong."""
    server.on("/stale", stale_on_reuse)
    body = b"x" if method == "PUT" else b""
    for _ in range(3):
        got = client.send(ask("/stale", method=method, body=body)).read_answer(method)
        assert (got.status, got.decision) == (200, None)


def test_a_stale_connection_loses_a_post_but_never_doubles_it(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/stale-post", stale_on_reuse)
    for _ in range(2):
        before = len(server.requests("/stale-post"))
        got = client.send(ask("/stale-post", method="POST", body=b"x")).read_answer()
        assert got.status in {200, 502}
        assert len(server.requests("/stale-post")) == before + 1


def test_a_stale_connection_is_tried_again_once_only(server: ScriptedUpstream, client: Wire) -> None:
    """The fresh connection breaks too: that is no staleness, and there is no rule."""
    server.on("/always-breaks", resets)
    client.send(ask("/warm-up")).read_answer()
    before = len(server.requests("/always-breaks"))
    assert client.send(ask("/always-breaks")).read_answer().decision == "reset"
    assert len(server.requests("/always-breaks")) - before <= 2


def test_the_repetition_takes_a_fresh_connection_though_others_rest(
    server: ScriptedUpstream, proxy: Sidecar, codec: str
) -> None:
    """They are as old as the one that was stale."""
    together = threading.Barrier(2)
    server.on("/together", lambda peer, _: (together.wait(PATIENCE), peer.send(answer())))
    with proxy.client(codec) as one, proxy.client(codec) as other:
        for client in (one, other):
            client.send(ask("/together"))
        for client in (one, other):
            assert client.read_answer().status == 200
        resting = server.connections
        server.on(
            "/old-ones-break", lambda peer, seen: peer.close() if seen.connection <= resting else peer.send(answer())
        )
        assert one.send(ask("/old-ones-break")).read_answer().status == 200


def test_an_answer_that_was_cut_is_no_stale_connection(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/cut-head", sends(b"HTTP/1.1 200 O", then="close"))
    client.send(ask("/warm-up")).read_answer()
    before = len(server.requests("/cut-head"))
    assert client.send(ask("/cut-head")).read_answer().status == 502
    assert len(server.requests("/cut-head")) == before + 1
