"""The simulation and the real program, side by side: one configuration, the same requests, the same faults.

Users must see the same words and the breakers make the same changes for the same reasons, whatever befalls the
upstream, with a retry, with a fallback and without. Requests come one after the other, so no moment matters; open
periods outlast the test, except where the way back is compared.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.config.load import load
from sidecar.simulate.access_log import read_log
from sidecar.simulate.outcome import Result, play, replay
from sidecar.simulate.scenario import load_scenario
from tests.fakes.upstream import ScriptedUpstream, never, resets, says, sends
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, json_lines

GOOD, BAD = 3, 12
KINDS = {
    "error": says(b"no", "503 Service Unavailable"),
    "reset": resets,
    "garbage": sends(b"nonsense\r\n\r\n", then="close"),
    "hang": never,
    "refuse": None,
}
ROUTES: dict[str, dict[str, Any]] = {
    "plain": {},
    "retried": {
        "retry": {
            "attempts": 2,
            "backoff": "1ms",
            "retry_on": ["connect_failure", "reset", "timeout", "bad_response", 503],
        }
    },
    "answered": {"fallback": [{"respond": {"status": 200}}]},
    "elsewhere": {"fallback": [{"upstream": "spare"}]},
}
NAMES = [f"{kind}-{way}" for kind in KINDS for way in ROUTES]


def route_of(name: str) -> dict[str, Any]:
    """Time-outs are short where something hangs; elsewhere they would only meet a busy machine."""
    kind, _, way = name.partition("-")
    whole, one_try = ("240ms", "150ms") if kind == "hang" else ("10s", "5s")
    keys = {"timeout": whole, **ROUTES[way]}
    if "retry" in keys:
        keys["retry"] = {**keys["retry"], "per_try_timeout": one_try}
    return route(name, name, f"/{name}", **keys)


SEEN = {"closed", "open", "half_open"}


class Stage:
    """One proxy with an upstream for each pair of fault and route."""

    def __init__(self, proxy: Sidecar, servers: dict[str, ScriptedUpstream], log: Path) -> None:
        self.proxy = proxy
        self.servers = servers
        self.log = log

    def ask(self, name: str) -> str:
        """One request; the word for how it ended."""
        answer = self.proxy.get("web", f"/{name}")
        return answer.get("x-sidecar-decision") or ("answered" if answer.status < 500 else f"status_{answer.status}")

    def strike(self, name: str) -> None:
        """From now on the fault in the upstream's name befalls it."""
        server, script = self.servers[name], KINDS[name.partition("-")[0]]
        if script is not None:
            server.otherwise(script)
            return
        server.refuse()
        server.close_idle()
        open_now = "sidecar_upstream_connections"
        self.proxy.wait_until(lambda: self.proxy.metrics().sum(open_now, upstream=name) == 0, "closed connections")

    def suffer(self, name: str) -> Counter[str]:
        """Some requests before the fault and some under it."""
        good = Counter(self.ask(name) for _ in range(GOOD))
        self.strike(name)
        return good + Counter(self.ask(name) for _ in range(BAD))

    def changes(self, name: str) -> Counter[tuple[str, str, str]]:
        """The breaker's changes so far, by from, to, reason."""
        found = self.proxy.metrics().named("sidecar_breaker_transitions_total", upstream=name)
        return Counter({(have["from"], have["to"], have["reason"]): int(count) for have, count in found if count})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    log = tmp_path_factory.mktemp("agreement") / "access.log"
    with contextlib.ExitStack() as stack:
        names = [*NAMES, "back", "spare"]
        servers = {name: stack.enter_context(ScriptedUpstream()).otherwise(says(b"well")) for name in names}
        guarded = [
            upstream(name, servers[name].address, breaker={"open_for": "200ms"} if name == "back" else {})
            for name in names
        ]
        routes = [*(route_of(name) for name in NAMES), route("back", "back", "/back")]
        tree = document([listener("web", routes)], guarded)
        proxy = stack.enter_context(Sidecar({**tree, "access_log": {"path": str(log)}}))
        yield Stage(proxy, servers, log)


def simulated(stage: Stage, text: str, directory: Path) -> Result:
    config = load(str(stage.proxy.file))
    file = directory / "scenario.yaml"
    file.write_text(text)
    return play("same", config, load_scenario(str(file), [config]), 1)


def seen_by_users(result: Result) -> Counter[str]:
    users = result.tally.whole()
    tiers = Counter({f"fallback_{tier}": count for tier, count in users.fallbacks.items()})
    return Counter({"answered": users.answered} if users.answered else {}) + tiers + users.refused + users.errors


def changes_of(result: Result, name: str) -> Counter[tuple[str, str, str]]:
    made = result.network.guards[name].changes
    return Counter((one.old.value, one.new.value, str(one.reason)) for one in made)


@pytest.mark.parametrize("name", NAMES)
def test_users_see_the_same_and_breakers_change_alike(stage: Stage, tmp_path: Path, name: str):
    real = stage.suffer(name)
    text = f"""
phases:
  - {{name: good, lasts: {GOOD}s, traffic: [{{rate: 1, arrivals: even, route: {name}}}]}}
  - {{name: bad, lasts: {BAD}s, traffic: [{{rate: 1, arrivals: even, route: {name}}}]}}
faults: [{{upstream: {name}, phase: bad, lasts: 1m, how: {name.partition("-")[0]}}}]
"""
    result = simulated(stage, text, tmp_path)
    assert seen_by_users(result) == real
    assert changes_of(result, name) == stage.changes(name)
    assert changes_of(result, name) == {("closed", "open", "consecutive_failures"): 1}, "something happened at all"


def test_the_way_back_has_the_same_steps(stage: Stage, tmp_path: Path):
    failed_trial = ("half_open", "open", "trial_failed")
    stage.servers["back"].otherwise(KINDS["error"] or never)
    patient_until = time.monotonic() + 20
    while not stage.changes("back")[failed_trial]:
        stage.ask("back")
        assert time.monotonic() < patient_until
    stage.servers["back"].otherwise(says(b"well"))
    while not stage.changes("back")["half_open", "closed", "recovered"]:
        stage.ask("back")
        assert time.monotonic() < patient_until
    real = stage.changes("back")
    text = """
phases: [{name: all, lasts: 3s, traffic: [{rate: 100, arrivals: even, route: back}]}]
faults: [{upstream: back, at: 0s, lasts: %dms, how: error}]
"""
    again = real[failed_trial]
    result = simulated(stage, text % (250 * again + 50), tmp_path)
    assert changes_of(result, "back") == real
    assert {state for change in real for state in change[:2]} == SEEN


def test_the_access_log_of_it_all_replays_to_the_same_words(stage: Stage, tmp_path: Path):
    """The log holds what the tests above did, in whole milliseconds; here a second lies between two lines."""
    then = {name: Counter[str]() for name in NAMES if name.endswith("plain")}
    for name in then:
        if not stage.changes(name):  # this test runs alone
            stage.suffer(name)
    stage.proxy.wait_until(lambda: len(json_lines(stage.log)) >= len(then) * (GOOD + BAD), "the access log")
    begin, file = datetime(2026, 1, 1, tzinfo=UTC), tmp_path / "access.log"
    with file.open("w") as stretched:
        for number, line in enumerate(json_lines(stage.log)):
            line["time"] = (begin + timedelta(seconds=number)).isoformat()
            stretched.write(json.dumps(line) + "\n")
            if line["route"] in then:
                then[line["route"]][line["decision"] or f"status_{line['status']}"] += 1
    config = load(str(stage.proxy.file))
    patient = msgspec.structs.replace(
        config,
        upstreams=tuple(
            msgspec.structs.replace(one, breaker=msgspec.structs.replace(one.breaker, open_for=3600.0))
            for one in config.upstreams
        ),
    )
    result = replay("same", patient, read_log(str(file)), 1)
    for name, words in then.items():
        row = result.tally.rows[0, name]
        assert row.errors + row.refused + Counter({"status_200": row.answered}) == words, name
        assert changes_of(result, name) == stage.changes(name), name
