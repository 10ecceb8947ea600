"""`python -m benchmarks.footprint`: what a proxy takes for being there: memory, and time to be ready.

Memory is resident memory summed over the process tree. Every figure comes from a proxy of its own, freshly started, but
for those that build on each other: idle, then under 256 connections, then 1 GiB through it each way.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.rig import results, routes, wrk
from benchmarks.rig.client import drive
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.origin import GIB, Origin, origins
from benchmarks.rig.peers import Running, peer_named, started
from benchmarks.rig.process import Process

PEERS = "nginx,haproxy,envoy,sidecar"
_SETTLE_SECONDS = 2.0


class Footprint(msgspec.Struct, frozen=True):
    """One peer. `growth_*` is the highest resident memory during 1 GiB less that before it; `held` says for how many
    idle connections `kib_per_idle_connection` was measured.
    """

    peer: str
    ready_seconds: float
    idle_mib: float
    under_256_mib: float
    growth_get_mib: float
    growth_put_mib: float
    held: int
    kib_per_idle_connection: float


class Report(msgspec.Struct, frozen=True):
    """A result file; `check_help_cpu_seconds` is what `sidecar check --help` costs."""

    machine: dict[str, str | int]
    figures: list[Footprint]
    check_help_cpu_seconds: float


def _measure(name: str, scratch: Path, origin: Origin, connections: int) -> Footprint:
    with started(peer_named(name), _fresh(scratch, name, "memory"), origin) as peer:
        process = _process(peer)
        time.sleep(_SETTLE_SECONDS)
        idle = process.rss_kib()
        process.reset_peak()
        script = wrk.write_script(scratch / "footprint.lua", routes.request("GET", routes.ONE_KIB))
        load = wrk.run(peer.ports.files, script, 4, 256)
        if load.errors:
            raise RuntimeError(f"{name} failed {load.errors} requests under 256 connections")
        under = process.peak_kib()
        growth_get = _growth(peer, "get", peer.ports.files, routes.ONE_GIB)
        growth_put = _growth(peer, "put", peer.ports.streams, routes.UPLOAD)
    with started(peer_named(name), _fresh(scratch, name, "idle"), origin) as peer:
        process = _process(peer)
        wrk.run(peer.ports.files, script, 1, 64)  # code and pools are in memory before the connections are counted
        time.sleep(_SETTLE_SECONDS / 2)
        before, after = process.rss_kib(), [0]
        told = drive(
            *("idle", peer.ports.files, routes.ONE_KIB, connections),
            ready=lambda: after.append(process.rss_kib()),
            seconds=120,
        )
    ready = median(_ready_seconds(name, _fresh(scratch, name, f"ready{number}"), origin) for number in range(5))
    return Footprint(
        peer=name.partition("=")[0],
        ready_seconds=ready,
        idle_mib=idle / 1024,
        under_256_mib=under / 1024,
        growth_get_mib=growth_get / 1024,
        growth_put_mib=growth_put / 1024,
        held=told["held"],
        kib_per_idle_connection=(after[-1] - before) / max(1, told["held"]),
    )


def _growth(peer: Running, kind: str, port: int, path: str) -> int:
    process = _process(peer)
    process.reset_peak()
    before = process.rss_kib()
    told = drive("bulk", kind, port, path, GIB, ready=lambda: None, seconds=60)
    if told["errors"]:
        raise RuntimeError(f"{peer.name} failed to {kind} 1 GiB")
    return process.peak_kib() - before


def _ready_seconds(name: str, scratch: Path, origin: Origin) -> float:
    """From the start of the process until its listener accepts a connection."""
    begun = time.perf_counter()
    with started(peer_named(name), scratch, origin):
        return time.perf_counter() - begun


def _fresh(scratch: Path, name: str, purpose: str) -> Path:
    directory = scratch / f"{purpose}-{name.partition('=')[0]}"
    directory.mkdir()
    directory.chmod(0o755)
    return directory


def _process(peer: Running) -> Process:
    assert peer.process is not None
    return peer.process


def _check_help_cpu_seconds() -> float:
    spent = []
    for _ in range(9):
        child = subprocess.Popen(
            [str(Path(sys.executable).with_name("sidecar")), "check", "--help"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError("sidecar check --help failed")
        spent.append(usage.ru_utime + usage.ru_stime)
    return median(spent)


def table(report: Report) -> str:
    """The figures as Markdown."""
    heads = ["peer", "ready s", "idle MiB", "under 256 connections", "growth, GET 1 GiB", "growth, PUT 1 GiB"]
    lines = [f"| {' | '.join(heads)} | KiB per idle connection (of) |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {f.peer} | {f.ready_seconds:.2f} | {f.idle_mib:.1f} | {f.under_256_mib:.1f} | {f.growth_get_mib:.1f} "
        f"| {f.growth_put_mib:.1f} | {f.kib_per_idle_connection:.1f} ({f.held:,}) |"
        for f in report.figures
    ]
    lines += ["", f"`sidecar check --help`: {report.check_help_cpu_seconds * 1000:.0f} ms of CPU."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/footprint.json")
    asked = parser.parse_args()
    with origins() as (scratch, origin):
        figures = []
        for name in asked.peers.split(","):
            figures.append(_measure(name, scratch, origin, asked.connections))
            print(figures[-1], file=sys.stderr)
    report = Report(facts(), figures, _check_help_cpu_seconds())
    results.write(report, asked.json)
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
