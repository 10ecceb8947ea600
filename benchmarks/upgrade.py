"""`python -m benchmarks.upgrade`: is a request lost when a new process takes over, again and again, under load?

Open loop at 2,000 requests a second over 64 kept connections, and `sidecar upgrade` every few seconds. Beside the count
of failed requests stands how long an upgrade took, and the longest that any request waited.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import yaml

from benchmarks.rig import results
from benchmarks.rig.client import drive
from benchmarks.rig.machine import ROOT, cores, facts
from benchmarks.rig.origin import origins
from benchmarks.rig.peers.sidecar import Sidecar
from benchmarks.rig.ports import Ports
from benchmarks.rig.process import Process
from benchmarks.rig.routes import ONE_KIB

CONNECTIONS = 64


class Figure(msgspec.Struct, frozen=True):
    """One run. `refused`: upgrades that did not come about."""

    workers: int
    upgrades: int
    refused: int
    sent: int
    failed: int
    reasons: dict[str, int]
    renewed: int
    upgrade_seconds: float
    """The longest, from the command to its answer: the start of the new process, above all."""
    p50_us: float
    p99_us: float
    max_us: float


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    rate: float
    seconds: float
    figures: list[Figure]


class _Upgrades(threading.Thread):
    """Upgrades every `every` seconds until told to stop."""

    def __init__(self, config: Path, every: float) -> None:
        super().__init__()
        self._command = [sys.executable, "-m", "sidecar", "upgrade", "-c", str(config)]
        self._every = every
        self._enough = threading.Event()
        self.took: list[float] = []
        self.refused: list[str] = []

    def run(self) -> None:
        while not self._enough.wait(self._every):
            began = time.perf_counter()
            done = subprocess.run(self._command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                self.refused.append(done.stderr.strip())
                print(done.stderr, file=sys.stderr)
            else:
                self.took.append(time.perf_counter() - began)

    def stop(self) -> None:
        self._enough.set()
        self.join()


def measure(workers: int, rate: float, seconds: float, every: float) -> Figure:
    """One run with so many worker processes."""
    with origins() as (scratch, origin):
        ports = Ports.free(True)
        argv = Sidecar("sidecar").command(scratch, ports, origin)
        config = scratch / "sidecar.yaml"
        document = {**yaml.safe_load(config.read_text()), "workers": workers}
        config.write_text(yaml.safe_dump(document))
        first = Process("sidecar", argv, cores()[1], scratch / "sidecar.log")
        try:
            first.wait_listening(ports.files)
            upgrades = _Upgrades(config, every)
            told = drive(
                *("renewing", ports.files, ONE_KIB, rate, seconds, CONNECTIONS), ready=upgrades.start, seconds=seconds
            )
            upgrades.stop()
        finally:
            first.stop()
            _stop(config)
    took = max(upgrades.took, default=0.0)
    return Figure(
        workers=workers, upgrades=len(upgrades.took), refused=len(upgrades.refused), upgrade_seconds=took, **told
    )


def table(report: Report) -> str:
    """The figures as Markdown."""
    heads = ["workers", "upgrades", "requests", "failed", "connections renewed", "longest upgrade", "p50 ms", "p99 ms"]
    lines = [f"| {' | '.join(heads)} | longest ms |", f"|{'---|' * (len(heads) + 1)}"]
    lines += [
        f"| {one.workers} | {one.upgrades} | {one.sent:,} | {one.failed} | {one.renewed} | {one.upgrade_seconds:.1f} s "
        f"| {one.p50_us / 1000:.1f} | {one.p99_us / 1000:.1f} | {one.max_us / 1000:.0f} |"
        for one in report.figures
    ]
    return "\n".join(lines)


def _stop(config: Path) -> None:
    """End whoever serves by now."""
    words = [sys.executable, "-m", "sidecar", "status", "--json", "-c", str(config)]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if told:
        os.kill(json.loads(told)["pid"], signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upgrade", description=__doc__)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5, help="seconds between two upgrades")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/upgrade.json")
    asked = parser.parse_args()
    figures = []
    for workers in asked.workers.split(","):
        figures.append(measure(int(workers), asked.rate, asked.seconds, asked.every))
        print(figures[-1])
    report = Report(facts(), asked.rate, asked.seconds, figures)
    results.write(report, asked.json)
    return 1 if any(one.failed or one.refused or not one.upgrades for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
