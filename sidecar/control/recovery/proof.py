"""Proof that something is well again: another process where one was ended, three good looks over five seconds, and one
real request through the proxy.

A look is what the condition's own question finds when it is asked. A bad one begins the row anew; when the time is
over, there is no proof. The real request takes a route that leads to the upstream, as a client would, and counts when
the service answers: an answer that the proxy made itself (`X-Sidecar-Decision`) or a 5xx does not.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

from sidecar.config.address import Address
from sidecar.config.document import Config
from sidecar.config.listeners import Listener, Route
from sidecar.control.probes.http import HttpProbe
from sidecar.control.probes.probe import Probe, Result, ask
from sidecar.control.recovery.ports import Surroundings
from sidecar.machines.routing import RouteRule, RouteTable

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
    """A real request that leads to `upstream`; None: no HTTP route does that can be asked by GET and without a
    client's certificate.
    """
    config = around.config()
    for listener in config.listeners:
        address = around.address(listener.name)
        if listener.protocol != "http" or address is None or _wants_certificate(listener):
            continue
        table = RouteTable([RouteRule.of(route.match) for route in listener.routes])
        for index, route in enumerate(listener.routes):
            if route.upstream == upstream:
                for path in _paths(route, config):
                    if table.find(b"GET", _host(route).encode(), _target(path), _fields(route).get) == index:
                        return _request(address, listener, route, path)
    return None


def _wants_certificate(listener: Listener) -> bool:
    tls = listener.tls
    return tls is not None and tls.client_ca_file is not None and (
        tls.client_certificate == "required" or bool(tls.allowed_clients)
    )  # fmt: skip


def _request(address: Address, listener: Listener, route: Route, path: str) -> Probe:
    tls = None if listener.tls is None else _unverified
    headers, host = route.match.headers, _host(route)
    without = b"x-sidecar-decision"
    return HttpProbe(address, authority=host, path=path, expect=_ANSWERS, headers=headers, tls=tls, without=without)


def _unverified() -> ssl.SSLContext:
    """Our own listener's certificate is for its clients to judge."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _paths(route: Route, config: Config) -> Iterator[str]:
    """What may be asked for, the health check's own path first; whether the route takes it is another question."""
    yield from (one.health_check.http.path for one in config.upstreams
                if one.name == route.upstream and one.health_check and one.health_check.http)  # fmt: skip
    yield route.match.path or route.match.path_prefix or "/"


def _host(route: Route) -> str:
    return (route.match.host or "localhost").replace("*.", "recovery.")


def _target(path: str) -> bytes:
    return path.partition("?")[0].encode()


def _fields(route: Route) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in route.match.headers.items()}
