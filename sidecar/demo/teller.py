"""What the demo says: a line each, with the time; a terminal's width is kept, and an address is told once."""

import shutil
import sys
import textwrap
import time
from typing import TextIO

INDENT = 20
"""Where sentences begin: behind the time and the word that says what they are about."""
NARROWEST = 48


class Teller:
    """Call it with a line, and with the address where more of it stands."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._told: set[str] = set()

    def __call__(self, line: str, link: str = "") -> None:
        if link and link not in self._told:
            self._told.add(link)
            line = f"{line}   {link}"
        line = f"{time.strftime('%H:%M:%S')}  {line}"
        if self._output.isatty():  # a file is for programs, which want whole lines
            width = max(NARROWEST, shutil.get_terminal_size().columns)
            line = textwrap.fill(line, width, subsequent_indent=" " * INDENT, break_on_hyphens=False)
        print(line, file=self._output, flush=True)
