"""Who of the replicas tells people, agreed in a real Redis: nobody is told twice, and never nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import redis as redis_py

from sidecar.config.redis import Redis as RedisConfig
from sidecar.control.incidents import agreement as agreement_module
from sidecar.control.incidents import shared as shared_module
from sidecar.control.incidents.agreement import Agreement, News
from sidecar.control.incidents.shared import SharedCauses
from sidecar.control.redis_link import RedisLink
from sidecar.machines.incidents.incident import Incident, Status
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Kind, Observer
from tests.control.incidents.test_keeper import Stage
from tests.real.databases import Redis


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


class Replica:
    """One sidecar's keeper and agreement; what it would tell is in `told`."""

    def __init__(self, link: RedisLink, service: str, name: str) -> None:
        self.stage = Stage(name)
        self.told: list[str] = []
        self.agreement = Agreement(self.stage.keeper, self._tell, lambda: self.stage.now)
        self.agreement.share(SharedCauses(link, "shop", service, name))
        self.stage.keeper.listen(
            lambda change: self.agreement.put(News(change.incident, str(change.what), change.incident.title))
        )

    def _tell(self, news: News) -> None:
        self.told.append(news.what)

    @property
    def one(self) -> Incident:
        return self.stage.one

    async def sees(self, new: str) -> None:
        self.stage.breaker(new)
        await self.agreement.work()

    async def beats(self) -> None:
        self.stage.now += agreement_module.BEAT_SECONDS
        await self.agreement.work()

    async def heard(self) -> None:
        """Somebody was told."""
        self.one.notified = self.stage.now
        await self.agreement.told(self.one)

    async def ends(self) -> None:
        """What it saw is gone, and stays so."""
        self.stage.breaker("closed")
        self.stage.now += 100.0
        self.stage.keeper.catch_up()
        await self.agreement.work()


@contextlib.asynccontextmanager
async def replicas(redis: Redis, service: str, count: int) -> AsyncIterator[list[Replica]]:
    link = RedisLink(RedisConfig(url=f"redis://{redis.address}/0"), Registry(), Observer())
    running = asyncio.ensure_future(link.run())
    await link.tried.wait()
    try:
        yield [Replica(link, service, f"pod-{number}") for number in range(count)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def play(redis: Redis, count: int, story: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        async with replicas(redis, story.__name__, count) as members:
            await asyncio.wait_for(story(*members), 30)

    asyncio.run(main())


def test_the_first_tells_and_the_last_ends_it(redis: Redis) -> None:
    async def first_and_last(a: Replica, b: Replica, c: Replica) -> None:
        for one in (a, b, c):
            await one.sees("open")
        await a.heard()
        await a.ends()
        await b.beats()
        assert (b.one.led_by, b.one.shared_id) == ("", a.one.id), "the next one leads, under the same id"
        await c.ends()
        await b.ends()
        assert (a.told, b.told, c.told) == (["opened", "mitigated"], ["mitigated", "resolved"], [])

    play(redis, 3, first_and_last)


def test_a_leader_that_dies_before_anybody_was_told_is_followed_by_one_that_tells(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "LEASE_SECONDS", 0.2)

    async def dies_untold(a: Replica, b: Replica) -> None:
        await a.sees("open")
        await b.sees("open")
        assert b.told == []
        await asyncio.sleep(0.3)
        await b.beats()
        assert b.told == ["opened"]

    async def dies_told(a: Replica, b: Replica) -> None:
        await a.sees("open")
        await b.sees("open")
        await a.heard()
        await asyncio.sleep(0.3)
        await b.beats()
        assert (b.told, b.agreement.leads(b.one)) == ([], True)

    play(redis, 2, dies_untold)
    play(redis, 2, dies_told)


def test_what_redis_forgets_is_agreed_again_under_the_same_id(redis: Redis) -> None:
    async def forgets(a: Replica, b: Replica) -> None:
        await a.sees("open")
        await b.sees("open")
        await a.heard()
        redis_py.Redis(port=redis.port).flushall()
        await b.beats()
        await a.beats()
        assert b.one.shared_id == a.one.id
        assert a.told == ["opened"] and b.told in ([], ["opened"]), "rather twice than not at all"
        assert [a.agreement.leads(a.one), b.agreement.leads(b.one)].count(True) == 1

    play(redis, 2, forgets)


def test_what_is_said_to_one_holds_for_all_until_it_comes_back(redis: Redis) -> None:
    async def said(a: Replica, b: Replica) -> None:
        await a.sees("open")
        await b.sees("open")
        await b.stage.keeper.ack(b.one.id, "alice", "")
        await b.agreement.work()
        await a.beats()
        assert (a.one.status, a.one.acknowledged_by, a.told) == (Status.ACKNOWLEDGED, "alice", ["opened"])
        await a.agreement.work()
        assert a.told == ["opened", "acknowledged"]
        await b.stage.keeper.resolve(b.one.id, "alice", "")
        await b.agreement.work()
        await a.beats()
        await a.agreement.work()
        assert (a.one.status, a.told[-1]) == (Status.RESOLVED, "resolved")
        await a.sees("closed")
        await a.sees("open")
        assert (a.one.status, a.told[-1]) == (Status.DETECTED, "reopened"), "nobody looks at it any more"
        await a.beats()
        assert a.one.status is Status.DETECTED

    play(redis, 2, said)


def test_a_place_that_ends_far_in_the_future_does_not_count(redis: Redis) -> None:
    async def set_back(a: Replica, b: Replica) -> None:
        await a.sees("open")
        server = redis_py.Redis(port=redis.port)
        (key,) = server.keys("{shop:set_back}:incident:*")
        server.hset(key, "m:pod-0", 10**15)
        await b.sees("open")
        assert (b.told, b.one.sharers) == (["opened"], 1)

    play(redis, 2, set_back)


def test_with_redis_away_a_follower_waits_for_its_leader_s_place_to_end(redis: Redis) -> None:
    async def away(a: Replica, b: Replica) -> None:
        await a.sees("open")
        await b.sees("open")
        b.agreement._shared = Gone()
        await b.beats()
        assert not b.agreement.leads(b.one)
        b.stage.now += agreement_module.LEASE_SECONDS
        await b.beats()
        assert b.agreement.leads(b.one)
        b.stage.happens(Kind.CHILD_DIED, "app.py", exit="code 3")
        await b.agreement.work()
        assert b.told == ["opened"], "the new one"

    play(redis, 2, away)


class Gone:
    """Redis cannot be asked."""

    me = "pod-1"

    async def ask(self, verb: str, incident: Incident, keep: float, said: str = "") -> None:
        return None
