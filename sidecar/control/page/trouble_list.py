"""What comes first on the page: what needs attention, each a link to its place, and the open incidents' stories."""

from typing import Any
from urllib.parse import quote

from sidecar.control.page import orders, words
from sidecar.control.page.bricks import ago, mark, section, text

MAX_TROUBLES = 20
UNFOLDED = 8
"""Incidents; the others, up to MAX_TROUBLES, are folded away. The API has all."""
MAX_STORY = 10
"""Lines of an incident's timeline."""
_RANKS = {"critical": 0, "error": 1, "warning": 2}
_LEVELS: dict[str, words.Level] = {"info": "off", "warning": "warn"}


def attention(status: dict[str, Any]) -> str:
    """In one list; or, in a sentence, that all is well."""
    found = words.troubles(status)
    if not found:
        return f'<h2 class="unseen">Needs attention</h2><p class="well">{mark(words.all_well(status), "good")}</p>'
    items = [
        f'<li data-level="{one.level}"><a href="#{quote(one.place)}">{text(one.text)}</a></li>'
        for one in found[:MAX_TROUBLES]
    ]
    if len(found) > MAX_TROUBLES:
        items.append(f"<li>and {len(found) - MAX_TROUBLES} more</li>")
    return f'<h2>Needs attention</h2><ul class="list">{"".join(items)}</ul>'


def incidents(status: dict[str, Any]) -> str:
    """The open ones, the worst first, with what may be done about them."""
    found = sorted(status.get("incidents", ()), key=lambda one: _RANKS.get(one["severity"], 0))
    rows = [_incident(status, one) for one in found[:MAX_TROUBLES]]
    more = len(found) - UNFOLDED
    folded = f"<details><summary>{more:,} more</summary>{_list(rows[UNFOLDED:])}</details>" if more > 0 else ""
    aside = f"{len(found):,} open" if found else ""
    return section("Incidents", _list(rows[:UNFOLDED]) + folded if rows else "", aside)


def _list(rows: list[str]) -> str:
    return f'<div class="list">{"".join(rows)}</div>'


def _incident(status: dict[str, Any], one: dict[str, Any]) -> str:
    name = text(one["id"])
    by = f" by {text(one['acknowledged_by'])}" if one["acknowledged_by"] else ""
    impact = "".join(f" · {said}" for said in words.incident_impact(one))
    return (
        f'<article id="incident-{name}"><div class="apart"><h3>{text(one["title"])}</h3> '
        f"{mark(one['severity'], 'warn' if one['severity'] == 'warning' else 'bad')}</div>"
        f'<div class="apart"><p class="note"><code>{name}</code> · {text(one["status"])}{by} · '
        f"began {ago(status, one['started'])}{impact}</p>"
        + orders.row(status, *orders.of_incident(one))
        + f"</div>{_story(status, one)}</article>"
    )


def _story(status: dict[str, Any], one: dict[str, Any]) -> str:
    """The end of an incident's timeline; the whole of it is a link away."""
    path = f"/api/v1/incidents/{quote(one['id'])}"
    lines = "".join(
        f'<li data-level="{_LEVELS.get(line["level"], "bad")}"><span>{ago(status, line["at"])}</span> '
        f"{text(line['text'])}</li>"
        for line in one.get("timeline", ())[-MAX_STORY:]
    )
    return (
        f'<details><summary>Timeline<span class="unseen"> of {text(one["id"])}</span></summary>'
        f'<ol class="story">{lines}</ol><p class="note"><a href="{path}">all of it, as data</a></p></details>'
    )
