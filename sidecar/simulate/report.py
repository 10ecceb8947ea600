"""A simulation for people's eyes: what the users saw, what the breakers did, and why."""

from collections.abc import Iterator, Sequence
from typing import Any

from sidecar.base.units import show_duration

_MOST_CHANGES = 60
"""Changes of one breaker that are printed; --json has all."""


def lines(title: str, seconds: float, results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One or two results (`Result.plain`), side by side where they compare."""
    yield f"{title}: {show_duration(round(seconds, 3))} of traffic"
    yield ""
    if len(results) > 1:
        yield from _table(["", *(one["config"] for one in results)], _compared(results))
        yield ""
    for one in results:
        if len(results) > 1:
            yield f"== {one['config']}"
            yield ""
        yield from _one(one)


def _one(result: dict[str, Any]) -> Iterator[str]:
    users = result["users"]
    yield f"Users saw {_share(users)} good answers: {users['good']:,} of {users['requests']:,}. {_rest(users)}"
    yield ""
    heads = ["phase", "upstream", "requests", "good", "answered", "fallback", "refused", "errors", "p50", "p99"]
    yield from _table(heads, [[row["phase"], row["upstream"] or "(no route)", *_row(row)] for row in result["rows"]])
    yield ""
    reached = {upstream["name"] for upstream in result["upstreams"] if upstream["reached"]}
    for breaker in result["breakers"]:
        if breaker["transitions"] or breaker["refused"] or breaker["name"].partition("/")[0] in reached:
            yield from _breaker(breaker)
    for upstream in result["upstreams"]:
        if upstream["ejections"]:
            yield f"endpoints of {upstream['name']}:"
        for change in upstream["ejections"]:
            did = "ejected" if change["out"] else "readmitted"
            would = "" if change["enforced"] else " (observed only)"
            why = f"{change['reason']}: {change['detail']}" if change["detail"] else change["reason"]
            yield f"  {_at(change['at'])}  {change['endpoint']} {did}, {why}{would}"
    yield ""


def _row(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['requests']:,}",
        _share(row),
        f"{row['answered']:,}",
        _words(row["fallback"]),
        _words(row["refused"]),
        _words(row["error"]),
        _milliseconds(row["p50_ms"]),
        _milliseconds(row["p99_ms"]),
    ]


def _breaker(breaker: dict[str, Any]) -> Iterator[str]:
    spent = ", ".join(f"{state} {seconds:.1f} s" for state, seconds in breaker["seconds"].items() if seconds)
    mode = "" if breaker["mode"] == "enforce" else f" [{breaker['mode']}]"
    refused = f"; {'would have ' if breaker['mode'] == 'observe' else ''}refused {breaker['refused']:,}"
    yield f"breaker {breaker['name']}{mode}: {spent}{refused if breaker['refused'] else ''}"
    for change in breaker["transitions"][:_MOST_CHANGES]:
        why = f"{change['reason']}: {change['detail']}" if change["detail"] else change["reason"]
        yield f"  {_at(change['at'])}  {change['from']} -> {change['to']}, {why}"
    more = len(breaker["transitions"]) - _MOST_CHANGES
    if more > 0:
        yield f"  and {more} more changes"


def _compared(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    users = [one["users"] for one in results]
    breakers = {breaker["name"]: None for one in results for breaker in one["breakers"] if breaker["transitions"]}
    reached = {upstream["name"]: None for one in results for upstream in one["upstreams"]}
    rows = [
        ["good answers", *(_share(one) for one in users)],
        ["answered", *(f"{one['answered']:,}" for one in users)],
        ["fallback", *(_words(one["fallback"]) for one in users)],
        ["refused", *(_words(one["refused"]) for one in users)],
        ["errors", *(_words(one["error"]) for one in users)],
        ["p50", *(_milliseconds(one["p50_ms"]) for one in users)],
        ["p99", *(_milliseconds(one["p99_ms"]) for one in users)],
    ]
    for name in breakers:
        found = [next((b for b in one["breakers"] if b["name"] == name), None) for one in results]
        rows.append([f"{name} not closed", *("-" if b is None else _not_closed(b) for b in found)])
    for name in reached:
        calls = [next((u["reached"] for u in one["upstreams"] if u["name"] == name), None) for one in results]
        if any(calls):
            rows.append([f"calls that reached {name}", *("-" if one is None else f"{one:,}" for one in calls)])
    return rows


def _not_closed(breaker: dict[str, Any]) -> str:
    seconds = sum(spent for state, spent in breaker["seconds"].items() if state != "closed")
    opened = sum(change["to"] == "open" for change in breaker["transitions"])
    return f"{seconds:.1f} s, opened {opened}×"


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Columns as wide as they must be; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    left = [any(cell[:1].isalpha() for cell in column) for column in zip(*rows, strict=True)] or [True] * len(heads)
    for row in [heads, *rows]:
        cells = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _rest(users: dict[str, Any]) -> str:
    told = [
        f"{name}: {_words(users[key])}"
        for name, key in (("fallback", "fallback"), ("refused", "refused"), ("errors", "error"))
        if users[key]
    ]
    return "; ".join(told) + "." if told else "All came from the upstreams."


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counts.items()) or "-"


def _share(row: dict[str, Any]) -> str:
    """Rounded down, so that 100 % means all of them."""
    if not row["requests"]:
        return "-"
    hundredths = row["good"] * 100_000 // row["requests"]
    return f"{hundredths / 1000:.3f} %".replace(".000 %", " %")


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _at(seconds: float) -> str:
    return f"{seconds:10.3f} s"
