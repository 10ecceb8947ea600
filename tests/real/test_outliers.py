"""Endpoints that fail are passed over for a while: passive health, through the running program."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, drip, resets, says
from tests.fakes.wire import Message, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask

OUTLIER = {"base_ejection": "300ms", "max_ejection": "2s", "interval": "60s", "max_ejected": 0.5}
LENIENT = {
    "consecutive_failures": 0,
    "failure_rate": 0,
    "base_ejection": "60s",
    "interval": "1s",
    "max_ejected": 0.5,
}
PLENTY = {"ratio": 1.0, "min_per_second": 1000}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    with ScriptedUpstream() as one, ScriptedUpstream() as two:
        yield one, two


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream, pair: tuple[ScriptedUpstream, ScriptedUpstream]) -> dict[str, Any]:
    both = [one.address for one in pair]
    turns = {"balance": "round_robin", "retry_budget": PLENTY}
    return document(
        [
            listener(
                "in",
                [
                    route("sick", "sick", "/sick", retry={"backoff": "1ms", "backoff_max": "1ms"}),
                    route("watched", "watched", "/watched"),
                    route("alone", "alone", "/alone"),
                    route("gateway", "gateway", "/gateway"),
                    route("slow", "slow", "/slow"),
                ],
            )
        ],
        [
            upstream("sick", *both, outlier=OUTLIER, **turns),
            upstream("watched", *both, outlier={**OUTLIER, "mode": "observe"}, **turns),
            upstream("alone", f"127.0.0.1:{free_port()}", outlier=OUTLIER),
            upstream("gateway", *both, outlier={**LENIENT, "consecutive_gateway_failures": 3}, **turns),
            upstream("slow", *both, outlier={**LENIENT, "slow_rate": 0.5, "slow_after": "20ms"}, **turns),
        ],
    )


def healthy(proxy: Sidecar, name: str, address: str) -> float:
    return proxy.metrics().sum("sidecar_upstream_healthy", upstream=name, endpoint=address)


def test_an_endpoint_that_fails_is_ejected_and_comes_back(
    proxy: Sidecar, pair: tuple[ScriptedUpstream, ScriptedUpstream]
) -> None:
    good, bad = pair
    good.on("/sick", says(b"fine"))
    bad.on("/sick", resets)
    for _ in range(10):
        assert proxy.get("in", "/sick").body == b"fine"  # the retry goes to the other endpoint
    assert healthy(proxy, "sick", bad.address) == 0.0
    assert healthy(proxy, "sick", good.address) == 1.0
    assert proxy.metrics().sum("sidecar_outlier_ejections_total", upstream="sick", reason="consecutive_failures") == 1
    (endpoint,) = [
        one
        for upstream_ in proxy.status()["upstreams"]
        for one in upstream_["endpoints"]
        if upstream_["name"] == "sick" and one["ejected"]
    ]
    assert endpoint["address"] == bad.address
    assert "5 failures in a row" in endpoint["ejected"]
    assert 0 <= endpoint["ejected_for_seconds"] <= 0.3
    seen = len(bad.requests("/sick"))
    assert seen == 5
    bad.on("/sick", says(b"fine"))
    proxy.wait_until(lambda: healthy(proxy, "sick", bad.address) == 1.0, "readmission")
    for _ in range(4):
        proxy.get("in", "/sick")
    assert len(bad.requests("/sick")) > seen


def test_gateway_failures_eject_by_a_rule_of_their_own(
    proxy: Sidecar, pair: tuple[ScriptedUpstream, ScriptedUpstream]
) -> None:
    good, bad = pair
    good.on("/gateway", says(b"fine"))
    bad.on("/gateway", says(b"mine", "500 Internal Server Error"))
    for _ in range(12):
        proxy.get("in", "/gateway")
    assert len(bad.requests("/gateway")) == 6, "a plain 500 is none"
    bad.on("/gateway", says(b"bad", "502 Bad Gateway"))
    for _ in range(12):
        proxy.get("in", "/gateway")
    assert len(bad.requests("/gateway")) == 9
    ejections = "sidecar_outlier_ejections_total"
    assert proxy.metrics().sum(ejections, upstream="gateway", reason="consecutive_gateway_failures") == 1


def test_an_endpoint_that_answers_slowly_is_ejected(
    proxy: Sidecar, pair: tuple[ScriptedUpstream, ScriptedUpstream]
) -> None:
    good, bad = pair
    good.on("/slow", says(b"fine"))

    def slowly(peer: Wire, request: Message) -> None:
        time.sleep(0.03)  # this is the fault
        says(b"late")(peer, request)

    bad.on("/slow", slowly)
    ejections = "sidecar_outlier_ejections_total"

    def ejected() -> bool:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(proxy.client("in")).send(ask("/slow")) for _ in range(12)]
            assert {client.read_answer().body for client in clients} <= {b"fine", b"late"}
        return proxy.metrics().sum(ejections, upstream="slow", reason="slow_rate") == 1

    proxy.wait_until(ejected, "the ejection")
    seen = len(bad.requests("/slow"))
    for _ in range(6):
        assert proxy.get("in", "/slow").body == b"fine"
    assert len(bad.requests("/slow")) == seen
    assert "calls were slow" in proxy.command("status").stdout


def test_observe_only_tells(proxy: Sidecar, pair: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
    good, bad = pair
    good.on("/watched", says(b"fine"))
    bad.on("/watched", says(b"bad", "503 Service Unavailable"))
    for _ in range(14):
        proxy.get("in", "/watched")
    assert len(bad.requests("/watched")) == 7
    assert healthy(proxy, "watched", bad.address) == 1.0
    assert proxy.metrics().sum("sidecar_outlier_ejections_total", upstream="watched") == 1


def test_the_only_endpoint_is_never_ejected(proxy: Sidecar) -> None:
    for _ in range(8):
        assert proxy.get("in", "/alone").decision == "connect_failure"
    assert proxy.metrics().sum("sidecar_outlier_ejections_total", upstream="alone") == 0


def test_a_reload_takes_other_rules(pair: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
    good, bad = pair
    good.on("/", says(b"fine"))
    bad.on("/", says(b"bad", "500 Internal Server Error"))

    def whole(**rules: Any) -> dict[str, Any]:
        app = upstream("app", good.address, bad.address, balance="round_robin", outlier={"max_ejected": 0.5, **rules})
        return document([listener("in", [route("all", "app")])], [app])

    before = whole(consecutive_failures=2)
    with Sidecar(before) as proxy:
        for _ in range(6):
            proxy.get("in")
        assert healthy(proxy, "app", bad.address) == 0.0
        proxy.write({**whole(consecutive_failures=4), "listeners": before["listeners"]})
        proxy.command("reload")
        assert healthy(proxy, "app", bad.address) == 0.0, "who is out stays out"
        proxy.write({**whole(mode="observe", consecutive_failures=4), "listeners": before["listeners"]})
        proxy.command("reload")
        assert healthy(proxy, "app", bad.address) == 1.0
        seen = len(bad.requests("/"))
        for _ in range(8):
            proxy.get("in")
        assert len(bad.requests("/")) == seen + 4
        every = {
            "consecutive_failures": 0,
            "failure_rate": 0,
            "slow_rate": 0.1,
            "slow_after": "1ms",
            "interval": "300ms",
        }
        bad.on("/", drip(answer(b"late"), 0.001))
        proxy.write({**whole(**every), "listeners": before["listeners"]})
        proxy.command("reload")

        def ejected() -> bool:
            with contextlib.ExitStack() as stack:
                for one in [stack.enter_context(proxy.client("in")).send(ask()) for _ in range(50)]:
                    one.read_answer()
            return proxy.metrics().sum("sidecar_outlier_ejections_total", reason="slow_rate") > 0

        proxy.wait_until(ejected, "an endpoint that is slow by the new rule")
