"""A simulation from end to end: configuration and scenario (or access log) in, `Result` out.

`Result.plain` is the stable form that `--json` prints: names as on the metrics, seconds since the begin, counts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from sidecar.config.document import Config
from sidecar.machines.breaker_states import BreakerState
from sidecar.simulate.access_log import Logged, LoggedWorld
from sidecar.simulate.call import Call
from sidecar.simulate.engine import Simulation
from sidecar.simulate.network import Guard, Network
from sidecar.simulate.scenario import Scenario
from sidecar.simulate.tally import KINDS, Row, Tally
from sidecar.simulate.traffic import streams
from sidecar.simulate.world import ScriptedWorld, World


@dataclass(frozen=True, slots=True)
class Result:
    """What one configuration made of it."""

    name: str
    """The configuration's, for the reader."""
    seconds: float
    phases: tuple[tuple[str, float, float], ...]
    """Name, begin, end."""
    troubles: tuple[tuple[float, float, str], ...]
    """Begin, end and what befell whom."""
    tally: Tally
    network: Network

    def guards(self) -> list[Guard]:
        """The breakers that guard anything that was asked for, by name."""
        return sorted(self.network.guards.values(), key=lambda guard: guard.name)

    def rows(self) -> Iterator[tuple[str, str, Row]]:
        """Phase, upstream and what came of the requests, in the order of the phases."""
        for phase, upstream in sorted(self.tally.rows):
            yield self.phases[phase][0], upstream, self.tally.rows[phase, upstream]

    def plain(self) -> dict[str, Any]:
        """All of it as JSON can say it."""
        return {
            "config": self.name,
            "users": _row(self.tally.whole()),
            "rows": [{"phase": phase, "upstream": upstream, **_row(row)} for phase, upstream, row in self.rows()],
            "breakers": [_breaker(guard, self.seconds) for guard in self.guards()],
            "upstreams": [
                {
                    "name": upstream.name,
                    "reached": upstream.tries,
                    "retries": upstream.retries,
                    "endpoints": {endpoint.address: endpoint.calls for endpoint in upstream.endpoints},
                    "ejections": [
                        {
                            "at": round(at, 6),
                            "endpoint": address,
                            "out": out,
                            "reason": reason,
                            "detail": detail,
                            "enforced": enforced,
                        }
                        for at, address, out, reason, detail, enforced in upstream.ejections
                    ],
                }
                for upstream in self.network.upstreams.values()
            ],
            "timeline": {
                "step": self.tally.step,
                **{kind: [point[i] for point in self.tally.points] for i, kind in enumerate(KINDS)},
            },
        }


def stretches(guard: Guard, seconds: float) -> list[tuple[float, float, BreakerState]]:
    """The breaker's states over time: begin, end, state."""
    found = []
    begin, state = 0.0, BreakerState.CLOSED
    for change in guard.changes:
        if change.at >= seconds:
            break
        found.append((begin, change.at, state))
        begin, state = change.at, change.new
    return [*found, (begin, seconds, state)]


def play(name: str, config: Config, scenario: Scenario, seed: int) -> Result:
    """Run `scenario` against `config`."""
    endpoints = {one.name: one.endpoints for one in scenario.upstreams}
    network = Network(config, endpoints, Random(f"{seed}/machines").random)
    phases, begin = [], 0.0
    for phase in scenario.phases:
        phases.append((phase.name, begin, begin + phase.lasts))
        begin += phase.lasts
    troubles = [
        (begin, end, f"{trouble.how} {trouble.endpoint or trouble.upstream}")
        for trouble in scenario.faults
        for begin, end in scenario.times_of(trouble)
    ]
    world = ScriptedWorld(scenario, Random(f"{seed}/world"))
    return _run(name, network, world, streams(scenario, network, seed), phases, troubles, seed)


def replay(name: str, config: Config, logged: Logged, seed: int) -> Result:
    """Run the requests of an access log against `config`."""
    network = Network(config, logged.endpoints(config), Random(f"{seed}/machines").random)
    phases = [("log", 0.0, logged.seconds)]
    return _run(name, network, LoggedWorld(logged), logged.streams(network), phases, [], seed)


def _run(
    name: str,
    network: Network,
    world: World,
    calls: Iterable[Iterator[Call]],
    phases: list[tuple[str, float, float]],
    troubles: list[tuple[float, float, str]],
    seed: int,
) -> Result:
    seconds = phases[-1][2]
    tally = Tally(seconds)
    Simulation(network, world, tally, Random(f"{seed}/retries")).run(calls, seconds)
    return Result(name, seconds, tuple(phases), tuple(troubles), tally, network)


def _row(row: Row) -> dict[str, Any]:
    median, p99 = row.quantiles(0.5, 0.99)
    return {
        "requests": row.requests,
        "good": row.good,
        "good_ratio": round(row.good / row.requests, 6) if row.requests else None,
        "answered": row.answered,
        "fallback": dict(sorted(row.fallbacks.items())),
        "refused": dict(sorted(row.refused.items())),
        "error": dict(sorted(row.errors.items())),
        "p50_ms": round(median * 1000, 3),
        "p99_ms": round(p99 * 1000, 3),
    }


def _breaker(guard: Guard, seconds: float) -> dict[str, Any]:
    spent = dict.fromkeys((BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN), 0.0)
    for begin, end, state in stretches(guard, seconds):
        spent[state] += end - begin
    return {
        "name": guard.name,
        "mode": guard.policy.mode,
        "seconds": {state.value: round(total, 6) for state, total in spent.items()},
        "refused": guard.breaker.refused,
        "transitions": [
            {
                "at": round(change.at, 6),
                "from": change.old.value,
                "to": change.new.value,
                "reason": str(change.reason),
                "detail": change.detail,
            }
            for change in guard.changes
        ],
    }
