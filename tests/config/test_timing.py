"""A dependency's figures: what the requirement says, unless the file says something else."""

import pytest

from sidecar.config.dependencies import Timing, timing
from sidecar.config.load import examine, parse

CHECKS = {
    "postgres": "{postgres: {dsn_file: /run/dsn}}",
    "redis": "{redis: {url: redis://h}}",
    "http": "{http: {url: 'http://h/'}}",
    "tcp": "{tcp: {address: h:1}}",
    "command": "{command: {argv: [df]}}",
}
PROXY = """\
listeners: [{name: in, bind: 127.0.0.1:8080, routes: [{name: all, upstream: app}]}]
upstreams: [{name: app, endpoints: [{address: 127.0.0.1:8000}]}]
"""


def figures(kind, more=""):
    (one,) = parse(f"{PROXY}dependencies: [{{name: x, check: {CHECKS[kind]}{more}}}]\n").dependencies
    assert one.kind == kind
    return timing(one)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("postgres", Timing(30.0, 5.0, 1.0)),
        ("redis", Timing(30.0, 3.0, 0.5)),
        ("http", Timing(60.0, 10.0, None)),
        ("tcp", Timing(30.0, 5.0, None)),
        ("command", Timing(30.0, 5.0, None)),
    ],
)
def test_the_figures_of_the_requirement(kind, expected):
    assert figures(kind) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (", interval: 10s, timeout: 4s, degraded_above: 200ms", Timing(10.0, 4.0, 0.2)),
        (", interval: 2s", Timing(2.0, 2.0, 1.0)),
        (", interval: 1s", Timing(1.0, 1.0, None)),  # what is slow has failed already
        (", degraded_above: 0s", Timing(30.0, 5.0, None)),
    ],
)
def test_what_the_file_says_counts(more, expected):
    assert figures("postgres", more) == expected


@pytest.mark.parametrize(
    ("dependency", "fault"),
    [
        ("check: {http: {url: 'http://h', urls: ['http://g']}}", "url and urls exclude each other"),
        ("check: {http: {}}", "exactly one of url, urls is expected"),
        ("check: {http: {urls: []}}", "urls: at least one URL is needed"),
        ("check: {http: {urls: ['http://h', 'http://h']}}", "urls[1]: given twice"),
        ("check: {http: {url: 'http://h', ca_file: /ca}}", "ca_file counts only with https://"),
        ("check: {http: {url: 'http://h', headers: {Authorization: x}}}", "name the token's file in token_file"),
        ("check: {http: {url: 'http://h', headers: {Host: x}}}", "the check writes this field itself"),
        ("check: {command: {argv: []}}", "argv: which program?"),
        ("check: {tcp: {address: 'h:1'}}, timeout: 31s", "timeout is longer than interval"),
        ("check: {redis: {url: 'redis://h'}}, degraded_above: 3s", "degraded_above is not below timeout"),
    ],
)
def test_what_contradicts_itself(dependency, fault):
    found = [str(one) for one in examine(f"{PROXY}dependencies: [{{name: x, {dependency}}}]\n", "f").faults]
    assert any(fault in one for one in found), found


def test_an_endpoint_without_a_port_has_no_other_port():
    text = PROXY.replace("127.0.0.1:8000}]", "'unix:/s'}], health_check: {http: {port: 81}}")
    (fault,) = examine(text, "f").faults
    assert "upstreams[0].health_check.http.port: unix:/s is a Unix socket and has no port" in str(fault)


def test_a_check_of_endpoints_that_says_its_interval_only_ends_with_it():
    checked = PROXY.replace("127.0.0.1:8000}]", "'h:1'}], health_check: {tcp: {}, interval: 1s}")
    check = parse(checked).upstreams[0].health_check
    assert check is not None
    assert (check.timeout, check.patience) == (10.0, 1.0)
