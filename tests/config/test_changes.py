"""What differs between two configurations, and what of it a reload cannot take over."""

import pytest

from sidecar.config.changes import NEEDS_RESTART, changes
from sidecar.config.explain import walk
from sidecar.config.load import parse

BASE = """\
service: {name: orders}
listeners:
- name: in
  bind: 127.0.0.1:8080
  routes:
  - {name: v1, match: {path_prefix: /v1}, upstream: app}
  - {name: all, upstream: app}
upstreams:
- name: app
  endpoints: [{address: "127.0.0.1:8000"}]
"""


def between(new, old=BASE):
    return [(change.path, change.old, change.new, change.live) for change in changes(parse(old), parse(new))]


def test_a_configuration_does_not_differ_from_itself():
    assert between(BASE) == []
    assert between(BASE.replace("127.0.0.1:8000", "127.0.0.1:8000").replace("8080\n", "8080\n  codec: null\n")) == []


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("service:", "workers: 2\nservice:", ("workers", 1, 2, False)),
        ("service:", "codec: h11\nservice:", ("codec", "fast", "h11", True)),
        ("orders", "shop", ("service.name", "orders", "shop", False)),
        ("service:", "admin: {bind: '[::1]:1'}\nservice:", ("admin.bind", "127.0.0.1:9901", "[::1]:1", False)),
        ("service:", "shutdown: {delay: 5s}\nservice:", ("shutdown.delay", "0s", "5s", True)),
        ("service:", "access_log: {}\nservice:", ("access_log", None, {"path": "stdout", "sample": 1.0}, True)),
        ("8080", "8081", ("listeners[in].bind", "127.0.0.1:8080", "127.0.0.1:8081", False)),
        ("  bind", "  idle_timeout: 10s\n  bind", ("listeners[in].idle_timeout", "75s", "10s", True)),
        ("prefix: /v1", "prefix: /v2", ("listeners[in].routes[v1].match.path_prefix", "/v1", "/v2", True)),
        (
            "- name: app",
            "- name: app\n  breaker: {open_for: 30s}",
            ("upstreams[app].breaker.open_for", "60s", "30s", True),
        ),
        (
            '8000"}',
            '8000", weight: 3}',
            ("upstreams[app].endpoints[127.0.0.1:8000].weight", 1, 3, True),
        ),
        (
            "all, upstream: app}",
            "all, upstream: app, fallback: [{cache: {max_age: 1m}}]}",
            (
                "listeners[in].routes[all].fallback",
                [],
                [{"cache": {"max_age": "60s", "max_bytes": "16MiB", "across_authorization": False}}],
                True,
            ),
        ),
    ],
)
def test_one_change_is_one_line(old, new, change):
    assert between(BASE.replace(old, new)) == [change]


def test_a_listener_that_comes_or_goes_needs_a_restart_an_upstream_does_not():
    more = BASE.replace("upstreams:\n", "- {name: out, bind: 'h:1', routes: [{name: r, upstream: app}]}\nupstreams:\n")
    more += "- {name: other, endpoints: [{address: 'h:2'}]}\n"
    assert [(path, live) for path, _, _, live in between(more)] == [
        ("listeners[out]", False),
        ("upstreams[other]", True),
    ]
    assert [(path, live) for path, _, _, live in between(BASE, more)] == [
        ("listeners[out]", False),
        ("upstreams[other]", True),
    ]


def test_a_file_of_incidents_is_opened_at_a_start_and_who_hears_is_live():
    kept = BASE + "incidents: {store: /x}\n"
    ((path, _, _, live),) = between(kept)
    assert (path, live) == ("incidents", False)
    ((path, _, _, live),) = between(kept.replace("/x}", "/x, resolve_after: 1m}"), kept)
    assert (path, live) == ("incidents.resolve_after", True)


def test_the_order_of_routes_is_a_change_since_the_first_that_matches_wins():
    first, second = "  - {name: v1, match: {path_prefix: /v1}, upstream: app}\n", "  - {name: all, upstream: app}\n"
    swapped = BASE.replace(first + second, second + first)
    assert between(swapped) == [("listeners[in].routes (order)", ["v1", "all"], ["all", "v1"], True)]


def test_the_table_names_only_keys_that_exist():
    known = {path for path, _ in walk()}
    assert {rule.rstrip(".") for rule in NEEDS_RESTART} <= known


def test_a_change_that_needs_a_restart_says_why():
    (change,) = changes(parse(BASE), parse(BASE.replace("8080", "8081")))
    assert change.why == NEEDS_RESTART["listeners.bind"]
