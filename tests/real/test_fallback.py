"""What answers when the upstream may not or cannot: tier after tier, only before any byte went to the client."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, chunked, never, resets, says, sends
from tests.fakes.wire import Message, Truncated, Wire
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar, ask, json_lines

FIXED = {"respond": {"status": 503, "headers": {"content-type": "application/json"}, "body": '{"degraded":true}'}}
CACHE = {"cache": {"max_age": "10m"}}


@pytest.fixture(scope="module")
def spare() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running.otherwise(says(b"spare"))


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, spare: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Any:
    dead = f"127.0.0.1:{free_port()}"
    log = {"path": str(tmp_path_factory.mktemp("log") / "access.log")}
    return both_codecs(
        [
            route("fixed", "app", "/fixed", timeout="200ms", fallback=[FIXED]),
            route("kept", "app", "/kept", timeout="200ms", fallback=[CACHE, FIXED]),
            route("spare", "app", "/spare", timeout="200ms", fallback=[{"upstream": "spare"}, FIXED]),
            route("spare-and-kept", "app", "/spare-and-kept", fallback=[{"upstream": "spare"}, CACHE, FIXED]),
            route("both-dead", "dead", "/both-dead", fallback=[{"upstream": "dead-too"}, CACHE, FIXED]),
            route("tripped", "tripped", "/tripped", fallback=[{"upstream": "spare"}]),
            route("none", "app", timeout="200ms"),
        ],
        [
            upstream("app", server.address),
            upstream("spare", spare.address),
            upstream("dead", dead),
            upstream("dead-too", dead),
            upstream("tripped", server.address, breaker={"consecutive_failures": 2}),
        ],
        root={"access_log": log},
    )


def get(client: Wire, target: str, method: str = "GET", fields: str = "", body: bytes = b"") -> Message:
    return client.send(ask(target, fields, method, body)).read_answer(method)


# ------------------------------------------------------------------------------------------- a fixed answer
@pytest.mark.parametrize("fault", [resets, never, says(b"bad", "502 Bad Gateway"), sends(b"nonsense\r\n\r\n")])
def test_a_fixed_answer_for_every_way_to_fail(server: ScriptedUpstream, client: Wire, fault: Any) -> None:
    server.on("/fixed", fault)
    answer_ = get(client, "/fixed")
    assert (answer_.status, answer_.decision) == (503, "fallback_respond")
    assert answer_.get("content-type") == "application/json"
    assert answer_.json() == {"degraded": True}


def test_the_connection_goes_on_after_a_fallback(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/fixed", resets)
    assert get(client, "/fixed").decision == "fallback_respond"
    server.on("/fixed", says(b"fine"))
    assert get(client, "/fixed").body == b"fine"


def test_a_plain_500_is_the_services_own_word(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/fixed", says(b"mine", "500 Internal Server Error"))
    answer_ = get(client, "/fixed")
    assert (answer_.status, answer_.body, answer_.decision) == (500, b"mine", None)


def test_head_gets_the_head_only(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/fixed", resets)
    answer_ = get(client, "/fixed", "HEAD")
    assert (answer_.status, answer_.decision, answer_.get("content-length")) == (503, "fallback_respond", "17")


def test_never_after_a_byte_went_to_the_client(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/fixed", sends(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", then="reset"))
    with pytest.raises(Truncated) as cut:
        proxy.get(codec, "/fixed")
    assert cut.value.message is not None
    assert cut.value.message.decision is None


def test_without_a_fallback_the_fault_is_told(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/none", resets)
    assert get(client, "/none").decision == "reset"


# ------------------------------------------------------------------------------------------- the last good answer
@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("length", answer(b"good" * 300)),
        ("chunked", answer(fields=[("transfer-encoding", "chunked")], length=False) + chunked(b"good", b"er")),
    ],
)
def test_the_last_good_answer(server: ScriptedUpstream, client: Wire, codec: str, name: str, good: bytes) -> None:
    path = f"/kept/{name}/{codec}"
    server.on(path, sends(good))
    fresh = get(client, path)
    server.on(path, resets)
    kept = get(client, path)
    assert (kept.status, kept.body) == (200, fresh.body)
    assert kept.decision == "fallback_cache"
    assert int(kept.get("age") or "") >= 0
    assert kept.get("warning") is None
    assert get(client, path, "HEAD").decision == "fallback_cache"
    assert get(client, path, "POST").decision == "fallback_respond"
    assert get(client, path + "?other").decision == "fallback_respond"


def test_a_long_answer_in_pieces_is_kept_too(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    path = f"/kept/long/{codec}"
    body = bytes(range(256)) * 2000

    def slowly(peer: Wire, request: Message) -> None:
        whole = answer(body)
        peer.read_body(request)
        for at in range(0, len(whole), 100_000):
            peer.send(whole[at : at + 100_000])

    server.on(path, slowly)
    assert get(client, path).body == body
    server.on(path, resets)
    kept = get(client, path)
    assert (kept.body, kept.decision) == (body, "fallback_cache")


@pytest.mark.parametrize(
    ("answer_fields", "request_fields"),
    [
        ([("cache-control", "no-store")], ""),
        ([("cache-control", "private, max-age=9")], ""),
        ([("cache-control", "max-age=9, must-revalidate")], ""),
        ([("set-cookie", "a=b")], ""),
        ([("vary", "*")], ""),
        ([], "authorization: Bearer x\r\n"),
    ],
)
def test_what_is_not_for_others_is_not_kept(
    server: ScriptedUpstream, client: Wire, codec: str, answer_fields: Any, request_fields: str
) -> None:
    path = f"/kept/private/{codec}/{abs(hash((str(answer_fields), request_fields)))}"
    server.on(path, says(b"secret", fields=answer_fields))
    assert get(client, path, fields=request_fields).body == b"secret"
    server.on(path, resets)
    assert get(client, path, fields=request_fields).decision == "fallback_respond"
    assert get(client, path).decision == "fallback_respond"


def test_an_answer_that_varies_goes_to_its_kind_only(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    path = f"/kept/vary/{codec}"
    server.on(path, says(b"hallo", fields=[("vary", "accept-language")]))
    get(client, path, fields="accept-language: de\r\n")
    server.on(path, resets)
    assert get(client, path, fields="accept-language: de\r\n").body == b"hallo"
    assert get(client, path, fields="accept-language: en\r\n").decision == "fallback_respond"


# ------------------------------------------------------------------------------------------- another upstream
def test_another_upstream_answers(server: ScriptedUpstream, spare: ScriptedUpstream, client: Wire) -> None:
    server.on("/spare", resets)
    answer_ = get(client, "/spare", "PUT", body=b"content")
    assert (answer_.status, answer_.body, answer_.decision) == (200, b"spare", "fallback_upstream")
    assert spare.requests("/spare")[-1].body == b"content"


def test_a_post_that_was_sent_is_not_sent_elsewhere(
    server: ScriptedUpstream, spare: ScriptedUpstream, client: Wire
) -> None:
    server.on("/spare", resets)
    before = len(spare.requests("/spare"))
    assert get(client, "/spare", "POST", body=b"pay").decision == "fallback_respond"
    assert len(spare.requests("/spare")) == before


def test_a_post_to_an_open_breaker_was_never_sent(
    server: ScriptedUpstream, spare: ScriptedUpstream, client: Wire
) -> None:
    server.on("/tripped", says(b"down", "500 Internal Server Error"))
    while get(client, "/tripped").decision is None:
        pass
    seen = len(server.requests("/tripped"))
    answer_ = get(client, "/tripped", "POST", body=b"pay")
    assert (answer_.body, answer_.decision) == (b"spare", "fallback_upstream")
    assert spare.requests("/tripped")[-1].body == b"pay"
    assert len(server.requests("/tripped")) == seen


def test_tiers_are_tried_in_order(client: Wire) -> None:
    assert get(client, "/both-dead").decision == "fallback_respond"


def test_an_answer_that_broke_leaves_no_leave_to_keep_the_next(
    server: ScriptedUpstream, spare: ScriptedUpstream, client: Wire, codec: str
) -> None:
    """The first might have been kept; what the fallback says to this client alone must not be."""
    path = f"/spare-and-kept/{codec}"
    server.on(path, sends(answer(fields=[("transfer-encoding", "chunked")], length=False) + b"no size\r\n"))
    alone = answer(fields=[("cache-control", "private"), ("transfer-encoding", "chunked")], length=False)
    spare.on(path, sends(alone + chunked(b"secret")))
    assert get(client, path).body == b"secret"
    spare.on(path, resets)
    assert get(client, path).decision == "fallback_respond"


# ------------------------------------------------------------------------------------------- counted and logged
def test_each_use_is_counted_and_logged(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    server.on("/fixed", resets)
    before = proxy.metrics().sum("sidecar_fallbacks_total", upstream="app", tier="respond")
    proxy.get(codec, "/fixed")
    metrics = proxy.metrics()
    assert metrics.sum("sidecar_fallbacks_total", upstream="app", tier="respond") == before + 1
    assert metrics.sum("sidecar_requests_total", outcome="fallback_respond", listener=codec) >= 1
    assert metrics.sum("sidecar_inflight_requests") == 0
    log = proxy.directory.__class__(proxy.config["access_log"]["path"])
    proxy.wait_until(
        lambda: any(line["decision"] == "fallback_respond" and line["path"] == "/fixed" for line in json_lines(log)),
        "the log line",
    )
