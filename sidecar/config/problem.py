"""A broken rule between fields, and the rules that several sections share."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sidecar.config.faults import Path


class Problem(NamedTuple):
    """A broken rule: the value to look at and what to do."""

    path: Path
    message: str
    warning: bool = False


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


_WRITTEN_BY_US = frozenset({"host", "connection", "content-length", "transfer-encoding", "upgrade"})
_SECRETS = frozenset({"authorization", "proxy-authorization", "cookie"})


def probe_headers(names: Iterable[str], path: Path, advice: str) -> Iterator[Problem]:
    """Yield a problem for each header that a health check must not send; `advice` says where a secret belongs."""
    for name in names:
        if name.lower() in _WRITTEN_BY_US:
            yield Problem((*path, name), "the check writes this field itself: leave it out")
        elif name.lower() in _SECRETS:
            yield Problem((*path, name), f"holds a secret, which has no place in this file: {advice}")
