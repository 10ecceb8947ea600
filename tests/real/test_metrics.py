"""What is measured, through the real program: right numbers, few series, nothing that a client can blow up."""

import json
import threading
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer, says
from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar, ask, dial


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    return both_codecs(
        [route("dead", "dead", "/dead"), {**route("app", "app"), "match": {"host": "example.test"}}],
        [upstream("app", server.address), upstream("dead", f"127.0.0.1:{free_port()}")],
        root={"admin": {"probes": {"bind": f"127.0.0.1:{free_port()}"}}},
    )


def counted(proxy: Sidecar, **labels: str) -> float:
    return proxy.metrics().sum("sidecar_requests_total", **labels)


LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
OURS = {"route": "app", "upstream": "app"}
DEAD = {"route": "dead", "upstream": "dead"}


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ("GET /ok example.test", {**OURS, "method": "GET", "code": "200", "outcome": "ok"}),
        ("POST /ok example.test", {**OURS, "method": "POST", "code": "200", "outcome": "ok"}),
        ("GET /500 example.test", {**OURS, "method": "GET", "code": "500", "outcome": "ok"}),
        ("GET /dead example.test", {**DEAD, "method": "GET", "code": "502", "outcome": "connect_failure"}),
        ("GET /no unknown.test", {"method": "GET", "code": "404", "outcome": "no_route"}),
    ],
)
def test_requests_are_counted(
    server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str, line: str, labels: dict[str, str]
) -> None:
    method, target, host = line.split()
    server.on("/500", says(b"broken", "500 Internal Server Error"))
    before = counted(proxy, listener=codec, **labels)
    for _ in range(3):
        client.send(ask(target, "content-length: 0\r\n", method, host=host)).read_answer()
    assert counted(proxy, listener=codec, **labels) == before + 3


def test_the_header_and_the_metric_say_the_same(proxy: Sidecar, client: Wire, codec: str) -> None:
    for target, host in (("/dead", "example.test"), ("/", "unknown.test")):
        got = client.send(ask(target, host=host)).read_answer()
        assert got.decision is not None
        assert counted(proxy, listener=codec, outcome=got.decision, code=str(got.status)) > 0


def test_durations_are_observed_once_per_request(proxy: Sidecar, client: Wire, codec: str) -> None:
    name = "sidecar_request_duration_seconds_count"
    before = proxy.metrics().sum(name, listener=codec, route="app")
    for _ in range(100):
        client.send(ask("/")).read_answer()
    metrics = proxy.metrics()
    assert metrics.sum(name, listener=codec, route="app") == before + 100
    assert metrics.sum("sidecar_overhead_seconds_count", listener=codec) > 0  # a sample of them
    assert metrics.sum(
        "sidecar_request_duration_seconds_bucket", listener=codec, route="app", upstream="app", le="+Inf"
    ) == metrics.sum(name, listener=codec, route="app")


def test_inflight_rises_and_falls(server: ScriptedUpstream, proxy: Sidecar, codec: str) -> None:
    go = threading.Event()

    def hold(peer: Wire, request: Message) -> None:
        assert go.wait(PATIENCE)
        peer.send(answer(b"ok"))

    server.on("/hold", hold)
    before = len(server.requests("/hold"))
    clients = [proxy.client(codec).send(ask("/hold")) for _ in range(7)]
    server.wait_until(lambda: len(server.requests("/hold")) == before + 7, "seven requests")
    assert proxy.metrics().sum("sidecar_inflight_requests", listener=codec) == 7
    go.set()
    for client in clients:
        client.read_answer()
        client.close()
    assert proxy.metrics().sum("sidecar_inflight_requests", listener=codec) == 0


def test_clients_cannot_make_series(proxy: Sidecar, client: Wire, codec: str) -> None:
    """A thousand methods, paths, hosts and queries: the same series as before, give or take the label OTHER."""
    client.send(ask("/warm-up", method="ODD")).read_answer()
    client.send(ask("/", host="nowhere.test", method="ODD")).read_answer()
    before = len(proxy.metrics().samples)
    for start in range(0, 1000, 50):
        numbers = range(start, start + 50)
        client.send(
            b"".join(
                ask(f"/path-{n}?query={n}", f"x-{n}: {n}\r\n", "METHOD" + str(n).translate(LETTERS),
                    host="example.test" if n % 2 else f"host-{n}.test")
                for n in numbers
            )
        )  # fmt: skip
        for _ in numbers:
            assert client.read_answer().status in {200, 404}
    assert len(proxy.metrics().samples) <= before + 5
    text = proxy.metrics().text
    assert "path-1" not in text
    assert "METHOD" not in text
    assert counted(proxy, listener=codec, method="OTHER") >= 1000


def test_statuses_without_end_are_bounded(server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str) -> None:
    """An upstream may make a series per status, no more than there are."""

    def script(peer: Wire, request: Message) -> None:
        peer.send(answer(b"", f"{request.get('x-status')} Odd"))

    server.on("/status", script)
    for status in range(200, 600):
        if status not in {204, 205, 304}:
            assert client.send(ask("/status", f"x-status: {status}\r\n")).read_answer().status == status
    series = {labels["code"] for labels, _ in proxy.metrics().named("sidecar_requests_total", listener=codec)}
    assert len(series) <= 500


def test_the_program_describes_itself(proxy: Sidecar) -> None:
    metrics = proxy.metrics()
    assert metrics.sum("sidecar_config_last_reload_successful") == 1
    assert metrics.sum("sidecar_build_info") == 1
    assert metrics.sum("sidecar_config_hash") > 0
    for rare in ("outlier_ejections_total", "incident_ack_seconds_count", "incident_resolve_seconds_count"):
        assert metrics.named(f"sidecar_{rare}"), f"{rare} is there from zero on: its first event is an increase"
    proxy.wait_until(
        lambda: proxy.metrics().sum("sidecar_event_loop_lag_seconds_count") > 0, "a look at the loop's lag"
    )


def test_bytes_are_counted(server: ScriptedUpstream, proxy: Sidecar, client: Wire, codec: str) -> None:
    server.on("/heavy", says(b"x" * 100_000))
    before = proxy.metrics()
    client.send(ask("/heavy", method="POST", body=b"y" * 50_000)).read_answer()
    after = proxy.metrics()

    def grown(direction: str) -> float:
        name = "sidecar_bytes_total"
        return after.sum(name, listener=codec, direction=direction) - before.sum(
            name, listener=codec, direction=direction
        )

    assert 50_000 <= grown("in") < 52_000
    assert 100_000 <= grown("out") < 102_000


# ------------------------------------------------------------------------------------------------ probes
@pytest.mark.parametrize("target", ["/livez", "/readyz", "/healthz", "/startupz", "/livez/service"])
def test_probes(proxy: Sidecar, target: str) -> None:
    assert proxy.probe(target) == 200


def test_the_probes_port_has_probes_and_metrics_only(proxy: Sidecar) -> None:
    port = int(proxy.config["admin"]["probes"]["bind"].rpartition(":")[2])

    def asked(target: str, method: str = "GET") -> int:
        with dial(port) as wire:
            return (
                wire.send(ask(target, "connection: close\r\n", method, host=f"127.0.0.1:{port}")).read_answer().status
            )

    assert [asked(target) for target in ("/livez", "/readyz", "/startupz", "/metrics")] == [200] * 4
    assert [asked(target) for target in ("/api/v1/status", "/api/v1/config", "/")] == [404] * 3
    assert asked("/drain", "POST") in {403, 404, 405}
    assert proxy.probe("/readyz") == 200


def test_the_status_tells_what_runs(proxy: Sidecar, codec: str) -> None:
    proxy.get(codec, "/")
    status = proxy.status()
    assert status["service"] == "tested"
    assert {one["name"] for one in status["listeners"]} == {"fast", "h11"}
    assert {one["name"] for one in status["upstreams"]} == {"app", "dead"}
    assert status["traffic"]["requests_total"] > 0
    assert json.dumps(status)


def test_the_status_page_is_a_page(proxy: Sidecar) -> None:
    got = proxy.admin("/")
    assert got.status == 200
    assert (got.get("content-type") or "").startswith("text/html")
    assert b"<html" in got.body.lower()
