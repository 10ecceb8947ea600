"""Small scenarios whose end can be foretold with pencil and paper."""

from pathlib import Path

import pytest

from tests.simulate.stage import STEADY, changes, config, played

DIES = (
    STEADY
    + """
phases: [{name: all, lasts: 50s, traffic: [{rate: 10, arrivals: even}]}]
faults: [{upstream: app, at: 10s, lasts: 20s, how: error}]
"""
)
TEN_FAULTS = """
phases: [{name: minute, lasts: 1m, traffic: [{rate: 1000}]}]
faults: [{upstream: app, at: 3s, lasts: 2s, every: 6s, how: refuse}]
"""


def test_it_opens_at_the_fifth_failure_reopens_after_a_failed_trial_and_closes_after_three_good_ones(tmp_path: Path):
    result = played(DIES, config(upstream="breaker: {open_for: 10s}"), tmp_path).plain()
    opened, tried, failed, again, closed = changes(result)
    assert opened == (10.401, "closed", "open", "consecutive_failures")  # asked at 10.0, 10.1 … 10.4
    assert tried == (20.5, "open", "half_open", "open_period_over")  # 10 s after, to the moment, at the next request
    assert failed == (20.501, "half_open", "open", "trial_failed")
    assert again[1:] == ("open", "half_open", "open_period_over")
    assert 30.501 <= again[0] <= 31.6  # the second period may be longer by a tenth
    assert closed[1:] == ("half_open", "closed", "recovered")
    assert closed[0] == pytest.approx(again[0] + 0.201)  # the third of three trials, 0.1 s apart
    assert result["users"]["error"] == {"status_503": 6}
    assert result["users"]["refused"].keys() == {"breaker_open"}
    assert result["users"]["requests"] == 500
    assert sum(result["breakers"][0]["seconds"].values()) == pytest.approx(50)


def test_with_a_fallback_users_see_999_of_1000_good_through_ten_faults(tmp_path: Path):
    quick = "breaker: {open_for: 1s}"
    users = played(TEN_FAULTS, config("fallback: [{upstream: spare}]", quick), tmp_path).plain()["users"]
    assert users["requests"] > 59_000
    assert users["good_ratio"] >= 0.999
    assert users["fallback"]["upstream"] > 5_000


def test_without_one_they_are_refused_at_once(tmp_path: Path):
    result = played(TEN_FAULTS, config(upstream="breaker: {open_for: 1s}"), tmp_path).plain()
    assert sum(old == "closed" for _, old, _, _ in changes(result)) == 10
    assert result["users"]["refused"]["breaker_open"] > 10_000
    assert result["users"]["error"]["connect_failure"] < 1_000


def test_a_breaker_that_observes_refuses_nobody(tmp_path: Path):
    watched = config(upstream="breaker: {open_for: 10s, mode: observe}")
    result = played(DIES, watched, tmp_path).plain()
    assert result["users"]["error"] == {"status_503": 200}
    assert result["breakers"][0]["refused"] > 150
    assert result["users"]["refused"] == {}


def test_the_last_good_answer_serves_who_asks_the_same(tmp_path: Path):
    result = played(DIES, config("fallback: [{cache: {max_age: 15s}}]"), tmp_path).plain()
    kept = result["users"]["fallback"]["cache"]
    # kept anew once a second, the last time at 9.001 s or later, and too old 15 s after
    assert 135 <= kept <= 150
    assert result["users"]["error"] == {}, "failed trials, too, are answered from memory"
    assert kept + result["users"]["refused"]["breaker_open"] + result["users"]["answered"] == 500


def test_nobody_else_gets_the_answer_to_another_target(tmp_path: Path):
    text = """
phases:
  - {name: good, lasts: 1s, traffic: [{rate: 10, path: /a}]}
  - {name: bad, lasts: 1s, traffic: [{rate: 10, path: /a}, {rate: 10, path: /b}, {rate: 10, path: /a, method: POST}]}
faults: [{upstream: app, phase: bad, lasts: 1s, how: error}]
"""
    everything = config("fallback: [{cache: {max_age: 15s}}, {respond: {status: 200}}]", "breaker: {mode: disabled}")
    bad = played(text.replace("rate: 10", "rate: 10, arrivals: even"), everything, tmp_path).plain()["rows"][1]
    assert bad["fallback"] == {"cache": 10, "respond": 20}
    assert bad["good"] == 30


def test_a_retry_goes_to_another_endpoint_and_the_sick_one_is_ejected(tmp_path: Path):
    text = (
        STEADY
        + """
phases: [{name: all, lasts: 20s, traffic: [{rate: 100, arrivals: even}]}]
faults: [{upstream: app, endpoint: "127.0.0.1:8001", lasts: 20s, how: reset}]
"""
    )
    three = config("retry: {backoff: 0s}", "retry_budget: {ratio: 1}", (8000, 8001, 8002))
    result = played(text, three, tmp_path).plain()
    assert result["users"]["good_ratio"] == 1
    app = result["upstreams"][0]
    assert [(one["endpoint"], one["out"]) for one in app["ejections"]] == [("127.0.0.1:8001", True)]
    assert app["endpoints"]["127.0.0.1:8001"] == 5 == app["retries"]


SICK = (
    STEADY
    + """
phases: [{name: all, lasts: 20s, traffic: [{rate: 100, arrivals: even}]}]
faults: [{upstream: app, endpoint: "127.0.0.1:8001", lasts: 20s, %s}]
"""
)


@pytest.mark.parametrize(
    ("fault", "rules", "at", "reason"),
    [
        ("how: slow, latency: {median: 300ms}", "{slow_rate: 0.5, slow_after: 200ms}", 10.0, "slow_rate"),
        ("how: error, status: 502", "{consecutive_gateway_failures: 3}", 0.06, "consecutive_gateway_failures"),
        ("how: error, status: 500", "{consecutive_gateway_failures: 3}", 0.12, "consecutive_failures"),
        ('how: error, status: 200, headers: {X-Failed: "1"}', "{}", 0.12, "consecutive_failures"),
    ],
)
def test_each_rule_for_endpoints_is_driven(tmp_path: Path, fault: str, rules: str, at: float, reason: str):
    upstream = f"balance: round_robin\nbreaker: {{failure_headers: [{{name: x-failed}}]}}\noutlier: {rules}"
    app = played(SICK % fault, config(upstream=upstream, ports=(8000, 8001, 8002)), tmp_path).plain()["upstreams"][0]
    first = app["ejections"][0]
    assert (first["endpoint"], first["out"], first["reason"]) == ("127.0.0.1:8001", True, reason)
    assert at <= first["at"] <= at + 0.2


def test_answers_whose_header_says_so_open_the_breaker(tmp_path: Path):
    text = (
        STEADY
        + """
phases: [{name: all, lasts: 10s, traffic: [{rate: 10, arrivals: even}]}]
faults: [{upstream: app, lasts: 10s, how: error, status: 200, headers: {Grpc-Status: "14"}}]
"""
    )
    rules = 'breaker: {failure_headers: [{name: grpc-status, unless: ["0"]}]}'
    assert changes(played(text, config(upstream=rules), tmp_path).plain())[0][1:] == (
        "closed",
        "open",
        "consecutive_failures",
    )
    assert changes(played(text, config(), tmp_path).plain()) == []


def test_the_next_priority_takes_what_the_first_cannot_carry(tmp_path: Path):
    two = config(upstream="outlier: {max_ejected: 0.5, base_ejection: 60s}", ports=(8000, 8001, 8002))
    ranked = two.replace('8002"}', '8002", priority: 1}')
    assert ranked != two
    fault = 'faults: [{upstream: app, endpoint: "127.0.0.1:8001", lasts: 20s, how: error}]'
    text = f"{STEADY}phases: [{{name: all, lasts: 20s, traffic: [{{rate: 100, arrivals: even}}]}}]\n{fault}"
    calls = played(text, ranked, tmp_path).plain()["upstreams"][0]["endpoints"]
    assert calls["127.0.0.1:8001"] == 5
    assert calls["127.0.0.1:8002"] / 2000 == pytest.approx(0.3, abs=0.05)


def test_retries_stay_within_their_budget(tmp_path: Path):
    text = (
        STEADY
        + """
phases: [{name: all, lasts: 10s, traffic: [{rate: 100, arrivals: even}]}]
faults: [{upstream: app, lasts: 10s, how: error}]
"""
    )
    eager = config("retry: {attempts: 3, backoff: 0s}", "breaker: {mode: disabled}\nretry_budget: {ratio: 0.2}")
    result = played(text, eager, tmp_path).plain()
    assert 195 <= result["upstreams"][0]["retries"] <= 205
    assert result["upstreams"][0]["reached"] == 1000 + result["upstreams"][0]["retries"]


@pytest.mark.parametrize(
    ("limits", "overflow"),
    [
        ("max_requests: 7", 43),
        ("max_connections: 7, max_pending: 0", 43),
        ("max_connections: 7, max_pending: 5, pending_timeout: 500ms", 43),
    ],
)
def test_limits_overflow(tmp_path: Path, limits: str, overflow: int):
    text = (
        STEADY
        + """
phases: [{name: all, lasts: 1s, traffic: [{rate: 50, arrivals: even}]}]
faults: [{upstream: app, lasts: 1m, how: hang}]
"""
    )
    tight = config("timeout: 10s", f"limits: {{{limits}}}")
    users = played(text, tight, tmp_path).plain()["users"]
    assert users["refused"] == {"overflow": overflow}
    assert users["error"] == {"timeout": 50 - overflow}


def test_who_waits_for_a_connection_gets_the_next_that_is_free(tmp_path: Path):
    text = """
upstreams: [{name: app, latency: {median: 10ms}, connect: 1ms}]
phases: [{name: all, lasts: 100ms, traffic: [{rate: 1000, arrivals: even}]}]
"""
    result = played(text, config(upstream="limits: {max_connections: 1}"), tmp_path).plain()
    assert result["users"]["answered"] == 100
    assert result["users"]["p99_ms"] == pytest.approx(99 * 10 + 1 - 98, abs=2)  # they stand in one queue


@pytest.mark.parametrize(
    ("how", "word", "milliseconds"),
    [
        ("hang", "timeout", 1000),
        ("unreachable", "connect_failure", 300),
        ("refuse", "connect_failure", 1),
        ("reset", "reset", 2),
        ("garbage", "bad_response", 2),
        ("slow, latency: {median: 3s}", "timeout", 1000),
    ],
)
def test_what_befalls_an_upstream_becomes_the_word_that_users_see(
    tmp_path: Path, how: str, word: str, milliseconds: float
):
    text = (
        STEADY
        + f"""
phases: [{{name: all, lasts: 1s, traffic: [{{rate: 2, arrivals: even, method: POST}}]}}]
faults: [{{upstream: app, lasts: 1m, how: {how}}}]
"""
    )
    users = played(text, config("timeout: 1s", "connect_timeout: 300ms"), tmp_path).plain()["users"]
    assert users["error"] == {word: 2}
    assert users["p50_ms"] == pytest.approx(milliseconds)


def test_a_route_with_its_own_breaker_fails_alone(tmp_path: Path):
    text = """
version: 1
listeners:
  - name: web
    bind: 127.0.0.1:8080
    routes:
      - {name: risky, match: {path_prefix: /risky}, upstream: app, breaker: own, timeout: 1ms}
      - {name: rest, upstream: app}
upstreams: [{name: app, endpoints: [{address: "127.0.0.1:8000"}]}]
"""
    traffic = """
phases: [{name: all, lasts: 10s, traffic: [{rate: 10, path: /risky/1}, {rate: 10, path: /}]}]
"""
    result = played(traffic, text, tmp_path).plain()
    assert [reason for *_, reason in changes(result, "app/risky")][:1] == ["consecutive_failures"]
    assert changes(result, "app") == []


def test_a_request_that_no_route_takes_is_not_good(tmp_path: Path):
    text = "phases: [{name: all, lasts: 1s, traffic: [{rate: 5, arrivals: even, host: elsewhere.test}]}]"
    users = played(text, config("match: {host: here.test}"), tmp_path).plain()["users"]
    assert users["refused"] == {"no_route": 5}
    assert users["good"] == 0


def test_ring_hash_keeps_a_client_at_its_endpoint(tmp_path: Path):
    text = "phases: [{name: all, lasts: 1s, traffic: [{rate: 50, clients: 1}]}]"
    ring = config(upstream="balance: ring_hash", ports=(8000, 8001, 8002))
    calls = played(text, ring, tmp_path).plain()["upstreams"][0]["endpoints"]
    assert sorted(count > 0 for count in calls.values()) == [False, False, True]


def test_a_repeated_fault_ends_each_time(tmp_path: Path):
    text = (
        STEADY
        + """
phases: [{name: all, lasts: 10s, traffic: [{rate: 10, arrivals: even}]}]
faults: [{upstream: app, at: 1s, lasts: 500ms, every: 3s, how: error, status: 500}]
"""
    )
    users = played(text, config(upstream="breaker: {mode: disabled}"), tmp_path).plain()["users"]
    assert users["error"] == {"status_500": 15}
