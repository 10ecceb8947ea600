"""Three replicas see the same cause: one of them tells people, whatever becomes of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.databases import Redis
from tests.real.harness import Sidecar
from tests.real.test_incidents import incidents, report
from tests.real.test_notifications import CONDITION, GONE, settings, told


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running.otherwise(says(b"ok"))


@contextlib.contextmanager
def replicas(count: int, tmp_path: Path, redis: Redis, receiver: ScriptedUpstream) -> Iterator[list[Sidecar]]:
    """So many sidecars of one service."""
    with contextlib.ExitStack() as stack:
        running = []
        for number in range(count):
            (tmp_path / str(number)).mkdir()
            config = settings(
                tmp_path / str(number), {"name": "ops", "webhook": {"url": f"http://{receiver.address}/ops"}}
            )
            config["service"] = {"name": "orders", "instance": f"pod-{number}"}
            config["shared_state"] = {"redis": {"url": f"redis://{redis.address}/0"}, "namespace": tmp_path.name}
            running.append(stack.enter_context(Sidecar(config)))
        for one in running:
            one.wait_until(lambda one=one: one.metrics().sum("sidecar_shared_state_connected") == 1, "Redis")
        yield running


def of_each(all_of_them: list[Sidecar], key: str) -> list[Any]:
    return [incidents(one)[0][key] for one in all_of_them]


def test_one_tells_for_all(tmp_path: Path, redis: Redis, receiver: ScriptedUpstream) -> None:
    with replicas(3, tmp_path, redis, receiver) as (first, second, third):
        everybody = [first, second, third]
        report(first, CONDITION)
        opened = told(receiver, "/ops")[0]
        for one in (second, third):
            report(one, CONDITION)
            one.wait_until(lambda one=one: incidents(one) and incidents(one)[0]["led_by"], "somebody else leads")
        assert set(of_each(everybody, "shared_id")) == {opened["id"]}
        assert len(set(of_each(everybody, "id"))) == 3, "each keeps its own"
        first.wait_until(lambda: incidents(first)[0]["sharers"] == 3, "it hears of the others")
        assert "tells people" in second.command("incidents", "show", incidents(second)[0]["id"], check=False).stdout

        second.command("incidents", "ack", incidents(second)[0]["id"], "--why", "on it")
        first.wait_until(lambda: set(of_each(everybody, "status")) == {"acknowledged"}, "it holds for all")
        assert [each["what"] for each in told(receiver, "/ops", 2)] == ["opened", "acknowledged"]

        first.stop()
        second.wait_until(
            lambda: sorted(map(bool, of_each([second, third], "led_by"))) == [False, True], "a new leader"
        )
        report(second, GONE)
        second.wait_until(lambda: incidents(second)[0]["status"] == "resolved", "over for the one")
        report(third, GONE)
        third.wait_until(lambda: incidents(third)[0]["status"] == "resolved", "over for the last")
        assert [each["what"] for each in told(receiver, "/ops", 3)] == ["opened", "acknowledged", "resolved"]
        assert {each["shared_id"] or each["id"] for each in told(receiver, "/ops", 3)} == {opened["id"]}


def test_what_somebody_resolves_here_is_resolved_everywhere_and_without_redis_everybody_tells(
    tmp_path: Path, redis: Redis, receiver: ScriptedUpstream
) -> None:
    with replicas(2, tmp_path, redis, receiver) as both:
        for one in both:
            report(one, CONDITION)
        both[0].wait_until(lambda: of_each(both, "sharers") == [2, 2], "both know of each other")
        both[1].command("incidents", "resolve", incidents(both[1])[0]["id"])
        both[0].wait_until(lambda: set(of_each(both, "status")) == {"resolved"}, "resolved everywhere")
        assert [each["what"] for each in told(receiver, "/ops", 2)] == ["opened", "resolved"]

        redis.stop()
        for one in both:
            one.wait_until(lambda one=one: one.metrics().sum("sidecar_shared_state_connected") == 0, "Redis is gone")
            report(one, {**CONDITION, "reason": "drill_failed"})
        alone = told(receiver, "/ops", 4)[2:]
        assert {(each["what"], each["instance"]) for each in alone} == {("opened", "pod-0"), ("opened", "pod-1")}
