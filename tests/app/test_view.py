"""What everybody knows, brought together in one status."""

import pytest

from sidecar.app.view import Seen, totals, view
from sidecar.app.worker import EndpointView
from sidecar.config.load import parse
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry

CONFIG = parse(
    b"""
version: 1
listeners:
  - {name: in, bind: 127.0.0.1:1, routes: [{name: all, upstream: app, fallback: [{respond: {status: 503}}]}]}
upstreams:
  - {name: app, endpoints: [{address: 10.0.0.1:80}, {address: 10.0.0.2:80}]}
""",
    "sidecar.yaml",
    {},
)
CHECK = {
    "check": "http",
    "since": "2026-01-02T03:04:05.000Z",
    "last_check": None,
    "next_check": "2026-01-02T03:04:35.000Z",
    "latency_seconds": None,
}


def checked(address: str, state: str, detail: str = "", upstream: str = "app") -> dict:
    return {"kind": "endpoint", "upstream": upstream, "endpoint": address, "state": state, "detail": detail, **CHECK}


def see(*endpoints: EndpointView, health=(), registry=(), rates=None, registry_of_metrics=None) -> dict:
    snapshot = (registry_of_metrics or Registry()).snapshot()
    return view(CONFIG, Seen(snapshot, {"app": list(endpoints)}, [], list(health), list(registry), rates or {}))


def endpoint(address: str = "10.0.0.1:80", *, healthy: bool = True, **more) -> EndpointView:
    return EndpointView(address, 1, 0, 2, 3, healthy, **more)


@pytest.mark.parametrize(
    ("one", "health", "state", "why"),
    [
        (endpoint(), [], "unchecked", ""),
        (endpoint(), [checked("10.0.0.1:80", "unknown", "not asked yet")], "unknown", ""),
        (endpoint(), [checked("10.0.0.1:80", "healthy", "answered 200")], "healthy", ""),
        (endpoint(), [checked("10.0.0.1:80", "degraded", "took 2 s")], "degraded", "took 2 s"),
        (endpoint(healthy=False), [checked("10.0.0.1:80", "unhealthy", "refused")], "unhealthy", "refused"),
        (endpoint(healthy=False), [], "unhealthy", ""),
        (endpoint(ejected="failure_rate: 9 of 10", ejected_for_seconds=3.0), [], "ejected", "failure rate: 9 of 10"),
        (endpoint(ejected="x"), [checked("10.0.0.1:80", "healthy")], "ejected", "x"),
        (
            endpoint(),
            [checked("10.0.0.2:80", "unhealthy"), checked("10.0.0.1:80", "unhealthy", "", "b")],
            "unchecked",
            "",
        ),
    ],
)
def test_an_endpoint_s_state_sums_up_what_is_known_of_it(one, health, state, why):
    (shown,) = see(one, health=health)["upstreams"][0]["endpoints"]
    assert (shown["state"], shown["why"]) == (state, why)
    assert (shown["address"], shown["active"], shown["idle"]) == ("10.0.0.1:80", 2, 3)


def test_an_endpoint_carries_its_check_and_its_origin():
    registry = [{"kind": "upstream", "upstream": "app", "source": "static",
                 "endpoints": [{"address": "10.0.0.1:80", "origin": "written"}]}]  # fmt: skip
    (shown,) = see(endpoint(), health=[checked("10.0.0.1:80", "healthy")], registry=registry)["upstreams"][0][
        "endpoints"
    ]
    assert shown["check"] == {**CHECK, "state": "healthy", "detail": ""}
    assert shown["origin"] == "written"


def test_discovery_is_told_of_only_where_there_is_one():
    own = {"kind": "instance", "service": "orders"}
    found = {"kind": "upstream", "upstream": "app", "source": "dns", "target": "app:80",
             "last_success": None, "error": "no such name", "error_at": CHECK["since"], "left_out": 0,
             "refused": [], "endpoints": []}  # fmt: skip
    (upstream,) = see(registry=[own, found])["upstreams"]
    assert upstream["discovery"] == {key: found[key] for key in found if key not in {"kind", "upstream", "endpoints"}}
    (upstream,) = see(registry=[{**found, "source": "static"}])["upstreams"]
    assert upstream["discovery"] is None


def test_dependencies_are_those_of_the_health_checks():
    dependency = {"kind": "dependency", "dependency": "db", "state": "healthy"}
    assert see(health=[checked("10.0.0.1:80", "healthy"), dependency])["dependencies"] == [dependency]


def test_fallbacks_by_tier_with_their_pace():
    registry = Registry()
    registry.cell(series.FALLBACKS, "app", "respond").value = 7
    registry.cell(series.REQUESTS, "in", "all", "app", "GET", "503", "fallback_respond").value = 9
    counted = totals(registry.snapshot())
    assert counted == {(): 9.0, ("app", "respond"): 7.0}
    shown = see(registry_of_metrics=registry, rates={(): 4.5, ("app", "respond"): 3.5})
    assert shown["fallbacks"] == [{"upstream": "app", "tier": "respond", "total": 7, "per_second": 3.5}]
    assert shown["traffic"]["rps"] == 4.5
    assert shown["traffic"]["requests_total"] == 9
