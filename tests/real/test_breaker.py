"""The breaker in the running program: what opens it, what callers see, how it comes back, and orders by hand.

Each test has an upstream of its own (one path prefix each), so that the tests do not disturb one another.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, never, resets, says, sends
from tests.fakes.wire import Message, Truncated, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask

OUT = says(b"out", "503 Service Unavailable")
FINE = says(b"fine")
QUICK = {"open_for": "300ms"}
LONG = {"open_for": "60s"}

BREAKERS: dict[str, dict[str, Any]] = {
    "five": LONG,
    "mixed": LONG,
    "back": QUICK,
    "relapse": QUICK,
    "gone": LONG,
    "timeouts": LONG,
    "bodies": LONG,
    "rate": {**LONG, "consecutive_failures": 0, "minimum_requests": 10},
    "slow": {**LONG, "slow_after": "30ms", "slow_rate": 0.5, "minimum_requests": 4},
    "lenient": {**LONG, "failure_statuses": [500]},
    "observed": {**LONG, "mode": "observe"},
    "off": {**LONG, "mode": "disabled"},
    "hand": LONG,
    "permits": {**QUICK, "half_open_permits": 1, "half_open_timeout": "30s"},
    "wedged": {**QUICK, "half_open_permits": 1, "half_open_timeout": "300ms"},
    "leaves": {**QUICK, "half_open_permits": 1},
    "kept": LONG,
    "tightened": LONG,
    "routed": LONG,
    "aborted": LONG,
    "ramped": {**QUICK, "half_open_successes": 1, "ramp": "10m"},
    "long": {**QUICK, "half_open_permits": 1, "half_open_successes": 1, "half_open_timeout": "300ms"},
    "head": {**LONG, "slow_after": "300ms", "slow_rate": 0.1, "minimum_requests": 1},
    "garbled": {**LONG, "consecutive_failures": 1},
    "raced": {**LONG, "consecutive_failures": 1},
    "tunnel": {**LONG, "slow_after": "300ms", "slow_rate": 0.1, "minimum_requests": 1},
    "spoilt": {**QUICK, "half_open_permits": 1},
    "crowded": {**QUICK, "half_open_permits": 2, "half_open_timeout": "30s"},
}
LIMITS = {"crowded": {"max_connections": 2, "max_pending": 0}}


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    routes = [
        route("own", "routed", "/routed/own", breaker="own"),
        route("timeouts", "timeouts", "/timeouts", timeout="100ms"),
        *(route(name, name, f"/{name}") for name in BREAKERS if name != "timeouts"),
    ]
    upstreams = [
        upstream(name, address(name, server), breaker=breaker, **limits(name)) for name, breaker in BREAKERS.items()
    ]
    return document([listener("in", routes)], upstreams)


def address(name: str, server: ScriptedUpstream) -> str:
    return server.address if name != "gone" else f"127.0.0.1:{free_port()}"


def limits(name: str) -> dict[str, Any]:
    return {"limits": LIMITS[name]} if name in LIMITS else {}


@pytest.fixture
def client(proxy: Sidecar) -> Iterator[Wire]:
    with proxy.client("in") as wire:
        yield wire


def get(client: Wire, target: str) -> Message:
    return client.send(ask(target)).read_answer()


def trip(proxy: Sidecar, server: ScriptedUpstream, name: str) -> None:
    """Five failures: the default."""
    server.on(f"/{name}", OUT)
    for _ in range(5):
        assert proxy.get("in", f"/{name}").body == b"out"
    assert state(proxy, name) == "open"


def state(proxy: Sidecar, name: str) -> str:
    """The one state that the metric shows as 1; all three are always there."""
    found = {labels["state"]: value for labels, value in proxy.metrics().named("sidecar_breaker_state", upstream=name)}
    assert sorted(found) == ["closed", "half_open", "open"]
    (one,) = [label for label, value in found.items() if value == 1.0]
    assert sum(found.values()) == 1.0
    return one


def transitions(proxy: Sidecar, name: str) -> list[tuple[str, str, str]]:
    found = proxy.metrics().named("sidecar_breaker_transitions_total", upstream=name)
    return sorted((labels["from"], labels["to"], labels["reason"]) for labels, value in found if value)


# ------------------------------------------------------------------------------------------- it opens
def test_five_failures_in_a_row_open_it_and_the_upstream_is_left_alone(
    proxy: Sidecar, server: ScriptedUpstream, client: Wire
) -> None:
    server.on("/five", OUT)
    for _ in range(5):
        assert get(client, "/five").body == b"out"
    refused = get(client, "/five")
    assert (refused.status, refused.decision) == (503, "breaker_open")
    assert 55 <= int(refused.get("retry-after") or 0) <= 60
    assert refused.json()["error"] == "breaker_open"
    assert len(server.requests("/five")) == 5
    assert state(proxy, "five") == "open"
    assert transitions(proxy, "five") == [("closed", "open", "consecutive_failures")]
    metrics = proxy.metrics()
    assert metrics.sum("sidecar_breaker_rejected_total", upstream="five") == 1
    assert metrics.sum("sidecar_requests_total", upstream="five", outcome="breaker_open", code="503") == 1
    assert "breaker_changed" in proxy.log


def test_a_success_between_failures_starts_the_row_anew(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    for script in [OUT] * 4 + [FINE] + [OUT] * 4:
        server.on("/mixed", script)
        assert get(client, "/mixed").status in (200, 503)
    assert state(proxy, "mixed") == "closed"


def test_refused_connections_count(proxy: Sidecar, client: Wire) -> None:
    for _ in range(5):
        assert get(client, "/gone").decision == "connect_failure"
    assert get(client, "/gone").decision == "breaker_open"


def test_timeouts_count(server: ScriptedUpstream, client: Wire) -> None:
    server.on("/timeouts", never)
    for _ in range(5):
        assert get(client, "/timeouts").decision == "timeout"
    assert get(client, "/timeouts").decision == "breaker_open"


def test_bodies_that_break_off_count(proxy: Sidecar, server: ScriptedUpstream) -> None:
    server.on("/bodies", sends(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", then="reset"))
    for _ in range(5):
        with pytest.raises(Truncated):
            proxy.get("in", "/bodies")
    assert proxy.get("in", "/bodies").decision == "breaker_open"


def test_the_share_of_failures_opens_it_once_there_are_enough(
    proxy: Sidecar, server: ScriptedUpstream, client: Wire
) -> None:
    for turn in range(10):
        assert state(proxy, "rate") == "closed"
        server.on("/rate", OUT if turn % 2 else FINE)
        get(client, "/rate")
    assert state(proxy, "rate") == "open"
    assert transitions(proxy, "rate") == [("closed", "open", "failure_rate")]


def test_slow_answers_open_it(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    def slowly(peer: Wire, request: Message) -> None:
        time.sleep(0.06)  # this is the fault: an answer that takes twice what slow_after allows
        FINE(peer, request)

    server.on("/slow", slowly)
    for _ in range(4):
        assert get(client, "/slow").status == 200
    assert get(client, "/slow").decision == "breaker_open"
    assert transitions(proxy, "slow") == [("closed", "open", "slow_rate")]


def test_statuses_that_are_no_failures_do_not_count(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/lenient", OUT)
    for _ in range(8):
        assert get(client, "/lenient").body == b"out"
    assert state(proxy, "lenient") == "closed"


def test_clients_that_leave_do_not_count(proxy: Sidecar, server: ScriptedUpstream) -> None:
    server.on("/aborted", never)
    for turn in range(7):
        with proxy.client("in") as client:
            client.send(ask("/aborted"))
            server.wait_until(lambda wanted=turn: len(server.requests("/aborted")) > wanted)
            client.reset()
    proxy.wait_until(
        lambda: proxy.metrics().sum("sidecar_requests_total", upstream="aborted", outcome="client_gone") == 7, "7 left"
    )
    server.on("/aborted", FINE)
    assert proxy.get("in", "/aborted").body == b"fine"


# ------------------------------------------------------------------------------------------- it comes back
def wait_for_trial(proxy: Sidecar, target: str) -> Message:
    """Ask until the open period is over and a trial was admitted."""
    answers: list[Message] = []

    def admitted() -> bool:
        answers.append(proxy.get("in", target))
        return answers[-1].decision != "breaker_open"

    proxy.wait_until(admitted, "a trial")
    return answers[-1]


def test_three_good_trials_close_it(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "back")
    server.on("/back", FINE)
    assert wait_for_trial(proxy, "/back").body == b"fine"
    assert state(proxy, "back") == "half_open"
    assert proxy.get("in", "/back").body == b"fine"
    assert state(proxy, "back") == "half_open"
    assert proxy.get("in", "/back").body == b"fine"
    assert state(proxy, "back") == "closed"
    assert transitions(proxy, "back") == [
        ("closed", "open", "consecutive_failures"),
        ("half_open", "closed", "recovered"),
        ("open", "half_open", "open_period_over"),
    ]


def test_a_bad_trial_opens_it_again_and_its_caller_gets_the_upstreams_answer(
    proxy: Sidecar, server: ScriptedUpstream
) -> None:
    trip(proxy, server, "relapse")
    assert wait_for_trial(proxy, "/relapse").body == b"out"
    assert state(proxy, "relapse") == "open"
    assert ("half_open", "open", "trial_failed") in transitions(proxy, "relapse")


def test_trials_are_limited(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "permits")
    server.on("/permits", never)
    seen = len(server.requests("/permits"))
    with proxy.client("in") as trial:

        def reached() -> bool:
            trial.send(ask("/permits"))
            try:
                server.wait_until(lambda: len(server.requests("/permits")) > seen, patience=0.1)
            except AssertionError:
                assert trial.read_answer().decision == "breaker_open"
                return False
            return True

        proxy.wait_until(reached, "a trial")
        assert proxy.get("in", "/permits").decision == "breaker_open"
        assert len(server.requests("/permits")) == seen + 1


def test_a_trial_that_never_ends_fails_and_nothing_is_wedged(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "wedged")
    server.on("/wedged", never)
    with proxy.client("in") as trial:

        def tried() -> bool:
            trial.send(ask("/wedged"))
            return not _answered(trial)

        proxy.wait_until(tried, "a trial")
        proxy.wait_until(lambda: ("half_open", "open", "trial_timeout") in transitions(proxy, "wedged"), "its end")
    server.on("/wedged", FINE)
    assert wait_for_trial(proxy, "/wedged").body == b"fine"


def test_a_trial_whose_client_leaves_gives_its_permit_back(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "leaves")
    server.on("/leaves", never)
    for _ in range(3):
        with proxy.client("in") as trial:

            def tried(trial: Wire = trial) -> bool:
                trial.send(ask("/leaves"))
                return not _answered(trial)

            proxy.wait_until(tried, "a trial")
            trial.reset()
    server.on("/leaves", FINE)
    assert wait_for_trial(proxy, "/leaves").body == b"fine"


def _answered(client: Wire) -> bool:
    """Whether an answer comes within a moment (a refusal is at once)."""
    client.sock.settimeout(0.15)
    try:
        return client.read_answer().status == 503
    except TimeoutError:
        return False
    finally:
        client.sock.settimeout(15)


def test_after_closing_a_growing_share_passes(proxy: Sidecar, server: ScriptedUpstream) -> None:
    """Right after it a tenth, so that of a hundred many are refused though it is closed."""
    trip(proxy, server, "ramped")
    server.on("/ramped", FINE)
    assert wait_for_trial(proxy, "/ramped").body == b"fine"
    assert state(proxy, "ramped") == "closed"
    with proxy.client("in") as client:
        decisions = [get(client, "/ramped").decision for _ in range(100)]
    assert decisions.count("breaker_open") > 50
    assert decisions.count(None) > 0
    assert state(proxy, "ramped") == "closed"


def test_a_trial_whose_body_outlasts_the_timeout_is_a_good_one(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "long")
    ended = threading.Event()

    def slowly(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi")
        ended.wait(15)
        peer.send(b"ne")

    server.on("/long", slowly)
    with proxy.client("in") as client:
        seen = len(server.requests("/long"))
        while len(server.requests("/long")) == seen:
            client.send(ask("/long"))
            try:
                server.wait_until(lambda: len(server.requests("/long")) > seen, patience=0.1)
            except AssertionError:
                assert client.read_answer().decision == "breaker_open"
        closed = ("half_open", "closed", "recovered")
        proxy.wait_until(lambda: closed in transitions(proxy, "long"), "the trial's end, before its body's")
        ended.set()
        assert client.read_answer().body == b"fine"


def test_a_body_that_takes_long_is_not_a_slow_answer(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    def slowly(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi")
        time.sleep(0.35)  # this is the case: a body beyond slow_after, its head well within
        peer.send(b"ne")

    server.on("/head", slowly)
    for _ in range(3):
        assert get(client, "/head").body == b"fine"


def test_a_tunnel_is_as_slow_as_its_beginning(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    """It lasts beyond slow_after; that it was opened is what counts."""

    def switches(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        peer.read_rest()
        peer.close()

    server.on("/tunnel", switches)
    with proxy.client("in") as tunnel:
        tunnel.send(ask("/tunnel", "connection: upgrade\r\nupgrade: websocket\r\n"))
        assert tunnel.line() == b"HTTP/1.1 101 Switching Protocols"
        time.sleep(0.4)  # this is the case
    outcomes = "sidecar_requests_total"
    proxy.wait_until(lambda: proxy.metrics().sum(outcomes, upstream="tunnel") == 1, "the tunnel's end")
    server.on("/tunnel", FINE)
    assert get(client, "/tunnel").body == b"fine"


def test_a_trial_that_its_client_spoils_gives_its_permit_back(proxy: Sidecar, server: ScriptedUpstream) -> None:
    trip(proxy, server, "spoilt")
    server.on("/spoilt", FINE)

    def spoilt() -> bool:
        with proxy.client("in") as client:
            client.send(ask("/spoilt", "transfer-encoding: chunked\r\n", "POST"), b"zz\r\nno chunk\r\n")
            return client.read_answer().status == 400

    proxy.wait_until(spoilt, "a trial with a bad body")
    assert wait_for_trial(proxy, "/spoilt").body == b"fine"


def test_a_trial_that_finds_no_room_gives_its_permit_back(proxy: Sidecar, server: ScriptedUpstream) -> None:
    """One of two connections is busy from before, the other with the first trial; the second trial finds none."""
    server.on("/crowded", never)
    with proxy.client("in") as before, proxy.client("in") as trial:
        before.send(ask("/crowded"))
        server.wait_until(lambda: len(server.requests("/crowded")) == 1)
        trip(proxy, server, "crowded")
        server.on("/crowded", never)

        def tried() -> bool:
            trial.send(ask("/crowded"))
            return not _answered(trial)

        proxy.wait_until(tried, "a trial")
        for _ in range(4):
            assert proxy.get("in", "/crowded").decision == "overflow", "and not breaker_open: a permit is there"


def test_what_clients_do_wrong_does_not_count(proxy: Sidecar, server: ScriptedUpstream) -> None:
    server.on("/garbled", FINE)
    for _ in range(3):
        with proxy.client("in") as client:
            client.send(ask("/garbled", "transfer-encoding: chunked\r\n", "POST"), b"zz\r\nno chunk\r\n")
            assert client.read_answer().status == 400
    assert state(proxy, "garbled") == "closed"
    assert proxy.get("in", "/garbled").body == b"fine"


def test_an_idle_connection_that_the_upstream_was_closing_does_not_count(
    proxy: Sidecar, server: ScriptedUpstream, client: Wire
) -> None:
    """The second request of each connection meets a close: it is repeated on a new one, at no charge."""

    def once(peer: Wire, request: Message) -> None:
        if sum(one.connection == request.connection for one in server.requests("/raced")) > 1:
            peer.close()
        else:
            FINE(peer, request)

    server.on("/raced", once)
    for _ in range(4):
        assert get(client, "/raced").body == b"fine"
    assert len(server.requests("/raced")) > 4, "it did happen"
    assert state(proxy, "raced") == "closed"


# ------------------------------------------------------------------------------------------- modes
def test_observe_refuses_nobody_and_counts_what_it_would_have_refused(
    proxy: Sidecar, server: ScriptedUpstream, client: Wire
) -> None:
    server.on("/observed", OUT)
    for _ in range(8):
        assert get(client, "/observed").body == b"out"
    assert state(proxy, "observed") == "closed"
    assert proxy.metrics().sum("sidecar_breaker_rejected_total", upstream="observed", mode="observe") == 3


def test_disabled_does_nothing(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/off", OUT)
    for _ in range(8):
        assert get(client, "/off").body == b"out"
    assert transitions(proxy, "off") == []


def test_a_route_with_its_own_breaker_trips_alone(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/routed/own", OUT).on("/routed/other", FINE)
    for _ in range(5):
        get(client, "/routed/own")
    assert get(client, "/routed/own").decision == "breaker_open"
    assert get(client, "/routed/other").body == b"fine"
    assert state(proxy, "routed/own") == "open"
    assert state(proxy, "routed") == "closed"


# ------------------------------------------------------------------------------------------- by hand
def test_orders_by_hand(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/hand", FINE)
    assert "held open" in proxy.command("breaker", "open", "hand", "--for", "10m", "--why", "drill").stdout
    refused = get(client, "/hand")
    assert (refused.status, refused.decision) == (503, "manual_open")
    assert 590 <= int(refused.get("retry-after") or 0) <= 600
    shown = proxy.command("breaker", "show", "hand", "--json", check=False)
    assert shown.returncode == 3
    assert '"ordered_why": "drill"' in shown.stdout
    proxy.command("breaker", "close", "hand")
    server.on("/hand", OUT)
    for _ in range(7):
        assert get(client, "/hand").body == b"out"
    assert state(proxy, "hand") == "closed"
    proxy.command("breaker", "reset", "hand")
    for _ in range(5):
        assert get(client, "/hand").body == b"out"
    assert get(client, "/hand").decision == "breaker_open"
    assert "hand" in proxy.command("breaker", "list").stdout
    assert proxy.command("breaker", "open", "nobody", check=False).returncode == 1


def test_an_order_ends_by_itself(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/mixed", FINE)
    proxy.command("breaker", "open", "mixed", "--for", "200ms")
    proxy.wait_until(lambda: ("forced_open", "closed", "expired") in transitions(proxy, "mixed"), "its end")
    assert get(client, "/mixed").body == b"fine"


def test_orders_need_the_socket_or_the_token(proxy: Sidecar) -> None:
    assert proxy.admin("/api/v1/breakers/five/reset", "POST").status == 403
    assert proxy.admin("/api/v1/breakers/five/reset").status == 405
    assert proxy.admin("/api/v1/breakers/five").json()["name"] == "five"
    assert proxy.admin("/api/v1/breakers/nobody").status == 404
    assert proxy.admin("/api/v1/breakers/five/open?for=10m", "POST", unix=True).status == 400  # refused, not left out


def test_an_order_for_the_fleet_is_not_taken_for_one_here(server: ScriptedUpstream) -> None:
    """The keeper is out of reach: it is refused, says what helps, and nothing changes here."""
    config = document(
        [listener("in", [route("all", "app")])],
        [upstream("app", server.address, breaker={})],
        service={"name": "tested"},
        shared_state={"redis": {"url": "redis://127.0.0.1:9/0"}, "namespace": "tested"},
    )
    with Sidecar(config) as proxy:
        refused = proxy.command("breaker", "open", "app", "--fleet", check=False)
        assert refused.returncode == 1
        assert "without --fleet it is carried out here" in refused.stderr
        assert proxy.get("in", "/fine").status == 200
        proxy.command("breaker", "open", "app")
        assert proxy.get("in", "/fine").decision == "manual_open"


# ------------------------------------------------------------------------------------------- reload
def test_a_reload_keeps_what_is_open_and_for_how_long(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    trip(proxy, server, "kept")
    changed = {**proxy.config, "access_log": {"path": str(proxy.directory / "access.log")}}
    rules = {"kept": 7, "tightened": 2}
    changed["upstreams"] = [
        {**one, "breaker": {**one["breaker"], "consecutive_failures": rules[one["name"]]}}
        if one["name"] in rules
        else one
        for one in changed["upstreams"]
    ]
    proxy.write(changed)
    proxy.command("reload")
    refused = get(client, "/kept")
    assert refused.decision == "breaker_open"
    assert int(refused.get("retry-after") or 0) <= 60
    assert transitions(proxy, "kept") == [("closed", "open", "consecutive_failures")]
    server.on("/tightened", OUT)
    for _ in range(2):
        assert get(client, "/tightened").body == b"out"
    assert get(client, "/tightened").decision == "breaker_open", "the new rule holds"


def test_decisions_are_timed(proxy: Sidecar, server: ScriptedUpstream, client: Wire) -> None:
    server.on("/off", FINE)
    for _ in range(40):
        get(client, "/off")
    assert proxy.metrics().sum("sidecar_breaker_decision_seconds_count") >= 2


def test_with_retries_every_try_counts() -> None:
    with ScriptedUpstream() as dead:
        dead.on("/", resets)
        retry = {"attempts": 3, "backoff": "1ms", "backoff_max": "1ms"}
        config = document(
            [listener("in", [route("all", "app", retry=retry)])],
            [upstream("app", dead.address, breaker=LONG, retry_budget={"ratio": 1.0, "min_per_second": 100})],
        )
        with Sidecar(config) as proxy:
            assert proxy.get("in").decision == "reset"
            assert proxy.get("in").decision in ("reset", "breaker_open")
            assert state(proxy, "app") == "open"
            assert len(dead.requests("/")) == 5
