"""The contract's example means what it says, and what it leaves out is the field's standard."""

import os

import pytest

from sidecar.config.breaker import Breaker, Outlier
from sidecar.config.load import InvalidConfig, parse
from sidecar.config.upstreams import Limits, RetryBudget, Upstream

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "contract.yaml"), encoding="utf-8") as _file:
    CONTRACT = _file.read()

# The example names an upstream for disasters without showing it.
WHOLE = CONTRACT.replace(
    "\ndependencies:", "\n  - {name: payments-dr, endpoints: [{address: 10.1.0.7:8080}]}\n\ndependencies:"
)


def test_verbatim_it_lacks_only_the_upstream_that_it_does_not_show():
    with pytest.raises(InvalidConfig) as caught:
        parse(CONTRACT, "f")
    (fault,) = caught.value.faults
    assert str(fault).startswith(
        "f:27:24: listeners[1].routes[0].fallback[0].upstream: there is no upstream 'payments-dr'"
    )


def test_every_section_is_read():
    config = parse(WHOLE)
    assert config.service.name == "orders"
    assert config.admin.probes.bind == "0.0.0.0:9902"
    assert config.shared_state.redis.url == "redis://127.0.0.1:6379/0"
    route = config.listeners[1].routes[0]
    assert (route.match.host, route.match.methods) == ("payments.internal", ("GET", "POST"))
    assert route.match.headers == {"x-tier": "gold"}
    assert route.retry.retry_on == {"connect_failure", "reset", 502, 503, 504}
    assert [bool(f.upstream) + 2 * bool(f.cache) + 3 * bool(f.respond) for f in route.fallback] == [1, 2, 3]
    assert route.fallback[1].cache.max_age == 600
    assert route.fallback[2].respond.body == '{"degraded":true}'
    payments = config.upstreams[1]
    assert payments.discovery.dns == "payments.shop.svc:8080"
    assert (payments.endpoints[0].address, payments.endpoints[0].priority) == ("10.0.0.7:8080", 1)
    assert payments.health_check.http.expect == set(range(200, 300))
    assert [d.degraded_above for d in config.dependencies] == [1.0, 0.5, None]
    assert (config.recovery[0].when.upstream, config.recovery[0].do.restart) == ("app", "process")
    assert config.incidents.escalate[0].after == 300
    assert config.backup.retention.keep_within == 7 * 86400
    assert config.backup.drill.checks[0].sql.startswith("SELECT")


def test_the_numbers_that_it_shows_are_the_defaults():
    payments = parse(WHOLE).upstreams[1]
    assert payments.breaker == Breaker()
    assert payments.outlier == Outlier()
    assert payments.limits == Limits()
    assert payments.retry_budget == RetryBudget()
    bare = Upstream(name="bare")
    for key in ("balance", "connect_timeout", "idle_timeout", "panic_threshold"):
        assert getattr(payments, key) == getattr(bare, key)


def test_the_requirements_three_numbers():
    breaker = Breaker()
    assert (breaker.consecutive_failures, breaker.open_for, breaker.half_open_successes) == (5, 60.0, 3)


def test_absent_means_none():
    config = parse(
        "listeners: [{name: a, bind: 'h:1', routes: [{name: r, upstream: u}]}]\n"
        "upstreams: [{name: u, endpoints: [{address: 'h:2'}]}]\n"
    )
    assert config.access_log is None
    assert config.listeners[0].routes[0].retry is None
    assert config.listeners[0].routes[0].fallback == ()
    assert config.upstreams[0].health_check is None
    assert config.recovery == ()
    assert config.incidents is None
    assert config.shared_state is None
