"""The world outside: what a connection attempt and a call meet at an endpoint, and after how long.

Two worlds. `ScriptedWorld` follows a scenario: latencies are drawn, and blows fall on endpoints when their time comes
(`edges` says when). `LoggedWorld` follows an access log, see there what it can know.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sidecar.base.names import Decision
from sidecar.simulate.network import Endpoint, Network
from sidecar.simulate.scenario import Behaviour, Latency, Scenario, Trouble

if TYPE_CHECKING:
    from sidecar.simulate.call import Call

_Z99 = 2.3263478740408408
"""The normal distribution's 99th percentile, in standard deviations."""


class Outcome(NamedTuple):
    """What comes of a call, unless a time-out comes first."""

    seconds: float
    """Infinity: nothing ever."""
    status: int = 0
    fault: Decision | None = None
    """reset, bad_response or connect_failure instead of an answer."""
    fields: Mapping[bytes, bytes] = {}
    """What the answer's head says, by lower-case names, as far as it matters here."""

    def lines(self, name: bytes) -> list[bytes]:
        """The values of a field of the answer, a line each."""
        return [self.fields[name]] if name in self.fields else []


class World(Protocol):
    """What the event loop asks."""

    def edges(self, network: Network) -> Iterator[tuple[float, Callable[[], None]]]:
        """Moments at which the world changes, and what to do then."""
        ...

    def has_left(self, call: "Call", endpoint: Endpoint) -> bool:
        """Whether the connections that rest at the endpoint turn out to be closed."""
        ...

    def connects(self, call: "Call", endpoint: Endpoint) -> Outcome:
        """A connection attempt: status 200 when it opens."""
        ...

    def answers(self, call: "Call", endpoint: Endpoint) -> Outcome:
        """A request on an open connection."""
        ...

    def body(self, endpoint: Endpoint) -> bytes:
        """The body of a good answer."""
        ...


class Draw:
    """A latency's distribution, ready to be drawn from."""

    __slots__ = ("_median", "_random", "_sigma")

    def __init__(self, latency: Latency, random: Random) -> None:
        self._median = latency.median
        self._sigma = math.log((latency.p99 or latency.median) / latency.median) / _Z99
        self._random = random

    def __call__(self) -> float:
        if self._sigma == 0.0:
            return self._median
        return self._median * math.exp(self._sigma * self._random.gauss(0.0, 1.0))


class Blow:
    """A trouble while it lasts, at one endpoint."""

    __slots__ = ("fields", "how", "latency", "share", "status")

    def __init__(self, trouble: Trouble, latency: Draw | None) -> None:
        self.how = trouble.how
        self.status = trouble.status
        self.share = trouble.share
        self.latency = latency
        self.fields = {name.lower().encode(): value.encode() for name, value in trouble.headers.items()}


class ScriptedWorld:
    """What a scenario says."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._scenario = scenario
        self._random = random
        written = {one.name: one for one in scenario.upstreams}
        self._usual = Behaviour(name="usual")
        self._behaviours = written
        self._latencies = {name: Draw(one.latency, random) for name, one in written.items()}
        self._latency = Draw(self._usual.latency, random)
        self._bodies = {name: bytes(one.answer) for name, one in written.items()}
        self._body = bytes(self._usual.answer)

    def edges(self, network: Network) -> Iterator[tuple[float, Callable[[], None]]]:
        for trouble in self._scenario.faults:
            latency = None if trouble.latency is None else Draw(trouble.latency, self._random)
            blow = Blow(trouble, latency)
            endpoints = [
                endpoint
                for endpoint in network.upstreams[trouble.upstream].endpoints
                if trouble.endpoint in (None, endpoint.address)
            ]
            for begin, end in self._scenario.times_of(trouble):
                yield begin, partial(_fall, blow, endpoints)
                yield end, partial(_end, blow, endpoints)

    def has_left(self, call: "Call", endpoint: Endpoint) -> bool:  # noqa: ARG002
        return False  # they were closed when the blow fell

    def connects(self, call: "Call", endpoint: Endpoint) -> Outcome:  # noqa: ARG002
        behaviour = self._behaviours.get(endpoint.upstream.name, self._usual)
        blow = self._struck(endpoint)
        if blow is not None:
            if blow.how == "refuse":
                return Outcome(behaviour.connect, fault=Decision.CONNECT_FAILURE)
            if blow.how == "unreachable":
                return Outcome(math.inf)
        return Outcome(behaviour.connect, 200)

    def answers(self, call: "Call", endpoint: Endpoint) -> Outcome:  # noqa: ARG002
        usual = self._latencies.get(endpoint.upstream.name, self._latency)
        blow = self._struck(endpoint) if endpoint.blows else None
        if blow is None:
            return Outcome(usual(), 200)
        how, seconds = blow.how, (blow.latency or usual)()
        if how == "error":
            return Outcome(seconds, blow.status, fields=blow.fields)
        if how == "hang" or (how == "unreachable" and blow.share == 1.0):
            return Outcome(math.inf)
        if how == "reset" or (how == "refuse" and blow.share == 1.0):
            return Outcome(seconds, fault=Decision.RESET)
        if how == "garbage":
            return Outcome(seconds, fault=Decision.BAD_RESPONSE)
        return Outcome(seconds, 200)  # slow; or a share of connections fails, and this one stands

    def body(self, endpoint: Endpoint) -> bytes:
        return self._bodies.get(endpoint.upstream.name, self._body)

    def _struck(self, endpoint: Endpoint) -> Blow | None:
        for blow in reversed(endpoint.blows):
            if blow.share == 1.0 or self._random.random() < blow.share:
                return blow
        return None


def _fall(blow: Blow, endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        endpoint.blows.append(blow)
        if blow.how == "refuse" and blow.share == 1.0:
            endpoint.close_idle()


def _end(blow: Blow, endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        endpoint.blows.remove(blow)
