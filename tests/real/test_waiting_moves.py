"""A request that waited in vain for a connection and went to the fallback waits no more."""

import threading

from tests.fakes.upstream import Script, ScriptedUpstream, answer
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import black_hole, document, listener, route, upstream
from tests.real.harness import Sidecar


def held(body: bytes, until: threading.Event) -> Script:
    def script(peer: Wire, request: Message) -> None:
        peer.read_body(request)
        until.wait(PATIENCE)
        peer.send(answer(body))

    return script


def test_a_freed_connection_is_not_given_to_who_went_to_the_fallback():
    free, spare_free = threading.Event(), threading.Event()
    with ScriptedUpstream() as app, ScriptedUpstream() as spare:
        app.otherwise(held(b"app", free))
        spare.otherwise(held(b"spare", spare_free))
        tight = upstream("app", app.address, limits={"max_connections": 1, "pending_timeout": "100ms"})
        routes = [route("all", "app", fallback=[{"upstream": "spare"}])]
        with Sidecar(document([listener("web", routes)], [tight, upstream("spare", spare.address)])) as proxy:
            with proxy.client("web") as first, proxy.client("web") as second, proxy.client("web") as third:
                first.send(b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n")
                app.wait_until(lambda: len(app.seen) == 1)
                second.send(b"GET /second HTTP/1.1\r\nhost: x\r\n\r\n")
                spare.wait_until(lambda: len(spare.seen) == 1, "the fallback's request")
                free.set()
                assert first.read_answer("GET").body == b"app"
                third.send(b"GET /third HTTP/1.1\r\nhost: x\r\n\r\n")
                assert third.read_answer("GET").body == b"app"
                assert [request.target for request in app.seen] == ["/first", "/third"]
                spare_free.set()
                assert second.read_answer("GET").body == b"spare"


def test_a_connection_that_opens_too_late_is_not_given_to_who_went_to_the_fallback():
    """Nor does it take the request from there when it fails."""
    told = threading.Event()
    with black_hole() as hole, ScriptedUpstream() as spare:
        spare.on("/held", held(b"spare", told))
        routes = [
            route("held", "hole", "/held", timeout="1500ms", fallback=[{"upstream": "spare"}]),
            route("warm", "spare"),
        ]
        upstreams = [upstream("hole", hole, connect_timeout="1600ms"), upstream("spare", spare.address)]
        with Sidecar(document([listener("web", routes)], upstreams)) as proxy, proxy.client("web") as client:
            proxy.get("web", "/warm-up")
            client.send(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n")
            failed = {"upstream": "hole", "result": "refused"}
            proxy.wait_until(lambda: proxy.metrics().sum("sidecar_upstream_connects_total", **failed), "the failure")
            told.set()
            got = client.read_answer()
            assert (got.body, got.decision) == (b"spare", "fallback_upstream")
