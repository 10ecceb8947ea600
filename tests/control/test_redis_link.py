"""The link against real Redis servers: gone, back, black-holed, with a password, behind a sentinel, in a cluster."""

import asyncio
import contextlib
import socket

import pytest
import trustme

from sidecar.config.redis import Redis as RedisConfig
from sidecar.config.redis import Sentinel
from sidecar.control import redis_link
from sidecar.control.redis_link import RedisGone, RedisLink, RedisRefused, Script
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer
from tests.real.databases import Redis, RedisCluster, RedisSentinel
from tests.real.documents import black_hole, free_port

ECHO = Script("return {KEYS[1], ARGV[1]}")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(redis_link, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(redis_link, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(redis_link, "LONGEST_PAUSE", 0.05)


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


class Linked:
    """A link that runs, and what it says of itself."""

    def __init__(self, config):
        self.registry = Registry()
        self.link = RedisLink(config, self.registry, Observer())
        self.changes = []
        self._changed = asyncio.Event()
        self.link.on_change(self._note)

    def _note(self, up):
        self.changes.append(up)
        self._changed.set()

    async def until(self, up):
        async with asyncio.timeout(15):
            while self.link.up is not up:
                self._changed.clear()
                await self._changed.wait()

    @property
    def connected(self):
        return self.registry.snapshot().total(series.SHARED_STATE_CONNECTED)


@contextlib.asynccontextmanager
async def linked(config):
    async with running(Linked(config)) as one:
        yield one


@contextlib.asynccontextmanager
async def running(one):
    task = asyncio.ensure_future(one.link.run())
    try:
        yield one
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def at(server, **more):
    return RedisConfig(url=f"redis://{server.address}/0", **more)


def test_a_script_runs_known_or_not(redis):
    async def story():
        async with linked(at(redis)) as one:
            await one.until(True)
            for turn in ("first", "again"):
                assert await one.link.script(ECHO, ["k"], [turn]) == [b"k", turn.encode()]
            assert one.connected == 1
            assert one.link.reason == ""

    asyncio.run(story())


def test_a_refusal_leaves_the_connection(redis):
    wrong = Script("redis.call('SET', KEYS[1], 'text') return redis.call('LPUSH', KEYS[1], 'x')")

    async def story():
        async with linked(at(redis)) as one:
            await one.until(True)
            with pytest.raises(RedisRefused, match="WRONGTYPE"):
                await one.link.script(wrong, ["wrong"], [])
            assert await one.link.script(ECHO, ["k"], [1]) == [b"k", b"1"]
            assert one.changes == [True]

    asyncio.run(story())


def test_it_is_away_and_comes_back():
    async def story():
        with Redis() as server:
            async with linked(at(server)) as one:
                await one.until(True)
                server.stop()
                with pytest.raises(RedisGone):
                    await one.link.script(ECHO, ["k"], [1])
                assert not one.link.up
                assert one.connected == 0
                with pytest.raises(RedisGone, match=r"closed the connection|Error"):
                    await one.link.script(ECHO, ["k"], [1])
                server.start()
                await one.until(True)
                assert await one.link.script(ECHO, ["k"], [2]) == [b"k", b"2"]
                assert one.changes == [True, False, True]

    asyncio.run(story())


def test_a_frozen_server_costs_the_connection_and_never_mixes_answers_up():
    async def story():
        with Redis() as server:
            async with linked(at(server)) as one:
                await one.until(True)
                server.pause()
                asked = [asyncio.ensure_future(one.link.script(ECHO, ["k"], [number])) for number in range(3)]
                asked[1].cancel()
                results = await asyncio.gather(*asked, return_exceptions=True)
                assert isinstance(results[0], RedisGone)
                assert isinstance(results[1], asyncio.CancelledError)
                assert isinstance(results[2], RedisGone)
                server.resume()
                await one.until(True)
                answers = await asyncio.gather(*(one.link.script(ECHO, ["k"], [number]) for number in range(50)))
                assert answers == [[b"k", str(number).encode()] for number in range(50)]

    asyncio.run(story())


def test_a_caller_that_is_cancelled_spoils_nobody_elses_answer(redis):
    slow = Script("local n = 0 for i = 1, 3000000 do n = n + 1 end return ARGV[1]")

    async def story():
        async with linked(at(redis)) as one:
            await one.until(True)
            asked = asyncio.ensure_future(one.link.script(slow, ["k"], ["slow"]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked.cancel()
            assert await one.link.script(ECHO, ["k"], ["mine"]) == [b"k", b"mine"]
            assert one.changes == [True]

    asyncio.run(story())


def test_a_black_hole_is_told_and_left():
    async def story():
        with black_hole() as address:
            async with linked(RedisConfig(url=f"redis://{address}/0")) as one:
                async with asyncio.timeout(10):
                    await one.link.tried.wait()
                assert not one.link.up
                with pytest.raises(RedisGone):
                    await one.link.script(ECHO, ["k"], [1])

    asyncio.run(story())


def test_the_password_is_read_at_each_connection(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("stale-secret")

    async def story():
        with Redis("--requirepass", "fresh-secret") as server:
            async with linked(at(server, password_file=str(secret))) as one:
                async with asyncio.timeout(10):
                    await one.link.tried.wait()
                assert not one.link.up
                assert "secret" not in one.link.reason
                secret.write_text("fresh-secret\n")
                await one.until(True)

    asyncio.run(story())


def say(server, *words):
    """One command from outside."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(" ".join(words).encode() + b"\r\n")
        return sock.recv(1000)


def test_a_master_that_became_a_replica_is_left_until_it_is_one_again(redis):
    write = Script("return redis.call('SET', KEYS[1], ARGV[1])")

    async def story():
        with Redis() as server:
            async with linked(at(server)) as one:
                await one.until(True)
                say(server, "REPLICAOF", "127.0.0.1", str(redis.port))
                with pytest.raises(RedisGone, match="READONLY"):
                    await one.link.script(write, ["k"], [1])
                one.link.tried.clear()
                await asyncio.sleep(0.2)
                assert one.changes == [True, False], "it is not taken for a master again and again"
                assert one.link.reason == "READONLY this Redis is a replica"
                assert "master" in redis_link.advice(one.link.reason)
                say(server, "REPLICAOF", "NO", "ONE")
                await one.until(True)
                assert await one.link.script(write, ["k"], [1]) == b"OK"

    asyncio.run(story())


def test_channels_are_heard_on_the_same_connection(redis):
    async def story():
        one = Linked(at(redis))
        heard = asyncio.Queue()
        one.link.subscribe("news", heard.put_nowait)
        async with running(one):
            await one.until(True)
            publish = Script("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
            answers = await asyncio.gather(*(one.link.script(publish, [], ["news", number]) for number in range(20)))
            assert answers == [1] * 20
            assert [await heard.get() for _ in range(20)] == [str(number).encode() for number in range(20)]
            assert await one.link.script(publish, [], ["other", "x"]) == 0
            assert await asyncio.to_thread(say, redis, "PUBLISH", "news", "x" * 60_000) == b":1\r\n"
            assert len(await heard.get()) == 60_000
            assert one.changes == [True]
            assert say(redis, "CLIENT", "LIST", "TYPE", "pubsub").count(b"id=") == 1
            assert say(redis, "CLIENT", "LIST").count(b"id=") == 2, "one connection for both, and ours"

    asyncio.run(story())


def test_a_user_without_the_channel_goes_on_without(redis, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("pw")

    async def story():
        say(redis, "ACL", "SETUSER", "mute", "on", ">pw", "+@all", "~*", "resetchannels")
        one = Linked(at(redis, username="mute", password_file=str(secret)))
        one.link.subscribe("news", lambda payload: None)
        async with running(one):
            await one.until(True)
            assert await one.link.script(ECHO, ["k"], [1]) == [b"k", b"1"]
            assert await one.link.script(ECHO, ["k"], [2]) == [b"k", b"2"]

    asyncio.run(story())


@pytest.mark.parametrize("said", [b"\x00\x01garbage\r\n", b"+OK\r\n" * 50, b"$99999999999\r\n", b"*-7\r\n"])
def test_a_server_that_speaks_nonsense_is_left(said):
    async def story():
        async def speak(reader, writer):
            writer.write(said)
            await reader.read(100)
            await asyncio.sleep(1)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, linked(RedisConfig(url=f"redis://127.0.0.1:{port}/0")) as one:
            async with asyncio.timeout(10):
                await one.link.tried.wait()
            assert not one.link.up

    asyncio.run(story())


def test_tls_trusts_whom_the_file_names(tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    for name, ca in (("ca", authority), ("stranger", stranger)):
        ca.cert_pem.write_to_path(tmp_path / name)
    tls_port = free_port()
    options = ("--tls-port", str(tls_port), "--tls-cert-file", str(tmp_path / "cert"), "--tls-key-file",
               str(tmp_path / "key"), "--tls-auth-clients", "no")  # fmt: skip

    async def story():
        with Redis(*options):
            url = f"rediss://127.0.0.1:{tls_port}/2"
            async with linked(RedisConfig(url=url, ca_file=str(tmp_path / "ca"))) as one:
                await one.until(True)
                assert await one.link.script(ECHO, ["k"], [1]) == [b"k", b"1"]
            async with linked(RedisConfig(url=url, ca_file=str(tmp_path / "stranger"))) as one:
                async with asyncio.timeout(10):
                    await one.link.tried.wait()
                assert not one.link.up
                assert "ca_file" in redis_link.advice(one.link.reason)

    asyncio.run(story())


def test_sentinels_tell_the_master(redis):
    async def story():
        with RedisSentinel(redis) as sentinel:
            config = RedisConfig(url="redis://unused/0",
                                 sentinel=Sentinel(master="main", addresses=(sentinel.address,)))  # fmt: skip
            async with linked(config) as one:
                await one.until(True)
                assert await one.link.script(ECHO, ["k"], [1]) == [b"k", b"1"]

    asyncio.run(story())


def test_a_cluster_takes_keys_of_one_slot():
    async def story():
        with RedisCluster() as server:
            async with linked(at(server, cluster=True)) as one:
                await one.until(True)
                write = Script("redis.call('SET', KEYS[1], 1) return redis.call('GET', KEYS[2])")
                assert await one.link.script(write, ["{a}:1", "{a}:1"], []) == b"1"
                server.stop()
                with pytest.raises(RedisGone):
                    await one.link.script(write, ["{a}:1", "{a}:1"], [])

    asyncio.run(story())
