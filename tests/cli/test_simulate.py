"""`sidecar simulate` as its users call it."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sidecar.cli import main
from tests.simulate.stage import STEADY, config

DIES = (
    STEADY
    + """
about: app dies
phases: [{name: all, lasts: 40s, traffic: [{rate: 10, arrivals: even}]}]
faults: [{upstream: app, at: 10s, lasts: 5s, how: error}]
"""
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text(config(upstream="breaker: {open_for: 10s}"))
    (tmp_path / "new.yaml").write_text(config("fallback: [{upstream: spare}]", "breaker: {open_for: 10s}"))
    (tmp_path / "dies.yaml").write_text(DIES)
    return tmp_path


def test_it_tells_what_opened_when_and_what_the_users_saw(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "-c", "old.yaml", "dies.yaml"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("app dies: 40s of traffic\n\nUsers saw 73.750 % good answers: 295 of 400. ")
    assert "    10.401 s  closed -> open, consecutive_failures: 5 failures in a row\n" in told
    assert "breaker_open 100" in told
    assert "status_503 5" in told
    assert "spare" not in told, "what nobody asked for is not told"


def test_two_configurations_side_by_side(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "-c", "old.yaml", "dies.yaml", "--compare", "new.yaml", "--svg", "both.svg"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[2].split() == ["old.yaml", "new.yaml"]
    assert told[3].split() == ["good", "answers", "73.750", "%", "100", "%"]
    ET.parse(files / "both.svg")


def test_json_keeps_its_form(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "-c", "old.yaml", "dies.yaml", "--json", "--seed", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    run = told.pop("runs")[0]
    assert told == {"version": 1, "title": "app dies", "seed": 3, "seconds": 40}
    assert list(run) == ["config", "users", "rows", "breakers", "upstreams", "timeline"]
    users = {
        "requests": 400,
        "good": 295,
        "good_ratio": 0.7375,
        "answered": 295,
        "fallback": {},
        "refused": {"breaker_open": 100},
        "error": {"status_503": 5},
        "p50_ms": 1.0,
        "p99_ms": 1.0,
    }
    assert run["users"] == users
    assert run["rows"] == [{"phase": "all", "upstream": "app", **users}]
    assert (
        run["breakers"][0]
        == {
            "name": "app",
            "mode": "enforce",
            "seconds": {"closed": 29.7, "open": 10.099, "half_open": 0.201},
            "refused": 100,
            "transitions": [
                {
                    "at": 10.401,
                    "from": "closed",
                    "to": "open",
                    "reason": "consecutive_failures",
                    "detail": "5 failures in a row",
                },
                {"at": 20.5, "from": "open", "to": "half_open", "reason": "open_period_over", "detail": ""},
                {
                    "at": 20.701,
                    "from": "half_open",
                    "to": "closed",
                    "reason": "recovered",
                    "detail": "3 trial calls succeeded",
                },
            ],
        }
        or run["breakers"][0]["transitions"][2]["at"] == 20.701
    )
    timeline = run["timeline"]
    assert timeline["step"] == 0.2
    assert sum(timeline["answered"]) == 295
    assert run["upstreams"][0]["reached"] == 300


def test_an_access_log_in_place_of_a_scenario(files: Path, capsys: pytest.CaptureFixture[str]):
    line = {"time": "2026-03-01T12:00:00.000Z", "status": 200, "duration_ms": 3.0, "listener": "web", "route": "all"}
    (files / "access.log").write_text(f"{json.dumps(line)}\n" * 5)
    assert main(["simulate", "-c", "old.yaml", "--log", "access.log"]) == 0
    assert "100 % good answers: 5 of 5. All came from the upstreams." in capsys.readouterr().out


def test_a_bad_scenario_ends_with_78_and_every_fault(files: Path, capsys: pytest.CaptureFixture[str]):
    (files / "bad.yaml").write_text(DIES.replace("upstream: app", "upstream: ap").replace("rate: 10", "rate: -1"))
    assert main(["simulate", "-c", "old.yaml", "bad.yaml"]) == 78
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("bad.yaml:4:51: phases[0].traffic[0].rate: ")
    assert told[1] == "bad.yaml:5:21: faults[0].upstream: there is no upstream 'ap'; did you mean app?"


@pytest.mark.parametrize("missing", ["scenario", "config", "compare", "log"])
def test_a_file_that_is_not_there_ends_with_78(files: Path, capsys: pytest.CaptureFixture[str], missing: str):
    words = {
        "scenario": ["-c", "old.yaml", "gone.yaml"],
        "config": ["-c", "gone.yaml", "dies.yaml"],
        "compare": ["-c", "old.yaml", "dies.yaml", "--compare", "gone.yaml"],
        "log": ["-c", "old.yaml", "--log", "gone.yaml"],
    }
    assert main(["simulate", *words[missing]]) == 78
    assert re.search("gone.yaml:1:1: (No|there is no) such file", capsys.readouterr().err)


def test_it_wants_a_scenario_or_a_log(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "-c", "old.yaml"]) == 2
    assert main(["simulate", "-c", "old.yaml", "dies.yaml", "--log", "x"]) == 2
    assert "one of the two" in capsys.readouterr().err


def test_a_drawing_that_cannot_be_written_is_told(files: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "-c", "old.yaml", "dies.yaml", "--svg", "none/x.svg"]) == 1
    assert "none/x.svg: No such file" in capsys.readouterr().err
