"""The program's own log: events with stable names and fields, to stderr.

Theory. A line is an event (`listener_bound`, `config_reload_failed`): a name that a search or an alert may rely on, and
fields that say the rest. JSON lines for machines, aligned text on a terminal. Traffic is not logged here but in
`runtime/access_log.py`; nothing on a request's way logs, except limited by `every`. A reader of stderr that stalls
costs lines, never the loop (`runtime/log_writer.py`).

Rules. `every=SECONDS` lets an event of that name (and `about`, when given) through once in so many seconds, and the
next one tells how many were held back. No secret and no raw bytes of the network go into a field; control characters
are escaped in both formats, so nobody can forge a line.
"""

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from sidecar.runtime.log_writer import LogWriter

_COLOURS = {
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[31m",
    logging.INFO: "\x1b[36m",
}
_ROOT = "sidecar"


class Log:
    """A named source of events. Cheap to make; one per module as a rule."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def debug(self, event: str, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, *, every: float = 0.0, about: str = "", **fields: Any) -> None:
        if not every or self._due(event, about, every, fields):
            self._write(logging.INFO, event, fields)

    def warning(self, event: str, *, every: float = 0.0, about: str = "", **fields: Any) -> None:
        """Something is off and we go on. `every`: at most once in so many seconds per event and `about`."""
        if not every or self._due(event, about, every, fields):
            self._write(logging.WARNING, event, fields)

    def error(
        self, event: str, *, every: float = 0.0, about: str = "", error: BaseException | None = None, **fields: Any
    ) -> None:
        """Something failed. `error` adds the exception and its traceback."""
        if not every or self._due(event, about, every, fields):
            self._write(logging.ERROR, event, fields, error)

    def _due(self, event: str, about: str, every: float, fields: dict[str, Any]) -> bool:
        now = time.monotonic()
        last, held = self._said.get((event, about), (-every, 0))
        if now - last < every:
            self._said[event, about] = (last, held + 1)
            return False
        if len(self._said) > 1000:  # `about` may come from outside; the memory for it stays bounded
            self._said.clear()
        self._said[event, about] = (now, 0)
        if held:
            fields["held_back"] = held
        return True

    def _write(self, level: int, event: str, fields: dict[str, Any], error: BaseException | None = None) -> None:
        if self._log.isEnabledFor(level):
            self._log.log(level, event, extra={"fields": fields}, exc_info=error)


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "event": …, fields…}`, one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _stamp(record), "level": record.levelname.lower(), "event": _event(record)}
        line |= _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """`12:00:01 warning  accept_paused  listener=inbound`, for a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower():<8}"
        if self._colour and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}\x1b[0m"
        words = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items())
        line = f"{_stamp(record)[11:19]} {level} {_event(record):<24} {words}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def setup(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 - the YAML's word
    """Send every event of this process to `stream` (stderr). `format`: json, text, or auto (text on a terminal)."""
    terminal = (stream or sys.stderr).isatty()
    as_text = format == "text" or (format == "auto" and terminal)
    handler = logging.StreamHandler(stream or LogWriter(sys.stderr, _tell_lost))
    handler.setFormatter(
        TextFormatter(colour=terminal and "NO_COLOR" not in os.environ) if as_text else JsonFormatter()
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Say from now on what is at least of this level."""
    logging.getLogger(_ROOT).setLevel(level.upper())


def _tell_lost(count: int) -> None:
    Log(__name__).warning("log_lines_lost", lines=count, advice="whoever reads stderr does not keep up")


def _stamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _event(record: logging.LogRecord) -> str:
    return record.getMessage() if record.name.split(".", 1)[0] == _ROOT else "library_message"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    if record.name.split(".", 1)[0] == _ROOT:
        return getattr(record, "fields", {})
    return {"library": record.name, "message": record.getMessage()}


def _word(value: Any) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(mark in text for mark in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
