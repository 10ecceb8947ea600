"""The status page: what runs, what is routed where, live counts.

Theory. The page is made here, whole, from the same status that the API gives (its shape: `Program.status` in
`control/admin.py`), so it can be read without JavaScript and by a screen reader. `live.js` then follows `/events` and
puts new figures into the elements that name a figure in `data-live`; it builds nothing. When something comes or goes
(an endpoint, a route), it loads the page anew.
"""

from html import escape
from importlib.resources import files
from typing import Any

UNKNOWN = "–"
NUMBERS = {"Requests", "Active", "Idle", "Priority", "Weight"}
"""Columns that are set to the right."""


def assets() -> dict[str, tuple[bytes, str]]:
    """The page's files by their path: content and content type."""
    here = files(__name__)
    return {
        "/page.css": ((here / "page.css").read_bytes(), "text/css; charset=utf-8"),
        "/live.js": ((here / "live.js").read_bytes(), "text/javascript; charset=utf-8"),
    }


def render(status: dict[str, Any]) -> str:
    """The page for this status."""
    service = escape(str(status["service"]))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{service} – sidecar</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script type="module" src="/live.js"></script>
</head>
<body>
<header>
<h1>{service} <small>{escape(str(status["instance"]))}</small></h1>
<p class="state" data-live="state" data-state="{escape(status["state"])}" role="status">{escape(status["state"])}</p>
<p class="connection" id="connection" hidden>Connection lost. The figures are old; trying again.</p>
</header>
<main>
{_notices(status["config"])}
{_traffic(status["traffic"])}
<section aria-labelledby="routes"><h2 id="routes">Listeners and routes</h2>
{"".join(_listener(index, one) for index, one in enumerate(status["listeners"])) or _nothing("No listeners.")}
</section>
<section aria-labelledby="upstreams"><h2 id="upstreams">Upstreams</h2>
{"".join(_upstream(index, one) for index, one in enumerate(status["upstreams"])) or _nothing("No upstreams.")}
</section>
{_program(status)}
</main>
</body>
</html>
"""


def figure(value: Any, form: str = "count") -> str:
    """A figure for people, as `live.js` formats it too: count, rate (per second), ms or seconds."""
    if value is None:
        return UNKNOWN
    match form:
        case "rate":
            return f"{value:,.1f}"
        case "ms":
            return f"{value:,.2f} ms" if value < 10 else f"{value:,.0f} ms"
        case "seconds":
            return duration(int(value))
        case _:
            return f"{value:,}"


def duration(seconds: int) -> str:
    """`3d 4h`, `4h 5m`, `5m 6s`, `6s`: the two largest units."""
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next((place for place, (_, size) in enumerate(sizes) if seconds >= size), 3)
    words = []
    for unit, size in sizes[first : first + 2]:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)


def _live(path: str, value: Any, form: str = "count") -> str:
    return f'<span data-live="{path}" data-form="{form}">{figure(value, form)}</span>'


def _notices(config: dict[str, Any]) -> str:
    notices = []
    if not config["last_reload_ok"]:
        reason = escape(str(config["last_reload_error"] or "the log has the reason"))
        notices.append(f"<p>The configuration file is invalid; the last good one runs. <code>{reason}</code></p>")
    notices += [f"<p>Needs a restart: {escape(str(change))}</p>" for change in config["restart_needed"]]
    return f'<div class="notice" role="alert">{"".join(notices)}</div>' if notices else ""


def _traffic(traffic: dict[str, Any]) -> str:
    tiles = (
        ("requests / s", "rps", "rate"),
        ("in flight", "inflight", "count"),
        ("p50", "p50_ms", "ms"),
        ("p99", "p99_ms", "ms"),
        ("errors", "errors_total", "count"),
        ("requests", "requests_total", "count"),
    )
    items = "".join(
        f"<div><dt>{label}</dt><dd>{_live(f'traffic.{name}', traffic[name], form)}</dd></div>"
        for label, name, form in tiles
    )
    return f'<section aria-label="Traffic"><dl class="tiles">{items}</dl></section>'


def _listener(index: int, listener: dict[str, Any]) -> str:
    path = f"listeners.{index}"
    rows = "".join(
        f"<tr><th scope=row>{escape(route['name'])}</th><td>{escape(route['match'])}</td>"
        f"<td>{escape(route['upstream'])}</td>"
        f"<td class=number>{_live(f'{path}.routes.{place}.requests_total', route['requests_total'])}</td></tr>"
        for place, route in enumerate(listener["routes"])
    )
    return (
        f"<article><h3>{escape(listener['name'])} <small>{escape(listener['bind'])} · {escape(listener['protocol'])} · "
        f"{_live(f'{path}.connections', listener['connections'])} connections</small></h3>"
        + _table(("Route", "Takes", "To", "Requests"), rows)
        + "</article>"
    )


def _upstream(index: int, upstream: dict[str, Any]) -> str:
    path = f"upstreams.{index}"
    rows = "".join(_endpoint(f"{path}.endpoints.{place}", one) for place, one in enumerate(upstream["endpoints"]))
    return (
        f"<article><h3>{escape(upstream['name'])} <small>"
        f"{_live(f'{path}.requests_total', upstream['requests_total'])} requests · "
        f"{_live(f'{path}.inflight', upstream['inflight'])} in flight · "
        f"{_live(f'{path}.pending', upstream['pending'])} waiting</small></h3>"
        + _table(("Endpoint", "Health", "Active", "Idle", "Priority", "Weight"), rows)
        + "</article>"
    )


def _endpoint(path: str, endpoint: dict[str, Any]) -> str:
    healthy = endpoint["healthy"]
    word = UNKNOWN if healthy is None else "healthy" if healthy else "unhealthy"
    return (
        f"<tr><th scope=row><code>{escape(endpoint['address'])}</code></th>"
        f'<td><span class="health" data-live="{path}.healthy" data-form="health" data-state="{word}">{word}</span></td>'
        f"<td class=number>{_live(f'{path}.active', endpoint['active'])}</td>"
        f"<td class=number>{_live(f'{path}.idle', endpoint['idle'])}</td>"
        f"<td class=number>{endpoint['priority']}</td><td class=number>{endpoint['weight']}</td></tr>"
    )


def _table(heads: tuple[str, ...], rows: str) -> str:
    columns = "".join(f"<th scope=col{' class=number' if head in NUMBERS else ''}>{head}</th>" for head in heads)
    return f'<div class="wide" tabindex=0><table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>'


def _program(status: dict[str, Any]) -> str:
    config = status["config"]
    facts = (
        ("Version", escape(str(status["version"]))),
        ("Up for", _live("uptime_seconds", status["uptime_seconds"], "seconds")),
        ("Workers", _live("workers", status["workers"])),
        ("Process", str(status["pid"])),
        ("Configuration", f"<code>{escape(str(config['path']))}</code>"),
        ("Loaded", f"{escape(str(config['loaded_at']))} <code>{escape(str(config['hash'])[:12])}</code>"),
    )
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    links = " · ".join(
        f'<a href="{path}">{name}</a>'
        for name, path in (("status", "/api/v1/status"), ("configuration", "/api/v1/config"), ("metrics", "/metrics"))
    )
    return (
        f'<section aria-labelledby="program"><h2 id="program">Program</h2><dl class="facts">{items}</dl>'
        f"<p>As data: {links}</p></section>"
    )


def _nothing(sentence: str) -> str:
    return f'<p class="nothing">{sentence}</p>'
