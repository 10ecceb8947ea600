"""The leave to restart, asked of a real Redis by many replicas."""

import asyncio
import contextlib

import pytest
import redis as redis_py

from sidecar.config.redis import Redis as RedisConfig
from sidecar.control import redis_link
from sidecar.control.recovery import fleet
from sidecar.control.recovery.fleet import FleetTokens
from sidecar.control.redis_link import RedisLink
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer
from tests.real.databases import Redis
from tests.real.documents import free_port


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@contextlib.asynccontextmanager
async def replicas(redis, count, service):
    """So many sidecars of one service, each with its place told."""
    link = RedisLink(RedisConfig(url=f"redis://{redis.address}/0"), Registry(), Observer())
    running = asyncio.ensure_future(link.run())
    await link.tried.wait()
    members = [FleetTokens(link, "shop", service, f"pod-{number}") for number in range(count)]
    for one in members:
        await one._ask("beat")
    try:
        yield members
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def direct(redis):
    """What an operator at redis-cli could do."""
    return redis_py.Redis(port=redis.port)


@pytest.mark.parametrize(("count", "allowed"), [(1, 1), (3, 1), (7, 1), (8, 2), (13, 3)])
def test_a_quarter_at_once_and_at_least_one(redis, count, allowed):
    async def main():
        async with replicas(redis, count, f"quarter-{count}") as members:
            refusals = await asyncio.gather(*(one.take() for one in members))
            granted = [one for one, refusal in zip(members, refusals, strict=True) if not refusal]
            assert len(granted) == allowed
            assert {refusal for refusal in refusals if refusal} <= {f"{allowed} of {count} replicas restart already"}
            assert members[-1].view() == {"replicas": count, "restarting": allowed, "allowed": allowed}
            waiting = next((one for one in members if one not in granted), granted[0])
            await granted[0].give_back()
            assert await waiting.take() == ""

    asyncio.run(main())


def test_rules_of_one_replica_share_its_token(redis):
    async def main():
        async with replicas(redis, 2, "rules") as (one, other):
            assert await asyncio.gather(one.take(), one.take()) == ["", ""]
            await one.give_back()
            assert await other.take(), "the second rule is at it still"
            await one.give_back()
            assert await other.take() == ""

    asyncio.run(main())


def test_who_dies_with_a_token_gives_it_back_and_who_lives_keeps_it(redis, monkeypatch):
    monkeypatch.setattr(fleet, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(fleet, "BEAT_SECONDS", 0.1)

    async def main():
        async with replicas(redis, 2, "deaths") as (one, other):
            assert await one.take() == ""
            beating = asyncio.ensure_future(one.run())
            for _ in range(10):  # longer than the lease
                await asyncio.sleep(0.1)
                assert await other.take()
            beating.cancel()
            while await other.take():
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_emptied_redis_is_told_again_and_a_clock_set_back_blocks_nobody(redis, monkeypatch):
    monkeypatch.setattr(fleet, "BEAT_SECONDS", 0.05)

    async def main():
        async with replicas(redis, 2, "losses") as (one, other):
            assert await one.take() == ""
            (tokens,) = (key for key in one._keys if key.endswith("tokens"))
            direct(redis).delete(*one._keys)
            beating = asyncio.ensure_future(one.run())
            while direct(redis).zscore(tokens, "pod-0") is None:
                await asyncio.sleep(0.02)
            assert await other.take()
            beating.cancel()
            direct(redis).zadd(tokens, {"pod-0": 4e12})  # written when the clock was a century ahead
            assert await other.take() == ""

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_leaves_counts_no_more(redis):
    async def main():
        async with replicas(redis, 8, "leaving") as members:
            assert await members[0].take() == ""
            for one in members[1:6]:
                await one.leave()
            assert await members[7].take() == "1 of 3 replicas restart already"
            await members[0].leave()
            assert await members[7].take() == ""

    asyncio.run(main())


def test_without_redis_there_is_no_leave(monkeypatch):
    monkeypatch.setattr(redis_link, "FIRST_PAUSE", 0.02)

    async def main():
        link = RedisLink(RedisConfig(url=f"redis://127.0.0.1:{free_port()}/0"), Registry(), Observer())
        running = asyncio.ensure_future(link.run())
        await link.tried.wait()
        one = FleetTokens(link, "shop", "orders", "pod-0")
        assert "only dead processes are restarted" in await one.take()
        assert one.view() is None
        await one.leave()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_foreign_keys_are_told_and_break_nothing(redis):
    async def main():
        async with replicas(redis, 1, "foreign") as (one,):
            direct(redis).delete(*one._keys)
            direct(redis).set(one._keys[0], "not a set")
            assert "WRONGTYPE" in await one.take()
            await one.leave()

    asyncio.run(main())
