"""What the page's parts are built of. Every text that comes in from outside goes through `text`, which escapes it.

Figures that only grow older are clocks: `<time data-up=12>12s</time>` counts up in the browser by itself, `data-down`
counts down, and a `<meter>` of the same kind fills, so that a second that passes is no reason to send a part again
(`follow.py`). A moment is told by how long ago it was; the moment itself shows when it is pointed at.
"""

import re
from collections.abc import Iterable
from html import escape
from typing import Any, Literal

from sidecar.control.page import words
from sidecar.control.page.fleet_words import Said
from sidecar.control.page.words import figure

Way = Literal["up", "down"]
Form = Literal["count", "rate", "ms"]
NUMBERS = {"Requests", "Active", "Idle", "Priority", "Weight", "Latency", "Answers", "Per second"}
"""Columns that are set to the right."""

text = escape
_JOINT = re.compile(r"([./-])(?=\w)")


def breakable(name: str) -> str:
    """A long name (HTML) that may go on in the next line after a dot, dash or slash."""
    return _JOINT.sub(r"\1<wbr>", name)


def clock(seconds: float, way: Way = "up", moment: str | None = None) -> str:
    """A duration that the browser keeps up to date; `moment` (UTC, ISO) is when it began."""
    when = f' datetime="{text(moment)}" title="{text(words.moment(moment))}"' if moment else ""
    return f'<time data-{way}="{seconds:.1f}"{when}>{figure(seconds, "seconds")}</time>'


def gauge(seconds: float, most: float, label: str) -> str:
    """How much of `most` seconds has passed, as a bar that fills by itself."""
    return (
        f'<meter value="{seconds:.1f}" data-up="{seconds:.1f}" max="{most:.0f}" high="{0.8 * most:.0f}" optimum="0" '
        f'aria-label="{text(label)}"></meter>'
    )


def ago(status: dict[str, Any], moment: str | None) -> str:
    """How long ago a moment was."""
    seconds = words.seconds_since(status, moment)
    return words.UNKNOWN if seconds is None else f"{clock(seconds, 'up', moment)} ago"


def said(told: Said) -> str:
    """Words about the fleet, with their clock."""
    timed = "" if told.seconds is None else told.clock.format(clock(told.seconds, told.way))
    return ", ".join(word for word in (text(told.text), timed) if word)


def mark(state: str, level: words.Level) -> str:
    """A state, in a word with a sign before it that says the same without colour."""
    return f'<span class="mark" data-level="{level}">{text(state)}</span>'


def standing(state: str, level: words.Level, *below: str) -> str:
    """A cell with a state and, below it, what is to be said of it (HTML)."""
    return f"<td>{mark(state, level)}{''.join(note(one) for one in below if one)}</td>"


def note(content: str) -> str:
    """A line below what it is about (HTML)."""
    return f'<p class="note">{content}</p>'


def section(title: str, content: str, aside: str = "") -> str:
    """A part's heading and content; nothing when there is nothing. `aside`: the part in a few words."""
    return f"<h2>{title}{f' <small>{aside}</small>' if aside else ''}</h2>{content}" if content else ""


def table(caption: str, heads: tuple[str, ...], rows: Iterable[str]) -> str:
    """A table that scrolls by itself when it is too wide; `caption` is for those who do not see it."""
    columns = "".join(f"<th scope=col{' class=number' if head in NUMBERS else ''}>{head}</th>" for head in heads)
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex=0><table>'
        f'<caption class="unseen">{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def pairs(kind: str, told: Iterable[tuple[str, str]]) -> str:
    """Names and values (HTML)."""
    return f'<dl class="{kind}">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told)}</dl>'


def number(value: Any, form: Form = "count") -> str:
    """A cell with a figure."""
    return f"<td class=number>{figure(value, form)}</td>"
