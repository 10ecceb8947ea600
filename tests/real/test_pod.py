"""`workers: 3`: what one worker learns of an upstream, all know; trial calls and orders are the pod's, not a worker's.

Whichever worker takes a client is the kernel's choice; so each test has many clients, and asks all of them.
"""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask

OUT = says(b"out", "503 Service Unavailable")
FINE = says(b"fine")
CLIENTS = 24
BREAKERS: dict[str, dict[str, Any]] = {
    "long": {"open_for": "60s"},
    "back": {"open_for": "500ms", "half_open_permits": 2, "half_open_successes": 2},
    "held": {"open_for": "500ms", "half_open_permits": 1, "half_open_successes": 1},
    "hand": {"open_for": "60s"},
    "bad": {"open_for": "500ms", "half_open_permits": 1},
    "many": {"open_for": "500ms", "half_open_permits": 1_000_000_000},
    "spread": {"open_for": "500ms", "half_open_permits": 3, "half_open_successes": 1},
}


def tree(server: ScriptedUpstream) -> dict[str, Any]:
    routes = [route(name, name, f"/{name}", timeout="10s") for name in BREAKERS]
    routes.insert(0, route("own", "long", "/long/own", breaker="own"))
    upstreams = [upstream(name, server.address, breaker=breaker) for name, breaker in BREAKERS.items()]
    return document([listener("in", routes)], upstreams, workers=3)


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return tree(server)


@pytest.fixture
def own(server: ScriptedUpstream) -> Iterator[Sidecar]:
    """A proxy of the test's own, to be maimed."""
    with Sidecar(tree(server)) as running:
        yield running


@pytest.fixture
def clients(proxy: Sidecar) -> Iterator[list[Wire]]:
    with ExitStack() as stack:
        yield connected(proxy, stack)


def connected(proxy: Sidecar, stack: ExitStack) -> list[Wire]:
    """Clients of all workers: all connect before any is answered."""
    found = [stack.enter_context(proxy.client("in")) for _ in range(CLIENTS)]
    for one in found:
        one.send(ask("/nowhere"))
    for one in found:
        assert one.read_answer().status == 404
    return found


def get(client: Wire, target: str) -> Message:
    return client.send(ask(target)).read_answer()


def trip(client: Wire, server: ScriptedUpstream, path: str) -> None:
    """Through one client, so in one worker."""
    server.on(path, OUT)
    for _ in range(5):
        assert get(client, path).body == b"out"


def state(proxy: Sidecar, name: str) -> str:
    found = {labels["state"]: value for labels, value in proxy.metrics().named("sidecar_breaker_state", upstream=name)}
    assert sorted(found) == ["closed", "half_open", "open"]
    assert sum(found.values()) == 1.0
    return next(label for label, value in found.items() if value)


def all_refused(clients: list[Wire], path: str) -> bool:
    return all(get(one, path).decision == "breaker_open" for one in clients)


def wait_all_refused(proxy: Sidecar, clients: list[Wire], path: str) -> None:
    proxy.wait_until(lambda: all_refused(clients, path), "all workers know it")


def test_one_workers_trip_opens_all(proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]) -> None:
    trip(clients[0], server, "/long")
    wait_all_refused(proxy, clients, "/long")
    assert state(proxy, "long") == "open"
    transitions = proxy.metrics().named("sidecar_breaker_transitions_total", upstream="long")
    assert {value for _, value in transitions} == {0, 1}, "from zero on"
    assert [(labels["to"], labels["reason"], value) for labels, value in transitions if value] == [
        ("open", "consecutive_failures", 1)
    ]
    before = len(server.requests("/long"))
    assert all_refused(clients, "/long")
    assert len(server.requests("/long")) == before, "the upstream is left alone"
    (shown,) = [one for one in proxy.admin("/api/v1/breakers").json() if one["name"] == "long"]
    assert (shown["state"], shown["reason"]) == ("open", "consecutive_failures")
    assert shown["refused"] >= CLIENTS
    told = [line for line in proxy.log.splitlines() if '"breaker_changed"' in line and '"long"' in line]
    assert len(told) == 1, "by the program, once for all workers"


def test_a_routes_own_breaker_is_the_pods_too(proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]) -> None:
    trip(clients[0], server, "/long/own")
    wait_all_refused(proxy, clients, "/long/own")
    assert state(proxy, "long/own") == "open"


def test_no_more_trial_calls_than_permits_reach_the_upstream(
    proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]
) -> None:
    trip(clients[0], server, "/back")
    wait_all_refused(proxy, clients, "/back")
    go = threading.Event()

    def held(peer: Wire, request: Message) -> None:
        go.wait(20)
        FINE(peer, request)

    failed = len(server.requests("/back"))
    server.on("/back", held)
    waiting: list[Wire] = []

    def two_are_out() -> bool:
        for one in clients:
            if one not in waiting:
                one.send(ask("/back"))
                one.sock.settimeout(0.05)
                try:
                    assert one.read_answer().decision == "breaker_open"
                except TimeoutError:
                    waiting.append(one)
                one.sock.settimeout(20)
        return len(waiting) >= 2

    proxy.wait_until(two_are_out, "two trial calls")
    assert two_are_out()
    assert state(proxy, "back") == "half_open"
    assert len(server.requests("/back")) - failed == 2
    go.set()
    assert [one.read_answer().body for one in waiting] == [b"fine", b"fine"]
    proxy.wait_until(lambda: all(get(one, "/back").body == b"fine" for one in clients), "closed everywhere")
    assert state(proxy, "back") == "closed"


def test_one_refused_call_readies_every_worker(own: Sidecar, server: ScriptedUpstream) -> None:
    """Else each would refuse one more of those who call now and then, though the upstream is well again."""
    go = threading.Event()

    def shown(key: str) -> Any:
        return own.admin("/api/v1/breakers/spread").json()[key]

    def waits(client: Wire) -> bool:
        client.sock.settimeout(0.1)
        try:
            return client.read_answer().decision != "breaker_open"
        except TimeoutError:
            return True

    with ExitStack() as stack:
        clients = connected(own, stack)
        trip(clients[0], server, "/spread")
        own.wait_until(lambda: shown("state") == "open" and not shown("remaining_seconds"), "the end of its time")
        assert get(clients[0], "/spread").decision == "breaker_open"
        own.wait_until(lambda: shown("trials") == 3, "three leases")
        server.on("/spread", lambda peer, request: go.wait(20))
        for one in clients:  # all at once: a lease that nobody uses within a second is given back
            one.send(ask("/spread"))
        trying = [one for one in clients if waits(one)]

        def all_tried() -> bool:
            """The kernel may have given all of these clients to two workers: then another client comes to the third."""
            if len(trying) < 3:
                another = stack.enter_context(own.client("in")).send(ask("/spread"))
                trying.extend([another] if waits(another) else [])
            return len(trying) == 3

        own.wait_until(all_tried, "a trial by every worker")
        os.kill(own.status()["worker_pids"][0], signal.SIGKILL)
        lost = select.select([one.sock for one in trying], [], [], PATIENCE)[0]
        assert len(lost) == 1, "one of them was the killed worker's"
        go.set()


def test_permits_without_number_are_not_all_lent_at_once(
    proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]
) -> None:
    trip(clients[0], server, "/many")
    wait_all_refused(proxy, clients, "/many")
    server.on("/many", FINE)
    proxy.wait_until(lambda: all(get(one, "/many").body == b"fine" for one in clients), "closed everywhere")


def test_a_failed_trial_opens_all_again(proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]) -> None:
    trip(clients[0], server, "/bad")
    wait_all_refused(proxy, clients, "/bad")
    proxy.wait_until(lambda: any(get(one, "/bad").body == b"out" for one in clients), "a trial")
    wait_all_refused(proxy, clients, "/bad")
    transitions = proxy.metrics()
    assert transitions.sum("sidecar_breaker_transitions_total", upstream="bad", reason="trial_failed") >= 1


def test_orders_reach_all(proxy: Sidecar, server: ScriptedUpstream, clients: list[Wire]) -> None:
    server.on("/hand", FINE)
    proxy.command("breaker", "open", "hand", "--why", "maintenance")
    proxy.wait_until(lambda: all(get(one, "/hand").decision == "manual_open" for one in clients), "held open")
    shown = proxy.command("breaker", "show", "hand", check=False).stdout
    assert "maintenance" in shown
    proxy.command("breaker", "reset", "hand")
    proxy.wait_until(lambda: all(get(one, "/hand").body == b"fine" for one in clients), "automatic again")
    proxy.command("breaker", "close", "hand")
    server.on("/hand", OUT)
    assert all(get(one, "/hand").body == b"out" for one in clients for _ in range(6))


def test_whoever_holds_the_trial_and_dies_gives_it_back(own: Sidecar, server: ScriptedUpstream) -> None:
    """And a worker that is born meanwhile knows that it is open."""
    with ExitStack() as stack:
        clients = connected(own, stack)
        trip(clients[0], server, "/held")
        wait_all_refused(own, clients, "/held")
        trip(clients[0], server, "/long")
        wait_all_refused(own, clients, "/long")
    stuck = threading.Event()
    server.on("/held", lambda peer, request: stuck.wait(20))

    def probing() -> bool:
        with own.client("in") as one:
            one.send(ask("/held"))
            one.sock.settimeout(0.3)
            try:
                assert one.read_answer().decision == "breaker_open"
            except TimeoutError:
                for pid in own.status()["worker_pids"]:
                    os.kill(pid, signal.SIGKILL)
                return True
        return False

    own.wait_until(probing, "a trial call that hangs")
    server.on("/held", FINE)
    own.wait_until(lambda: own.get("in", "/held").body == b"fine", "a trial by another worker")
    stuck.set()
    assert own.get("in", "/long").decision == "breaker_open"
    own.wait_until(lambda: len(own.status()["worker_pids"]) == 3, "all workers again")
    with ExitStack() as stack:
        assert all_refused(connected(own, stack), "/long")


def test_a_reload_keeps_it_and_brings_new_breakers_under_the_pod(own: Sidecar, server: ScriptedUpstream) -> None:
    with ExitStack() as stack:
        clients = connected(own, stack)
        trip(clients[0], server, "/long")
        wait_all_refused(own, clients, "/long")
        changed = {**own.config, "upstreams": [*own.config["upstreams"], upstream("new", server.address, breaker={})]}
        changed["listeners"] = [
            {**one, "routes": [route("new", "new", "/new"), *one["routes"]]} for one in own.config["listeners"]
        ]
        own.write(changed)
        own.command("reload")
        assert all_refused(clients, "/long")
        trip(clients[1], server, "/new")
        wait_all_refused(own, clients, "/new")


def test_workers_go_on_when_the_program_stands_still(own: Sidecar, server: ScriptedUpstream) -> None:
    """A program that is stopped by a debugger deals no trials: the workers make their own, and obey again later."""
    with ExitStack() as stack:
        clients = connected(own, stack)
        trip(clients[0], server, "/back")
        wait_all_refused(own, clients, "/back")
        own.signal(signal.SIGSTOP)
        try:
            server.on("/back", FINE)
            own.wait_until(lambda: get(clients[0], "/back").body == b"fine", "a trial of its own", patience=40)
        finally:
            own.signal(signal.SIGCONT)
        own.wait_until(lambda: all(get(one, "/back").body == b"fine" for one in clients), "all closed")
    own.wait_until(lambda: state(own, "back") == "closed", "the pod's word")
