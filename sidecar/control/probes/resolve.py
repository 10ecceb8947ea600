"""Names to addresses for probes, so that a name server that hangs holds up nobody else.

The loop's own lookups share a handful of threads with the request path: four names that hang would stall every other
lookup. Here each name has a thread of its own while it is looked up, at most one, which nobody waits for at the end.
"""

import asyncio
import ipaddress
import socket
import threading
from concurrent.futures import Future

from sidecar.control.probes.probe import ProbeFailure

MAX_ADDRESSES = 8
"""More of one name are not tried within one probe."""

_under_way: dict[str, Future[list[str]]] = {}


async def resolve(host: str) -> list[str]:
    """The addresses of `host`, at most MAX_ADDRESSES; an address is its own. Raises ProbeFailure."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    lookup = _under_way.get(host)
    if lookup is None:
        lookup = _under_way[host] = Future()
        threading.Thread(target=_look_up, args=(host, lookup), name="probe-lookup", daemon=True).start()
    return await asyncio.shield(asyncio.wrap_future(lookup))


def _look_up(host: str, lookup: Future[list[str]]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        del _under_way[host]
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        lookup.set_exception(ProbeFailure(f"the name {host} does not resolve: {reason}"))
    else:
        del _under_way[host]
        lookup.set_result(list(dict.fromkeys(str(one[4][0]) for one in found))[:MAX_ADDRESSES])
