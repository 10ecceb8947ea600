"""`python -m benchmarks.load`: every work on every peer, round by round, in one run.

All peers run at once, each idle but for its turns, all on the same core. A round gives every peer one turn at the same
work, so that two peers that are compared ran within seconds of each other.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load.report import Report
from benchmarks.load.table import summary, tables
from benchmarks.load.tally import Figure, tally
from benchmarks.load.works import WORKS, Work
from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.origin import origins
from benchmarks.rig.peers import Running, peer_named, started
from benchmarks.rig.sample import Sample

PEERS = "nginx,haproxy,haproxy-full,envoy,sidecar,relay"


def _measure(works: list[Work], peers: list[str], rounds: int, seconds: float) -> Report:
    figures: dict[str, list[Figure]] = {}
    samples: dict[str, dict[str, list[Sample]]] = {}
    with ExitStack() as stack:
        scratch, origin = stack.enter_context(origins())
        running = [stack.enter_context(started(peer_named(name), scratch, origin)) for name in peers]
        for work in works:
            samples[work.name] = _rounds(work, running, scratch, rounds, seconds)
            figures[work.name] = tally(samples[work.name], work.unit)
    return Report(facts(), rounds, seconds, figures, samples)


def _rounds(work: Work, running: list[Running], scratch: Path, rounds: int, seconds: float) -> dict[str, list[Sample]]:
    taken: dict[str, list[Sample]] = {peer.name: [] for peer in running}
    for number in range(rounds):
        for peer in running:
            if work.secure and not peer.ports.tls:
                continue
            try:
                sample = work.measure(peer, scratch, seconds)
            except (RuntimeError, OSError) as failed:
                print(f"{work.name}: {peer.name} failed: {failed}", file=sys.stderr)
                sample = Sample.of(0, seconds, 0, 0, 0, 1)
            taken[peer.name].append(sample)
            print(
                f"{work.name} {number + 1}/{rounds} {peer.name}: {sample.cpu_us:.1f} µs, errors {sample.errors}",
                file=sys.stderr,
            )
    return taken


def main() -> int:
    names = ",".join(work.name for work in WORKS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--works", default=names, help=f"comma-separated, of {names}")
    parser.add_argument("--peers", default=PEERS, help=f"default {PEERS}; also sidecar-h11, or NAME=PATH of a sidecar")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="of each turn, after its warm-up")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 seconds")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/load.json", help="where results go")
    asked = parser.parse_args()
    chosen = asked.works.split(",")
    unknown = set(chosen) - {work.name for work in WORKS}
    if unknown:
        parser.error(f"unknown work {', '.join(sorted(unknown))}; known: {names}")
    rounds, seconds = (3, 2.0) if asked.quick else (asked.rounds, asked.seconds)
    works = [work for work in WORKS if work.name in chosen]
    report = _measure(works, asked.peers.split(","), rounds, seconds)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    results.write(report, asked.json)
    print(tables(report.figures))
    print(summary(report.figures))
    valid = all(figure.valid for of_work in report.figures.values() for figure in of_work)
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
