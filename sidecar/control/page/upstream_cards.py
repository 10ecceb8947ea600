"""The upstreams: their endpoints with health and the reason they are out, and where the endpoints come from.

Of many endpoints those that are out come first; all but a few of them, and those that are well, are folded away.
"""

from typing import Any

from sidecar.control.page import words
from sidecar.control.page.bricks import ago, breakable, clock, mark, note, number, section, standing, table, text
from sidecar.control.page.words import figure

MAX_ENDPOINTS = 50
"""Of an upstream on the page. The API has all."""
FOLDED = 8
"""More than these are folded."""
_HEADS = ("Endpoint", "State", "Checked", "Active", "Idle", "Priority", "Weight")
_WELL = ("good", "off")


def part(status: dict[str, Any]) -> str:
    """All of them."""
    found = status["upstreams"]
    endpoints = [words.level_of(one["state"]) for upstream in found for one in upstream["endpoints"]]
    aside = words.tally(endpoints, {"bad": "out", "warn": "degraded", "good": "healthy", "off": "unchecked"})
    return section("Upstreams", "".join(_card(status, one) for one in found), aside)


def _card(status: dict[str, Any], upstream: dict[str, Any]) -> str:
    name = text(upstream["name"])
    counts = f"{words.count(upstream['requests_total'], 'request')} · {figure(upstream['inflight'])} in flight"
    counts += f" · {figure(upstream['pending'])} waiting" if upstream["pending"] else ""
    return (
        f'<article id="upstream-{name}"><h3 class="apart"><span>{breakable(name)} <small>{counts}</small></span> '
        f"{_sum(upstream['endpoints'])}</h3>"
        + _discovery(status, upstream["discovery"])
        + _endpoints(status, name, upstream["endpoints"])
        + "</article>"
    )


def _sum(endpoints: list[dict[str, Any]]) -> str:
    """All endpoints in a word."""
    if not endpoints:
        return mark("no endpoint", "bad")
    out = sum(words.level_of(one["state"]) == "bad" for one in endpoints)
    if out:
        return mark(f"{out:,} of {len(endpoints):,} out", "bad" if out == len(endpoints) else "warn")
    return mark(f"{len(endpoints):,} in use", "good")


def _endpoints(status: dict[str, Any], name: str, endpoints: list[dict[str, Any]]) -> str:
    if len(endpoints) <= FOLDED:
        return _table(status, f"Endpoints of {name}", endpoints) if endpoints else ""
    shown = sorted(endpoints, key=lambda one: words.level_of(one["state"]) in _WELL)[:MAX_ENDPOINTS]
    out = [one for one in shown if words.level_of(one["state"]) not in _WELL]
    well, left_out = shown[len(out) :], len(endpoints) - len(shown)
    first, more = out[:FOLDED], out[FOLDED:]
    return (
        (_table(status, f"Endpoints of {name} that are out", first) if first else "")
        + _folded(status, name, more, "more that are out" if len(more) > 1 else "more that is out")
        + _folded(status, name, well, "endpoints that are in use" if len(well) > 1 else "endpoint that is in use")
        + (note(f"and {left_out:,} more") if left_out else "")
    )


def _folded(status: dict[str, Any], name: str, endpoints: list[dict[str, Any]], what: str) -> str:
    if not endpoints:
        return ""
    told = f"{len(endpoints):,} {what}"
    return f"<details><summary>{told}</summary>{_table(status, f'Endpoints of {name}: {told}', endpoints)}</details>"


def _table(status: dict[str, Any], caption: str, endpoints: list[dict[str, Any]]) -> str:
    return table(caption, _HEADS, (_endpoint(status, one) for one in endpoints))


def _endpoint(status: dict[str, Any], one: dict[str, Any]) -> str:
    why, check = text(one["why"]), one["check"]
    if one["ejected_for_seconds"] is not None:
        why += f"; back in {clock(one['ejected_for_seconds'], 'down')}"
    elif check is not None and check["state"] not in {"healthy", "unknown"}:
        why += f"; for {clock(words.seconds_since(status, check['since']) or 0.0, 'up', check['since'])}"
    checked = "no check" if check is None else f"{text(check['check'])}, {ago(status, check['last_check'])}"
    return (
        f"<tr><th scope=row><code>{text(one['address'])}</code></th>"
        f"{standing(one['state'], words.level_of(one['state']), why)}<td class=quiet>{checked}</td>"
        + "".join(number(one[key]) for key in ("active", "idle", "priority", "weight"))
        + "</tr>"
    )


def _discovery(status: dict[str, Any], found: dict[str, Any] | None) -> str:
    """Where the endpoints come from, when they are not written down."""
    if found is None:
        return ""
    told = f"Found by {text(str(found['source']))} <code>{text(str(found['target']))}</code>"
    told += f", last answer {ago(status, found['last_success'])}"
    if found["left_out"]:
        told += f"; {found['left_out']:,} left out, too many"
    if found["refused"]:
        told += f"; refused {text(', '.join(found['refused']))}"
    fails = ""
    if found["error"]:
        fails = f'<p class="note" data-level="warn">Fails since {ago(status, found["error_at"])}: '
        fails += f"{text(found['error'])}</p>"
    return note(told) + fails
