"""What differs between two configurations, and which of it a reload can take over while requests run.

Items of lists are matched by their name (endpoints by their address), so a listener that moved is not a new one. The
table below is the only place that says what a reload cannot do; `sidecar diff` prints it and reload obeys it.
"""

from typing import Any, NamedTuple

from sidecar.config.document import Config
from sidecar.config.effective import show, to_plain
from sidecar.config.kinds import Section
from sidecar.config.shape import Field, ListOf, fields

NEEDS_RESTART = {
    "service.": "metrics and peers know the process by it",
    "admin.": "its sockets are opened once, at the start",
    "log.format": "the log is opened once, at the start",
    "workers": "processes are started once",
    "shared_state.": "peers know the process by it",
    "listeners": "listening sockets are opened once, at the start",
    "listeners.bind": "listening sockets are opened once, at the start",
    "listeners.protocol": "its connections speak the old protocol",
    "incidents": "the file of incidents is opened once, at the start",
    "incidents.store": "the file is opened once, at the start",
    "backup.": "the agent is a process of its own: restart it",
}
"""Paths without item names. A dot at the end means everything below; none, this key or an item that came or went."""


class Change(NamedTuple):
    """One difference: `old` and `new` as the file writes them; None for what is not there."""

    path: str
    old: Any
    new: Any
    live: bool
    why: str
    """Why a restart is needed; empty when the change is live."""


def changes(old: Config, new: Config) -> list[Change]:
    """Return every difference, in the order of the reference."""
    found: list[Change] = []
    _section(old, new, "", "", found)
    return found


def _section(old: Section, new: Section, path: str, plain_path: str, found: list[Change]) -> None:
    for field in fields(type(new)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            here = f"{path}.{field.name}" if path else field.name
            plain_here = f"{plain_path}.{field.name}" if plain_path else field.name
            _value(before, after, field, here, plain_here, found)


def _value(before: Any, after: Any, field: Field, path: str, plain_path: str, found: list[Change]) -> None:
    if isinstance(before, Section) and isinstance(after, Section):
        _section(before, after, path, plain_path, found)
        return
    key = _key(field)
    if key is None:
        shown = [None if value is None else show(value, field.shape) for value in (before, after)]
        found.append(_change(path, plain_path, *shown))
        return
    olds = {getattr(item, key): item for item in before}
    news = {getattr(item, key): item for item in after}
    for name in [*olds, *(name for name in news if name not in olds)]:
        here = f"{path}[{name}]"
        if name in olds and name in news:
            _section(olds[name], news[name], here, plain_path, found)
        elif name in olds:
            found.append(_change(here, plain_path, to_plain(olds[name]), None))
        else:
            found.append(_change(here, plain_path, None, to_plain(news[name])))
    orders = [[name for name in one if name in other] for one, other in ((olds, news), (news, olds))]
    if orders[0] != orders[1]:
        found.append(Change(f"{path} (order)", orders[0], orders[1], live=True, why=""))


def _key(field: Field) -> str | None:
    """Return what names the items of a list; None for everything that is compared as a whole."""
    if isinstance(field.shape, ListOf) and isinstance(field.shape.item, type):
        names = {inner.name for inner in fields(field.shape.item)}
        return next((key for key in ("name", "address") if key in names), None)
    return None


def _change(path: str, plain_path: str, old: Any, new: Any) -> Change:
    for rule, why in NEEDS_RESTART.items():
        if plain_path == rule or (rule.endswith(".") and f"{plain_path}.".startswith(rule)):
            return Change(path, old, new, live=False, why=why)
    return Change(path, old, new, live=True, why="")
