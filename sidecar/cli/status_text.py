"""The status as lines of text, for `sidecar status`: what the status page says, in the same words and order.

Much of it was said by others (a health check's answer, a file's error): what is not printable is shown escaped, so
that nobody far away writes to the operator's terminal.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sidecar.cli.paint import paint
from sidecar.control.page import about_us, backup_words, fleet_words, words
from sidecar.control.page.words import count, figure

_COLOURS = {"good": "green", "warn": "yellow", "bad": "red", "off": ""}
_INDENT = " " * 10


class Cell(NamedTuple):
    """A text in a colour; no colour: as it comes."""

    text: str
    colour: str = ""

    def show(self, width: int = 0) -> str:
        """Padded to `width`, escaped where it is not printable."""
        text = _plain(self.text).ljust(width)
        return paint(text, self.colour) if self.colour else text


Row = tuple[str | Cell, ...]


def describe(status: dict[str, Any]) -> Iterator[str]:
    """The status for people, line by line."""
    yield from _head(status)
    found = words.troubles(status)
    yield ""
    if not found:
        yield paint(words.all_well(status), "green")
    for one in found:
        first, *more = one.text.splitlines()
        yield f"{paint('!', _COLOURS[one.level])} {_plain(first)}"
        yield from (f"  {_plain(line)}" for line in more)
    for part in _PARTS:
        yield from part(status)


def _head(status: dict[str, Any]) -> Iterator[str]:
    config, traffic = status["config"], status["traffic"]
    yield (
        f"{paint(_plain(status['service']), 'bold')} ({_plain(status['instance'])})  {_state(status['state']).show()}  "
        f"up {figure(status['uptime_seconds'], 'seconds')}  {count(status['workers'], 'worker')}  "
        f"sidecar {status['version']}  pid {status['pid']}"
    )
    yield f"config    {_plain(config['path'])}  {str(config['hash'])[:12]}  loaded {config['loaded_at']}"
    if (child := status.get("child")) is not None:
        yield f"service   {_plain(words.child_said(child))}"
    yield (
        f"traffic   {figure(traffic['rps'], 'rate')} requests/s  {figure(traffic['inflight'])} in flight  "
        f"p50 {figure(traffic['p50_ms'], 'ms')}  p99 {figure(traffic['p99_ms'], 'ms')}  "
        f"{figure(traffic['requests_total'])} requests, {figure(traffic['errors_total'])} errors"
    )


def _incidents(status: dict[str, Any]) -> Iterator[str]:
    rows: list[Row] = []
    for one in status.get("incidents", ()):
        since = figure(words.seconds_since(status, one["started"]), "seconds")
        by = f" by {one['acknowledged_by']}" if one["acknowledged_by"] else ""
        severity = Cell(one["severity"], "yellow" if one["severity"] == "warning" else "red")
        told = "; ".join([one["title"], *words.incident_impact(one)])
        rows.append((one["id"], severity, f"{one['status']}{by}", f"for {since}", told))
    yield from _titled("incidents", rows)


def _breakers(status: dict[str, Any]) -> Iterator[str]:
    rows: list[Row] = []
    for one in status["breakers"]:
        said, left = words.breaker_next(one)
        notes = [
            words.breaker_why(one),
            said if left is None else f"{said} {figure(left, 'seconds')}",
            f"{figure(one['refused'])} {'would have been ' if one['mode'] == 'observe' else ''}refused"
            if one["refused"]
            else "",
        ]
        rows.append(
            (
                one["name"],
                _state(words.breaker_state(one), words.breaker_level(one)),
                f"for {figure(one['for_seconds'], 'seconds')}",
                words.breaker_window(one),
                "; ".join(note for note in notes if note),
            )
        )
    yield from _titled("breakers", rows)
    yield from _fleet(status)


def _fleet(status: dict[str, Any]) -> Iterator[str]:
    """What replicas agree on, of each breaker that is not simply closed, and who says what."""
    shared = status.get("shared")
    rows: list[Row] = []
    for one in status["breakers"]:
        if shared is None or (fleet := one.get("fleet")) is None or not fleet_words.restless(fleet):
            continue
        told = [(one["name"], fleet_words.verdict(fleet))]
        told += [(f"  {who}", said) for who, voice in fleet_words.voices(fleet, shared) for said in voice]
        told += [("", said) for said in fleet_words.notes(fleet)]
        rows += [(who, Cell(fleet_words.plain(said), _COLOURS[said.level])) for who, said in told]
    yield from _titled("fleet", rows)


def _recovery(status: dict[str, Any]) -> Iterator[str]:
    yield from recovery(status.get("recovery") or {"paused": None, "rules": []})


def recovery(found: dict[str, Any]) -> Iterator[str]:
    """Recovery's rules, line by line."""
    if found["paused"] is not None:
        yield ""
        yield paint(_plain(f"recovery is {words.recovery_paused(found['paused'])}"), "yellow")
    rows: list[Row] = [
        (
            one["name"],
            _state(words.recovery_state(one), words.recovery_level(one)),
            f"{one['watches']} -> {one['strategy']}",
            f"{one['attempts']} of {one['attempts_allowed']} attempts, {count(one['budget_left'], 'run')} left",
            words.recovery_said(one),
        )
        for one in found["rules"]
    ]
    yield from _titled("recovery", rows)
    if (fleet := found.get("fleet")) is not None:
        yield f"  {words.recovery_fleet(fleet)}"


def _backups(status: dict[str, Any]) -> Iterator[str]:
    if (found := status.get("backups")) is not None:
        said, level = backup_words.state(found)
        yield ""
        yield f"backups   {_state(said, level).show()}"
        yield from (f"{_INDENT}{name.lower()}: {_plain(value)}" for name, value in backup_words.facts(found))


def _about_us(status: dict[str, Any]) -> Iterator[str]:
    shared = status.get("shared")
    told = [(name, fleet_words.plain(said)) for name, said in fleet_words.facts(shared)]
    told += [
        ("Replica", f"{name} {fleet_words.plain(said)}") for name, said in (fleet_words.peers(shared) if shared else ())
    ]
    for title, pairs in (("shared", told), ("30 days", about_us.availability(status.get("figures")))):
        if pairs:
            yield ""
            yield title
            yield from (f"{_INDENT}{name.lower()}: {_plain(value)}" for name, value in pairs)
    rows: list[Row] = [
        (one["owner"], Cell(words.certificate_state(one), _COLOURS[words.certificate_level(one)]),
         f"until {one['until']}", one["file"])
        for one in status.get("certificates", ())
    ]  # fmt: skip
    yield from _titled("certificates", rows)


def _upstreams(status: dict[str, Any]) -> Iterator[str]:
    for upstream in status["upstreams"]:
        yield ""
        yield (
            f"upstream  {paint(_plain(upstream['name']), 'bold')}  {figure(upstream['inflight'])} in flight  "
            f"{figure(upstream['pending'])} waiting  {_requests(upstream)}"
        )
        if (found := upstream["discovery"]) is not None:
            yield _INDENT + _plain(f"found by {found['source']} {found['target']}, {_last(status, found)}")
        yield from _columns((one["address"], _state(one["state"]), *_endpoint(one)) for one in upstream["endpoints"])


def _last(status: dict[str, Any], found: dict[str, Any]) -> str:
    seconds = words.seconds_since(status, found["last_success"])
    return "no answer yet" if seconds is None else f"last answer {figure(seconds, 'seconds')} ago"


def _endpoint(one: dict[str, Any]) -> tuple[str, str]:
    left = one["ejected_for_seconds"]
    back = "" if left is None else f"; back in {figure(left, 'seconds')}"
    return f"{one['active']} active, {one['idle']} idle", f"{one['why']}{back}"


def _dependencies(status: dict[str, Any]) -> Iterator[str]:
    rows: list[Row] = []
    for one in status["dependencies"]:
        for name, each in [(one["dependency"], one), *((f"  {part['target']}", part) for part in one["parts"] or ())]:
            latency = None if each["latency_seconds"] is None else 1000 * each["latency_seconds"]
            since = figure(words.seconds_since(status, each["since"]), "seconds")
            rows.append((name, _state(each["state"]), f"for {since}", figure(latency, "ms"), each["detail"] or ""))
    yield from _titled("dependencies", rows)


def _fallbacks(status: dict[str, Any]) -> Iterator[str]:
    rows: list[Row] = [
        (
            f"instead of {one['upstream']}",
            one["tier"],
            Cell("active", "yellow") if one["per_second"] else "at rest",
            f"{count(one['total'], 'answer')}, {figure(one['per_second'], 'rate')}/s",
        )
        for one in status["fallbacks"]
    ]
    yield from _titled("fallbacks", rows)


def _listeners(status: dict[str, Any]) -> Iterator[str]:
    for listener in status["listeners"]:
        yield ""
        yield (
            f"listener  {paint(_plain(listener['name']), 'bold')}  {listener['bind']} ({listener['protocol']})  "
            f"{count(listener['connections'], 'connection')}"
        )
        yield from _columns(
            (route["name"], route["match"], f"-> {route['upstream']}", _requests(route)) for route in listener["routes"]
        )


def _state(state: str, level: str | None = None) -> Cell:
    """A state in its colour; what is bad stands out without one too."""
    level = level or words.level_of(state)
    return Cell(state.upper() if level == "bad" else state, _COLOURS[level])


def _requests(item: dict[str, Any]) -> str:
    return f"{figure(item['requests_total'])} requests"


def _titled(title: str, rows: list[Row]) -> Iterator[str]:
    if rows:
        yield ""
        yield title
        yield from _columns(rows)


def _columns(rows: Iterable[Row]) -> Iterator[str]:
    cells = [[Cell(one) if isinstance(one, str) else one for one in row] for row in rows]
    widths = [max(len(_plain(cell.text)) for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        shown = (cell.show(width) for cell, width in zip(row, widths, strict=True))
        yield (_INDENT + "  ".join(shown)).rstrip()


def _plain(text: str) -> str:
    """With what is not printable escaped as in Python; most texts have nothing of it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


_PARTS = (
    _incidents,
    _breakers,
    _recovery,
    _upstreams,
    _dependencies,
    _fallbacks,
    _backups,
    _about_us,
    _listeners,
)
"""After what needs attention, in the page's order."""
