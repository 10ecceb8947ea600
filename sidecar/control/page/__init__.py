"""The status page: what runs, what is refused and why, what is healthy, live.

Theory. The page is made here, whole, from the same status that the API gives, so it can be read without JavaScript
and by a screen reader (`sections.py`: its parts; `words.py`: what they say). `live.js` then follows `/events`, which
sends what changed (`follow.py`), made by the same code; it brings the page up to date in place and formats nothing but
running clocks. It draws the plots, too, and gives the orders of `orders.py`.
"""

import re
from html import escape
from importlib.resources import files
from typing import Any

from sidecar.control.page.follow import Follower, Sight
from sidecar.control.page.orders import DIALOG, may_order
from sidecar.control.page.sections import sections

__all__ = ["Follower", "Sight", "assets", "render"]


PLOTS = """
<section id="plots" aria-label="The last ten minutes" hidden>
<figure><figcaption>Requests</figcaption><div id="plot-traffic" class="plot"></div></figure>
<figure><figcaption>Latency</figcaption><div id="plot-latency" class="plot"></div></figure>
<figure><figcaption>Share of errors</figcaption><div id="plot-errors" class="plot"></div></figure>
</section>"""
"""Drawn by `live.js`, by the vendored uPlot; hidden until there is something to draw."""

CONNECTION = """<p class="connection" id="connection" role="alert" hidden>Not connected since <time id="lost"></time>: \
what you see is old. Trying again.</p>"""
"""Shown by `live.js` once nothing comes any more."""


def assets() -> dict[str, tuple[bytes, str]]:
    """The page's files by their path: content and content type."""
    here = files(__name__)
    return {
        "/page.css": ((here / "page.css").read_bytes(), "text/css; charset=utf-8"),
        "/live.js": ((here / "live.js").read_bytes(), "text/javascript; charset=utf-8"),
        "/uPlot.js": ((here / "vendor/uPlot.iife.min.js").read_bytes(), "text/javascript; charset=utf-8"),
        "/uPlot.css": ((here / "vendor/uPlot.min.css").read_bytes(), "text/css; charset=utf-8"),
    }


def render(status: dict[str, Any]) -> str:
    """The page for this status."""
    service = escape(str(status["service"]))
    parts = sections(status)
    troubles = len(re.findall("<li", parts["attention"]))
    state, acts = parts.pop("state"), parts.pop("acts")
    main = "\n".join(_part(name, content) + (PLOTS if name == "traffic" else "") for name, content in parts.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{f"({troubles}) " if troubles else ""}{service} – sidecar</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/uPlot.css">
<link rel="stylesheet" href="/page.css">
<script defer src="/uPlot.js"></script>
<script type="module" src="/live.js"></script>
<noscript><meta http-equiv="refresh" content="5"></noscript>
</head>
<body data-version="{escape(str(status["version"]))}">
<header>
<h1>{service} <small>{escape(str(status["instance"]))}</small></h1>
<div id="state" class="part" role="status">{state}</div>
<div id="acts" class="part">{acts}</div>
{CONNECTION}
</header>
<main>
{main}
</main>
{DIALOG if may_order(status) else ""}
</body>
</html>
"""


def _part(name: str, content: str) -> str:
    """An element that `live.js` fills; what needs attention is announced to those who cannot see it."""
    announced = ' aria-live="polite"' if name == "attention" else ""
    return f'<section id="{name}" class="part"{announced}>{content}</section>'
