"""What one browser has to be sent: what on the page says something else than what it was sent last.

Theory. A page at one moment (`Sight`) is made once for all who look. It falls into parts, and a part into *cards*, its
articles with an id; what changed is sent card by card, a part as a whole only when something else in it changed, or
cards came or went. Clocks go on by themselves in the browser. So nothing is sent because its clocks only went on as
time did, and a page where nothing happens costs nothing on the wire.
"""

import re
from html import unescape
from typing import Any, NamedTuple

from sidecar.control.page.sections import sections

DRIFT = 2.0
"""Seconds by which a clock may be off before it is sent again."""
_CLOCK = re.compile(r'<(?:time|meter value="[0-9.]+") data-(up|down)="([0-9.]+)"([^>]*)>[^<]*</(?:time|meter)>')
_CARD = re.compile(r'<article id="([^"]+)".*?</article>', re.DOTALL)


class _Piece(NamedTuple):
    """A part, or a card."""

    text: str
    still: str
    """What it says but for its clocks, and for its cards."""
    starts: list[float]
    """When each of its own clocks was, or will be, at zero."""

    def says_more_than(self, other: "_Piece | None") -> bool:
        if other is None or self.still != other.still:
            return True
        return any(abs(mine - theirs) > DRIFT for mine, theirs in zip(self.starts, other.starts, strict=True))


class Sight:
    """What the page says at one moment."""

    def __init__(self, status: dict[str, Any], now: float) -> None:
        """`now`: when this status was taken, in monotonic seconds."""
        self.version = str(status["version"])
        self.parts: dict[str, tuple[_Piece, dict[str, _Piece]]] = {}
        """Each part, and its cards by their ids."""
        for name, text in sections(status).items():
            cards = {unescape(found[1]): _piece(found[0], found[0], now) for found in _CARD.finditer(text)}
            self.parts[name] = (_piece(text, _CARD.sub(r"<\1>", text), now), cards)


class Follower:
    """One browser and what it has."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[_Piece, dict[str, _Piece]]] = {}

    def news(self, sight: Sight) -> dict[str, str]:
        """The parts and cards to be sent, by the ids of their elements: a part without, a card with its element."""
        found = {}
        for name, (part, cards) in sight.parts.items():
            sent = self._sent.get(name)
            if sent is None or part.says_more_than(sent[0]):
                self._sent[name] = (part, dict(cards))
                found[name] = part.text
                continue
            for card, piece in cards.items():
                if piece.says_more_than(sent[1].get(card)):
                    sent[1][card] = piece
                    found[card] = piece.text
        return found


def _piece(text: str, own: str, now: float) -> _Piece:
    clocks = _CLOCK.findall(own)
    starts = [now + (-float(value) if way == "up" else float(value)) for way, value, _ in clocks]
    return _Piece(text, _CLOCK.sub(r"<time \1 \3>", own) if clocks else own, starts)
