"""Proof that something is well again: another process where one was ended, three good looks over five seconds, and one
real request through the proxy.

A look is what the condition's own question finds when it is asked. A bad one begins the row anew; when the time is
over, there is no proof. The real request takes a route that leads to the upstream, as a client would, and counts when
the service answers: an answer that the proxy made itself (`X-Sidecar-Decision`) or a 5xx does not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from sidecar.config.address import Address
from sidecar.config.document import Config
from sidecar.config.listeners import Listener, Route
from sidecar.control.probes.http import HttpProbe
from sidecar.control.probes.probe import Probe, Result, ask
from sidecar.control.recovery.ports import Surroundings

LOOKS = 3
OVER_SECONDS = 5.0
AGAIN_SECONDS = 0.25
"""Between two looks while the last was bad."""
REQUEST_SECONDS = 5.0
_ANSWERS = frozenset(range(100, 500))

Look = Callable[[], Awaitable[Result]]


async def prove(
    look: Look,
    request: Probe | None,
    *,
    renewed: Callable[[], bool],
    first_good: Callable[[], Awaitable[None]],
    still_sick: Callable[[], Awaitable[str]],
    within: float,
) -> str:
    """Wait for the proof; empty when it is there, else what was missing. `first_good` is called once, `still_sick`
    at the end: why those who watch do not agree yet.
    """
    deadline = monotonic() + within
    missing = "no look was good"
    good = 0
    welcomed = False
    while monotonic() < deadline:
        if not renewed():
            missing = "the service is still the process that it was"
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        result = await look()
        if not result.ok:
            good, missing = 0, result.detail
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        if not welcomed:
            welcomed = True
            await first_good()
        good += 1
        if good < LOOKS:
            missing = f"only {good} of {LOOKS} looks were good in time"
            await asyncio.sleep(OVER_SECONDS / (LOOKS - 1))
            continue
        answer = None if request is None else await ask(request, REQUEST_SECONDS)
        if answer is not None and not answer.ok:
            good, missing = 0, f"a request through the proxy {answer.detail}"
        elif not (missing := await still_sick()):
            return ""
        await asyncio.sleep(AGAIN_SECONDS)
    return missing


def request_through(upstream: str, around: Surroundings) -> Probe | None:
    """A real request that leads to `upstream`; None: no HTTP route does that can be asked by GET."""
    config = around.config()
    for listener in config.listeners:
        if listener.protocol != "http" or getattr(listener, "tls", None) is not None:
            continue  # TCP has no request; our own certificate is for others to judge
        address = around.address(listener.name)
        for route in listener.routes:
            if route.upstream == upstream and (not route.match.methods or "GET" in route.match.methods) and address:
                return _request(address, listener, route, config)
    return None


def _request(address: Address, listener: Listener, route: Route, config: Config) -> Probe:  # noqa: ARG001
    match = route.match
    checks = (one.health_check.http.path for one in config.upstreams
              if one.name == route.upstream and one.health_check and one.health_check.http)  # fmt: skip
    path = match.path or _path(match.path_prefix or "/", next(checks, "/"))
    host = (match.host or "localhost").replace("*.", "recovery.")
    return HttpProbe(
        address, authority=host, path=path, expect=_ANSWERS, headers=match.headers, without=b"x-sidecar-decision"
    )


def _path(prefix: str, wanted: str) -> str:
    """`wanted` when the route takes it, else the prefix itself."""
    whole = prefix.rstrip("/")
    return wanted if not whole or wanted == whole or wanted.startswith(f"{whole}/") else prefix
