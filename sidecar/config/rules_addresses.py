"""Who listens where, and which upstream would make the proxy call itself.

Two things cannot listen on one address. An upstream must not be our own admin or probes address, or the admin page
would be reachable through the proxy; and the way listener → upstream → listener must never come round, or one request
would run in circles until something breaks. Only what the file itself says is judged: names are not resolved.
"""

from collections.abc import Iterator
from ipaddress import ip_address

from sidecar.config.address import Address, parse_address
from sidecar.config.document import Config
from sidecar.config.faults import Path, show_path
from sidecar.config.problem import Problem
from sidecar.config.upstreams import Upstream


def problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with the addresses of `config`."""
    yield from _taken_twice(config)
    own = list(_own_doors(config))
    for i, upstream in enumerate(config.upstreams):
        for path, address in _called(upstream, ("upstreams", i)):
            for door, at in own:
                if reaches(address, at):
                    yield Problem(
                        path, f"{address} is our own {show_path(door)}: it must not be reached through the proxy"
                    )
    yield from _loops(config)


def reaches(called: Address, listening: Address) -> bool:
    """Whether a call to `called` arrives where `listening` listens on this machine."""
    if called.is_unix or listening.is_unix:
        return called == listening
    if called.port != listening.port or listening.port == 0:
        return False
    if _same_host(called.host, listening.host):
        return True
    if called.is_any:  # connecting to "any" means this machine
        return listening.is_any or listening.is_loopback
    return listening.is_any and called.is_loopback


def _own_doors(config: Config) -> Iterator[tuple[Path, Address]]:
    doors: list[tuple[Path, str]] = [
        (("admin", "bind"), config.admin.bind),
        (("admin", "socket"), f"unix:{config.admin.socket}"),
    ]
    if config.admin.probes:
        doors.append((("admin", "probes", "bind"), config.admin.probes.bind))
    if config.backup:
        doors.append((("backup", "admin", "bind"), config.backup.admin.bind))
        doors.append((("backup", "admin", "socket"), f"unix:{config.backup.admin.socket}"))
    for path, text in doors:
        address = _parse(text)
        if address:
            yield path, address


def _taken_twice(config: Config) -> Iterator[Problem]:
    taken = list(_own_doors(config))
    for i, listener in enumerate(config.listeners):
        address = _parse(listener.bind)
        if address:
            taken.append((("listeners", i, "bind"), address))
    for i, (path, address) in enumerate(taken):
        for other_path, other in taken[:i]:
            if _collide(address, other):
                yield Problem(path, f"{address} is taken by {show_path(other_path)} ({other})")
                break


def _collide(one: Address, other: Address) -> bool:
    if one.is_unix or other.is_unix:
        return one == other
    if one.port != other.port or one.port == 0:
        return False
    if _same_host(one.host, other.host):
        return True
    same_family = (":" in one.host) == (":" in other.host)
    return same_family and (one.is_any or other.is_any)


def _loops(config: Config) -> Iterator[Problem]:
    """Find listeners that a request can come back to; reports each call that closes such a circle."""
    doors = [_parse(listener.bind) for listener in config.listeners]
    by_name = {upstream.name: (i, upstream) for i, upstream in enumerate(config.upstreams)}
    calls: dict[int, list[tuple[int, Path]]] = {}  # listener -> listeners that its upstreams call, and where it says so
    for i, listener in enumerate(config.listeners):
        named = {route.upstream for route in listener.routes}
        named |= {fallback.upstream for route in listener.routes for fallback in route.fallback if fallback.upstream}
        calls[i] = [
            (j, path)
            for name in sorted(named)
            if name in by_name
            for path, address in _called(by_name[name][1], ("upstreams", by_name[name][0]))
            for j, door in enumerate(doors)
            if door and reaches(address, door)
        ]
    reported: set[Path] = set()
    for start, called_from in calls.items():
        for called, path in called_from:
            if path not in reported and start in _reachable(called, calls):
                reported.add(path)
                name = config.listeners[called].name
                yield Problem(
                    path, f"is our own listener {name}, which leads here again: requests would run in circles"
                )


def _reachable(start: int, calls: dict[int, list[tuple[int, Path]]]) -> set[int]:
    found, waiting = {start}, [start]
    while waiting:
        for called, _ in calls[waiting.pop()]:
            if called not in found:
                found.add(called)
                waiting.append(called)
    return found


def _called(upstream: Upstream, path: Path) -> Iterator[tuple[Path, Address]]:
    texts: list[tuple[Path, str]] = [
        ((*path, "endpoints", i, "address"), endpoint.address) for i, endpoint in enumerate(upstream.endpoints)
    ]
    if upstream.discovery and upstream.discovery.dns:
        texts.append(((*path, "discovery", "dns"), upstream.discovery.dns))
    for where, text in texts:
        address = _parse(text)
        if address:
            yield where, address


def _parse(text: str) -> Address | None:
    """Take an address apart; one that has a fault already is nobody's neighbour."""
    try:
        return parse_address(text, ephemeral=True)
    except ValueError:
        return None


def _same_host(one: str, other: str) -> bool:
    return bool(_names(one) & _names(other))


def _names(host: str) -> frozenset[str]:
    host = host.lower().rstrip(".")
    if host == "localhost":
        return frozenset({"localhost", "127.0.0.1", "::1"})
    try:
        address = ip_address(host)
    except ValueError:
        return frozenset({host})
    mapped = getattr(address, "ipv4_mapped", None)
    return frozenset({str(mapped or address)})
