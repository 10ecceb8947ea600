"""The port over the real link to real servers: beats, what differs, and whatever others may have left in our keys."""

import asyncio
import contextlib

import msgspec
import pytest

from sidecar.config.redis import Redis as RedisConfig
from sidecar.control import redis_link
from sidecar.control.fleet_redis import FleetPort
from sidecar.control.redis_link import RedisGone, RedisLink, RedisRefused
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.deeds import Send, Sync
from sidecar.machines.fleet.words import Ask, Force, Look, Record, Vote
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer
from tests.real.databases import Redis, RedisCluster

VOTE = Vote(voter="a", epoch=0, lasting=60_000, period=60_000, quorum=1, reason="failure_rate", detail="9 of 10")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(redis_link, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(redis_link, "LONGEST_PAUSE", 0.05)


@pytest.fixture(scope="module")
def server():
    with Redis() as one:
        yield one


@contextlib.asynccontextmanager
async def ports(server, *names, **config):
    """A port each, over links of their own, to an empty Redis; and a client to interfere with."""
    import redis.asyncio

    client = redis.asyncio.Redis(port=server.port)
    await client.flushall()
    links = [RedisLink(RedisConfig(url=f"redis://{server.address}/0", **config), Registry(), Observer()) for _ in names]
    tasks = [asyncio.ensure_future(link.run()) for link in links]
    try:
        async with asyncio.timeout(20):
            for link in links:
                while not link.up:
                    await link.tried.wait()
                    await asyncio.sleep(0.01)
        yield client, *(FleetPort(link, "shop", "orders", name) for link, name in zip(links, names, strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()


def beat(carrying=True, config="c1", **known):
    """`known`: per breaker an epoch, closed, or (epoch, state)."""
    pairs = {name: (one, BreakerState.CLOSED) if isinstance(one, int) else one for name, one in known.items()}
    return Sync(pairs, carrying, config, 0.0)


def test_one_beat_reads_what_differs_and_counts_who_is_there(server):
    async def story():
        async with ports(server, "a", "b", "c") as (_, a, b, c):
            opened = await a.run(Send("pay", VOTE, 0.0))
            assert (opened.did, opened.record.state, opened.record.left) == ("opened", "open", 60_000)
            epoch = opened.record.epoch
            await a.sync(beat(pay=0, tax=0))
            await b.sync(beat(carrying=False, pay=0))
            seen = await c.sync(beat(config="c2", pay=0, tax=0, old=7))
            assert (seen.carrying, seen.replicas, seen.configs, seen.foreign) == (2, 3, 2, {})
            assert set(seen.records) == {"pay", "old"}
            assert seen.records["old"] == Record()
            assert seen.records["pay"].epoch == epoch
            assert 0 < seen.records["pay"].left <= 60_000
            assert (await c.sync(beat(config="c1", pay=(epoch, BreakerState.OPEN)))).records == {}
            assert (await c.sync(beat(config="c1", pay=epoch))).records["pay"].state is BreakerState.OPEN
            assert (await c.sync(beat(carrying=False, pay=0))).carrying == 1

    asyncio.run(story())


def test_people_see_who_is_there_who_voted_and_who_tries(server):
    async def story():
        async with ports(server, "a", "b") as (client, a, b):
            nothing = await a.show(["pay"])
            assert (nothing.peers, nothing.voices["pay"]["votes"]) == ([], [])
            await a.sync(beat(pay=0))
            await b.sync(beat(carrying=False, pay=0))
            await a.run(Send("pay", msgspec.structs.replace(VOTE, quorum=2), 0.0))
            seen = await b.show(["tax", "pay"])
            assert [(one["replica"], one["carrying"]) for one in seen.peers] == [("a", True), ("b", False)]
            assert all(one["heard_seconds_ago"] < 5 for one in seen.peers)
            (vote,) = seen.voices["pay"]["votes"]
            assert (vote["replica"], vote["reason"], vote["detail"]) == ("a", "failure_rate", "9 of 10")
            assert 50 < vote["remaining_seconds"] <= 60
            assert seen.voices["tax"]["votes"] == []
            opened = await b.run(Send("pay", msgspec.structs.replace(VOTE, voter="b"), 0.0))
            ask = Ask(holder="a", epoch=opened.record.epoch, tokens=("t",), permits=1, ttl=30_000, due=True)
            await a.run(Send("pay", ask, 0.0))
            voices = (await b.show(["pay"])).voices["pay"]
            assert voices["votes"] == []
            assert [one["replica"] for one in voices["leases"]] == ["a"]
            assert voices["leases"][0]["age_seconds"] < 5 < 20 < voices["leases"][0]["remaining_seconds"]
            await client.set(a.page("pay"), "rubbish")
            await client.hset(a.page("tax"), "another", "type")
            assert (await a.show(["pay", "tax"])).voices == {"pay": {}, "tax": {}}
            await client.set(a.page("x").replace("breaker:x", "peers"), "rubbish")
            assert (await a.show(["pay"])).peers == []

    asyncio.run(story())


def test_every_change_is_told_on_the_channel(server):
    async def story():
        async with ports(server, "a") as (client, a):
            ear = client.pubsub(ignore_subscribe_messages=True)
            await ear.subscribe(a.channel)
            await a.run(Send("pay", Look(), 0.0))
            answer = await a.run(Send("pay", VOTE, 0.0))
            async with asyncio.timeout(5):
                while (message := await ear.get_message(timeout=5)) is None:
                    pass
            assert a.hint(message["data"]) == ("pay", answer.record)
            await ear.aclose()

    asyncio.run(story())


def test_a_redis_that_forgot_its_scripts_is_told_them_again(server):
    async def story():
        async with ports(server, "a") as (client, a):
            await a.run(Send("pay", Look(), 0.0))
            await a.sync(beat(pay=0))
            await client.script_flush()
            assert (await a.run(Send("pay", VOTE, 0.0))).did == "opened"
            assert (await a.sync(beat(pay=0))).records["pay"].state is BreakerState.OPEN

    asyncio.run(story())


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda client, key: client.rpush(key, "x"), "something else"),
        (lambda client, key: client.set(key, "rubbish"), "something else"),
        (lambda client, key: client.set(key, '7 open {"epoch":"7","version":1,"state":"ajar"}'), "something else"),
        (lambda client, key: client.set(key, '7 open {"epoch":"7","version":1,"until":"soon"}'), "something else"),
        (lambda client, key: client.set(key, "9" * 300 + " {}"), "something else"),
        (lambda client, key: client.set(key, b"x" * 10_000_000), "something else"),
        (lambda client, key: client.set(key, b"\xff\xfe \x00"), "something else"),
        (lambda client, key: client.set(key, '7 open {"epoch":"9999999999999999","version":1}'), "something else"),
        (lambda client, key: client.set(key, '7 open {"epoch":"7","version":2,"new":[]}'), "newer version"),
    ],
)
def test_foreign_pages_are_told_left_alone_and_spoil_no_other(server, spoil, word):
    async def story():
        async with ports(server, "a") as (client, a):
            await a.run(Send("tax", VOTE, 0.0))
            await spoil(client, a.page("pay"))
            before = await client.dump(a.page("pay"))
            seen = await a.sync(beat(pay=0, tax=0))
            assert list(seen.foreign) == ["pay"]
            assert word in seen.foreign["pay"]
            assert seen.records["tax"].state is BreakerState.OPEN
            if b"ajar" not in before and b"9999999999999999" not in before:
                with pytest.raises(RedisRefused):
                    await a.run(Send("pay", VOTE, 0.0))
                assert await client.dump(a.page("pay")) == before
            await client.delete(a.page("pay"))
            assert (await a.run(Send("pay", VOTE, 0.0))).did == "opened"

    asyncio.run(story())


def test_where_nobody_can_be_counted_one_voter_is_not_the_quorum(server):
    async def story():
        async with ports(server, "a") as (client, a):
            await client.set("{shop:orders}:configs", "rubbish")
            assert (await a.sync(beat(pay=0))).configs == 0
            await client.set("{shop:orders}:peers", "rubbish")
            with pytest.raises(RedisRefused, match="WRONGTYPE"):
                await a.sync(beat(pay=0))
            assert (await a.run(Send("pay", msgspec.structs.replace(VOTE, quorum=0), 0.0))).did == "counted"

    asyncio.run(story())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"n":1,"r":{}}',
        b'{"n":"pay","r":{"e":-1}}',
        b'{"n":"pay","r":{"e":1e300}}',
        b'{"n":"pay","r":{"e":9999999999999999}}',
        b'{"n":"pay","r":{"e":1,"s":"ajar"}}',
        b'{"n":"pay","r":{"e":1,"l":-7}}',
        b"[" * 100_000,
        b'{"n":"' + b"x" * 10_000_000 + b'"}',
    ],
)
def test_garbage_on_the_channel_is_counted_and_passed_over(payload):
    port = FleetPort(None, "shop", "orders", "a")
    assert port.hint(payload) is None
    assert port.garbled == 1
    good = msgspec.json.encode({"n": "pay", "r": {"e": "5", "s": "open", "l": 10, "new in a later version": 1}})
    assert port.hint(good) == ("pay", Record(epoch=5, state=BreakerState.OPEN, left=10))


def test_a_full_redis_refuses_and_recovers(server):
    async def story():
        async with ports(server, "a") as (client, a):
            await client.config_set("maxmemory", "1")
            try:
                with pytest.raises(RedisRefused, match="memory"):
                    await a.run(Send("pay", VOTE, 0.0))
                with pytest.raises(RedisRefused, match="memory"):
                    await a.sync(beat(pay=0))
            finally:
                await client.config_set("maxmemory", "0")
            assert (await a.run(Send("pay", VOTE, 0.0))).did == "opened"

    asyncio.run(story())


def test_a_page_without_changes_goes_and_an_order_without_an_end_stays(server):
    async def story():
        async with ports(server, "a") as (client, a):
            await a.run(Send("pay", VOTE, 0.0))
            kept = await client.pttl(a.page("pay"))
            assert 86_000_000 < kept <= 86_520_000
            await client.pexpire(a.page("pay"), 5_000_000)
            await a.run(Send("pay", Look(), 0.0))
            assert await client.pttl(a.page("pay")) <= 5_000_000, "reading prolongs nothing"
            order = Force(epoch=2**52 // 2, state=BreakerState.FORCED_OPEN, by="eve", why="x")
            await a.run(Send("tax", order, 0.0))
            assert await client.pttl(a.page("tax")) == -1

    asyncio.run(story())


def test_everything_of_a_service_lies_in_one_slot():
    async def story():
        with RedisCluster() as server:
            async with ports(server, "a", cluster=True) as (_, a):
                assert (await a.run(Send("pay", VOTE, 0.0))).did == "opened"
                assert (await a.sync(beat(pay=0, tax=0))).records["pay"].state is BreakerState.OPEN

    asyncio.run(story())


def test_without_redis_it_says_so():
    async def story():
        link = RedisLink(RedisConfig(url="redis://127.0.0.1:1/0"), Registry(), Observer())
        port = FleetPort(link, "shop", "orders", "a")
        with pytest.raises(RedisGone):
            await port.run(Send("pay", VOTE, 0.0))

    asyncio.run(story())
