"""The service registry between running programs and a real Redis that is killed and comes back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.databases import Redis
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, run_cli

TTL = "1500ms"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def member(redis: Redis, instance: str, service: ScriptedUpstream, **check: Any) -> dict[str, Any]:
    """A sidecar in front of an instance of `pay`, registered by its inbound listener's address."""
    inbound = listener("in", [route("all", "app")])
    registry = {"advertise": inbound["bind"], "ttl": TTL, "upstream": "app"}
    return document(
        [inbound],
        [upstream("app", service.address, **check)],
        service={"name": "pay", "instance": instance},
        shared_state={**shared(redis), "registry": registry},
    )


def caller(redis: Redis) -> dict[str, Any]:
    """A sidecar that calls `pay` and registers nothing."""
    pay = upstream("pay", balance="round_robin", discovery={"registry": "pay", "refresh": "400ms"})
    return document(
        [listener("out", [route("all", "pay")])], [pay], service={"name": "shop"}, shared_state=shared(redis)
    )


def shared(redis: Redis) -> dict[str, Any]:
    return {"redis": {"url": f"redis://{redis.address}/0"}, "namespace": f"shop-{redis.port}"}


def answers(proxy: Sidecar) -> set[str]:
    found = [proxy.get("out") for _ in range(6)]
    return {one.body.decode() if one.status == 200 else str(one.get("x-sidecar-decision")) for one in found}


def wait_for(proxy: Sidecar, *names: str) -> None:
    proxy.wait_until(lambda: answers(proxy) == set(names), f"answers of {names}")


def own_entry(proxy: Sidecar) -> Any:
    return next(one for one in proxy.admin("/api/v1/registry").json() if one["kind"] == "self")


def named(name: str) -> ScriptedUpstream:
    return ScriptedUpstream().otherwise(says(body=name.encode()))


def test_instances_register_are_found_fall_ill_leave_and_outlive_redis() -> None:
    check = {
        "health_check": {"http": {}, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1, "healthy_after": 1}
    }
    with Redis() as redis, named("one") as one, named("two") as two:
        with Sidecar(member(redis, "one", one, **check)) as first, Sidecar(caller(redis)) as out:
            wait_for(out, "one")
            with Sidecar(member(redis, "two", two, **check)) as second:
                wait_for(out, "one", "two")

                one.otherwise(says(status="500 Oops"))
                wait_for(out, "two")
                one.otherwise(says(body=b"one"))
                wait_for(out, "one", "two")

                redis.stop()
                for proxy in (first, out):
                    proxy.wait_until(lambda at=proxy: not at.metrics().sum("sidecar_shared_state_connected"), "away")
                failing = out.metrics().sum("sidecar_registry_beats_total", result="unreachable") + 1
                out.wait_until(
                    lambda: out.metrics().sum("sidecar_registry_beats_total", result="unreachable") > failing,
                    "beats into the void",
                )
                assert answers(out) == {"one", "two"}
                assert answers(out) == {"one", "two"}

                redis.start()
                for proxy in (first, second, out):
                    proxy.wait_until(lambda at=proxy: at.metrics().sum("sidecar_shared_state_connected"), "back")
                for proxy in (first, second):
                    proxy.wait_until(lambda at=proxy: own_entry(at)["told"] == "available", "told")
                assert answers(out) == {"one", "two"}
            with redis_py.Redis(port=redis.port) as raw:
                told = raw.hget(f"{{shop-{redis.port}}}:registry:pay:instances", "two")
            assert json.loads(told)["state"] == "left"
            wait_for(out, "one")
            assert own_entry(first)["address"] == first.config["listeners"][0]["bind"]


def test_a_draining_instance_gets_nothing_new(redis: Redis) -> None:
    with named("one") as one, named("two") as two:
        with (
            Sidecar(member(redis, "one", one)) as first,
            Sidecar(member(redis, "two", two)),
            Sidecar(caller(redis)) as out,
        ):
            wait_for(out, "one", "two")
            first.command("drain")
            wait_for(out, "two")
            pay = next(one for one in out.admin("/api/v1/registry").json() if one["upstream"] == "pay")
            assert [(each["instance"], each["state"]) for each in pay["instances"]] == [
                ("one", "unavailable"),
                ("two", "available"),
            ]


def test_a_successor_keeps_the_entry(redis: Redis) -> None:
    """The one that hands over does not take its leave: the service goes on under the same name."""
    with named("one") as one, Sidecar(member(redis, "one", one)) as first, Sidecar(caller(redis)) as out:
        wait_for(out, "one")
        first.command("upgrade")
        assert first.process.wait(20) == 0
        entry = own_entry(first)
        assert entry["told"] == "available"
        assert answers(out) == {"one"}
        pay = next(each for each in out.admin("/api/v1/registry").json() if each["upstream"] == "pay")
        assert [(each["instance"], each["state"]) for each in pay["instances"]] == [("one", "available")]
        run_cli("stop", "--socket", first.socket_path)
