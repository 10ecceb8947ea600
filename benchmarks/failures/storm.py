"""A storm: constant load through a real `sidecar run` while its upstream dies and comes back, again and again.

The upstream dies in three ways, in turn: its process is killed (connections break, new ones are refused), it answers
503 to everything, it resets every connection. Each fault lasts half of its share of the time; the other half is for
the breaker to find out that the upstream is back. `open_for` is short, since ten faults must fit into a minute; every
other setting of the breaker is the default. Nothing retries, so that clients see what the breaker makes of it alone.
"""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.rig.client import drive
from benchmarks.rig.machine import ROOT, cores
from benchmarks.rig.mortal import BODY
from benchmarks.rig.process import Process, free_port, running

OPEN_FOR = 1.0
CONNECTIONS = 64
KINDS = ("killed", "errors", "resets")


@dataclass(frozen=True)
class Fault:
    """Seconds of CLOCK_MONOTONIC."""

    kind: str
    began: float
    ended: float


@dataclass
class Storm:
    """All that was seen: by the clients, by the upstream, by who broke it, and by the proxy."""

    answers: list[tuple[float, float, str]]
    """(due, done, word) in the order in which they ended."""
    faults: list[Fault]
    arrivals: list[float]
    """When a request reached the upstream while it was sick."""
    changes: list[tuple[float, str, str, str]]
    """The breaker's changes, from the proxy's log: (when, old state, new state, detail), to the millisecond."""
    decisions: dict[float, float] = field(default_factory=dict)
    """`sidecar_breaker_decision_seconds`: upper bound in seconds to the count at or below it."""
    closed_at_last: bool = False
    late_p99_ms: float = 0.0
    """How late the load generator itself was."""


class Mortal:
    """The upstream: a process that can be killed and started again on the same port."""

    def __init__(self, scratch: Path, name: str) -> None:
        self.port = free_port()
        self.ledger = scratch / f"{name}.ledger"
        self.log = scratch / f"{name}.log"
        self.name = name
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.rig.mortal", str(self.port), str(self.ledger)]
        self.process = Process(self.name, command, cores()[0], self.log, {"PYTHONPATH": str(ROOT)})
        self.process.wait_listening(self.port)

    def be(self, mode: str) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/be/{mode}", timeout=5):
            pass

    def fail(self, kind: str) -> None:
        if kind == "killed":
            self.process.popen.kill()
            self.process.popen.wait()
        else:
            self.be(kind)

    def recover(self, kind: str) -> None:
        if kind == "killed":
            self.start()
        else:
            self.be("well")

    def arrivals(self) -> list[float]:
        return [float(line) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []


@contextmanager
def mortals(scratch: Path, *names: str) -> Iterator[list[Mortal]]:
    """Started upstreams; whichever of them is alive at the end is ended."""
    with ExitStack() as stack:
        made = []
        for name in names:
            mortal = Mortal(scratch, name)
            stack.callback(lambda mortal=mortal: mortal.process.stop())
            made.append(mortal)
        yield made


@dataclass(frozen=True)
class Proxy:
    """A running `sidecar run`."""

    port: int
    admin: int
    process: Process


@contextmanager
def proxy(
    scratch: Path, upstreams: list[dict[str, Any]], route: dict[str, Any], prefix: tuple[str, ...] = ()
) -> Iterator[Proxy]:
    """One listener, one route to the first of `upstreams`. `prefix` goes before the command (a tracer's)."""
    port, admin = free_port(), free_port()
    document = {
        "version": 1,
        "service": {"name": "bench"},
        "admin": {"bind": f"127.0.0.1:{admin}", "socket": str(scratch / "admin.sock")},
        "listeners": [
            {
                "name": "inbound",
                "bind": f"127.0.0.1:{port}",
                "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": upstreams[0]["name"], **route}],
            }
        ],
        "upstreams": upstreams,
    }
    config = scratch / "sidecar.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    command = [*prefix, str(Path(sys.executable).with_name("sidecar")), "run", "-c", str(config)]
    # Hashes of strings decide how dictionaries collide; fixed, so that two runs take the same steps.
    process = Process("sidecar", command, cores()[1], scratch / "sidecar.log", {"PYTHONHASHSEED": "0"})
    with running(process):
        process.wait_listening(port, seconds=120 if prefix else 30)
        yield Proxy(port, admin, process)


def storm(
    scratch: Path, rate: float, seconds: float, faults: int, *, fallback: bool, open_for: float = OPEN_FOR
) -> Storm:
    """`faults` faults within `seconds` under `rate` requests/s, with a standby to fall back to or without."""
    scratch.mkdir()
    stop = Event()
    with mortals(scratch, "app", "standby") as (app, standby), ThreadPoolExecutor(1) as breaking:
        upstreams = [
            {
                "name": "app",
                "endpoints": [{"address": f"127.0.0.1:{app.port}"}],
                "breaker": {"open_for": f"{round(open_for * 1000)}ms"},
            },
            {"name": "standby", "endpoints": [{"address": f"127.0.0.1:{standby.port}"}]},
        ]
        route = {"fallback": [{"upstream": "standby"}]} if fallback else {}
        with proxy(scratch, upstreams, route) as sidecar:
            broken: list[Any] = []
            try:
                told = drive(
                    *("witness", sidecar.port, "/orders/17", rate, seconds, CONNECTIONS, len(BODY)),
                    ready=lambda: broken.append(breaking.submit(_break, app, seconds / faults, faults, stop)),
                    seconds=seconds + 20,
                )
            finally:
                stop.set()
            scraped = _scrape(sidecar.admin)
            return Storm(
                answers=[(due, done, word) for due, done, word in told["answers"]],
                faults=broken[0].result(),
                arrivals=app.arrivals(),
                late_p99_ms=told["late_p99_ms"],
                changes=_changes(scratch / "sidecar.log"),
                decisions=_buckets(scraped, "sidecar_breaker_decision_seconds_bucket"),
                closed_at_last=any(
                    name == "sidecar_breaker_state" and labels == {"upstream": "app", "state": "closed"} and value == 1
                    for name, labels, value in scraped
                ),
            )


def _break(app: Mortal, period: float, faults: int, stop: Event) -> list[Fault]:
    """Each fault begins a quarter into its period and lasts half of it."""
    begin = time.monotonic()
    happened = []
    for number in range(faults):
        kind = KINDS[number % len(KINDS)]
        stop.wait(max(0.0, begin + (number + 0.25) * period - time.monotonic()))
        began = time.monotonic()
        app.fail(kind)
        stop.wait(max(0.0, began + period / 2 - time.monotonic()))
        app.recover(kind)
        happened.append(Fault(kind, began, time.monotonic()))
    return happened


def _changes(log: Path) -> list[tuple[float, str, str, str]]:
    ahead = time.time() - time.monotonic()
    changes = []
    for line in log.read_text().splitlines():
        told = json.loads(line)
        if told["event"] == "breaker_changed" and told["upstream"] == "app":
            when = datetime.fromisoformat(told["time"]).timestamp() - ahead
            changes.append((when, told["old"], told["new"], told["detail"]))
    return changes


def _scrape(port: int) -> list[tuple[str, dict[str, str], float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _buckets(scraped: list[tuple[str, dict[str, str], float]], name: str) -> dict[float, float]:
    return {float(labels["le"]): value for sample, labels, value in scraped if sample == name}
