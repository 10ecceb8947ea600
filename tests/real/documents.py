"""Configuration trees and addresses for the tests through the real program.

`document` builds a whole file's tree from sections that `listener`, `route` and `upstream` make;
`both_codecs` gives two listeners, one per codec. Ports are free ones that the
kernel does not also hand out as source ports.
"""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

_CODECS = ("fast", "h11")
_handed_out: set[int] = set()  # who got one may not have bound it yet
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES


# ------------------------------------------------------------------------------------------------ ports
def free_port() -> int:
    """A port that nobody listens on, below the range from which the kernel takes source ports.

    Processes that run tests at the same time have each their own: what one says is dead, no other serves on.
    """
    while True:
        port = random.randrange(20000 + _NUMBER, 32000, _PROCESSES)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _handed_out.add(port)
            return port


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """An address whose SYNs are dropped: a listening socket whose queue is full and that nobody accepts from."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.1)
            try:
                filler.connect(server.getsockname())
            except TimeoutError:
                break
        yield f"127.0.0.1:{server.getsockname()[1]}"


# ---------------------------------------------------------------------------------------- configuration
def upstream(name: str, *addresses: str, **keys: Any) -> dict[str, Any]:
    """One upstream's section. Breaker and outlier ejection are off: these tests fail their upstreams on purpose."""
    return {
        "name": name,
        "endpoints": [{"address": address} for address in addresses],
        "breaker": {"mode": "disabled"},
        "outlier": {"mode": "disabled"},
        **keys,
    }


def route(name: str, to: str, prefix: str = "/", **keys: Any) -> dict[str, Any]:
    """One route's section; `match` in `keys` replaces the prefix."""
    return {"name": name, "match": {"path_prefix": prefix}, "upstream": to, **keys}


def listener(name: str, routes: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """One listener's section, on a free port."""
    return {"name": name, "bind": f"127.0.0.1:{free_port()}", "routes": routes, **keys}


def document(listeners: list[dict[str, Any]], upstreams: list[dict[str, Any]], **root: Any) -> dict[str, Any]:
    """The whole file's tree; the admin's addresses are filled in by `Sidecar`."""
    return {
        "version": 1,
        "service": {"name": "tested"},
        "shutdown": {"delay": "0s", "drain_timeout": "10s"},
        "listeners": listeners,
        "upstreams": upstreams,
        **root,
    }


def both_codecs(
    routes: list[dict[str, Any]], upstreams: list[dict[str, Any]], *, root: dict[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    """Two listeners `fast` and `h11` with the same routes."""
    return document([listener(codec, routes, codec=codec, **keys) for codec in _CODECS], upstreams, **(root or {}))
