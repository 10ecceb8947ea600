"""The decisions alone: time per decision. `python -m benchmarks.micro.machines` prints JSON.

`microseconds` is the median of several repeats, `least` the best of them, both less the loop's own cost. The breaker
has a tail as well: single decisions timed one by one, in microseconds, the clock's own cost (`timer`) included.
"""

import json
import random
import statistics
import sys
import timeit
from collections.abc import Callable
from itertools import cycle
from time import perf_counter_ns

from benchmarks.rig.machine import build_facts
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.config.breaker import Outlier as OutlierPolicy
from sidecar.machines.balance import Endpoint, LeastRequest, RingHash, RoundRobin
from sidecar.machines.breaker import Breaker
from sidecar.machines.outlier import Outliers
from sidecar.machines.retry_budget import RetryBudget
from sidecar.machines.routing import RouteRule, RouteTable

NOW = 1000.0
REPEATS = 9


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Each repeat takes about a twentieth of a second."""
    timer = timeit.Timer("work()", globals={"work": work})
    number = max(100, int(0.05 / max(timer.timeit(100) / 100, 1e-7)))
    empty = min(timeit.Timer("work()", globals={"work": lambda: None}).repeat(REPEATS, number)) / number
    times = [max(0.0, seconds / number - empty) * 1e6 for seconds in timer.repeat(REPEATS, number)]
    return {"microseconds": round(statistics.median(times), 3), "least": round(min(times), 3)}


def tail(work: Callable[[], object], calls: int = 200_000) -> dict[str, float]:
    """Quantiles of single calls."""
    taken = []
    for _ in range(calls):
        began = perf_counter_ns()
        work()
        taken.append(perf_counter_ns() - began)
    taken.sort()
    return {name: taken[int(share * calls)] / 1000 for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}


def breaker(failing: int = 0, **policy: object) -> Breaker:
    """Closed, its window holding 200 calls of which every `failing`-th failed."""
    made = Breaker(BreakerPolicy(**policy), random.Random(1).random)
    for number in range(200):
        made.record(made.admit(NOW), NOW, ok=not failing or number % failing != 0)
    return made


def one_call(made: Breaker, *, ok: bool = True) -> Callable[[], object]:
    """Admit and record, as every request does."""
    return lambda: made.record(made.admit(NOW), NOW, ok=ok)


def picking(strategy: type, count: int) -> Callable[[], object]:
    picker = strategy([Endpoint(f"10.0.0.{number}:80") for number in range(count)], 0.5, random.Random(1).random)
    return lambda: picker.pick((), b"192.0.2.7")


def main() -> int:
    table = RouteTable([RouteRule(path_prefix=b"/service-%d" % number) for number in range(20)])
    paths = cycle([b"/service-%d/orders/%d" % (number % 20, number) for number in range(50_000)])
    healthy, troubled, opened = breaker(), breaker(failing=20), breaker()
    for _ in range(5):
        opened.record(opened.admit(NOW), NOW, ok=False)
    budget = RetryBudget(0.2, 3)
    outliers = Outliers(OutlierPolicy(), NOW)
    standing = outliers.watch("10.0.0.1:80")
    results = {
        "breaker admit+record, healthy": measured(one_call(healthy)),
        "breaker admit+record, 5 % failing": measured(one_call(troubled)),
        "breaker admit+record, disabled": measured(one_call(breaker(mode="disabled"))),
        "breaker admit, open": measured(lambda: opened.admit(NOW)),
        "route of 20, seen before": measured(lambda: table.find(b"GET", b"orders:8080", b"/service-19/x", bytes)),
        "route of 20, new path each time": measured(lambda: table.find(b"GET", b"orders:8080", next(paths), bytes)),
        "pick least_request of 1": measured(picking(LeastRequest, 1)),
        "pick least_request of 5": measured(picking(LeastRequest, 5)),
        "pick round_robin of 5": measured(picking(RoundRobin, 5)),
        "pick ring_hash of 5": measured(picking(RingHash, 5)),
        "retry budget request": measured(lambda: budget.request(NOW)),
        "outlier record": measured(lambda: outliers.record(standing, NOW, began=NOW, ok=True)),
    }
    singles = {
        "timer": tail(lambda: None),
        "breaker admit+record, healthy": tail(one_call(healthy)),
        "breaker admit+record, 5 % failing": tail(one_call(troubled)),
    }
    json.dump({"unit": "us", "machine": build_facts(), "results": results, "tails": singles}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
