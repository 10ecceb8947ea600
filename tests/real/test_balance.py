"""Which endpoint a request goes to."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask

Trio = list[ScriptedUpstream]
SPILLING = {"spills": {}, "spills-all": {"overprovisioning": 1.0}, "spills-none": {"overprovisioning": 2.0}}
"""Upstreams of which half of the first level is dead."""


@pytest.fixture(scope="module")
def trio() -> Iterator[Trio]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ScriptedUpstream()) for _ in range(3)]


@pytest.fixture(scope="module")
def config(trio: Trio) -> dict[str, Any]:
    addresses = [one.address for one in trio]
    names = ["turns", "least", "ring", "by-client", "weighted", "ranked", "fallen", *SPILLING]
    upstreams = {
        "turns": upstream("turns", *addresses, balance="round_robin"),
        "least": upstream("least", *addresses),
        "ring": upstream("ring", *addresses, balance="ring_hash", hash_key={"header": "x-user"}),
        "by-client": upstream("by-client", *addresses, balance="ring_hash"),
        "weighted": upstream("weighted", balance="round_robin"),
        "ranked": upstream("ranked"),
        "fallen": upstream("fallen"),
    }
    upstreams["weighted"]["endpoints"] = [
        {"address": address, "weight": weight} for address, weight in zip(addresses, (3, 2, 1), strict=True)
    ]
    upstreams["ranked"]["endpoints"] = [
        {"address": address, "priority": priority} for address, priority in zip(addresses, (0, 1, 1), strict=True)
    ]
    upstreams["fallen"]["endpoints"] = [
        {"address": f"127.0.0.1:{free_port()}", "priority": 0},
        {"address": addresses[1], "priority": 1},
    ]
    half = [
        {"address": addresses[0]},
        {"address": f"127.0.0.1:{free_port()}"},
        {"address": addresses[1], "priority": 1},
    ]
    check = {"tcp": {}, "interval": "200ms", "timeout": "200ms", "unhealthy_after": 1}
    for name, factor in SPILLING.items():
        upstreams[name] = upstream(
            name, balance="ring_hash", hash_key={"header": "x-user"}, health_check=check, **factor
        )
        upstreams[name]["endpoints"] = half
    routes = [route(name, name, f"/{name}", retry={"attempts": 3, "backoff": "1ms"}) for name in names]
    return document([listener("in", routes)], list(upstreams.values()))


@pytest.fixture
def served(proxy: Sidecar, trio: Trio) -> Iterator[Callable[..., list[int]]]:
    """How many of `count` requests each of the three served; `fields` makes the n-th request's own fields."""
    with proxy.client("in") as client:

        def send(path: str, count: int, fields: Callable[[int], str] = lambda _: "") -> list[int]:
            ports = Counter(client.send(ask(path, fields(n))).read_answer().json()["port"] for n in range(count))
            return [ports[one.port] for one in trio]

        yield send


def test_round_robin_takes_turns(served: Callable[..., list[int]]) -> None:
    assert served("/turns", 30) == [10, 10, 10]


def test_weights_are_shares(served: Callable[..., list[int]]) -> None:
    assert served("/weighted", 60) == [30, 20, 10]


def test_least_request_uses_all(served: Callable[..., list[int]]) -> None:
    assert all(count > 0 for count in served("/least", 90))


def test_least_request_spares_the_busy(proxy: Sidecar, trio: Trio, served: Callable[..., list[int]]) -> None:
    """An endpoint that is kept busy is passed over: of two drawn at random the other one is always less busy."""
    go = threading.Event()

    def hold(peer: Wire, request: Message) -> None:
        assert go.wait(PATIENCE)
        peer.send(answer(b"at last"))

    trio[0].on("/least/held", hold)
    clients = []
    while not trio[0].requests("/least/held"):
        clients.append(proxy.client("in").send(ask("/least/held")))
        proxy.wait_until(lambda: sum(len(one.requests("/least/held")) for one in trio) == len(clients), "the request")
    counts = served("/least", 60)
    go.set()
    for client in clients:
        client.close()
    assert counts[0] == 0


def test_ring_hash_keeps_a_key_at_its_place(served: Callable[..., list[int]]) -> None:
    assert sorted(served("/ring", 20, lambda _: "x-user: alice\r\n")) == [0, 0, 20]


def test_ring_hash_spreads_keys(served: Callable[..., list[int]]) -> None:
    counts = served("/ring", 150, lambda n: f"x-user: user-{n}\r\n")
    assert min(counts) >= 15
    assert counts == served("/ring", 150, lambda n: f"x-user: user-{n}\r\n")


def test_ring_hash_by_client(served: Callable[..., list[int]]) -> None:
    assert sorted(served("/by-client", 20)) == [0, 0, 20]


def test_the_first_priority_serves_alone(served: Callable[..., list[int]]) -> None:
    assert served("/ranked", 30) == [30, 0, 0]


def test_a_dead_first_priority_falls_to_the_second(served: Callable[..., list[int]]) -> None:
    assert served("/fallen", 10) == [0, 10, 0]


@pytest.mark.parametrize(
    ("name", "fewest", "most"), [("spills", 40, 80), ("spills-all", 80, 120), ("spills-none", 0, 0)]
)
def test_what_the_first_priority_cannot_carry_spills_over(
    proxy: Sidecar, served: Callable[..., list[int]], name: str, fewest: int, most: int
) -> None:
    """ring_hash leaves nothing to chance: 200 keys, of which 30 % are expected at the second level, 50 %, none."""
    healthy = "sidecar_upstream_healthy"
    proxy.wait_until(lambda: proxy.metrics().sum(healthy, upstream=name) == 2, "a failed check")
    first, second, _ = served(f"/{name}", 200, lambda n: f"x-user: user-{n}\r\n")
    assert first + second == 200
    assert fewest <= second <= most
