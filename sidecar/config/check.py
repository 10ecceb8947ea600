"""The rules between fields. Pure: takes a decoded `Config`, yields what contradicts what.

Filled rule by rule below.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sidecar.config.document import Config
from sidecar.config.faults import Path


class Problem(NamedTuple):
    """A broken rule: the value to look at and what to do."""

    path: Path
    message: str


def problems(config: Config) -> Iterator[Problem]:
    """Yield every broken rule of `config`."""
    names = {upstream.name for upstream in config.upstreams}
    for i, listener in enumerate(config.listeners):
        for j, route in enumerate(listener.routes):
            if route.upstream not in names:
                yield Problem(("listeners", i, "routes", j, "upstream"), f"there is no upstream {route.upstream!r}")
