"""Answers whose header or trailer says that they are failures: for the breaker and for the outlier watch."""

from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, chunked, says, sends
from tests.fakes.wire import Message, Wire
from tests.real.documents import both_codecs, document, listener, route, upstream
from tests.real.harness import Sidecar, ask

RULES = [{"name": "X-App-Failed"}, {"name": "grpc-status", "unless": ["0"]}]
CHUNKS = [("transfer-encoding", "chunked")]
NAMES = ["head", "trailer", "old", "fine", "tried", "trial"]


def with_trailer(line: bytes) -> Any:
    return sends(answer(fields=CHUNKS, length=False) + chunked(b"whole", trailers=line))


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    """An upstream for each case and codec, as each has a breaker to open."""
    made = [f"{codec}-{name}" for codec in ("fast", "h11") for name in NAMES]
    breaker = {"failure_headers": RULES, "failure_statuses": [500], "consecutive_failures": 3}
    retry = {"attempts": 2, "backoff": "1ms", "retry_on": [503]}
    return both_codecs(
        [route(name, name, f"/{name}", **({"retry": retry} if name.endswith("tried") else {})) for name in made],
        [
            upstream(name, server.address, breaker={**breaker, "open_for": "300ms" if "trial" in name else "60s"})
            for name in made
        ],
    )


def get(client: Wire, target: str, version: str = "1.1") -> Message:
    return client.send(ask(target, version=version)).read_answer()


def test_a_header_is_a_failure(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    target = f"/{codec}-head"
    server.on(target, says(b"sorry", fields=[("x-app-failed", "pool is empty")]))
    for _ in range(3):
        failed = get(client, target)
        assert (failed.status, failed.body, failed.get("x-app-failed")) == (200, b"sorry", "pool is empty")
    assert get(client, target).decision == "breaker_open"


def test_a_trailer_is_a_failure(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    target = f"/{codec}-trailer"
    server.on(target, with_trailer(b"Grpc-Status: 14\r\n"))
    for _ in range(3):
        failed = get(client, target)
        assert (failed.status, failed.body) == (200, b"whole")
    assert get(client, target).decision == "breaker_open"


def test_a_trailer_is_one_for_clients_that_see_none(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    target = f"/{codec}-old"
    server.on(target, with_trailer(b"grpc-status: 2\r\n"))
    for _ in range(3):
        with proxy.client(codec) as client:
            assert client.send(ask(target, version="1.0")).read_answer().body == b"whole"
    assert proxy.get(codec, target).decision == "breaker_open"


def test_a_value_that_is_none_is_not(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    target = f"/{codec}-fine"
    for script in (with_trailer(b"grpc-status: 0\r\n"), says(b"whole"), says(b"whole", "503 Service Unavailable")):
        server.on(target, script)
        for _ in range(4):
            assert get(client, target).body == b"whole"


def test_it_counts_though_another_try_follows(server: ScriptedUpstream, client: Wire, codec: str) -> None:
    """503 is no failure here; the field is, and each of the two tries had it."""
    target = f"/{codec}-tried"
    server.on(target, says(b"", "503 Service Unavailable", [("x-app-failed", "1")]))
    assert get(client, target).status == 503
    assert get(client, target).decision in (None, "breaker_open")
    assert get(client, target).decision == "breaker_open"
    assert len(server.requests(target)) == 3


def test_a_trial_whose_answer_says_so_has_failed(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    name = f"{codec}-trial"
    server.on(f"/{name}", with_trailer(b"grpc-status: 14\r\n"))
    reopened = {"upstream": name, "from": "half_open", "to": "open", "reason": "trial_failed"}

    def failed() -> bool:
        proxy.get(codec, f"/{name}")
        return proxy.metrics().sum("sidecar_breaker_transitions_total", **reopened) > 0

    proxy.wait_until(failed, "a failed trial")


def test_an_endpoint_that_says_so_is_ejected() -> None:
    with ScriptedUpstream() as good, ScriptedUpstream() as bad:
        good.otherwise(says(b"fine"))
        bad.otherwise(says(b"bad", fields=[("x-app-failed", "1")]))
        app = upstream(
            "app",
            good.address,
            bad.address,
            balance="round_robin",
            breaker={"consecutive_failures": 0, "failure_rate": 0.9, "failure_headers": RULES},
            outlier={"consecutive_failures": 3, "max_ejected": 0.5},
        )
        with Sidecar(document([listener("in", [route("all", "app")])], [app])) as proxy:
            for _ in range(12):
                proxy.get("in")
            assert len(bad.requests("/")) == 3
            assert len(good.requests("/")) == 9
