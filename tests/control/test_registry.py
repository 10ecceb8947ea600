"""The registry in a real Redis: who finds whom, and what becomes of what does not belong there."""

import asyncio
import contextlib
import json
import logging

import pytest
import redis as redis_py

from sidecar.config.redis import Redis as RedisConfig
from sidecar.config.redis import Registration
from sidecar.control import redis_link, registry
from sidecar.control.redis_link import RedisLink
from sidecar.control.registry import RegistrySource, ServiceRegistry
from sidecar.machines.instances import State
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry as Metrics
from sidecar.runtime.observer import Observer
from tests.fakes.reports import watching
from tests.real.databases import Redis

ALIVE, INSTANCES = "{shop}:registry:pay:alive", "{shop}:registry:pay:instances"
TTL = 0.75


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(redis_link, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(redis_link, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(redis_link, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(registry, "DEFAULT_TTL", TTL)
    monkeypatch.setattr(registry, "_LEAST_GAP", 0.02)
    monkeypatch.setattr(registry, "_LOOK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def server():
    with Redis() as running:
        yield running


@pytest.fixture
def raw(server):
    with redis_py.Redis(port=server.port, decode_responses=True) as client:
        client.flushall()
        yield client


class Sidecar:
    """One sidecar's share in the registry."""

    def __init__(self, server, instance, *, registers=True, namespace="shop", ttl=TTL):
        self.metrics = Metrics()
        self.state = State.AVAILABLE
        self.link = RedisLink(RedisConfig(url=f"redis://{server.address}/0"), self.metrics, Observer())
        entry = Registration(advertise=f"10.0.0.{instance}:80", ttl=ttl) if registers else None
        self.registry = ServiceRegistry(
            self.link, self.metrics, namespace, "pay", f"pay-{instance}", entry, lambda: self.state
        )

    def beats(self, result="ok"):
        return self.metrics.snapshot().total(series.REGISTRY_BEATS, result=result)


@contextlib.asynccontextmanager
async def sidecar(server, instance, **more):
    one = Sidecar(server, instance, **more)
    tasks = [asyncio.ensure_future(one.link.run()), asyncio.ensure_future(one.registry.run())]
    try:
        yield one
        assert not tasks[0].done(), tasks
        assert not tasks[1].done() or tasks[1].exception() is None, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def watch(one, service="pay"):
    return watching(RegistrySource(one.registry, service, TTL / 3))


def test_instances_find_each_other_by_name(server, raw):
    async def story():
        async with sidecar(server, 1) as one, sidecar(server, 2), sidecar(server, 3, registers=False) as asker:
            async with watch(one) as seen, watch(asker) as from_outside:
                await seen.see("10.0.0.1:80", "10.0.0.2:80")
                await from_outside.see("10.0.0.1:80", "10.0.0.2:80")
        assert json.loads(raw.hget(INSTANCES, "pay-1")) == {"address": "10.0.0.1:80", "state": "available"}
        assert sorted(raw.keys("*")) == [ALIVE, INSTANCES]
        assert all(raw.pttl(key) > 0 for key in (ALIVE, INSTANCES)), "nothing stays for ever"

    asyncio.run(story())


def test_the_unhealthy_one_is_marked_and_withdrawn_at_once(server, raw):
    async def story():
        async with sidecar(server, 1) as sick, sidecar(server, 2) as one, watch(one) as seen:
            await seen.see("10.0.0.1:80", "10.0.0.2:80")
            sick.state = State.UNAVAILABLE
            await seen.see("10.0.0.2:80")
            assert seen.answers[-1].withdrawn == {"10.0.0.1:80"}
            assert one.registry.instances("pay")[0] == {
                "instance": "pay-1",
                "address": "10.0.0.1:80",
                "state": "unavailable",
            }
            sick.state = State.AVAILABLE
            await seen.see("10.0.0.1:80", "10.0.0.2:80")

    asyncio.run(story())


def test_one_that_leaves_is_gone_and_one_that_dies_is_gone_after_its_ttl(server, raw):
    async def story():
        async with sidecar(server, 1) as one, watch(one) as seen:
            async with sidecar(server, 2) as leaving, sidecar(server, 3):
                await seen.see("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
                await leaving.registry.leave()
                await seen.see("10.0.0.1:80", "10.0.0.3:80")
            assert raw.zscore(ALIVE, "pay-3"), "it died and could not say so"
            await seen.see("10.0.0.1:80")
            await seen.until(lambda: raw.hkeys(INSTANCES) == ["pay-1"])
            assert raw.zrange(ALIVE, 0, -1) == ["pay-1"]

    asyncio.run(story())


def test_one_call_a_beat_whatever_is_asked_for(server, raw):
    raw.config_resetstat()

    async def story():
        async with sidecar(server, 1, ttl=0.3) as one, watch(one), watch(one, "a"), watch(one, "b") as seen:
            await seen.until(lambda: len(seen.answers) >= 10)
            return one.beats()

    beats = asyncio.run(story())
    stats = raw.info("commandstats")
    asked = stats["cmdstat_evalsha"]["calls"] + stats.get("cmdstat_eval", {"calls": 0})["calls"]
    assert asked <= beats + 3  # the first may need the script's text; one more may be under way


def test_an_emptied_redis_takes_nobody_away(server, raw):
    async def story():
        async with sidecar(server, 1) as one, sidecar(server, 2), watch(one) as seen:
            await seen.see("10.0.0.1:80", "10.0.0.2:80")
            before = len(seen.answers)
            raw.flushall()
            await seen.until(lambda: len(seen.answers) > before + 4)
            assert all(len(answer.members) == 2 for answer in seen.answers[before:])

    asyncio.run(story())


def test_with_redis_gone_all_goes_on_from_what_was_known():
    async def story():
        with Redis() as server:
            async with sidecar(server, 1, ttl=0.6) as one, sidecar(server, 2, ttl=0.6) as two, watch(one) as seen:
                await seen.see("10.0.0.1:80", "10.0.0.2:80")
                server.stop()
                assert (await seen.fail()).startswith("Redis: ")
                missed = one.beats("unreachable")
                await seen.until(lambda: one.beats("unreachable") > missed + 5)  # longer than a ttl
                server.start()
                answers = len(seen.answers)
                await seen.until(lambda: len(seen.answers) > answers + 5 and two.registry.view()["connected"])
                assert all(len(answer.members) == 2 for answer in seen.answers[answers:])
                assert len(one.registry.instances("pay")) == 2

    asyncio.run(story())


def test_namespaces_do_not_meet(server, raw):
    async def story():
        async with sidecar(server, 1) as one, sidecar(server, 2, namespace="elsewhere") as two:
            async with watch(one) as seen, watch(two) as other:
                await seen.see("10.0.0.1:80")
                await other.see("10.0.0.2:80")

    asyncio.run(story())


def far():
    return 32503680000000  # a score beyond any lease


@pytest.mark.parametrize(
    "value",
    ["", "{", "[]", '{"address": "10.0.0.9:80"}', '{"address": "unix:/x", "state": "available"}',
     '{"address": "10.0.0.9", "state": "available"}', '{"address": "10.0.0.9:80", "state": "fine"}', "x" * 2000],
)  # fmt: skip
def test_a_garbled_entry_is_left_out_and_told_once(server, raw, value, caplog):
    caplog.set_level(logging.WARNING, "sidecar")

    async def story():
        async with sidecar(server, 1, ttl=0.3) as one, watch(one) as seen:
            await seen.see("10.0.0.1:80")
            now, _ = raw.time()
            raw.hset(INSTANCES, "pay-9", value)
            raw.zadd(ALIVE, {"pay-9": (now + 60) * 1000})
            answers = len(seen.answers)
            await seen.until(lambda: len(seen.answers) > answers + 2)
            assert seen.last == ["10.0.0.1:80"]
            assert seen.failures == []

    registry._log._said.clear()
    asyncio.run(story())
    assert [record.getMessage() for record in caplog.records].count("registry_entries_garbled") == 1


def test_a_crowd_is_bounded(server, raw, monkeypatch):
    monkeypatch.setattr(registry, "MOST_INSTANCES", 10)
    now, _ = raw.time()
    entry = json.dumps({"address": "10.0.0.9:80", "state": "available"})
    raw.hset(INSTANCES, mapping={f"crowd-{number}": entry for number in range(5000)})
    raw.zadd(ALIVE, {f"crowd-{number}": (now + 60) * 1000 for number in range(5000)})

    async def story():
        async with sidecar(server, 1, registers=False) as one, watch(one) as seen:
            await seen.until(lambda: len(seen.answers) >= 3)
            assert len(one.registry.instances("pay")) == 10

    asyncio.run(story())


@pytest.mark.parametrize("key", [ALIVE, INSTANCES])
def test_foreign_keys_are_left_alone_and_the_last_known_stays(server, raw, key):
    async def story():
        async with sidecar(server, 1) as one, sidecar(server, 2), watch(one) as seen:
            await seen.see("10.0.0.1:80", "10.0.0.2:80")
            raw.delete(key)
            raw.set(key, "somebody else's")
            assert await seen.fail() == "Redis: its keys hold something else than the registry's"
            failures = len(seen.failures)
            await seen.until(lambda: len(seen.failures) > failures + 2)
            assert seen.last == ["10.0.0.1:80", "10.0.0.2:80"]
            assert raw.get(key) == "somebody else's"
            raw.delete(key)
            answers = len(seen.answers)
            await seen.until(lambda: len(seen.answers) > answers + 2)
            assert all(len(answer.members) == 2 for answer in seen.answers[answers:])

    asyncio.run(story())


def test_a_score_beyond_any_lease_is_nobody(server, raw):
    raw.hset(INSTANCES, "pay-9", json.dumps({"address": "10.0.0.9:80", "state": "available"}))
    raw.zadd(ALIVE, {"pay-9": far(), "pay-8": "inf"})

    async def story():
        async with sidecar(server, 1, ttl=0.3) as one, watch(one) as seen:
            await seen.see("10.0.0.1:80")

    asyncio.run(story())


def test_who_is_not_followed_any_more_is_not_asked_for(server, raw):
    async def story():
        async with sidecar(server, 1, registers=False) as one:
            async with watch(one) as seen:
                await seen.see()
            beats = one.beats()
            one.registry._hurry.set()
            for _ in range(3):
                await asyncio.sleep(0.05)
            assert one.beats() == beats

    asyncio.run(story())
