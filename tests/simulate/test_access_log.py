"""An access log replayed: what came then comes again, and what it cannot know is what was last seen."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.config.faults import InvalidConfig
from sidecar.config.load import parse
from sidecar.runtime.access_log import Line
from sidecar.simulate.access_log import Entry, read_log
from sidecar.simulate.outcome import replay
from tests.simulate.stage import changes, config


def line(second: float, status: int = 200, decision: str = "", **fields: Any) -> str:
    """A request that ended at `second` of a minute."""
    whole = {
        "time": f"2026-03-01T12:00:{second:06.3f}Z",
        "listener": "web",
        "route": "all",
        "upstream": "app",
        "endpoint": "127.0.0.1:8000",
        "method": "GET",
        "path": "/orders/7?x=1",
        "host": "shop.test",
        "status": status,
        "decision": decision,
        "duration_ms": 2.0,
        "attempts": 1,
    }
    return json.dumps({**whole, **fields})


def replayed(lines: list[str], configuration: str, directory: Path) -> dict[str, Any]:
    file = directory / "access.log"
    file.write_text("".join(f"{one}\n" for one in lines))
    return replay("tested", parse(configuration), read_log(str(file)), 1).plain()


def test_entries_are_lines_of_ours():
    ours = {field.name: field.type for field in msgspec.structs.fields(Line)}
    assert {field.name: field.type for field in msgspec.structs.fields(Entry)}.items() <= ours.items()


def test_a_day_of_good_answers_comes_out_as_it_was(tmp_path: Path):
    result = replayed([line(second, duration_ms=8.0) for second in range(50)], config(), tmp_path)
    assert result["users"]["answered"] == 50
    assert result["users"]["p50_ms"] == pytest.approx(8, abs=1.1)  # one opens the connection
    assert changes(result) == []


def test_failures_of_then_open_the_breaker_now(tmp_path: Path):
    lines = [line(second / 10, 503 if 100 <= second < 200 else 200) for second in range(300)]
    result = replayed(lines, config(upstream="breaker: {open_for: 10s, failure_rate: 0}"), tmp_path)
    assert [reason for *_, reason in changes(result)] == ["consecutive_failures", "open_period_over", "recovered"]
    assert changes(result)[0][0] == pytest.approx(10.4, abs=0.01)
    assert result["users"]["error"] == {"status_503": 5}


@pytest.mark.parametrize(
    ("status", "decision", "word"),
    [
        (504, "timeout", "timeout"),
        (502, "connect_failure", "connect_failure"),
        (502, "reset", "reset"),
        (502, "bad_response", "bad_response"),
        (500, "", "status_500"),
    ],
)
def test_each_end_is_met_again(tmp_path: Path, status: int, decision: str, word: str):
    lines = [line(1), line(2, status, decision, method="POST"), line(4)]
    result = replayed(lines, config("timeout: 1s"), tmp_path)
    assert result["users"]["error"] == {word: 1}
    assert result["users"]["answered"] == 2


def test_what_was_refused_then_meets_what_the_upstream_was_last_seen_doing(tmp_path: Path):
    lines = [line(1), *(line(2 + second, 502, "connect_failure") for second in range(5))]
    lines += [line(10 + second, 503, "breaker_open", endpoint="") for second in range(5)]
    off = config(upstream="breaker: {mode: disabled}")
    assert replayed(lines, off, tmp_path)["users"]["error"] == {"connect_failure": 10}


def test_an_endpoint_that_is_picked_in_place_of_another_does_what_it_did(tmp_path: Path):
    sick = [line(second / 10, 500, endpoint="127.0.0.1:8001") for second in range(100)]
    well = [line(second / 10 + 0.05, endpoint="127.0.0.1:8000") for second in range(100)]
    watched = config(upstream="breaker: {mode: disabled}", ports=(8000, 8001))
    result = replayed(sick + well, watched, tmp_path)
    assert result["upstreams"][0]["ejections"][0]["endpoint"] == "127.0.0.1:8001"
    assert result["users"]["good_ratio"] > 0.9


def test_discovered_endpoints_are_those_of_the_log(tmp_path: Path):
    found = config().replace('endpoints: [{address: "127.0.0.1:8000"}]', "discovery: {dns: app.test:80}", 1)
    lines = [line(second, endpoint=f"10.0.0.{second % 3}:80") for second in range(30)]
    endpoints = replayed(lines, found, tmp_path)["upstreams"][0]["endpoints"]
    assert sorted(endpoints) == ["10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80"]


def test_several_attempts_then_mean_several_now(tmp_path: Path):
    result = replayed([line(1), line(2, attempts=2)], config("retry: {}"), tmp_path)
    assert result["users"]["answered"] == 2
    assert result["upstreams"][0]["retries"] == 1


def test_lines_of_no_request_are_left_out_and_a_cut_off_end_forgiven(tmp_path: Path):
    file = tmp_path / "access.log"
    kept = [line(1), line(2, 400, "bad_request"), line(3, 0), line(4, 408, "client_timeout")]
    file.write_text("\n".join([*kept, line(5)[:30]]))
    logged = read_log(str(file))
    assert (len(logged.entries), logged.skipped) == (1, 3)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (line(1) + "\nnonsense\n", ":2:1: not a line of an access log"),
        (line(1).replace('"status": 200', '"status": "ok"') + "\n", ":1:1: not a line of an access log"),
        (line(1).replace("2026-03", "2026-13") + "\n", ":1:1: not a line of an access log"),
        ("", ":1:1: no request in it"),
    ],
)
def test_what_is_no_access_log_is_told_with_its_line(tmp_path: Path, text: str, place: str):
    file = tmp_path / "access.log"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        read_log(str(file))
    assert str(file) + place in str(caught.value)
