"""The parts of the status page as HTML, each from the status alone (its shape: `Program.status` in `control/admin.py`).

Theory. A part is what stands inside one element of the page, named by the element's id. Figures that only grow older
are clocks: `<time data-up=12>12s</time>` counts up in the browser by itself, `data-down` counts down, so that a
second that passes is no reason to send a part again (`follow.py`). Nothing comes into the page but through `_text`
and `_name`, which escape.
"""

from collections.abc import Iterable
from html import escape
from typing import Any, Literal
from urllib.parse import quote

from sidecar.control.page import about_us, backup_words, orders, words
from sidecar.control.page.words import figure

MAX_TROUBLES = 20
MAX_STORY = 10
"""Lines of an incident's timeline."""
MAX_ENDPOINTS = 50
"""Of an upstream on the page; those that are out come first. The API has all."""
NUMBERS = {"Requests", "Active", "Idle", "Priority", "Weight", "Latency", "Answers", "Per second"}
"""Columns that are set to the right."""


def sections(status: dict[str, Any]) -> dict[str, str]:
    """Every part by the id of its element, in the page's order; what there is nothing to say of is empty."""
    return {
        "state": _state(status),
        "attention": _attention(status),
        "incidents": _incidents(status),
        "traffic": _traffic(status["traffic"]),
        "breakers": _breakers(status),
        "recovery": _recovery(status),
        "upstreams": _upstreams(status),
        "dependencies": _dependencies(status),
        "fallbacks": _fallbacks(status["fallbacks"]),
        "backups": _backups(status.get("backups")),
        "shared": _list("Shared state", about_us.shared(status.get("shared"))),
        "certificates": _certificates(status.get("certificates", ())),
        "figures": _list("The last 30 days", about_us.availability(status.get("figures"))),
        "listeners": _listeners(status["listeners"]),
        "program": _program(status),
    }


# Bricks ---------------------------------------------------------------------------------------------------------------

_text = escape


def _clock(seconds: float, direction: Literal["up", "down"] = "up", moment: str | None = None) -> str:
    """A duration that the browser keeps up to date; `moment` (UTC, ISO) is when it began."""
    when = f' datetime="{_text(moment)}" title="{_text(moment)}"' if moment else ""
    return f'<time data-{direction}="{seconds:.1f}"{when}>{figure(seconds, "seconds")}</time>'


def _ago(status: dict[str, Any], moment: str | None) -> str:
    seconds = words.seconds_since(status, moment)
    return words.UNKNOWN if seconds is None else f"{_clock(seconds, 'up', moment)} ago"


def _mark(state: str, level: words.Level) -> str:
    """A state, in a word with a sign before it that says the same without colour."""
    return f'<span class="mark" data-level="{level}">{_text(state)}</span>'


def _standing(state: str, why: str) -> str:
    """A cell with a state and, below it, what is to be said of it (HTML)."""
    below = f'<p class="below">{why}</p>' if why else ""
    return f"<td>{_mark(state, words.level_of(state))}{below}</td>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content else ""


def _table(caption: str, heads: tuple[str, ...], rows: Iterable[str]) -> str:
    columns = "".join(f"<th scope=col{' class=number' if head in NUMBERS else ''}>{head}</th>" for head in heads)
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex=0><table>'
        f'<caption class="unseen">{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _pairs(kind: str, pairs: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="{kind}">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)}</dl>'


def _number(value: Any, form: Literal["count", "rate", "ms"] = "count") -> str:
    return f"<td class=number>{figure(value, form)}</td>"


# Parts ----------------------------------------------------------------------------------------------------------------


def _state(status: dict[str, Any]) -> str:
    state = _text(status["state"])
    return f'<p class="pill" data-state="{state}">{state}</p>{orders.row(status, *orders.of_program(status))}'


def _attention(status: dict[str, Any]) -> str:
    found = words.troubles(status)
    if not found:
        return f'<h2 class="unseen">Needs attention</h2><p class="well">{_text(words.all_well(status))}</p>'
    items = [
        f'<li data-level="{one.level}"><a href="#{quote(one.place)}">{_text(one.text)}</a></li>'
        for one in found[:MAX_TROUBLES]
    ]
    if len(found) > MAX_TROUBLES:
        items.append(f"<li>and {len(found) - MAX_TROUBLES} more</li>")
    return f"<h2>Needs attention</h2><ul>{''.join(items)}</ul>"


def _incidents(status: dict[str, Any]) -> str:
    found = status.get("incidents", ())
    cards = "".join(_incident(status, one) for one in found[:MAX_TROUBLES])
    more = len(found) - MAX_TROUBLES
    return _section("Incidents", cards + (f'<p class="nothing">and {more:,} more</p>' if more > 0 else ""))


def _incident(status: dict[str, Any], one: dict[str, Any]) -> str:
    by = f" by {_text(one['acknowledged_by'])}" if one["acknowledged_by"] else ""
    return (
        f'<article id="incident-{_text(one["id"])}"><h3 class="apart"><span>{_text(one["title"])}</span> '
        f"{_mark(one['severity'], 'warn' if one['severity'] == 'warning' else 'bad')}</h3>"
        f'<p class="then"><code>{_text(one["id"])}</code> · {_text(one["status"])}{by} · '
        f"began {_ago(status, one['started'])}</p>"
        + orders.row(status, *orders.of_incident(one))
        + _story(status, one)
        + "</article>"
    )


def _story(status: dict[str, Any], one: dict[str, Any]) -> str:
    """The end of an incident's timeline; the whole of it is a link away."""
    path = f"/api/v1/incidents/{quote(one['id'])}"
    lines = "".join(
        f"<li>{_ago(status, line['at'])}: {_text(line['text'])}</li>" for line in one.get("timeline", ())[-MAX_STORY:]
    )
    return (
        f"<details><summary>Timeline of {_text(one['id'])}</summary><ol>{lines}</ol>"
        f'<p><a href="{path}">all of it, as data</a></p></details>'
    )


def _traffic(traffic: dict[str, Any]) -> str:
    tiles: tuple[tuple[str, str, Literal["count", "rate", "ms"]], ...] = (
        ("requests / s", "rps", "rate"),
        ("in flight", "inflight", "count"),
        ("p50", "p50_ms", "ms"),
        ("p99", "p99_ms", "ms"),
        ("errors", "errors_total", "count"),
        ("requests", "requests_total", "count"),
    )
    return '<h2 class="unseen">Traffic</h2>' + _pairs(
        "tiles", ((label, figure(traffic[name], form)) for label, name, form in tiles)
    )


def _breakers(status: dict[str, Any]) -> str:
    cards = "".join(_breaker(status, one) for one in status["breakers"])
    return _section("Circuit breakers", f'<div class="cards">{cards}</div>' if cards else "")


def _recovery(status: dict[str, Any]) -> str:
    recovery = status.get("recovery") or {"paused": None, "rules": ()}
    rows = [
        f"<tr><th scope=row>{_text(one['name'])} <small>{_text(one['watches'])} → {_text(one['strategy'])}</small></th>"
        f"<td>{_mark(words.recovery_state(one), words.recovery_level(one))}"
        + "".join(f'<p class="below">{_text(said)}</p>' for said in _recovery_said(one))
        + "</td>"
        f"<td>{one['attempts']} of {one['attempts_allowed']}</td>"
        f"<td>{one['budget_left']} left of {_text(one['budget'])}</td></tr>"
        for one in recovery["rules"]
    ]
    fleet = recovery.get("fleet")
    shared = "" if fleet is None else f'<p class="below">{_text(words.recovery_fleet(fleet))}</p>'
    heads = ("Rule", "State", "Attempts", "Budget")
    acts = orders.row(status, *orders.of_recovery(recovery))
    return _section("Recovery", f"<article>{_table('Recovery', heads, rows)}{shared}{acts}</article>" if rows else "")


def _recovery_said(one: dict[str, Any]) -> list[str]:
    seen = words.recovery_seen(one)
    return ([seen] if seen else []) + (words.recovery_tries(one) or ["nothing so far"])


def _breaker(status: dict[str, Any], one: dict[str, Any]) -> str:
    level = words.breaker_level(one)
    why = words.breaker_why(one)
    said, left = words.breaker_next(one)
    then = said if left is None else f"{said} {_clock(left, 'down')}"
    pairs = [("For", _clock(one["for_seconds"])), ("In the window", words.breaker_window(one))]
    if shared := words.breaker_fleet(one):
        pairs.append(("Replicas", _text(shared)))
    observed = one["mode"] == "observe"
    pairs.append(("Would have refused" if observed else "Refused", figure(one["refused"])))
    if one["reopened"]:
        pairs.append(("Opened again", words.count(one["reopened"], "time")))
    return (
        f'<article id="breaker-{_text(one["name"])}" class="breaker" data-level="{level}" '
        f'data-state="{_text(one["machine"])}"><h3 class="apart"><span>{_text(one["name"])}'
        f"{' <small>only observed</small>' if observed else ''}</span> {_mark(words.breaker_state(one), level)}</h3>"
        + (f'<p class="why">{_text(why)}</p>' if why else "")
        + (f'<p class="then">{then}</p>' if then else "")
        + _pairs("pairs", pairs)
        + orders.row(status, *orders.of_breaker(one))
        + "</article>"
    )


def _upstreams(status: dict[str, Any]) -> str:
    return _section("Upstreams", "".join(_upstream(status, one) for one in status["upstreams"]))


def _upstream(status: dict[str, Any], upstream: dict[str, Any]) -> str:
    name, endpoints = _text(upstream["name"]), upstream["endpoints"]
    shown = endpoints
    if len(endpoints) > MAX_ENDPOINTS:
        shown = sorted(endpoints, key=lambda one: words.level_of(one["state"]) in {"good", "off"})[:MAX_ENDPOINTS]
    heads = ("Endpoint", "State", "Checked", "Active", "Idle", "Priority", "Weight")
    rows = [_endpoint(status, one) for one in shown]
    left_out = len(endpoints) - len(shown)
    return (
        f'<article id="upstream-{name}"><h3>{name} <small>{figure(upstream["requests_total"])} requests · '
        f"{figure(upstream['inflight'])} in flight · {figure(upstream['pending'])} waiting</small></h3>"
        + _discovery(status, upstream["discovery"])
        + (_table(f"Endpoints of {name}", heads, rows) if rows else '<p class="nothing">No endpoint.</p>')
        + (f'<p class="nothing">and {left_out:,} more that are in use</p>' if left_out else "")
        + "</article>"
    )


def _discovery(status: dict[str, Any], found: dict[str, Any] | None) -> str:
    """Where the endpoints come from, when they are not written down."""
    if found is None:
        return ""
    source = f"Found by {_text(str(found['source']))} <code>{_text(str(found['target']))}</code>"
    said = f'<p class="source">{source}, last answer {_ago(status, found["last_success"])}'
    if found["left_out"]:
        said += f"; {found['left_out']:,} left out, too many"
    if found["refused"]:
        said += f"; refused {_text(', '.join(found['refused']))}"
    said += "</p>"
    if found["error"]:
        said += f'<p class="source" data-level="warn">Fails since {_ago(status, found["error_at"])}: '
        said += f"{_text(found['error'])}</p>"
    return said


def _endpoint(status: dict[str, Any], one: dict[str, Any]) -> str:
    why, check = _text(one["why"]), one["check"]
    if one["ejected_for_seconds"] is not None:
        why += f"; back in {_clock(one['ejected_for_seconds'], 'down')}"
    elif check is not None and check["state"] not in {"healthy", "unknown"}:
        why += f"; for {_clock(words.seconds_since(status, check['since']) or 0.0, 'up', check['since'])}"
    checked = "no check" if check is None else f"{_text(check['check'])}, {_ago(status, check['last_check'])}"
    return (
        f"<tr><th scope=row><code>{_text(one['address'])}</code></th>"
        f"{_standing(one['state'], why)}<td>{checked}</td>"
        + "".join(_number(one[key]) for key in ("active", "idle", "priority", "weight"))
        + "</tr>"
    )


def _dependencies(status: dict[str, Any]) -> str:
    rows = []
    for one in status["dependencies"]:
        rows.append(_dependency(status, one["dependency"], one["check"], one))
        rows += [_dependency(status, part["target"], "", part) for part in one["parts"] or ()]
    heads = ("Dependency", "State", "For", "Latency", "Checked")
    return _section("Dependencies", f"<article>{_table('Dependencies', heads, rows)}</article>" if rows else "")


def _dependency(status: dict[str, Any], name: str, kind: str, one: dict[str, Any]) -> str:
    latency = None if one["latency_seconds"] is None else 1000 * one["latency_seconds"]
    since = words.seconds_since(status, one["since"])
    head = f"{_text(name)} <small>{_text(kind)}</small>" if kind else f'<span class="part-of">{_text(name)}</span>'
    return (
        f"<tr><th scope=row>{head}</th>{_standing(one['state'], _text(one['detail'] or ''))}"
        f"<td>{words.UNKNOWN if since is None else _clock(since, 'up', one['since'])}</td>{_number(latency, 'ms')}"
        f"<td>{_ago(status, one['last_check'])}</td></tr>"
    )


def _fallbacks(fallbacks: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><th scope=row>{_text(one['upstream'])}</th><td>{_text(one['tier'])}</td>"
        f"<td>{_mark('active', 'warn') if one['per_second'] else _mark('at rest', 'off')}</td>"
        f"{_number(one['total'])}{_number(one['per_second'], 'rate')}</tr>"
        for one in fallbacks
    ]
    heads = ("Instead of", "Tier", "State", "Answers", "Per second")
    return _section("Fallbacks", f"<article>{_table('Fallbacks', heads, rows)}</article>" if rows else "")


def _backups(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    said, level = backup_words.state(found)
    pairs = [(_text(name), _text(value)) for name, value in backup_words.facts(found)]
    return _section("Backups", f"<article><h3>{_mark(said, level)}</h3>{_pairs('facts', pairs)}</article>")


def _list(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    told = [(_text(name), _text(value)) for name, value in pairs]
    return _section(title, f"<article>{_pairs('facts', told)}</article>" if told else "")


def _certificates(found: Iterable[dict[str, Any]]) -> str:
    rows = [
        f"<tr><th scope=row>{_text(one['owner'])} <small>{_text(', '.join(one['names']))}</small></th>"
        f"<td>{_mark(words.certificate_state(one), words.certificate_level(one))}</td>"
        f"<td>{_text(one['until'])}</td><td><code>{_text(one['file'])}</code></td></tr>"
        for one in found
    ]
    heads = ("Certificate of", "State", "Until", "File")
    return _section("Certificates", f"<article>{_table('Certificates', heads, rows)}</article>" if rows else "")


def _listeners(listeners: list[dict[str, Any]]) -> str:
    return _section("Listeners and routes", "".join(_listener(one) for one in listeners))


def _listener(listener: dict[str, Any]) -> str:
    name = _text(listener["name"])
    rows = [
        f"<tr><th scope=row>{_text(route['name'])}</th><td>{_text(route['match'])}</td>"
        f"<td>{_text(route['upstream'])}</td>{_number(route['requests_total'])}</tr>"
        for route in listener["routes"]
    ]
    return (
        f"<article><h3>{name} <small>{_text(listener['bind'])} · {_text(listener['protocol'])} · "
        f"{words.count(listener['connections'], 'connection')}</small></h3>"
        + _table(f"Routes of {name}", ("Route", "Takes", "To", "Requests"), rows)
        + "</article>"
    )


def _program(status: dict[str, Any]) -> str:
    config = status["config"]
    facts = (
        ("Version", _text(str(status["version"]))),
        ("Up for", _clock(status["uptime_seconds"])),
        ("Workers", figure(status["workers"])),
        ("Process", str(status["pid"])),
        *([("Service", _text(words.child_said(child)))] if (child := status.get("child")) is not None else []),
        ("Configuration", f"<code>{_text(str(config['path']))}</code>"),
        ("Loaded", f"{_ago(status, config['loaded_at'])} <code>{_text(str(config['hash'])[:12])}</code>"),
        ("Last reload", "failed; see above" if not config["last_reload_ok"] else "good"),
    )
    links = " · ".join(
        f'<a href="{path}">{name}</a>'
        for name, path in (
            ("status", "/api/v1/status"),
            ("breakers", "/api/v1/breakers"),
            ("health", "/api/v1/health"),
            ("registry", "/api/v1/registry"),
            ("recovery", "/api/v1/recovery"),
            ("incidents", "/api/v1/incidents"),
            ("backups", "/api/v1/backups"),
            ("configuration", "/api/v1/config"),
            ("metrics", "/metrics"),
        )
    )
    return _section("Program", _pairs("facts", facts) + f"<p>As data: {links}</p>")
