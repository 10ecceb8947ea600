"""Whatever befalls whom under whatever configuration: nobody is lost, nothing leaks, and chance is the seed's alone."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.simulate.plot import draw
from tests.simulate.stage import config, played

KINDS = st.sampled_from(["refuse", "unreachable", "hang", "reset", "garbage", "error", "slow, latency: {median: 1s}"])
ROUTES = st.sampled_from(
    [
        "",
        "timeout: 300ms",
        "timeout: 500ms, retry: {attempts: 3, per_try_timeout: 200ms, retry_on: [timeout, reset, connect_failure]}",
        "fallback: [{upstream: spare}, {cache: {max_age: 3s}}, {respond: {status: 200}}]",
        "timeout: 300ms, retry: {}, fallback: [{cache: {max_age: 3s}}, {upstream: spare}], breaker: own",
    ]
)
UPSTREAMS = st.sampled_from(
    [
        "",
        "breaker: {open_for: 1s}",
        "breaker: {open_for: 500ms, half_open_timeout: 200ms, ramp: 1s}\npanic_threshold: 0",
        "limits: {max_requests: 5}",
        "limits: {max_connections: 2, max_pending: 3, pending_timeout: 100ms}\nconnect_timeout: 50ms",
        "breaker: {mode: observe}\nbalance: round_robin\nidle_timeout: 200ms",
        "outlier: {consecutive_failures: 2, base_ejection: 1s, max_ejected: 0.7}\nbreaker: {mode: disabled}",
    ]
)


@st.composite
def scenarios(draw: st.DrawFn) -> str:
    rate = draw(st.integers(1, 200))
    method = draw(st.sampled_from(["GET", "POST"]))
    faults = [
        f"{{upstream: {draw(st.sampled_from(['app', 'app', 'spare']))}, at: {draw(st.integers(0, 1900))}ms, "
        f"lasts: {draw(st.integers(1, 1500))}ms, share: {draw(st.sampled_from([1.0, 0.5]))}, how: {draw(KINDS)}}}"
        for _ in range(draw(st.integers(0, 4)))
    ]
    return f"""
phases:
  - {{name: one, lasts: 2s, traffic: [{{rate: {rate}, method: {method}, targets: 3}}]}}
  - {{name: two, lasts: 1s, traffic: [{{rate: {rate}}}]}}
faults: [{", ".join(faults)}]
"""


@given(scenarios(), ROUTES, UPSTREAMS, st.sampled_from([(8000,), (8000, 8001, 8002)]), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_every_request_ends_once_and_gives_back_what_it_took(
    text: str, route: str, upstream: str, ports: tuple[int, ...], seed: int
):
    with tempfile.TemporaryDirectory() as directory:
        result = played(text, config(route, upstream, ports), Path(directory), seed)
    users = result.tally.whole()
    told = users.answered + users.fallbacks.total() + users.refused.total() + users.errors.total()
    assert users.requests == told == len(users.seconds) == sum(map(sum, result.tally.points))
    assert min(users.seconds, default=0) >= 0
    for one in result.network.upstreams.values():
        assert (one.inflight, one.opening) == (0, 0)
        assert [endpoint.active for endpoint in one.endpoints] == [0] * len(one.endpoints)
        assert one.connections == sum(len(endpoint.idle) for endpoint in one.endpoints) <= one.max_connections
    for guard in result.guards():
        states = [change.old for change in guard.changes[1:]]
        assert states == [change.new for change in guard.changes[:-1]]
        assert not guard.breaker.snapshot(1e9).trials


LIVELY = """
phases: [{name: all, lasts: 20s, traffic: [{rate: 200, targets: 9}]}]
faults: [{upstream: app, at: 5s, lasts: 5s, how: error, share: 0.7}]
"""


def test_the_seed_decides_everything(tmp_path: Path):
    rich = config("retry: {}, fallback: [{upstream: spare}]", "breaker: {open_for: 2s}", (8000, 8001))
    first, again, other = (played(LIVELY, rich, tmp_path, seed) for seed in (7, 7, 8))
    assert json.dumps(first.plain()) == json.dumps(again.plain())
    assert draw("t", [first]) == draw("t", [again])
    assert json.dumps(first.plain()) != json.dumps(other.plain())


def test_two_configurations_meet_the_same_requests(tmp_path: Path):
    one = played(LIVELY, config("retry: {}"), tmp_path)
    other = played(LIVELY, config("fallback: [{respond: {}}]", "breaker: {open_for: 1s}"), tmp_path)
    assert one.tally.whole().requests == other.tally.whole().requests
