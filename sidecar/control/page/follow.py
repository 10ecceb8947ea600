"""What one browser has to be sent: the parts of the page that say something else than what it was sent last.

Clocks go on by themselves in the browser. So a part whose clocks only went on as time did is not sent again, and a
page where nothing happens costs nothing on the wire.
"""

import re
from typing import Any

from sidecar.control.page.sections import sections

DRIFT = 2.0
"""Seconds by which a clock may be off before its part is sent again."""
_CLOCK = re.compile(r'<(?:time|meter value="[0-9.]+") data-(up|down)="([0-9.]+)"([^>]*)>[^<]*</(?:time|meter)>')


class Follower:
    """One browser and what it has."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[str, list[float]]] = {}

    def changed(self, status: dict[str, Any], now: float) -> dict[str, str]:
        """The parts to be sent for this status, taken at `now` (monotonic seconds)."""
        news = {}
        for name, part in sections(status).items():
            still, starts = _CLOCK.sub(r"<time \1 \3>", part), _starts(part, now)
            known = self._sent.get(name)
            if known is None or known[0] != still or _drifted(known[1], starts):
                self._sent[name] = (still, starts)
                news[name] = part
        return news


def _starts(part: str, now: float) -> list[float]:
    """When each clock was, or will be, at zero."""
    return [now + (-float(value) if way == "up" else float(value)) for way, value, _ in _CLOCK.findall(part)]


def _drifted(before: list[float], after: list[float]) -> bool:
    return any(abs(one - other) > DRIFT for one, other in zip(before, after, strict=True))
