"""The rules between fields. Pure: takes a decoded `Config`, yields every rule that it breaks.

The rules stand in three files by what they are about: `rules_addresses` (who listens where, what would call itself),
`rules_traffic` (listeners, routes, upstreams) and `rules_upkeep` (everything beside the traffic).

A `Problem` is a fault unless it is a warning: what works as written, but hardly as meant.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sidecar.config.document import Config
from sidecar.config.faults import Path


class Problem(NamedTuple):
    """A broken rule: the value to look at and what to do."""

    path: Path
    message: str
    warning: bool = False


def problems(config: Config) -> Iterator[Problem]:
    """Yield every broken rule of `config`."""
    from sidecar.config import rules_addresses, rules_traffic, rules_upkeep

    yield from rules_addresses.problems(config)
    yield from rules_traffic.problems(config)
    yield from rules_upkeep.problems(config)


def duplicates(names: Iterable[str], path: Path, key: str = "name") -> Iterator[Problem]:
    """Yield a problem for each of the items at `path` whose `key` an earlier one has already."""
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if name and first.setdefault(name, i) != i:
            yield Problem((*path, i, key), f"{name} is also the {key} of item {first[name]}")


def unknown(name: str, known: Iterable[str], what: str, path: Path) -> Iterator[Problem]:
    """Yield a problem when `name` is not among the `known`."""
    known = list(known)
    if name and name not in known:
        yield Problem(path, f"there is no {what} {name!r}" + (f"; there is {', '.join(known)}" if known else ""))
