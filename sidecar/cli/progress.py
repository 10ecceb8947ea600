"""How far long work has come, on stderr: a bar with rate and time left on a terminal, JSON lines otherwise."""

import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, Self

from sidecar.base.units import show_duration

if TYPE_CHECKING:
    from sidecar.agent.ports import Progress as Told

_WIDTH = 24


class Progress:
    """Shows what it is told, a few times a second at most."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._gap = 0.1 if self._terminal else 1.0
        self._next = 0.0
        self._phase = ("", "")
        self._began = 0.0
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def tell(self, told: "Told") -> None:
        now = monotonic()
        if (told.phase, told.source) != self._phase:
            self._phase, self._began = (told.phase, told.source), now
        elif now < self._next:
            return
        self._next = now + self._gap
        rate = told.done / (now - self._began) if now > self._began else 0.0
        left = (told.total - told.done) / rate if told.total and rate else None
        if self._terminal:
            self._shown = True
            print(f"\r\x1b[K{_bar(told, rate, left)}", end="", file=sys.stderr, flush=True)
            return
        line = {"phase": told.phase, "source": told.source, "done": told.done, "total": told.total or None}
        line |= {"bytes_per_second": round(rate), "seconds_left": None if left is None else round(left, 1)}
        print(json.dumps(line), file=sys.stderr, flush=True)

    def step(self, step: str, mark: str) -> None:
        """A step of a restore begins or ends."""
        if self._terminal:
            print(f"\r\x1b[K{step}: {mark}", file=sys.stderr, flush=True)
        else:
            print(json.dumps({"step": step, "state": mark}), file=sys.stderr, flush=True)


def _bar(told: "Told", rate: float, left: float | None) -> str:
    share = min(1.0, told.done / told.total) if told.total else 0.0
    filled = int(share * _WIDTH)
    bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%}" if told.total else f"{told.done / 1e6:.1f} MB"
    then = f", {show_duration(round(left))} left" if left is not None else ""
    return f"{told.phase} {told.source} {bar} {rate / 1e6:.1f} MB/s{then}"
