"""Replicas with several workers, upgraded, or configured unequally; and a Redis that is full, or slow."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis as redis_py

from tests.fakes.relay import Relay
from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import Message
from tests.real.databases import Redis
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar

OUT = says(b"out", "503 Service Unavailable")
FINE = says(b"fine")
BREAKERS: dict[str, dict[str, Any]] = {
    "pods": {"open_for": "1s", "half_open_permits": 1, "half_open_successes": 2},
    "kept": {"open_for": "60s"},
    "full": {"open_for": "60s", "quorum": 1},
    "slow": {"open_for": "1s", "quorum": 1},
}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def member(address: str, server: ScriptedUpstream, instance: str, **root: Any) -> dict[str, Any]:
    routes = [route(name, name, f"/{name}") for name in BREAKERS]
    upstreams = [upstream(name, server.address, breaker=breaker) for name, breaker in BREAKERS.items()]
    state = {"redis": {"url": f"redis://{address}/0"}, "namespace": "shop"}
    whole = {"service": {"name": "orders", "instance": instance}, "shared_state": state, **root}
    return document([listener("in", routes)], upstreams, **whole)


def members(stack: ExitStack, address: str, server: ScriptedUpstream, count: int, **root: Any) -> list[Sidecar]:
    trees = [member(address, server, f"pod-{number}", **root) for number in range(count)]
    found = [stack.enter_context(Sidecar(tree, ready=False)) for tree in trees]
    for one in found:
        one.wait_ready()
        one.wait_until(lambda one=one: shown(one, "pods")["fleet"]["heard_seconds_ago"] is not None, "it takes part")
    return found


def get(one: Sidecar, path: str) -> Message:
    return one.get("in", path)


def shown(one: Sidecar, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in one.admin("/api/v1/breakers").json() if each["name"] == name)
    return found


def state(one: Sidecar, name: str) -> str:
    return str(shown(one, name)["state"])


def wait_state(found: list[Sidecar], name: str, wanted: str) -> None:
    for one in found:
        one.wait_until(lambda one=one: state(one, name) == wanted, f"{name} {wanted}", 25)


def trip(one: Sidecar, server: ScriptedUpstream, path: str) -> None:
    """By as many failures as it takes, whichever worker gets them."""
    server.on(path, OUT)
    one.wait_until(lambda: get(one, path).decision == "breaker_open", f"{path} refused")


def test_pods_with_workers_agree_and_try_together(redis: Redis, server: ScriptedUpstream) -> None:
    """A worker's trip opens its pod, two pods open the fleet; a lease goes to a pod, and there to a worker."""
    with ExitStack() as stack:
        found = members(stack, redis.address, server, 3, workers=2)
        for one in found[:2]:
            trip(one, server, "/pods")
        wait_state(found, "pods", "open")
        assert get(found[2], "/pods").decision == "breaker_open"
        server.on("/pods", FINE)
        found[2].wait_until(lambda: get(found[2], "/pods").body == b"fine", "a trial by a worker of the third")
        found[1].wait_until(lambda: get(found[1], "/pods").body == b"fine", "or closed already", 25)
        found[0].wait_until(lambda: get(found[0], "/pods").body == b"fine", "closed for all", 25)
        wait_state(found, "pods", "closed")
        found[0].command("breaker", "open", "pods", "--fleet")
        found[2].wait_until(lambda: all(get(found[2], "/pods").decision == "manual_open" for _ in range(10)), "held")
        for pid in found[2].status()["worker_pids"]:
            os.kill(pid, signal.SIGKILL)
        assert get(found[2], "/pods").decision == "manual_open", "a worker that is born later knows it"
        found[2].command("breaker", "reset", "pods", "--fleet")
        wait_state(found, "pods", "closed")


def test_an_upgrade_goes_on_as_the_same_replica(redis: Redis, server: ScriptedUpstream) -> None:
    with ExitStack() as stack:
        one, other = members(stack, redis.address, server, 2)
        for each in (one, other):
            trip(each, server, "/kept")
        wait_state([one, other], "kept", "open")
        before = {each["replica"] for each in other.status()["shared"]["peers"]}
        one.command("upgrade")
        assert one.process.wait(20) == 0
        serving = int(one.admin("/api/v1/status", unix=True).json()["pid"])
        try:
            assert get(one, "/kept").decision == "breaker_open"
            (kept,) = [each for each in json.loads(one.command("breaker", "list", "--json").stdout)
                       if each["name"] == "kept"]  # fmt: skip
            assert kept["led"]
            assert {each["replica"] for each in other.status()["shared"]["peers"]} <= before
            other.command("breaker", "reset", "kept", "--fleet")
            server.on("/kept", FINE)
            other.wait_until(lambda: get(one, "/kept").body == b"fine", "it follows")
        finally:
            os.kill(serving, signal.SIGTERM)
            other.wait_until(lambda: not os.path.exists(f"/proc/{serving}"), "the successor's end")


def test_unequal_replicas_are_told_and_agree_all_the_same(redis: Redis, server: ScriptedUpstream) -> None:
    with ExitStack() as stack:
        (one,) = members(stack, redis.address, server, 1)
        odd = member(redis.address, server, "odd")
        odd["upstreams"][0]["breaker"] = {**odd["upstreams"][0]["breaker"], "half_open_permits": 3}
        with Sidecar(odd) as other:
            other.wait_log('"fleet_noticed".*different')
            one.command("breaker", "open", "pods", "--fleet")
            wait_state([other], "pods", "open")
            other.command("breaker", "reset", "pods", "--fleet")
            wait_state([one], "pods", "closed")


def test_a_full_redis_is_told_and_local_decisions_go_on(server: ScriptedUpstream) -> None:
    with Redis() as full, ExitStack() as stack:
        found = members(stack, full.address, server, 2)
        client = stack.enter_context(redis_py.Redis(port=full.port))
        client.config_set("maxmemory", 1)
        trip(found[0], server, "/full")
        server.on("/full", FINE)
        assert [get(found[1], "/full").body for _ in range(20)] == [b"fine"] * 20
        assert "maxmemory" in found[0].wait_log('"fleet_noticed".*OOM.*').group()
        assert found[0].metrics().sum("sidecar_shared_state_operations_total", result="refused") >= 1
        client.config_set("maxmemory", 0)
        wait_state(found, "full", "open")


def test_a_slow_redis_slows_nobody(redis: Redis, server: ScriptedUpstream) -> None:
    """Its answers come after more than two seconds, which is beyond all patience."""
    with Relay(redis.port) as relay, ExitStack() as stack:
        found = members(stack, relay.address, server, 2)
        trip(found[0], server, "/slow")
        wait_state(found, "slow", "open")
        relay.delay = 2.2
        server.on("/slow", FINE)
        for one in found:
            one.wait_until(lambda one=one: get(one, "/slow").body == b"fine", "a trial of its own", 30)
        decided = found[0].metrics()
        quick = decided.sum("sidecar_breaker_decision_seconds_bucket", le="0.001")
        assert quick >= 0.98 * decided.sum("sidecar_breaker_decision_seconds_count")
        relay.delay = 0.0
        for one in found:
            one.wait_until(lambda one=one: one.metrics().sum("sidecar_shared_state_connected") == 1, "back", 20)
            one.wait_until(lambda one=one: get(one, "/slow").body == b"fine", "closed", 20)
