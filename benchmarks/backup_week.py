"""`python -m benchmarks.backup_week`: a week of the agent's schedule in virtual time, with faults, in seconds.

The schedule and the promise are the product's own machines; only what they decide about is made up: runs that take
their time, fail, are killed with their process, a machine that sleeps, a wall clock that is set by an hour, a
repository that is away. What is measured is what users would have lost had the disk died at any moment: the age of the
newest verified point, and for how long it was more than the RPO.

What nobody can keep is told apart: while the repository is away longer than the schedule has room for, and while the
machine sleeps, the RPO is missed, and has to be said and made good by the first run afterwards.
"""

import argparse
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts
from sidecar.machines.backup.point_age import PointAge
from sidecar.machines.backup.schedule import Promise, PromiseKeeper, Schedule

DAY, WEEK = 86_400.0, 604_800.0
STEP = 5.0
"""Seconds between two looks: the service's own."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, a week; times in seconds."""

    fails: float = 0.03
    """Share of runs that fail."""
    slow: float = 0.02
    """Share of runs that take three times as long."""
    kills: int = 20
    """The process is killed and started again a minute later."""
    clocks: int = 14
    """The wall clock is set by an hour."""
    outages: int = 3
    outage: float = 1800.0
    """The repository is away for so long: longer than can be bridged."""
    sleeps: int = 2
    sleep: float = 7200.0


class Week(msgspec.Struct, frozen=True):
    """What came of it."""

    seed: int
    rpo: float
    runs: int
    failed: int
    longest_period: float
    """Seconds between the begins of two good runs that followed one another without a fault."""
    worst_age: float
    """Of the newest verified point, outside of what nobody can keep."""
    missed_seconds: float
    """For how long it was above the RPO, outside of that."""
    missed_in_outages: float
    silent_seconds: float
    """For how long it was above the RPO and the promise did not say so."""
    longest_recovery: float
    """Seconds from the end of an outage or a sleep to the next verified point."""


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    weeks: list[Week]


@dataclass
class _World:
    now: float = 0.0
    wall_error: float = 0.0
    away_until: float = 0.0
    asleep_until: float = 0.0
    excused_until: float = 0.0
    recovered: list[float] = field(default_factory=list)


def week(seed: int, rpo: float = 900.0, typical: float = 40.0, faults: Faults | None = None) -> Week:
    """Live through one; `typical`: seconds that a run takes, verification included."""
    faults = faults or Faults()
    rng = random.Random(seed)
    moments = [
        *((rng.uniform(0, WEEK), "kill") for _ in range(faults.kills)),
        *((rng.uniform(0, WEEK), "clock") for _ in range(faults.clocks)),
        *((rng.uniform(0, WEEK), "outage") for _ in range(faults.outages)),
        *((rng.uniform(0, WEEK), "sleep") for _ in range(faults.sleeps)),
    ]
    moments.sort(reverse=True)
    world = _World()
    took: list[float] = []
    catalog: tuple[str, float] | None = None  # the newest verified point and its date by the wall clock
    true_moment: float | None = None  # whose state it has, in truth
    last_good = last_began = -1.0
    schedule, promise, age = Schedule(rpo, 0.0), PromiseKeeper(rpo, 0.0), PointAge()
    down_until = 0.0
    ends, began, good, worked, floor = 0.0, 0.0, False, 0.0, 0.0
    runs = failed = 0
    longest_period = worst = missed = excused = silent = longest_recovery = 0.0
    waiting: float | None = None  # since the end of an outage or a sleep

    while world.now < WEEK:
        while moments and moments[-1][0] <= world.now:
            _, what = moments.pop()
            if what == "clock":
                world.wall_error += rng.choice((-3600.0, 3600.0))
            elif what == "outage":
                world.away_until = world.now + faults.outage
            elif what == "sleep":
                world.asleep_until = world.now + faults.sleep
            elif what == "kill" and down_until <= world.now:
                down_until = world.now + 60.0
        if world.now < world.asleep_until:  # nothing happens, and time goes on
            world.now = world.asleep_until
            world.excused_until, waiting = world.now + rpo, world.now
            last_good, floor = -1.0, world.now
        if world.now < world.away_until:
            world.excused_until, waiting = world.away_until + rpo, world.away_until
            last_good, floor = -1.0, world.now
        wall = world.now + world.wall_error
        if down_until and world.now >= down_until:  # started again: only the catalog is remembered
            down_until = 0.0
            last = None if last_began < 0 else world.now - last_began
            schedule, promise, age = (
                Schedule(rpo, world.now, took[-100:], last),
                PromiseKeeper(rpo, world.now),
                PointAge(),
            )
            age.seen(catalog[0] if catalog else None, catalog[1] if catalog else 0.0, wall, world.now)
            ends = 0.0
        if not down_until:
            if ends and world.now >= ends:
                took_now = min(world.now - began, worked)
                schedule.ended(world.now, verified=good, took=took_now)
                failed += not good
                if good:
                    took.append(took_now)
                    catalog = (f"p{runs}", wall - (world.now - began))
                    true_moment = began
                    age.made(catalog[0], catalog[1], began)
                    if last_good >= 0:
                        longest_period = max(longest_period, began - last_good)
                    if waiting is not None and began >= waiting:
                        longest_recovery = max(longest_recovery, world.now - waiting)
                        waiting = None
                last_good = began if good and began >= floor else -1.0
                ends = 0.0
            if not ends and schedule.due(world.now):
                began = last_began = world.now
                runs += 1
                schedule.began(world.now)
                seconds = typical * rng.uniform(0.6, 1.4) * (3.0 if rng.random() < faults.slow else 1.0)
                good = rng.random() >= faults.fails and world.now >= world.away_until
                worked = (seconds if good else min(seconds, 5.0)) + STEP
                ends = world.now + worked - STEP
            promise.judge(age.age(world.now), world.now)
        else:
            ends, last_good = 0.0, -1.0
        true_age = world.now - (true_moment if true_moment is not None else 0.0)
        if true_age > rpo:
            if world.now <= world.excused_until:
                excused += STEP
            else:
                missed += STEP
            if not down_until and promise.state is Promise.KEPT:
                silent += STEP
        if world.now > world.excused_until:
            worst = max(worst, true_age)
        world.now += STEP
    return Week(
        seed, rpo, runs, failed, longest_period, worst, missed, excused, silent, longest_recovery
    )  # fmt: skip


def table(report: Report) -> str:
    """For docs/performance.md: of each figure the worst of all weeks."""
    weeks = report.weeks
    rows = {
        "backups, of which failed": f"{sum(w.runs for w in weeks):,}, {sum(w.failed for w in weeks):,}",
        "longest time between two good ones": f"{max(w.longest_period for w in weeks):.0f} s",
        "oldest that the newest verified point was": f"{max(w.worst_age for w in weeks):.0f} s",
        "time in which the RPO was missed": f"{sum(w.missed_seconds for w in weeks):.0f} s",
        "the same, unsaid": f"{sum(w.silent_seconds for w in weeks):.0f} s",
        "longest until kept again after an outage or sleep": f"{max(w.longest_recovery for w in weeks):.0f} s",
    }
    told = f"{len(weeks)} weeks of virtual time, RPO {weeks[0].rpo:g} s."
    return f"{told}\n\n{results.pairs(rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup_week")
    parser.add_argument("--weeks", type=int, default=20)
    parser.add_argument("--rpo", type=float, default=900.0, help="seconds (900)")
    parser.add_argument("--typical", type=float, default=40.0, help="seconds that a run takes (40)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/backup-week.json")
    args = parser.parse_args()
    weeks = [week(seed, args.rpo, args.typical) for seed in range(args.weeks)]
    done = Report(facts(), weeks)
    results.write(done, args.json)
    print(table(done))
    return 0 if all(one.missed_seconds == 0 for one in weeks) else 1


if __name__ == "__main__":
    sys.exit(main())
