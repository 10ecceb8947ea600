"""Colour for terminals, and only for them: none into pipes and files, none when NO_COLOR is set (no-color.org)."""

import os
import sys

_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


def paint(text: str, colour: str) -> str:
    """Return `text` in `colour` (bold, red, green, yellow) when standard output is a terminal that wants it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
