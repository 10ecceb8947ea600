"""Routing: the first rule in order wins; the compiled table agrees with a plain scan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.routing import FieldOf, RouteRule, RouteTable, bare_host


def no_field(_name: bytes) -> bytes | None:
    return None


def find(
    rules: list[RouteRule], path: bytes, *, method: bytes = b"GET", host: bytes = b"h", field_of: FieldOf = no_field
) -> int | None:
    table = RouteTable(rules)
    first = table.find(method, host, path, field_of)
    assert table.find(method, host, path, field_of) == first, "the cache answers as the scan did"
    return first


@pytest.mark.parametrize(
    ("prefix", "path", "matches"),
    [
        (b"/v1", b"/v1", True),
        (b"/v1", b"/v1/", True),
        (b"/v1", b"/v1/x/y", True),
        (b"/v1", b"/v1x", False),
        (b"/v1", b"/v", False),
        (b"/v1/", b"/v1/x", True),
        (b"/v1/", b"/v1", True),
        (b"/", b"/anything", True),
        (b"/", b"*", True),
        (b"/a/b", b"/a/b/c", True),
        (b"/a/b", b"/a//b", False),
        (b"/a/b", b"/a", False),
    ],
)
def test_a_prefix_matches_by_whole_segments(prefix: bytes, path: bytes, *, matches: bool) -> None:
    assert find([RouteRule(path_prefix=prefix)], path) == (0 if matches else None)


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        (b"pay.internal", b"pay.internal", True),
        (b"pay.internal", b"PAY.internal:8080", True),
        (b"Pay.Internal", b"pay.internal.", True),
        (b"pay.internal", b"xpay.internal", False),
        (b"*.example.com", b"a.example.com", True),
        (b"*.example.com", b"a.b.Example.com:1", True),
        (b"*.example.com", b"example.com", False),
        (b"*.example.com", b".example.com", False),
        (b"*.example.com", b"badexample.com", False),
        (b"[::1]", b"[::1]:8080", True),
    ],
)
def test_a_host_is_compared_without_case_and_port(pattern: bytes, host: bytes, *, matches: bool) -> None:
    assert find([RouteRule(host=pattern)], b"/", host=host) == (0 if matches else None)


def test_the_first_rule_in_order_wins_over_a_more_specific_one() -> None:
    rules = [RouteRule(path_prefix=b"/"), RouteRule(path=b"/exact")]
    assert find(rules, b"/exact") == 0
    assert find(rules[::-1], b"/exact") == 0
    assert find(rules[::-1], b"/other") == 1


def test_an_exact_path_is_neither_a_prefix_nor_lost_behind_the_cut() -> None:
    rules = [RouteRule(path=b"/a/b"), RouteRule(path=b"/a/b/"), RouteRule(path_prefix=b"/a")]
    assert [find(rules, path) for path in (b"/a/b", b"/a/b/", b"/a/b/c", b"/a/b/c/d", b"/b")] == [0, 1, 2, 2, None]


def test_methods_and_headers_must_hold_as_well() -> None:
    rules = [
        RouteRule(methods=frozenset({b"POST"})),
        RouteRule(headers={b"x-tier": b"gold"}),
        RouteRule(headers={b"x-tier": b"silver", b"x-beta": b"1"}),
        RouteRule(path_prefix=b"/open"),
    ]
    gold = {b"x-tier": b"gold"}.get
    silver = {b"x-tier": b"silver"}.get
    assert find(rules, b"/x", method=b"POST", field_of=gold) == 0
    assert find(rules, b"/x", field_of=gold) == 1
    assert find(rules, b"/x", field_of=silver) is None
    assert find(rules, b"/open", field_of=silver) == 3


def test_one_cached_entry_answers_differing_header_values() -> None:
    table = RouteTable([RouteRule(headers={b"x": b"1"}), RouteRule()])
    assert [table.find(b"GET", b"h", b"/", {b"x": value}.get) for value in (b"1", b"2", b"1")] == [0, 1, 0]


def test_invented_paths_and_hosts_do_not_grow_the_cache_without_bound() -> None:
    table = RouteTable([RouteRule(path_prefix=b"/v1")])
    for number in range(10_000):
        assert table.find(b"GET", b"h", b"/v1/%d" % number, no_field) == 0
    assert len(table._cache) <= 4096
    for number in range(10_000):
        table.find(b"GET", b"h%d" % number, b"/v1", no_field)
    assert len(table._cache) <= 4096
    before = len(table._cache)
    table.find(b"GET", b"h" * 300, b"/v1", no_field)
    assert len(table._cache) == before


def test_no_rules_match_nothing() -> None:
    assert RouteTable([]).find(b"GET", b"h", b"/", no_field) is None


@pytest.mark.parametrize("authority", [b"[::1", b"", b":80", b"a:b:c"])
def test_an_odd_authority_is_no_fault(authority: bytes) -> None:
    assert isinstance(bare_host(authority), bytes)


PATHS = st.lists(st.sampled_from([b"", b"a", b"b", b"ab"]), max_size=5).map(lambda parts: b"/" + b"/".join(parts))
HOSTS = st.sampled_from([b"a.x", b"b.a.x", b"x", b"A.x:1"])
VALUES = st.sampled_from([b"1", b"2"])
RULES = st.builds(
    RouteRule,
    host=st.none() | st.sampled_from([b"a.x", b"*.x", b"*.a.x"]),
    path=st.none() | PATHS,
    path_prefix=st.none() | PATHS,
    methods=st.frozensets(st.sampled_from([b"GET", b"POST"]), max_size=1),
    headers=st.dictionaries(st.sampled_from([b"h", b"i"]), VALUES, max_size=2),
)


@given(
    st.lists(RULES, max_size=6),
    st.lists(st.tuples(st.sampled_from([b"GET", b"POST"]), HOSTS, PATHS, st.dictionaries(st.just(b"h"), VALUES))),
)
def test_the_compiled_table_agrees_with_a_plain_scan(
    rules: list[RouteRule], requests: list[tuple[bytes, bytes, bytes, dict[bytes, bytes]]]
) -> None:
    table = RouteTable(rules)
    for method, host, path, fields in requests:
        plain = [
            index
            for index, rule in enumerate(rules)
            if rule.covers(method, bare_host(host), path)
            and all(fields.get(name) == value for name, value in rule.headers.items())
        ]
        assert table.find(method, host, path, fields.get) == (plain[0] if plain else None)
