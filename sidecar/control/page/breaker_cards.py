"""The breakers as cards: state, why, since when, what comes next, what the window holds, what the fleet says.

What needs no attention is kept short, so that among thirty cards those that refuse stand out.
"""

from typing import Any

from sidecar.control.page import fleet_words, orders, words
from sidecar.control.page.bricks import breakable, clock, gauge, mark, note, pairs, said, section, text
from sidecar.control.page.words import figure

_TALLY: dict[words.Level, str] = {"bad": "refusing", "warn": "to be watched", "good": "closed", "off": "disabled"}


def part(status: dict[str, Any]) -> str:
    """All of them."""
    found = status["breakers"]
    cards = "".join(_card(status, one) for one in found)
    aside = words.tally(map(words.breaker_level, found), _TALLY)
    return section("Circuit breakers", f'<div class="cards">{cards}</div>' if cards else "", aside)


def _card(status: dict[str, Any], one: dict[str, Any]) -> str:
    level, why = words.breaker_level(one), words.breaker_why(one)
    observed = ' <small class="tag">only observed</small>' if one["mode"] == "observe" else ""
    return (
        f'<article id="breaker-{text(one["name"])}" class="breaker" data-level="{level}" '
        f'data-state="{text(one["machine"])}"><h3 class="apart"><span>{breakable(text(one["name"]))}{observed}</span> '
        f"{mark(words.breaker_state(one), level)}</h3>"
        + (f'<p class="why">{text(why)}</p>' if why else "")
        + _next(one)
        + pairs("pairs", _facts(one))
        + _fleet(one.get("fleet"), status.get("shared"))
        + orders.row(status, *orders.of_breaker(one))
        + "</article>"
    )


def _next(one: dict[str, Any]) -> str:
    """What comes next, and how far it is."""
    told, left = words.breaker_next(one)
    if left is None:
        return f'<p class="then">{told}</p>' if told else ""
    whole = one["for_seconds"] + left
    return f'<p class="then">{told} {clock(left, "down")}</p>' + gauge(one["for_seconds"], whole, f"until {told}")


def _facts(one: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = one["window"]["seconds"]
    told = [("Since", f"{clock(one['for_seconds'])} ago"), (f"Last {seconds:g} s", words.breaker_window(one))]
    if one["refused"]:
        told.append(("Would have refused" if one["mode"] == "observe" else "Refused", figure(one["refused"])))
    if one["reopened"]:
        told.append(("Opened again", words.count(one["reopened"], "time")))
    return told


def _fleet(fleet: dict[str, Any] | None, shared: dict[str, Any] | None) -> str:
    """What the replicas agree on, and what each of them says."""
    if fleet is None or shared is None:
        return ""
    verdict = fleet_words.verdict(fleet)
    voices = "".join(
        f"<div><dt>{text(name)}</dt>{''.join(_voice(one) for one in told)}</div>"
        for name, told in fleet_words.voices(fleet, shared)
    )
    return (
        f'<div class="fleet"><h4>Fleet <span data-level="{verdict.level}">{said(verdict)}</span></h4>'
        + (f'<dl class="voices">{voices}</dl>' if voices else "")
        + "".join(note(said(one)) for one in fleet_words.notes(fleet))
        + "</div>"
    )


def _voice(told: fleet_words.Said) -> str:
    return f'<dd data-level="{told.level}">{said(told)}</dd>'
