"""`python -m benchmarks.fleet_scale`: Redis operations, bytes and time to convergence of fleets up to 10,000 sidecars.

Measures what a real redis-server pays per word (`price.py`), then simulates each fleet (`world.py`): a minute of
health, an upstream that fails for everybody for 100 s, a Redis that is emptied meanwhile, recovery. Takes
about ten minutes at full size; `--sidecars 10,100` for trials.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import quantiles

from benchmarks.fleet_scale import price
from benchmarks.fleet_scale.report import RESULT, Figures, Report, met, table, write_pages
from benchmarks.fleet_scale.world import ENDS, FAILS, HEALTHY, NAME, Second, World
from benchmarks.rig import results
from benchmarks.rig.machine import facts
from sidecar.machines.breaker_states import BreakerState

SIZES = (10, 100, 1000, 10_000)
UPSTREAMS = 50


def simulate(sidecars: int, upstreams: int, prices: price.Prices) -> Figures:
    """One fleet's figures."""
    began = time.process_time()
    world = World(sidecars, upstreams, prices)
    for second in world.run():
        if second % 20 == 0:
            print(f"  {second:.0f} s of {ENDS:.0f}, {time.process_time() - began:.0f} s CPU", file=sys.stderr)
    calm = [world.seconds[second] for second in range(int(HEALTHY), int(FAILS)) if second in world.seconds]
    span = FAILS - HEALTHY
    outage = [world.seconds[second] for second in world.seconds if second >= FAILS]
    opened = next(one for one in world.changes.values() if one.state == "open")
    closed = next(one for one in reversed(world.changes.values()) if one.state == "closed")
    story = [world.seconds.get(second, Second()) for second in range(int(ENDS))]
    votes = sum(count for kind, count in world.kinds.items() if kind.startswith("vote"))
    asks = sum(count for kind, count in world.kinds.items() if kind.startswith("ask"))
    restores = sum(count for kind, count in world.kinds.items() if kind.startswith("restore"))
    return Figures(
        sidecars=sidecars,
        upstreams=upstreams,
        healthy_ops=sum(one.syncs + one.commands for one in calm) / span,
        healthy_in=sum(one.bytes_in for one in calm) / span,
        healthy_out=sum(one.bytes_out for one in calm) / span,
        healthy_busy=sum(one.busy for one in calm) / span,
        peak_ops=max(one.syncs + one.commands for one in outage),
        peak_out=max(one.bytes_out for one in outage),
        peak_busy=max(one.busy for one in outage),
        votes=votes,
        asks=asks,
        restores=restores,
        failing_calls=world.failing_calls,
        trial_calls=world.trial_calls,
        most_trials=world.most_trials,
        opened=_spread(opened.heard),
        closed=_spread(closed.heard),
        restored=world.restored if world.restored is not None else -1.0,
        agree=sum(1 for one in world.replicas if one.breaker.state is BreakerState.CLOSED and one.fleet.epoch(NAME)),
        per_second=[one.syncs + one.commands for one in story],
        busy_per_second=[round(one.busy, 4) for one in story],
    )


def _spread(heard: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and last of the seconds until each replica knew."""
    if len(heard) < 2:
        return (heard[0],) * 3 if heard else (-1.0,) * 3
    cuts = quantiles(heard, n=100, method="inclusive")
    return cuts[49], cuts[98], max(heard)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_scale", description=__doc__)
    parser.add_argument("--sidecars", default=",".join(map(str, SIZES)), help="sizes of the fleets")
    parser.add_argument("--upstreams", type=int, default=UPSTREAMS)
    parser.add_argument("--json", type=Path, default=RESULT, help="where to write the result")
    asked = parser.parse_args()
    sizes = [int(text) for text in asked.sidecars.split(",")]
    prices = price.measure(asked.upstreams, max(sizes))
    print(
        f"Redis pays {prices.beat:.1f} µs a beat, {prices.command:.1f} µs a command, {prices.tell:.2f} µs a subscriber"
    )
    rows = []
    for size in sizes:
        print(f"{size} sidecars", file=sys.stderr)
        rows.append(simulate(size, asked.upstreams, prices))
    report = Report(facts(), prices, rows)
    results.write(report, asked.json)
    print(table(report))
    if asked.json == RESULT:
        write_pages(report)
    return 0 if met(report) else 1


if __name__ == "__main__":
    sys.exit(main())
