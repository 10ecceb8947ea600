"""The steps of a request that decide, alone, to be counted: `python -m benchmarks.micro.deciding` does as it is told.

What every good request spends on being guarded: the permit from the breaker (timed for one request in sixteen, as in
`proxy/attempt.py`), and the record of its end in the breaker and the outlier watch (`proxy/guard.py`). Each line read
from standard input, `decide` or `nothing`, runs that once over `TURNS` requests and is answered by `done`; the second
is the loop around it, to be subtracted. `benchmarks.failures` counts both under callgrind.
"""

import sys
from time import monotonic
from types import SimpleNamespace
from typing import Any

from sidecar.config.upstreams import Endpoint, Upstream
from sidecar.proxy import guard
from sidecar.proxy import upstream as upstreams
from sidecar.proxy.attempt import MEASURED
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer

TURNS = 1600


class _Exchange:
    """The part of an exchange that the guard sees."""

    __slots__ = ("answered_at", "endpoint", "guarded", "permit", "tried_at", "upstream")


def _exchange() -> Any:
    addresses = (Endpoint(address="127.0.0.1:8001"), Endpoint(address="127.0.0.1:8002"))
    made: Any = _Exchange()
    made.upstream = upstreams.Upstream(Upstream(name="app", endpoints=addresses), Registry(), Observer())
    made.guarded = made.upstream.guarded
    made.endpoint = made.upstream.endpoints[0]
    assert made.endpoint.standing is not None, "the outlier watch is at work"
    return made


def decide(exchange: Any) -> None:
    now = monotonic()
    for number in range(TURNS):
        ready = exchange.guarded.breaker.ready
        if ready > 0 and number & MEASURED:
            exchange.permit = ready
            exchange.tried_at = now
            exchange.answered_at = 0.0
        else:
            guard.ask(exchange, now)
        if exchange.permit is not None:
            guard.record(exchange, 200, now)


def nothing(_: Any) -> None:
    for _ in range(TURNS):
        pass


def main() -> None:
    exchange = _exchange()
    steps = SimpleNamespace(decide=decide, nothing=nothing)
    print("ready", flush=True)
    for line in sys.stdin:
        getattr(steps, line.strip())(exchange)
        print("done", flush=True)


if __name__ == "__main__":
    main()
