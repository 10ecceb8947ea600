"""Active checks of endpoints through the running program: who fails them gets no requests, whoever serves."""

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.fakes import peers
from tests.fakes.grpc_health import Answer, GrpcHealth
from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar

SICK = says(b"", "500 Oops")
CHECK = {"http": {"path": "/healthz"}, "interval": "200ms", "timeout": "200ms", "unhealthy_after": 2}


@pytest.fixture
def two() -> Iterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    with ScriptedUpstream() as one, ScriptedUpstream() as other:
        yield one.on("/healthz", says()), other.on("/healthz", says())


def app(*addresses: str, check: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return upstream("app", *addresses, health_check=check or CHECK, **keys)


def config(*upstreams: dict[str, Any], **root: Any) -> dict[str, Any]:
    return document([listener("in", [route("all", upstreams[0]["name"])])], list(upstreams), **root)


def healthy(proxy: Sidecar, server: ScriptedUpstream | str) -> float:
    address = server if isinstance(server, str) else server.address
    return proxy.metrics().sum("sidecar_upstream_healthy", upstream="app", endpoint=address)


def becomes(proxy: Sidecar, server: ScriptedUpstream | str, value: float) -> None:
    proxy.wait_until(lambda: healthy(proxy, server) == value, f"sidecar_upstream_healthy {value:g}")


def seen(proxy: Sidecar, address: str) -> dict[str, Any]:
    (found,) = [one for one in proxy.admin("/api/v1/health").json() if one.get("endpoint") == address]
    return dict(found)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sick_endpoint_leaves_the_balance_and_comes_back(
    two: tuple[ScriptedUpstream, ScriptedUpstream], workers: int
) -> None:
    one, other = two
    with Sidecar(config(app(one.address, other.address), workers=workers)) as proxy:
        proxy.wait_until(lambda: one.requests("/healthz") and other.requests("/healthz"), "both are asked")
        one.on("/healthz", SICK)
        becomes(proxy, one, 0)
        assert {proxy.get("in", "/mine").json()["port"] for _ in range(20)} == {other.port}
        one.on("/healthz", says())
        becomes(proxy, one, 1)
        ports = {proxy.get("in", "/mine").json()["port"] for _ in range(40)}
        assert ports == {one.port, other.port}


@pytest.mark.parametrize(("threshold", "verdict"), [(0.5, (200, None)), (0.0, (503, "no_healthy_endpoint"))])
def test_when_all_are_sick_panic_decides(threshold: float, verdict: tuple[int, str | None]) -> None:
    with ScriptedUpstream() as only:
        only.on("/healthz", SICK)
        with Sidecar(config(app(only.address, panic_threshold=threshold))) as proxy:
            becomes(proxy, only, 0)
            answer = proxy.get("in", "/mine")
            assert (answer.status, answer.decision) == verdict


def test_a_worker_that_is_started_again_knows_who_is_sick(two: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
    one, other = two
    one.on("/healthz", SICK)
    with Sidecar(config(app(one.address, other.address), workers=2)) as proxy:
        becomes(proxy, one, 0)
        victims = proxy.children()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        proxy.wait_until(
            lambda: len(set(proxy.children()) - set(victims)) == 2 and healthy(proxy, one) == 0, "new workers, told"
        )
        assert {proxy.get("in", "/mine").json()["port"] for _ in range(20)} == {other.port}


def test_what_the_api_and_the_log_say(two: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
    one, other = two
    with Sidecar(config(app(one.address, other.address))) as proxy:
        proxy.wait_until(lambda: seen(proxy, one.address)["state"] == "healthy", "healthy")
        one.on("/healthz", SICK)
        proxy.wait_until(lambda: seen(proxy, one.address)["state"] == "unhealthy", "unhealthy")
        told = seen(proxy, one.address)
        assert {key: told[key] for key in ("kind", "upstream", "check", "detail")} == {
            "kind": "endpoint",
            "upstream": "app",
            "check": "http",
            "detail": "answered 500",
        }
        assert told["since"] <= told["last_check"] < told["next_check"]
        assert 0 < told["latency_seconds"] < 10
        line = proxy.wait_log(r'.*"endpoint_health_changed".*"unhealthy".*')[0]
        assert f'"endpoint": "{one.address}"' in line
        assert '"detail": "answered 500"' in line
        assert seen(proxy, other.address)["state"] == "healthy"


def test_targets_that_misbehave_delay_neither_checks_nor_requests(
    two: tuple[ScriptedUpstream, ScriptedUpstream],
) -> None:
    """They hang, flood, babble, redirect for ever: each is out within its time, and the good one is seen die."""
    good, circles = two
    circles.otherwise(says(b"", "302 Found", [("location", f"http://{circles.address}/healthz")]))
    circles.on("/healthz", says(b"", "302 Found", [("location", f"http://{circles.address}/healthz")]))
    with (
        peers.peer(peers.hangs) as hanging,
        peers.peer(peers.floods) as flooding,
        peers.peer(peers.babbles) as babbling,
    ):
        bad = [f"127.0.0.1:{port}" for port in (hanging, flooding, babbling)] + [circles.address]
        with Sidecar(config(app(good.address, *bad, panic_threshold=0))) as proxy:
            for address in bad:
                becomes(proxy, address, 0)
            before = len(circles.seen)
            assert {proxy.get("in", "/mine").json()["port"] for _ in range(20)} == {good.port}
            details = {one["endpoint"]: one["detail"] for one in proxy.admin("/api/v1/health").json()}
            late, garbled = "no answer within 200ms", "answered what is not HTTP"
            assert details[bad[0]] == late
            assert details[bad[1]] == garbled
            assert details[bad[2]] in {late, garbled}  # as chance has the end of a head among its bytes or not
            assert details[bad[3]] == "answered 302, a redirect, which is not followed"
            good.on("/healthz", SICK)
            becomes(proxy, good, 0)
            circles.wait_until(lambda: len(circles.seen) > before + 2, "checks that go on")
            assert {request.target for request in circles.seen} == {"/healthz"}
            assert proxy.rss() < 100 << 20


def test_a_reload_takes_changed_checks_and_keeps_what_is_known(
    two: tuple[ScriptedUpstream, ScriptedUpstream],
) -> None:
    one, other = two
    other.on("/deep", says())
    one.on("/healthz", SICK)
    first = config(app(one.address, other.address))
    with Sidecar(first) as proxy:
        becomes(proxy, one, 0)
        since = seen(proxy, one.address)["since"]
        proxy.write({**first, "upstreams": [app(one.address, other.address, check={**CHECK, "interval": "300ms"})]})
        proxy.command("reload")
        assert seen(proxy, one.address)["since"] == since
        assert healthy(proxy, one) == 0
        deep = {**CHECK, "http": {"path": "/deep"}}
        one.on("/deep", says())
        proxy.write({**first, "upstreams": [app(one.address, other.address, check=deep)]})
        proxy.command("reload")
        becomes(proxy, one, 1)
        assert seen(proxy, one.address)["since"] > since
        one.on("/deep", SICK)
        becomes(proxy, one, 0)
        proxy.write({**first, "upstreams": [upstream("app", one.address, other.address)]})
        proxy.command("reload")
        becomes(proxy, one, 1)
        assert proxy.admin("/api/v1/health").json() == []


def test_tcp_and_grpc_checks() -> None:
    closed = f"127.0.0.1:{free_port()}"
    plain = {key: value for key, value in CHECK.items() if key != "http"}
    with GrpcHealth() as server:
        address = f"127.0.0.1:{server.port}"
        tcp = app(address, closed, check={**plain, "tcp": {}})
        grpc = {**app(address, check={**plain, "grpc": {"service": "shop.Orders"}}), "name": "orders"}
        with Sidecar(config(tcp, grpc)) as proxy:
            becomes(proxy, closed, 0)
            assert healthy(proxy, address) == 1

            def serving() -> float:
                return proxy.metrics().sum("sidecar_upstream_healthy", upstream="orders", endpoint=address)

            proxy.wait_until(lambda: server.asked, "the call")
            assert server.asked[0][1].endswith(b"shop.Orders")
            assert serving() == 1
            server.answer = Answer(message=b"\x08\x02")
            proxy.wait_until(lambda: serving() == 0, "NOT_SERVING")


def test_what_carries_no_traffic_is_asked_half_as_often(two: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
    """How long it waits is read from the API, so that nothing depends on when this test looks."""
    one, _ = two
    check = {**CHECK, "interval": "400ms"}
    with Sidecar(config(app(one.address, check=check))) as proxy:

        def waits(low: float, high: float, *, busy: bool) -> bool:
            if busy:
                proxy.get("in", "/mine")
            told = seen(proxy, one.address)
            if told["state"] != "healthy":
                return False
            last, following = (datetime.fromisoformat(told[key]) for key in ("last_check", "next_check"))
            return low <= (following - last).total_seconds() <= high

        proxy.wait_until(lambda: waits(0.68, 0.9, busy=False), "twice the interval")
        proxy.wait_until(lambda: waits(0.3, 0.46, busy=True), "the interval")
