"""The parts of the status page as HTML, each from the status alone (its shape: `Program.status` in `control/admin.py`).

A part is what stands inside one element of the page, named by the element's id. The large ones have files of their own.
"""

from collections.abc import Iterable
from typing import Any

from sidecar.control.page import (
    about_us,
    backup_words,
    breaker_cards,
    fleet_words,
    orders,
    trouble_list,
    upstream_cards,
    words,
)
from sidecar.control.page.bricks import (
    Form,
    ago,
    breakable,
    clock,
    gauge,
    mark,
    note,
    number,
    pairs,
    said,
    section,
    standing,
    table,
    text,
)
from sidecar.control.page.words import figure


def sections(status: dict[str, Any]) -> dict[str, str]:
    """Every part by the id of its element, in the page's order; what there is nothing to say of is empty."""
    return {
        "state": _state(status),
        "acts": orders.row(status, *orders.of_program(status)),
        "attention": trouble_list.attention(status),
        "traffic": _traffic(status["traffic"]),
        "incidents": trouble_list.incidents(status),
        "breakers": breaker_cards.part(status),
        "upstreams": upstream_cards.part(status),
        "fallbacks": _fallbacks(status["fallbacks"]),
        "dependencies": _dependencies(status),
        "recovery": _recovery(status),
        "backups": _backups(status),
        "shared": _shared(status.get("shared")),
        "certificates": _certificates(status.get("certificates", ())),
        "figures": _figures(status.get("figures")),
        "listeners": _listeners(status["listeners"]),
        "program": _program(status),
    }


def _state(status: dict[str, Any]) -> str:
    return f'<p class="pill" data-level="{words.level_of(status["state"])}">{text(status["state"])}</p>'


def _traffic(traffic: dict[str, Any]) -> str:
    tiles: tuple[tuple[str, str, Form], ...] = (
        ("Requests / s", "rps", "rate"),
        ("In flight", "inflight", "count"),
        ("p50", "p50_ms", "ms"),
        ("p99", "p99_ms", "ms"),
        ("Errors", "errors_total", "count"),
        ("Requests", "requests_total", "count"),
    )
    return '<h2 class="unseen">Traffic</h2>' + pairs(
        "tiles", ((label, figure(traffic[name], form)) for label, name, form in tiles)
    )


def _fallbacks(fallbacks: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><th scope=row>{text(one['upstream'])}</th><td>{text(one['tier'])}</td>"
        f"<td>{mark('active', 'warn') if one['per_second'] else mark('at rest', 'off')}</td>"
        f"{number(one['total'])}{number(one['per_second'], 'rate')}</tr>"
        for one in fallbacks
    ]
    heads = ("Instead of", "Tier", "State", "Answers", "Per second")
    active = sum(bool(one["per_second"]) for one in fallbacks)
    return section("Fallbacks", _card(table("Fallbacks", heads, rows)) if rows else "", f"{active} active")


def _dependencies(status: dict[str, Any]) -> str:
    rows = []
    for one in status["dependencies"]:
        rows.append(_dependency(status, one["dependency"], one["check"], one))
        rows += [_dependency(status, each["target"], "", each) for each in one["parts"] or ()]
    heads = ("Dependency", "State", "For", "Latency", "Checked")
    levels = (words.level_of(one["state"]) for one in status["dependencies"])
    aside = words.tally(levels, {"bad": "unhealthy", "warn": "degraded", "good": "healthy", "off": "unknown"})
    return section("Dependencies", _card(table("Dependencies", heads, rows)) if rows else "", aside)


def _dependency(status: dict[str, Any], name: str, kind: str, one: dict[str, Any]) -> str:
    latency = None if one["latency_seconds"] is None else 1000 * one["latency_seconds"]
    since, level = words.seconds_since(status, one["since"]), words.level_of(one["state"])
    head = f"{text(name)} <small>{text(kind)}</small>" if kind else f'<span class="indented">{text(name)}</span>'
    return (
        f"<tr><th scope=row>{head}</th>{standing(one['state'], level, text(one['detail'] or ''))}"
        f"<td>{words.UNKNOWN if since is None else clock(since, 'up', one['since'])}</td>{number(latency, 'ms')}"
        f"<td class=quiet>{ago(status, one['last_check'])}</td></tr>"
    )


def _recovery(status: dict[str, Any]) -> str:
    recovery = status.get("recovery") or {"paused": None, "rules": ()}
    rows = [
        f"<tr><th scope=row>{text(one['name'])}{note(_watch(one))}</th>"
        f"{standing(words.recovery_state(one), words.recovery_level(one), *map(text, _recovery_said(one)))}"
        f"<td>{one['attempts']} of {one['attempts_allowed']}</td>"
        f"<td>{one['budget_left']} left of {text(one['budget'])}</td></tr>"
        for one in recovery["rules"]
    ]
    fleet = recovery.get("fleet")
    told = "" if fleet is None else note(text(words.recovery_fleet(fleet)))
    heads = ("Rule", "State", "Attempts", "Budget")
    acts = orders.row(status, *orders.of_recovery(recovery))
    aside = "" if recovery["paused"] is None else mark("paused", "warn")
    return section("Recovery", _card(table("Recovery", heads, rows) + told + acts) if rows else "", aside)


def _watch(one: dict[str, Any]) -> str:
    return f"{text(one['watches'])} → {text(one['strategy'])}"


def _recovery_said(one: dict[str, Any]) -> list[str]:
    seen = words.recovery_seen(one)
    return ([seen] if seen else []) + (words.recovery_tries(one) or ["nothing so far"])


def _backups(status: dict[str, Any]) -> str:
    found = status.get("backups")
    if found is None:
        return ""
    word, level = backup_words.state(found)
    told = {
        name: breakable(text(value)) if name == "Repository" else text(value)
        for name, value in backup_words.facts(found)
    }
    age = (found["rpo"] or {}).get("age_seconds")
    if age is not None:
        target = found["rpo"]["target_seconds"]
        allowed = f"of {told.pop('Allowed (RPO)')} allowed"
        told["Its age"] = f"{clock(age)} {allowed}{gauge(age, target, 'Its age, of what the RPO allows')}"
    return section("Backups", _card(pairs("facts", told.items())), mark(word, level))


def _shared(shared: dict[str, Any] | None) -> str:
    told = [(name, said(one)) for name, one in fleet_words.facts(shared)]
    if shared is None:
        return ""
    rows = (
        f"<tr><th scope=row>{text(name)}</th><td>{mark(one.text, one.level)}</td>"
        f"<td class=quiet>{said(one._replace(text=''))}</td></tr>"
        for name, one in fleet_words.peers(shared)
    )
    peers = table("Replicas", ("Replica", "State", "Heard"), rows) if shared["peers"] else ""
    link = mark("connected", "good") if shared["connected"] else mark("out of reach", "bad")
    return section("Shared state", _card(pairs("facts", told) + peers), link)


def _certificates(found: Iterable[dict[str, Any]]) -> str:
    rows = [
        f"<tr><th scope=row>{text(one['owner'])} <small>{text(', '.join(one['names']))}</small></th>"
        f"<td>{mark(words.certificate_state(one), words.certificate_level(one))}</td>"
        f"<td>{text(one['until'])}</td><td><code>{text(one['file'])}</code></td></tr>"
        for one in found
    ]
    heads = ("Certificate of", "State", "Until", "File")
    return section("Certificates", _card(table("Certificates", heads, rows)) if rows else "")


def _figures(figures: dict[str, Any] | None) -> str:
    told = [(text(name), text(value)) for name, value in about_us.availability(figures)]
    return section("The last 30 days", _card(pairs("facts", told)) if told else "")


def _listeners(listeners: list[dict[str, Any]]) -> str:
    return section("Listeners and routes", "".join(_listener(one) for one in listeners))


def _listener(listener: dict[str, Any]) -> str:
    name = text(listener["name"])
    rows = [
        f"<tr><th scope=row>{text(route['name'])}</th><td>{text(route['match'])}</td>"
        f"<td>{text(route['upstream'])}</td>{number(route['requests_total'])}</tr>"
        for route in listener["routes"]
    ]
    return _card(
        f"<h3>{name} <small>{text(listener['bind'])} · {text(listener['protocol'])} · "
        f"{words.count(listener['connections'], 'connection')}</small></h3>"
        + table(f"Routes of {name}", ("Route", "Takes", "To", "Requests"), rows)
    )


def _program(status: dict[str, Any]) -> str:
    config = status["config"]
    error = config["last_reload_error"] or "the log has the reason"
    facts = (
        ("Version", text(str(status["version"]))),
        ("Up for", clock(status["uptime_seconds"])),
        ("Workers", figure(status["workers"])),
        ("Process", str(status["pid"])),
        *([("Service", text(words.child_said(child)))] if (child := status.get("child")) is not None else []),
        ("Configuration", f"<code>{breakable(text(str(config['path'])))}</code>"),
        ("Its hash", f"<code>{text(str(config['hash'])[:12])}</code>"),
        ("Loaded", ago(status, config["loaded_at"])),
        ("Last reload", mark("good", "good") if config["last_reload_ok"] else mark("failed", "bad")),
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
    failed = "" if config["last_reload_ok"] else f'<pre class="fault">{text(error)}</pre>'
    return section("Program", _card(pairs("facts", facts) + failed) + note(f"As data: {links}"))


def _card(content: str) -> str:
    return f"<article>{content}</article>"
