"""A scenario: phases of traffic, how upstreams behave when they are well, and what befalls them when.

A file of its own, read by the configuration's machinery: the same words for durations, sizes and names, every fault
at its place. All times count from the scenario's begin, or from the begin of a named phase.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from sidecar.base.units import show_duration
from sidecar.config.document import Config
from sidecar.config.faults import InvalidConfig, Path
from sidecar.config.kinds import (
    Address,
    Authority,
    Count,
    Doc,
    Duration,
    FieldValue,
    Method,
    Name,
    Positive,
    PositiveDuration,
    Ratio,
    Section,
    Size,
    Text,
    Token,
    UrlPath,
    whole,
    words,
)
from sidecar.config.listeners import Listener
from sidecar.config.load import examine_as, read
from sidecar.config.problem import Problem, duplicates

MOST_REQUESTS = 10_000_000
"""A scenario of more is a slip of the keyboard; it would run for many minutes."""


class Latency(Section, frozen=True, kw_only=True):
    """How long answers take: lognormal through these two points, as services' latencies are."""

    median: Annotated[PositiveDuration, Doc("Half of the answers are faster.")]
    p99: Annotated[PositiveDuration | None, Doc("One in a hundred is slower. null: all take the median.")] = None


class Behaviour(Section, frozen=True, kw_only=True):
    """How an upstream behaves while nothing befalls it."""

    name: Annotated[Name, Doc("The upstream's name in the configuration.")]
    endpoints: Annotated[
        tuple[Address, ...], Doc("Its endpoints, in place of the configuration's: for what discovery would find.")
    ] = ()
    latency: Annotated[Latency, Doc("Until the answer is there.")] = Latency(median=0.01, p99=0.05)
    connect: Annotated[PositiveDuration, Doc("Until a connection is open.")] = 0.001
    answer: Annotated[Size, Doc("An answer's body; it matters to the memory of fallback caches only.")] = 1024


class Traffic(Section, frozen=True, kw_only=True):
    """One stream of like requests."""

    rate: Annotated[Annotated[int, whole(1, 100_000)], Doc("Requests per second.")]
    arrivals: Annotated[
        Annotated[str, words("poisson", "even")], Doc("poisson: as independent callers come; even: evenly spaced.")
    ] = "poisson"
    listener: Annotated[Name | None, Doc("Where they come in. null: the only http listener, or the route's.")] = None
    route: Annotated[Name | None, Doc("Their route. null: the routing table decides by what follows.")] = None
    method: Annotated[Method | None, Doc("null: GET, or the first that the named route takes.")] = None
    host: Annotated[Authority | None, Doc("null: the one that the named route takes, or simulated.test.")] = None
    path: Annotated[UrlPath | None, Doc("null: the one that the named route takes, or /.")] = None
    headers: Annotated[Mapping[Token, FieldValue], Doc("What routes or ring_hash look at.")] = msgspec.field(
        default_factory=dict
    )
    targets: Annotated[Positive, Doc("So many different targets: the path with different queries.")] = 1
    clients: Annotated[Positive, Doc("So many different client addresses.")] = 16


class Phase(Section, frozen=True, kw_only=True):
    """A stretch of time with its traffic; each begins where the one before ends."""

    name: Annotated[Name, Doc("Names it in the results; unique.")]
    lasts: Annotated[PositiveDuration, Doc("How long.")]
    traffic: Annotated[tuple[Traffic, ...], Doc("The streams of requests, all at once. Absent: silence.")] = ()


class Trouble(Section, frozen=True, kw_only=True):
    """Something that befalls an upstream, or one of its endpoints, for a while."""

    upstream: Annotated[Name, Doc("Whom.")]
    endpoint: Annotated[Address | None, Doc("Only this one of its endpoints. null: all.")] = None
    phase: Annotated[Name | None, Doc("at counts from this phase's begin. null: from the scenario's.")] = None
    at: Annotated[Duration, Doc("When it begins.")] = 0.0
    lasts: Annotated[PositiveDuration, Doc("How long it lasts.")]
    every: Annotated[PositiveDuration | None, Doc("It comes again so long after each begin. null: once.")] = None
    how: Annotated[
        Annotated[str, words("refuse", "unreachable", "hang", "reset", "garbage", "error", "slow")],
        Doc(
            "refuse: nobody listens, and resting connections are closed; unreachable: packets are lost; hang: requests "
            "are taken and never answered; reset: connections break; garbage: what comes is no HTTP; error: answers "
            "with status; slow: answers take latency."
        ),
    ]
    status: Annotated[Annotated[int, whole(200, 599)], Doc("What error answers.")] = 503
    headers: Annotated[
        Mapping[Token, FieldValue], Doc("Fields that error answers with: for breaker.failure_headers.")
    ] = msgspec.field(default_factory=dict)
    latency: Annotated[Latency | None, Doc("How long the struck answers take. null: as always.")] = None
    share: Annotated[Ratio, Doc("So large a share of the calls is struck.")] = 1.0


class Scenario(Section, frozen=True, kw_only=True):
    """The scenario file."""

    version: Annotated[Annotated[int, whole(1, 1)], Doc("The version of this format.")] = 1
    about: Annotated[Text, Doc("One line for the reader; the results' title.")] = ""
    seed: Annotated[Count, Doc("The seed of all chance; --seed overrides it.")] = 1
    upstreams: Annotated[tuple[Behaviour, ...], Doc("How upstreams behave when they are well. Absent: as usual.")] = ()
    phases: Annotated[tuple[Phase, ...], Doc("The traffic, phase after phase.")]
    faults: Annotated[tuple[Trouble, ...], Doc("What befalls the upstreams. A later one outdoes an earlier.")] = ()

    @property
    def seconds(self) -> float:
        """How long it all lasts."""
        return sum(phase.lasts for phase in self.phases)

    def begin_of(self, phase: str | None) -> float:
        """Seconds from the scenario's begin to that of `phase`."""
        begin = 0.0
        for one in self.phases:
            if phase is None or one.name == phase:
                break
            begin += one.lasts
        return begin

    def times_of(self, trouble: Trouble) -> Iterator[tuple[float, float]]:
        """Begin and end of each time that it comes."""
        begin = self.begin_of(trouble.phase) + trouble.at
        while begin < self.seconds:
            yield begin, begin + trouble.lasts
            if trouble.every is None:
                break
            begin += trouble.every


def load_scenario(file: str, configs: Iterable[Config]) -> Scenario:
    """Read the scenario in `file`; it must fit all of `configs`. Raises `InvalidConfig` with every fault."""
    configs = list(configs)

    def rules(scenario: Scenario) -> Iterator[Problem]:
        yield from _phases(scenario)
        known: set[Problem] = set()
        for config in configs:
            found = set(_against(scenario, config))
            yield from sorted(found - known, key=str)
            known |= found

    scenario, faults, _ = examine_as(Scenario, rules, read(file, absent=""), file, os.environ)
    if scenario is None:
        raise InvalidConfig(faults)
    assert isinstance(scenario, Scenario)
    return scenario


def _phases(scenario: Scenario) -> Iterator[Problem]:
    if not scenario.phases:
        yield Problem(("phases",), "a scenario has a phase at least")
    yield from duplicates((phase.name for phase in scenario.phases), ("phases",))
    yield from duplicates((one.name for one in scenario.upstreams), ("upstreams",))
    requests = sum(stream.rate * phase.lasts for phase in scenario.phases for stream in phase.traffic)
    if requests > MOST_REQUESTS:
        yield Problem(("phases",), f"{requests:,.0f} requests are more than the {MOST_REQUESTS:,} that may be")
    for i, one in enumerate(scenario.upstreams):
        yield from _latency(one.latency, ("upstreams", i, "latency"))
    names = [phase.name for phase in scenario.phases]
    for i, trouble in enumerate(scenario.faults):
        here = ("faults", i)
        yield from _unknown(trouble.phase or "", names, "phase", (*here, "phase"))
        if trouble.latency:
            yield from _latency(trouble.latency, (*here, "latency"))
        elif trouble.how == "slow":
            yield Problem((*here, "how"), "slow needs latency: say how slow")
        if trouble.every is not None and trouble.every <= trouble.lasts:
            yield Problem((*here, "every"), "every is not longer than lasts: it would never end")
        begin = scenario.begin_of(trouble.phase) + trouble.at
        known = all(phase.lasts > 0 for phase in scenario.phases) and trouble.phase in (None, *names)
        if known and begin >= scenario.seconds:
            yield Problem((*here, "at"), f"begins when all is over: the phases last {show_duration(scenario.seconds)}")


def _latency(latency: Latency, path: Path) -> Iterator[Problem]:
    if latency.p99 is not None and latency.p99 < latency.median:
        yield Problem((*path, "p99"), "p99 is shorter than median")


def _against(scenario: Scenario, config: Config) -> Iterator[Problem]:
    """What the scenario names must be in the configuration."""
    upstreams = {upstream.name: [one.address for one in upstream.endpoints] for upstream in config.upstreams}
    for i, one in enumerate(scenario.upstreams):
        yield from _unknown(one.name, upstreams, "upstream", ("upstreams", i, "name"))
        if one.endpoints:
            upstreams[one.name] = list(one.endpoints)
    for i, trouble in enumerate(scenario.faults):
        yield from _unknown(trouble.upstream, upstreams, "upstream", ("faults", i, "upstream"))
        if trouble.endpoint is not None and trouble.upstream in upstreams:
            known = upstreams[trouble.upstream]
            yield from _unknown(trouble.endpoint, known, f"endpoint of {trouble.upstream}", ("faults", i, "endpoint"))
    listeners = [one for one in config.listeners if one.protocol == "http"]
    for i, phase in enumerate(scenario.phases):
        for j, stream in enumerate(phase.traffic):
            yield from _stream(stream, listeners, ("phases", i, "traffic", j))


def _stream(stream: Traffic, listeners: list[Listener], path: Path) -> Iterator[Problem]:
    names = [listener.name for listener in listeners]
    if stream.listener is not None and stream.listener not in names:
        yield from _unknown(stream.listener, names, "http listener", (*path, "listener"))
        return
    among = [one for one in listeners if stream.listener in (None, one.name)]
    if stream.route is not None:
        homes = [one.name for one in among for route in one.routes if route.name == stream.route]
        routes = [route.name for one in among for route in one.routes]
        yield from _unknown(stream.route, routes, "route", (*path, "route"))
        if len(homes) > 1:
            yield Problem((*path, "route"), f"{' and '.join(homes)} both have a route {stream.route}: say listener")
    elif len(among) != 1:
        yield Problem(path, f"say listener or route: there is {', '.join(names) or 'no http listener'}")


def _unknown(name: str, known: Iterable[Any], what: str, path: Path) -> Iterator[Problem]:
    known = list(known)
    if name and name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        told = f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known)}" if known else ""
        yield Problem(path, f"there is no {what} {name!r}{told}")
