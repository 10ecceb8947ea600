"""Which upstream a request reaches: by host, path, method and field, from top to bottom."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Wire
from tests.real.documents import both_codecs, upstream
from tests.real.harness import Sidecar, ask

ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("exact", {"host": "shop.test", "path": "/v1/only"}),
    ("gold", {"host": "shop.test", "path_prefix": "/v1", "headers": {"x-tier": "gold"}}),
    ("writes", {"host": "shop.test", "path_prefix": "/v1", "methods": ["POST", "PUT"]}),
    ("reads", {"host": "shop.test", "path_prefix": "/v1"}),
    ("tenants", {"host": "*.tenants.test"}),
    ("anyhost", {"path_prefix": "/any"}),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ScriptedUpstream]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(ScriptedUpstream()) for name, _ in ROUTES}


@pytest.fixture(scope="module")
def config(servers: dict[str, ScriptedUpstream]) -> dict[str, Any]:
    routes = [{"name": name, "match": match, "upstream": name} for name, match in ROUTES]
    routes[-1]["host_rewrite"] = "inner.test:8080"
    return both_codecs(routes, [upstream(name, server.address) for name, server in servers.items()])


@pytest.mark.parametrize(
    ("method", "host", "target", "fields", "expected"),
    [
        ("GET", "shop.test", "/v1", "", "reads"),
        ("GET", "shop.test", "/v1/", "", "reads"),
        ("GET", "shop.test", "/v1/x/y", "", "reads"),
        ("GET", "shop.test", "/v1?q=/v2", "", "reads"),
        ("GET", "SHOP.test", "/v1", "", "reads"),
        ("GET", "shop.test:8443", "/v1", "", "reads"),
        ("GET", "shop.test", "/v10", "", None),
        ("GET", "shop.test", "/V1", "", None),
        ("GET", "shop.test", "/", "", None),
        ("GET", "shop.test", "/v1/only", "", "exact"),
        ("GET", "shop.test", "/v1/only?x", "", "exact"),
        ("GET", "shop.test", "/v1/only/more", "", "reads"),
        ("POST", "shop.test", "/v1/a", "content-length: 0\r\n", "writes"),
        ("PUT", "shop.test", "/v1/a", "content-length: 0\r\n", "writes"),
        ("DELETE", "shop.test", "/v1/a", "", "reads"),
        ("GET", "shop.test", "/v1/a", "x-tier: gold\r\n", "gold"),
        ("GET", "shop.test", "/v1/a", "X-Tier: gold\r\n", "gold"),
        ("POST", "shop.test", "/v1/a", "x-tier: gold\r\ncontent-length: 0\r\n", "gold"),
        ("GET", "shop.test", "/v1/a", "x-tier: golden\r\n", "reads"),
        ("GET", "a.tenants.test", "/", "", "tenants"),
        ("GET", "a.b.tenants.test", "/v1", "", "tenants"),
        ("GET", "tenants.test", "/", "", None),
        ("GET", "eviltenants.test", "/", "", None),
        ("GET", "wherever.test", "/any/x", "", "anyhost"),
        ("GET", "other.test", "/v1", "", None),
        ("GET", "other.test", "http://shop.test/v1", "", "reads"),
    ],
)
def test_a_request_finds_its_route(
    servers: dict[str, ScriptedUpstream],
    client: Wire,
    method: str,
    host: str,
    target: str,
    fields: str,
    expected: str | None,
) -> None:
    got = client.send(ask(target, fields, method, host=host)).read_answer()
    if expected is None:
        assert (got.status, got.decision) == (404, "no_route")
    else:
        assert got.decision is None
        assert got.json()["port"] == servers[expected].port


def test_no_route_is_an_answer_like_others(client: Wire) -> None:
    """It leaves the connection in step, even behind a body that nobody wanted."""
    got = client.send(ask("/nowhere", method="POST", body=b"x" * 5000)).read_answer()
    assert (got.status, got.decision) == (404, "no_route")
    if got.keeps:
        assert client.send(ask("/any/next")).read_answer().json()["target"] == "/any/next"
    else:
        assert client.read_rest()[0] == b""


def _hosts(echoed: dict[str, Any]) -> list[str]:
    return [value for name, value in echoed["fields"] if name.lower() == "host"]


def test_host_is_kept(client: Wire) -> None:
    assert _hosts(client.send(ask("/v1", host="Shop.Test:8443")).read_answer().json()) == ["Shop.Test:8443"]


def test_host_is_rewritten_by_rule(client: Wire) -> None:
    echoed = client.send(ask("/any", host="outer.test")).read_answer().json()
    assert _hosts(echoed) == ["inner.test:8080"]
    assert [value for name, value in echoed["fields"] if name.lower() == "x-forwarded-host"] == ["outer.test"]


def test_routes_are_counted_by_name(proxy: Sidecar, client: Wire, codec: str) -> None:
    before = proxy.metrics().sum("sidecar_requests_total", listener=codec, route="gold", upstream="gold", code="200")
    client.send(ask("/v1/a", "x-tier: gold\r\n", host="shop.test")).read_answer()
    after = proxy.metrics().sum("sidecar_requests_total", listener=codec, route="gold", upstream="gold", code="200")
    assert after == before + 1
