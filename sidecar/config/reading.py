# ruff: noqa: TRY004 - a value of the wrong type is a wrong value here; one error class keeps callers simple
"""From what YAML says (`Plain`) to the program's value, one function per sort of value.

Each raises `ValueError` whose message is the whole advice: what is expected, and what stands there instead. URLs are
never repeated in a message, as they may hold a password that does not belong there.
"""

import re
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from sidecar.base import units

Plain = str | int | float | bool | None


def describe(value: Plain) -> str:
    """Name a value as the file's writer sees it, cut short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def article(word: str) -> str:
    """Put the right article before what people call a value."""
    if word == "text":
        return word
    return f"an {word}" if word[0] in "aeio" else f"a {word}"


def read_text(value: Plain, what: str = "text") -> str:
    """Return text as it is; `what` names what is expected."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is expected, not {describe(value)}; put quotes around it to make it text")
    return value


def read_bool(value: Plain) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"true or false is expected, not {describe(value)}")
    return value


def read_duration(value: Plain) -> float:
    """Return seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a duration like 30s is expected, not {describe(value)}")
    return units.parse_duration(str(value))


def read_positive_duration(value: Plain) -> float:
    """Return seconds, more than 0."""
    seconds = read_duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def read_size(value: Plain) -> int:
    """Return bytes."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"a size like 64KiB is expected, not {describe(value)}")
    return units.parse_size(str(value))


def read_ratio(value: Plain) -> float:
    """Return a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, str) and value.endswith("%"):
            raise ValueError(f"{describe(value)} is not a ratio: write a number from 0 to 1 (20 % is 0.2)")
        raise ValueError(f"a ratio from 0 to 1 is expected, not {describe(value)}")
    return units.parse_ratio(value)


def read_service_port(value: Plain) -> int | str:
    """Return a port's number or name."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    if isinstance(value, str) and re.fullmatch("[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", value):
        return value
    raise ValueError(f"{describe(value)} is neither a port from 1 to 65535 nor a port's name")


def read_network(value: Plain) -> str:
    """Return a network in CIDR notation."""
    text = read_text(value, "a network like 10.0.0.0/8")
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(f"{describe(text)} is not a network: write 10.0.0.0/8 or fd00::/8, no host bits set") from None


def read_repository(value: Plain) -> str:
    """Return an absolute directory or an s3:// URL without credentials."""
    text = read_text(value, "a directory or s3:// URL")
    if text.startswith("s3://") and len(text) > 5:
        if "@" in urlsplit(text).netloc:
            raise ValueError("a URL carries no credentials here: name their files in s3.*_file")
        return text
    if not text.startswith("/"):
        raise ValueError(f"{describe(text)} is neither an absolute directory nor s3://bucket/prefix")
    return text


def read_path(value: Plain) -> str:
    """Return an absolute path."""
    text = read_text(value, "a path")
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{describe(text)} is not an absolute path")
    return text


def _status(text: str) -> int:
    if not re.fullmatch(r"[1-5][0-9][0-9]", text):
        raise ValueError(f"{describe(text)} is not a status: write 503 or a range like 500-599")
    return int(text)


def read_statuses(value: Plain) -> range:
    """Return the statuses that one item (`503`, `500-599`) stands for."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"a status like 503 or a range like 500-599 is expected, not {describe(value)}")
    low, dash, high = str(value).partition("-")
    first = _status(low.strip())
    last = _status(high.strip()) if dash else first
    if last < first:
        raise ValueError(f"{describe(value)} runs backwards: write {last}-{first}")
    return range(first, last + 1)


def show_statuses(statuses: frozenset[int]) -> list[int | str]:
    """Print a set of statuses with its runs as ranges: `[404, "500-503"]`."""
    shown: list[int | str] = []
    run: list[int] = []
    for status in [*sorted(statuses), -1]:
        if run and status != run[-1] + 1:
            shown.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        run.append(status)
    return shown


RETRY_WORDS: Final = ("connect_failure", "reset", "timeout", "bad_response")


def read_retry_condition(value: Plain) -> tuple[str] | range:
    """Return the words or statuses that one item stands for."""
    if isinstance(value, str) and not value[:1].isdigit():
        if value not in RETRY_WORDS:
            raise ValueError(f"{describe(value)} is neither a status nor one of {', '.join(RETRY_WORDS)}")
        return (value,)
    return read_statuses(value)


def show_retry_conditions(conditions: frozenset[str | int]) -> list[int | str]:
    """Print a set of conditions, words first."""
    named = [word for word in RETRY_WORDS if word in conditions]
    return [*named, *show_statuses(frozenset(c for c in conditions if isinstance(c, int)))]
