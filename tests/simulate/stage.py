"""A configuration and a scenario as text, played in one line."""

from pathlib import Path
from typing import Any

from sidecar.config.load import parse
from sidecar.simulate.outcome import Result, play
from sidecar.simulate.scenario import Scenario, load_scenario

CONFIG = """
version: 1
listeners:
  - name: web
    bind: 127.0.0.1:8080
    routes:
      - {{name: all, upstream: app{route}}}
upstreams:
  - name: app
    endpoints: [{endpoints}]{upstream}
  - {{name: spare, endpoints: [{{address: "127.0.0.1:9000"}}]}}
"""
STEADY = "upstreams: [{name: app, latency: {median: 1ms}}, {name: spare, latency: {median: 2ms}}]\n"
"""Latencies without chance: moments can be foretold."""


def config(route: str = "", upstream: str = "", ports: tuple[int, ...] = (8000,)) -> str:
    """The text of a configuration; `route` and `upstream` are further keys, as YAML's flow and block style want."""
    endpoints = ", ".join(f'{{address: "127.0.0.1:{port}"}}' for port in ports)
    lines = "".join(f"\n    {line}" for line in upstream.splitlines())
    return CONFIG.format(route=f", {route}" if route else "", endpoints=endpoints, upstream=lines)


def scenario(text: str, configuration: str, directory: Path) -> Scenario:
    """`text` read as a scenario for `configuration`."""
    file = directory / "scenario.yaml"
    file.write_text(text)
    return load_scenario(str(file), [parse(configuration)])


def played(text: str, configuration: str, directory: Path, seed: int = 1) -> Result:
    """What came of it."""
    return play("tested", parse(configuration), scenario(text, configuration, directory), seed)


def changes(result: dict[str, Any], breaker: str = "app") -> list[tuple[float, str, str, str]]:
    """At, from, to, reason of every change of a breaker."""
    found = next(one for one in result["breakers"] if one["name"] == breaker)
    return [(one["at"], one["from"], one["to"], one["reason"]) for one in found["transitions"]]
