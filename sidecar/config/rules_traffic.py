"""Listeners, routes and upstreams: names that must exist, values that contradict each other.

Where two keys contradict each other the message names both.
"""

from collections.abc import Iterator

from sidecar.base.units import show_duration
from sidecar.config.breaker import Breaker, Outlier
from sidecar.config.document import Config
from sidecar.config.faults import Path, show_path
from sidecar.config.listeners import Listener, Match, RespondFallback, Route
from sidecar.config.problem import Problem, duplicates, probe_headers, unknown
from sidecar.config.upstreams import HealthCheck, Upstream

_FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


def problems(config: Config) -> Iterator[Problem]:
    """Yield what contradicts itself on the way of a request."""
    if not config.listeners and not config.backup:
        yield Problem((), "nothing to do: there are neither listeners nor a backup")
    yield from duplicates((listener.name for listener in config.listeners), ("listeners",))
    yield from duplicates((upstream.name for upstream in config.upstreams), ("upstreams",))
    for i, listener in enumerate(config.listeners):
        yield from _listener(listener, ("listeners", i), config)
    yield from _own_breakers(config)
    for i, upstream in enumerate(config.upstreams):
        yield from _upstream(upstream, ("upstreams", i), config)


def _own_breakers(config: Config) -> Iterator[Problem]:
    """A route's own breaker is called UPSTREAM/ROUTE everywhere, so no other listener may have the same two names."""
    first: dict[tuple[str, str], Path] = {}
    for i, listener in enumerate(config.listeners):
        for j, route in enumerate(listener.routes):
            here = ("listeners", i, "routes", j, "breaker")
            if route.breaker == "own" and first.setdefault((route.upstream, route.name), here)[1] != i:
                taken = show_path(first[route.upstream, route.name])
                name = f"{route.upstream}/{route.name}"
                yield Problem(here, f"{name} is already the breaker of {taken}: give one of the routes another name")


def _listener(listener: Listener, path: Path, config: Config) -> Iterator[Problem]:
    yield from duplicates((route.name for route in listener.routes), (*path, "routes"))
    if not listener.routes:
        yield Problem((*path, "routes"), "a listener needs a route")
    if listener.max_target > listener.max_head:
        yield Problem((*path, "max_target"), "max_target is larger than max_head, which holds the target too")
    for i, route in enumerate(listener.routes):
        yield from _route(route, (*path, "routes", i), config)
        if listener.protocol == "tcp":
            yield from _tcp_route(route, (*path, "routes", i))
    if listener.protocol == "tcp":
        if len(listener.routes) > 1:
            yield Problem(
                (*path, "routes", 1), "a tcp listener has exactly one route: bytes carry nothing to choose by"
            )
        return
    for i, later in enumerate(listener.routes):
        for j, earlier in enumerate(listener.routes[:i]):
            if _covers(earlier.match, later.match):
                taker = show_path((*path, "routes", j))
                yield Problem((*path, "routes", i), f"is never reached: {taker} takes its requests first", warning=True)
                break


def _tcp_route(route: Route, path: Path) -> Iterator[Problem]:
    if route.match != Match():
        yield Problem((*path, "match"), "a tcp listener reads no requests: leave match out")
    if route.host_rewrite:
        yield Problem((*path, "host_rewrite"), "a tcp listener reads no requests: leave host_rewrite out")
    for i, fallback in enumerate(route.fallback):
        if not fallback.upstream:
            yield Problem((*path, "fallback", i), "a tcp listener makes no answers: only upstream can be its fallback")


def _covers(earlier: Match, later: Match) -> bool:
    """Whether every request that `later` takes is taken by `earlier` as well."""
    methods = not earlier.methods or (bool(later.methods) and set(later.methods) <= set(earlier.methods))
    wanted = {name.lower(): value for name, value in later.headers.items()}
    headers = all(wanted.get(name.lower()) == value for name, value in earlier.headers.items())
    return methods and headers and _covers_host(earlier.host, later.host) and _covers_path(earlier, later)


def _covers_host(earlier: str | None, later: str | None) -> bool:
    if earlier is None or earlier == later:
        return True
    return later is not None and earlier.startswith("*.") and later.endswith(earlier[1:])


def _covers_path(earlier: Match, later: Match) -> bool:
    if earlier.path is not None:
        return later.path == earlier.path
    if earlier.path_prefix is None:
        return True
    inner = later.path if later.path is not None else later.path_prefix
    prefix = earlier.path_prefix.rstrip("/")
    return inner is not None and (inner == earlier.path_prefix or inner.startswith(prefix + "/"))


def _route(route: Route, path: Path, config: Config) -> Iterator[Problem]:
    names = [upstream.name for upstream in config.upstreams]
    yield from unknown(route.upstream, names, "upstream", (*path, "upstream"))
    if route.match.path is not None and route.match.path_prefix is not None:
        yield Problem((*path, "match", "path_prefix"), "path and path_prefix exclude each other: path is exact already")
    retry = route.retry
    if retry:
        if retry.per_try_timeout is not None and retry.per_try_timeout > route.timeout:
            yield Problem(
                (*path, "retry", "per_try_timeout"),
                f"per_try_timeout {show_duration(retry.per_try_timeout)} is longer than the route's timeout "
                f"{show_duration(route.timeout)}, which ends all tries",
            )
        if retry.backoff > retry.backoff_max:
            yield Problem((*path, "retry", "backoff"), "backoff is longer than backoff_max")
    asked = {route.upstream}
    for i, fallback in enumerate(route.fallback):
        here = (*path, "fallback", i)
        if fallback.upstream:
            yield from unknown(fallback.upstream, names, "upstream", (*here, "upstream"))
            if fallback.upstream in asked:
                yield Problem((*here, "upstream"), f"loops: {fallback.upstream} has been asked before this fallback")
            asked.add(fallback.upstream)
        if fallback.respond:
            yield from _respond(fallback.respond, (*here, "respond"))
            if i + 1 < len(route.fallback):
                yield Problem((*path, "fallback", i + 1), "is never reached: respond before it always answers")


def _respond(respond: RespondFallback, path: Path) -> Iterator[Problem]:
    if respond.body and respond.status in {204, 205, 304}:
        yield Problem((*path, "body"), f"an answer with status {respond.status} has no body (RFC 9110 §15)")
    for name in respond.headers:
        if name.lower() in _FRAMING:
            yield Problem((*path, "headers", name), "the proxy frames its answers itself: leave it out")


def _health_check(upstream: Upstream, check: HealthCheck, path: Path) -> Iterator[Problem]:
    if check.timeout > check.interval and check.timeout != HealthCheck().timeout:
        yield Problem((*path, "timeout"), "timeout is longer than interval: checks would overlap")
    if check.http:
        yield from probe_headers(check.http.headers, (*path, "http", "headers"), "a health check has no secrets")
    unix = next((one.address for one in upstream.endpoints if one.address.startswith("unix:")), None)
    for kind in check.one_of:
        probe = getattr(check, kind)
        if probe is not None and probe.port is not None and unix:
            yield Problem((*path, kind, "port"), f"{unix} is a Unix socket and has no port")


def _upstream(upstream: Upstream, path: Path, config: Config) -> Iterator[Problem]:
    if not upstream.endpoints and not upstream.discovery:
        yield Problem(path, "has neither endpoints nor discovery: there is nothing to call")
    yield from duplicates((endpoint.address for endpoint in upstream.endpoints), (*path, "endpoints"), "address")
    if upstream.hash_key and upstream.balance != "ring_hash":
        yield Problem((*path, "hash_key"), f"hash_key counts only with balance: ring_hash, not {upstream.balance}")
    if upstream.discovery and (upstream.discovery.dns or "").startswith("unix:"):
        yield Problem((*path, "discovery", "dns"), "is host:port; a Unix socket is an endpoint")
    if upstream.health_check:
        yield from _health_check(upstream, upstream.health_check, (*path, "health_check"))
    yield from _breaker(upstream.breaker, (*path, "breaker"), config)
    yield from _outlier(upstream.outlier, (*path, "outlier"))
    yield from _patience(upstream, path, config)


def _outlier(outlier: Outlier, path: Path) -> Iterator[Problem]:
    if outlier.base_ejection > outlier.max_ejection:
        yield Problem((*path, "base_ejection"), "base_ejection is longer than max_ejection")
    rules = (
        outlier.consecutive_failures,
        outlier.consecutive_gateway_failures,
        outlier.failure_rate,
        outlier.slow_rate,
    )
    if not any(rules) and outlier.mode != "disabled":
        yield Problem(
            path,
            "consecutive_failures, consecutive_gateway_failures, failure_rate and slow_rate are all 0: nothing would "
            "eject; say mode: disabled",
        )
    in_a_row, gateway = outlier.consecutive_failures, outlier.consecutive_gateway_failures
    if gateway is not None and 0 < in_a_row < gateway:
        yield Problem(
            (*path, "consecutive_gateway_failures"),
            f"consecutive_gateway_failures {gateway} is more than consecutive_failures {in_a_row}, which counts them "
            "too: it is never reached",
            warning=True,
        )
    if outlier.max_ejected <= 0.0 and outlier.mode == "enforce":
        yield Problem(
            (*path, "max_ejected"), "max_ejected 0 contradicts mode enforce: nobody is ever ejected", warning=True
        )
    if outlier.slow_after != Outlier().slow_after and not outlier.slow_rate:
        yield Problem(
            (*path, "slow_after"), "slow_after counts only with slow_rate, which is 0 and off by default", warning=True
        )


def _breaker(breaker: Breaker, path: Path, config: Config) -> Iterator[Problem]:
    if breaker.mode == "disabled":
        return
    if breaker.open_max < breaker.open_for:
        yield Problem(
            (*path, "open_max"),
            f"open_max {show_duration(breaker.open_max)} is shorter than open_for {show_duration(breaker.open_for)}",
        )
    if not (breaker.consecutive_failures or breaker.failure_rate or breaker.slow_rate):
        yield Problem(
            path,
            "consecutive_failures, failure_rate and slow_rate are all 0: nothing would open it; say mode: disabled",
        )
    for i, rule in enumerate(breaker.failure_headers):
        if rule.values and rule.unless:
            yield Problem((*path, "failure_headers", i, "unless"), "values and unless exclude each other: give one")
    if breaker.slow_after != Breaker().slow_after and not breaker.slow_rate:
        yield Problem((*path, "slow_after"), "slow_after counts only with slow_rate, which is 0", warning=True)
    if breaker.quorum is not None and not config.shared_state:
        yield Problem((*path, "quorum"), "quorum counts only with shared_state", warning=True)
    elif breaker.quorum is not None and not breaker.shared:
        yield Problem((*path, "quorum"), "quorum counts only with breaker.shared: true", warning=True)


def _patience(upstream: Upstream, path: Path, config: Config) -> Iterator[Problem]:
    """Time-outs of the routes to this upstream against the breaker's own."""
    timeouts = [
        route.timeout for listener in config.listeners for route in listener.routes if route.upstream == upstream.name
    ]
    if not timeouts or upstream.breaker.mode == "disabled":
        return
    breaker, longest = upstream.breaker, max(timeouts)
    if longest > breaker.half_open_timeout:
        yield Problem(
            (*path, "breaker", "half_open_timeout"),
            f"half_open_timeout {show_duration(breaker.half_open_timeout)} is shorter than a route's timeout "
            f"{show_duration(longest)}: a slow but good trial call counts as failed",
            warning=True,
        )
    if breaker.slow_after > longest and breaker.slow_after != Breaker().slow_after:
        yield Problem(
            (*path, "breaker", "slow_after"),
            f"slow_after {show_duration(breaker.slow_after)} is longer than every route's timeout "
            f"{show_duration(longest)}: no call can be slow before it has failed",
            warning=True,
        )
