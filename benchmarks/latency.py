"""`python -m benchmarks.latency`: what a proxy adds to an answer's way at 1,000 requests a second.

The rate is constant and far below what any peer can do, so this is the cost of being in the way, not of being full.
`direct` is the origin without a proxy; what a proxy adds is its own percentile less direct's of the same round.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.rig import results
from benchmarks.rig.client import drive
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.origin import origins
from benchmarks.rig.peers import Running, peer_named, started
from benchmarks.rig.ports import Ports
from benchmarks.rig.routes import ONE_KIB

CONNECTIONS = 64
PEERS = "nginx,haproxy,envoy,sidecar"


class Latency(msgspec.Struct, frozen=True):
    """Microseconds from when a request was due until its answer was whole: medians over the rounds."""

    peer: str
    p50_us: float
    p99_us: float
    p999_us: float
    added_p50_us: float
    added_p99_us: float
    errors: int


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    rate: float
    rounds: int
    seconds: float
    figures: list[Latency]


def measure(peers: list[str], rate: float, rounds: int, seconds: float) -> Report:
    """Interleaved rounds over direct and every peer."""
    told: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        scratch, origin = stack.enter_context(origins())
        running = [Running("direct", Ports(origin.files, origin.streams, origin.echo, 0), None)]
        running += [stack.enter_context(started(peer_named(name), scratch, origin)) for name in peers]
        for _ in range(rounds):
            for peer in running:
                answer = drive(
                    *("pace", peer.ports.files, ONE_KIB, rate, seconds, CONNECTIONS),
                    ready=lambda: None,
                    seconds=seconds + 20,
                )
                told.setdefault(peer.name, []).append(answer)
                print(f"{peer.name}: p50 {answer['p50_us']:.0f} p99 {answer['p99_us']:.0f} µs", file=sys.stderr)
    return Report(facts(), rate, rounds, seconds, [_figure(name, told[name], told["direct"]) for name in told])


def _figure(name: str, rounds: list[dict[str, float]], direct: list[dict[str, float]]) -> Latency:
    def added(key: str) -> float:
        return median(own[key] - bare[key] for own, bare in zip(rounds, direct, strict=True))

    return Latency(
        peer=name,
        p50_us=median(answer["p50_us"] for answer in rounds),
        p99_us=median(answer["p99_us"] for answer in rounds),
        p999_us=median(answer["p999_us"] for answer in rounds),
        added_p50_us=added("p50_us"),
        added_p99_us=added("p99_us"),
        errors=int(sum(answer["errors"] for answer in rounds)),
    )


def table(report: Report) -> str:
    """The figures as Markdown."""
    lines = ["| peer | p50 µs | p99 µs | p99.9 µs | added p50 | added p99 | errors |", "|---|---|---|---|---|---|---|"]
    for figure in report.figures:
        values = [figure.p50_us, figure.p99_us, figure.p999_us, figure.added_p50_us, figure.added_p99_us]
        cells = [f"{value:.0f}" for value in values]
        lines.append(f"| {' | '.join([figure.peer, *cells, str(figure.errors)])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 seconds")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/latency.json")
    asked = parser.parse_args()
    rounds, seconds = (3, 2.0) if asked.quick else (asked.rounds, asked.seconds)
    report = measure(asked.peers.split(","), asked.rate, rounds, seconds)
    results.write(report, asked.json)
    print(table(report))
    return 1 if any(figure.errors for figure in report.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
