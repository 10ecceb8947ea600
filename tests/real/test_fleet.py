"""Replicas that share their breakers through a real Redis, which is emptied, frozen, broken, and killed.

Three sidecars in front of one upstream; each has its own clients. Each test has a breaker of its own (a path prefix
each). A replica that has had no request yet counts as carrying traffic, so two must see a failure.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import Message, Wire
from tests.real.databases import Redis, RedisCluster, RedisSentinel
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask

OUT = says(b"out", "503 Service Unavailable")
FINE = says(b"fine")
LONG = {"open_for": "60s"}
QUICK = {"open_for": "1s", "half_open_permits": 1, "half_open_successes": 1, "half_open_timeout": "3s"}
BREAKERS: dict[str, dict[str, Any]] = {
    "both": LONG,
    "sick": LONG,
    "back": QUICK,
    "held": QUICK,
    "hand": LONG,
    "own": {**LONG, "shared": False},
    "literal": {**LONG, "quorum": 1},
    "flushed": LONG,
    "frozen": LONG,
    "alone": {**QUICK, "quorum": 1},
    "garbled": {**LONG, "quorum": 1},
    "kept": {**LONG, "quorum": 1},
}


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def member(
    redis: Redis,
    server: ScriptedUpstream,
    instance: str,
    *,
    service: str = "orders",
    shared: dict[str, Any] | None = None,
    **root: Any,
) -> dict[str, Any]:
    routes = [route(name, name, f"/{name}", timeout="10s") for name in BREAKERS]
    upstreams = [upstream(name, server.address, breaker=breaker) for name, breaker in BREAKERS.items()]
    url = {"url": f"redis://{redis.address}/0", **(shared or {})}
    state = {"redis": url, "namespace": f"shop-{redis.port}"}
    whole = {"service": {"name": service, "instance": instance}, "shared_state": state, **root}
    return document([listener("in", routes)], upstreams, **whole)


class Fleet:
    """Replicas that know of each other."""

    def __init__(self, redis: Redis, server: ScriptedUpstream, stack: ExitStack, count: int = 3, **root: Any) -> None:
        self.redis = redis
        self.server = server
        self.client = stack.enter_context(redis_py.Redis(port=redis.port))
        trees = [member(redis, server, f"pod-{number}", **root) for number in range(count)]
        self.members = [stack.enter_context(Sidecar(tree, ready=False)) for tree in trees]
        for one in self.members:
            one.wait_ready()
        for one in self.members:
            one.wait_until(lambda one=one: fleet(one, "both").get("heard_seconds_ago") is not None, "it takes part")

    def wait(self, true: Any, what: str, patience: float = 20.0) -> None:
        self.members[0].wait_until(true, what, patience)

    def wait_state(self, name: str, *states: str) -> None:
        wanted = list(states) * len(self.members) if len(states) == 1 else list(states)
        self.wait(lambda: [state(one, name) for one in self.members] == wanted, f"{name} {states}")

    def page(self, name: str) -> str:
        found = [key for key in self.client.keys("*") if key.endswith(f"breaker:{name}".encode())]
        return found[0].decode() if found else "no such page yet"


def get(one: Sidecar, path: str) -> Message:
    return one.get("in", path)


def trip(one: Sidecar, server: ScriptedUpstream, path: str) -> None:
    server.on(path, OUT)
    for _ in range(5):
        assert get(one, path).body == b"out"


def shown(one: Sidecar, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in one.admin("/api/v1/breakers").json() if each["name"] == name)
    return found


def fleet(one: Sidecar, name: str) -> dict[str, Any]:
    return shown(one, name)["fleet"] or {}


def state(one: Sidecar, name: str) -> str:
    return str(shown(one, name)["state"])


@pytest.fixture(scope="module")
def three(redis: Redis, server: ScriptedUpstream) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(redis, server, stack)


# ------------------------------------------------------------------------------------------- it opens
def test_two_that_see_it_open_it_for_the_third(three: Fleet, server: ScriptedUpstream) -> None:
    a, b, idle = three.members
    trip(a, server, "/both")
    assert state(a, "both") == "open"
    assert get(idle, "/both").body == b"out"
    trip(b, server, "/both")
    three.wait_state("both", "open")
    before = len(server.requests("/both"))
    refused = get(idle, "/both")
    assert refused.decision == "breaker_open"
    assert 1 <= int(refused.get("retry-after") or 0) <= 60
    assert len(server.requests("/both")) == before
    seen = shown(idle, "both")
    assert (seen["led"], seen["reason"]) == (True, "consecutive_failures")
    assert {"pod-0", "pod-1"} == {voter.partition("/")[0] for voter in seen["fleet"]["by"].split(", ")}
    assert idle.metrics().sum("sidecar_breaker_transitions_total", upstream="both", reason="shared", to="open") == 1
    assert idle.metrics().sum("sidecar_shared_state_connected") == 1
    assert idle.metrics().sum("sidecar_shared_state_staleness_seconds") < 15


def test_one_sick_replica_opens_nobody_else(three: Fleet, server: ScriptedUpstream) -> None:
    a, b, c = three.members
    trip(a, server, "/sick")
    server.on("/sick", FINE)
    three.wait(lambda: fleet(c, "sick").get("votes"), "the vote, seen by whoever asks")
    (vote,) = fleet(c, "sick")["votes"]
    assert (vote["replica"].partition("/")[0], vote["reason"]) == ("pod-0", "consecutive_failures")
    assert 0 < vote["remaining_seconds"] <= 60
    assert [one["replica"].partition("/")[0] for one in c.status()["shared"]["peers"]].count("pod-0") == 1
    for told in (c.admin("/").body.decode(), c.command("status").stdout):
        assert "1 of 2 votes that open it" in told
        assert vote["replica"] in told
        assert "votes to open: 5 failures in a row" in told
    assert state(a, "sick") == "open"
    for one in (b, c):
        assert [get(one, "/sick").body for _ in range(10)] == [b"fine"] * 10
    assert get(a, "/sick").decision == "breaker_open"


def test_an_explicit_quorum_is_literal(three: Fleet, server: ScriptedUpstream) -> None:
    trip(three.members[2], server, "/literal")
    three.wait_state("literal", "open")


def test_what_is_not_shared_stays_here(three: Fleet, server: ScriptedUpstream) -> None:
    a, b, c = three.members
    for one in (a, b):
        trip(one, server, "/own")
    three.wait(lambda: state(b, "own") == "open", "b's own")
    server.on("/own", FINE)
    assert get(c, "/own").body == b"fine"
    assert shown(c, "own")["fleet"] is None
    failed = c.command("breaker", "open", "own", "--fleet", check=False)
    assert failed.returncode == 1
    assert "do not share" in failed.stderr


# ------------------------------------------------------------------------------------------- trial calls
def test_trial_calls_are_the_fleets(three: Fleet, server: ScriptedUpstream) -> None:
    """One permit: while one replica's trial hangs, nobody else makes one; when it is good, all are closed."""
    a, b, _ = three.members
    for one in (a, b):
        trip(one, server, "/back")
    three.wait_state("back", "open")
    go = threading.Event()

    def held(peer: Wire, request: Message) -> None:
        go.wait(20)
        FINE(peer, request)

    failed = len(server.requests("/back"))
    server.on("/back", held)
    with ExitStack() as stack:
        clients = [stack.enter_context(one.client("in")) for one in three.members for _ in range(5)]
        waiting: list[Wire] = []
        deadline = time.monotonic() + 20
        asked = 0
        while (not waiting or asked < 3) and time.monotonic() < deadline:
            asked += bool(waiting)
            for one in clients:
                if one in waiting:
                    continue
                one.send(ask("/back"))
                one.sock.settimeout(0.1)
                try:
                    assert one.read_answer().decision == "breaker_open"
                except TimeoutError:
                    waiting.append(one)
                one.sock.settimeout(20)
        assert len(waiting) == 1
        assert len(server.requests("/back")) - failed == 1
        assert {state(one, "back") for one in three.members} == {"half_open"}
        assert len(fleet(a, "back")["leases"]) == 1
        go.set()
        assert waiting[0].read_answer().body == b"fine"
    three.wait_state("back", "closed")
    assert all(get(one, "/back").body == b"fine" for one in three.members)


def test_a_holder_that_is_killed_holds_nobody_up(redis: Redis, server: ScriptedUpstream) -> None:
    """Its lease ends with half_open_timeout."""
    with ExitStack() as stack:
        several = Fleet(redis, server, stack, 2, service="held")
        a, b = several.members
        for one in (a, b):
            trip(one, server, "/held")
        several.wait_state("held", "open")
        stuck = threading.Event()
        server.on("/held", lambda peer, request: stuck.wait(20))
        client = stack.enter_context(a.client("in"))
        client.sock.settimeout(0.3)

        def hangs() -> bool:
            client.send(ask("/held"))
            try:
                assert client.read_answer().decision == "breaker_open"
            except TimeoutError:
                return True
            return False

        several.wait(hangs, "a trial that hangs")
        a.exit_code = -signal.SIGKILL
        os.kill(a.pid, signal.SIGKILL)
        server.on("/held", FINE)
        assert get(b, "/held").decision == "breaker_open"
        b.wait_until(lambda: get(b, "/held").body == b"fine", "a trial by the other", 20)
        stuck.set()


# ------------------------------------------------------------------------------------------- by hand
def test_an_order_for_the_fleet_reaches_all_and_says_who_why_and_until(three: Fleet, server: ScriptedUpstream) -> None:
    a, b, c = three.members
    server.on("/hand", FINE)
    told = a.command("breaker", "open", "hand", "--fleet", "--for", "10m", "--why", "maintenance").stdout
    assert "all replicas for 600 seconds" in told
    three.wait_state("hand", "open")
    assert get(b, "/hand").decision == "manual_open"
    seen = shown(c, "hand")
    assert (seen["machine"], seen["ordered_why"]) == ("forced_open", "maintenance")
    assert seen["ordered_by"]
    assert 500 < seen["remaining_seconds"] <= 600
    held = c.command("breaker", "close", "hand", "--why", "here it must go on").stdout
    assert "in this replica only" in held
    assert get(c, "/hand").body == b"fine"
    assert get(b, "/hand").decision == "manual_open"
    assert "hold it forced open" in c.command("breaker", "reset", "hand").stdout
    c.wait_until(lambda: get(c, "/hand").decision == "manual_open", "the fleet's word again")
    b.command("breaker", "reset", "hand", "--fleet")
    three.wait_state("hand", "closed")
    assert [get(one, "/hand").body for one in three.members] == [b"fine"] * 3
    assert "fleet" in a.command("breaker", "show", "hand").stdout


def test_a_newcomer_knows_what_the_others_know(three: Fleet, redis: Redis, server: ScriptedUpstream) -> None:
    trip(three.members[0], server, "/kept")
    three.wait_state("kept", "open")
    with Sidecar(member(redis, server, "pod-new", workers=2)) as late:
        late.wait_until(lambda: get(late, "/kept").decision == "breaker_open", "the fleet's word")
        late.command("breaker", "reset", "kept", "--fleet")
        three.wait_state("kept", "closed")


# ------------------------------------------------------------------------------------------- bad days
def test_an_emptied_redis_closes_nobody_and_learns_it_again(three: Fleet, server: ScriptedUpstream) -> None:
    for one in three.members[:2]:
        trip(one, server, "/flushed")
    three.wait_state("flushed", "open")
    three.client.flushall()
    three.wait(lambda: any(key.endswith(b"breaker:flushed") for key in three.client.keys("*")), "the page again", 5)
    assert [state(one, "flushed") for one in three.members] == ["open"] * 3
    before = len(server.requests("/flushed"))
    assert all(get(one, "/flushed").decision == "breaker_open" for one in three.members)
    assert len(server.requests("/flushed")) == before


def test_garbage_in_our_keys_and_on_our_channel(three: Fleet, server: ScriptedUpstream) -> None:
    a, b, _ = three.members
    trip(a, server, "/garbled")
    three.wait_state("garbled", "open")
    page = three.page("garbled")
    channel = page.partition(":breaker:")[0] + ":changes"
    for garbage in (b"\x00\xff", b"[]", b'{"n":"garbled","r":{"e":9e99,"s":"open"}}', b"x" * 10_000_000):
        three.client.publish(channel, garbage)
    b.wait_until(lambda: b.metrics().sum("sidecar_fleet_garbled_messages_total") == 4, "passed over")
    three.client.delete(page)
    three.client.rpush(page, "a list")
    b.wait_log('"fleet_noticed".*holds something else')
    b.command("breaker", "reset", "garbled")
    server.on("/garbled", FINE)
    b.wait_until(lambda: get(b, "/garbled").body == b"fine", "on its own")
    trip(b, server, "/garbled")
    assert get(b, "/garbled").decision == "breaker_open", "it decides by itself"
    failed = b.command("breaker", "open", "garbled", "--fleet", check=False)
    assert failed.returncode == 1
    three.client.set(page, b'9 {"version":9,"epoch":"9","state":"open"}')
    b.wait_log('"fleet_noticed".*newer version')
    assert three.client.get(page).startswith(b"9 "), "it is left to those who understand it"
    three.client.delete(page)
    assert all(one.rss() < 120 * 1024 * 1024 for one in three.members)


def test_a_frozen_redis_is_in_nobodys_way(three: Fleet, server: ScriptedUpstream) -> None:
    """Requests go on, trips are local, and once it is back all agree."""
    a, b, c = three.members
    server.on("/frozen", FINE)
    three.redis.pause()
    try:
        three.wait(lambda: a.metrics().sum("sidecar_shared_state_connected") == 0, "noticed", 30)
        assert [get(one, "/frozen").body for one in three.members for _ in range(20)] == [b"fine"] * 60
        for one in (a, b):
            trip(one, server, "/frozen")
        assert [state(one, "frozen") for one in three.members] == ["open", "open", "closed"]
        assert "out of reach: decides alone" in a.admin("/").body.decode()
        failed = a.command("breaker", "open", "hand", "--fleet", check=False)
        assert failed.returncode == 1
        assert "out of reach" in failed.stderr
        assert "shared_state_lost" in a.log
        assert c.metrics().sum("sidecar_shared_state_staleness_seconds") > 1
    finally:
        three.redis.resume()
    three.wait_state("frozen", "open")


def test_without_redis_what_was_open_is_tried_by_each_alone(redis: Redis, server: ScriptedUpstream) -> None:
    with Redis() as gone, ExitStack() as stack:
        several = Fleet(gone, server, stack, 2)
        a, b = several.members
        trip(a, server, "/alone")
        several.wait_state("alone", "open")
        gone.stop()
        assert get(b, "/alone").decision == "breaker_open"
        server.on("/alone", FINE)
        for one in (a, b):
            one.wait_until(lambda one=one: get(one, "/alone").body == b"fine", "a trial of its own", 20)
        gone.start()
        for one in (a, b):
            one.wait_until(lambda one=one: one.metrics().sum("sidecar_shared_state_connected") == 1, "back", 20)
        for one in (a, b):
            one.wait_until(lambda one=one: get(one, "/alone").body == b"fine", "closed with the fleet", 20)


# ------------------------------------------------------------------------------------- other sorts of Redis
def test_in_a_cluster_too(server: ScriptedUpstream) -> None:
    with RedisCluster() as node, ExitStack() as stack:
        several = Fleet(node, server, stack, 2, shared={"cluster": True})
        trip(several.members[0], server, "/literal")
        several.wait_state("literal", "open")
        several.members[1].command("breaker", "close", "literal", "--fleet")
        several.wait_state("literal", "closed")


def test_behind_sentinels_a_failover_loses_nothing(server: ScriptedUpstream) -> None:
    """The replica that takes over may be behind: whoever knows the later state writes it again."""
    with ExitStack() as stack:
        master = stack.enter_context(Redis())
        replica = stack.enter_context(Redis("--replicaof", f"127.0.0.1 {master.port}"))
        sentinel = stack.enter_context(RedisSentinel(master))
        asked = stack.enter_context(redis_py.Redis(port=sentinel.port))
        asked.execute_command("SENTINEL SET", "main", "down-after-milliseconds", "500")
        asked.execute_command("SENTINEL SET", "main", "failover-timeout", "3000")
        deadline = time.monotonic() + 30
        while not asked.execute_command("SENTINEL REPLICAS", "main") and time.monotonic() < deadline:
            time.sleep(0.1)
        through = {"sentinel": {"master": "main", "addresses": [sentinel.address]}}
        several = Fleet(master, server, stack, 2, shared=through)
        trip(several.members[0], server, "/literal")
        several.wait_state("literal", "open")
        master.stop()
        several.client = stack.enter_context(redis_py.Redis(port=replica.port))
        for one in several.members:
            one.wait_log(r'"shared_state_lost"')  # it may have found the other one before anybody looks
            one.wait_until(lambda one=one: one.metrics().sum("sidecar_shared_state_connected") == 1, "the other", 60)
        assert [get(one, "/literal").decision for one in several.members] == ["breaker_open"] * 2
        several.members[1].command("breaker", "reset", "literal", "--fleet")
        several.wait_state("literal", "closed")


@pytest.mark.parametrize(
    ("options", "scheme", "password", "sign", "advice"),
    [
        (("--requirepass", "right"), "redis", "wrong", "WRONGPASS", "password_file"),
        (("--replicaof", "127.0.0.1 1"), "redis", None, "READONLY", "master"),
        ((), "rediss", None, "no answer in time", "whether TLS is spoken there"),
    ],
)
def test_a_redis_that_lets_nobody_write_is_told_once_with_advice(
    server: ScriptedUpstream,
    tmp_path: Path,
    options: tuple[str, ...],
    scheme: str,
    password: str | None,
    sign: str,
    advice: str,
) -> None:
    """And each replica decides by itself, with as many trials as it is allowed."""
    with ExitStack() as stack:
        closed = stack.enter_context(Redis(*options))
        shared = {"url": f"{scheme}://{closed.address}/0"}
        if password is not None:
            (tmp_path / "password").write_text(password)
            shared["password_file"] = str(tmp_path / "password")
        one = stack.enter_context(Sidecar(member(closed, server, "pod", shared=shared)))
        told = one.wait_log(r'"shared_state_unreachable".*').group()
        assert sign in told
        assert advice in told
        trip(one, server, "/alone")
        assert get(one, "/alone").decision == "breaker_open"
        server.on("/alone", FINE)
        one.wait_until(lambda: get(one, "/alone").body == b"fine", "its own trial")
        assert one.log.count('"shared_state_unreachable"') == 1
        assert one.metrics().sum("sidecar_shared_state_connected") == 0
