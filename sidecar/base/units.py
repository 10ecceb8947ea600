"""Durations, sizes and ratios as people write them: parse and print, each the exact inverse of the other.

A duration is one or more whole or decimal numbers, each with its unit, largest unit first: `250ms`, `30s`, `1m30s`,
`7d`. It becomes float seconds, exact to the microsecond. A bare number is refused, since nobody can tell what it
counts; only `0` needs no unit. A size is bytes: a plain integer, or one number with a binary unit (`64KiB`). Decimal
units are refused rather than guessed (`64K` is 64,000 to one reader and 65,536 to the next). A ratio is 0 to 1;
`20%` is refused with the right way to write it.

Every refusal is a `ValueError` whose message says what is accepted.
"""

import re

_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_ORDER = {unit: position for position, unit in enumerate(_MICROSECONDS)}
_BYTES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}

_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)(ms|us|[wdhms])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)(B|KiB|MiB|GiB|TiB)")

LONGEST_SECONDS = 3650 * 86_400.0
"""Ten years: beyond it a duration is a slip of the keyboard, and timers lose precision."""
LARGEST_BYTES = 1 << 50

DURATION_PATTERN = r"^(0|([0-9]+(\.[0-9]+)?(w|d|h|m|s|ms|us))+)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$"


def parse_duration(text: str) -> float:
    """Return the seconds that `text` (`250ms`, `1m30s`, `0`) means, 0 to ten years."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(_duration_advice(text))
    total, last = 0, -1
    for number, unit in _PART.findall(text):
        if _ORDER[unit] <= last:
            raise ValueError(f"write {_quoted(text)} with each unit once and the largest first, like 1m30s")
        last = _ORDER[unit]
        total += _times(number, _MICROSECONDS[unit], "a microsecond")
    seconds = total / 1_000_000
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{_quoted(text)} is longer than ten years")
    return seconds


def show_duration(seconds: float) -> str:
    """Print seconds (0 to ten years) so that `parse_duration` reads the same again, to the microsecond.

    As people write them: 60s and 90s, not 1m and 1m30s; 24h, not 1d; 7d, not 1w.
    """
    total = rest = round(seconds * 1_000_000)
    if total == 0:
        return "0s"
    parts = []
    for unit, worth in _MICROSECONDS.items():
        if unit == "w" or (unit in {"d", "m"} and total < 2 * worth):
            continue
        count, rest = divmod(rest, worth)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Return the bytes that `text` (`64KiB`, `1.5MiB`, `512B`, `65536`) means."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return _sane_bytes(int(text), text)
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{_quoted(text)} is not a size: write 64KiB, 1MiB, 2GiB, or bytes as a plain number")
    return _sane_bytes(_times(found[1], _BYTES[found[2]], "a byte"), text)


def show_size(count: int) -> int | str:
    """Print bytes in the largest unit that divides them evenly; a count below 1 KiB stays a number."""
    for unit, worth in _BYTES.items():
        if worth > 1 and count >= worth and count % worth == 0:
            return f"{count // worth}{unit}"
    return count


def parse_ratio(value: float) -> float:
    """Return `value` when it lies within 0 to 1."""
    if not 0 <= value <= 1:  # also refuses NaN
        raise ValueError(f"{value} is not a ratio: write a number from 0 to 1 (20 % is 0.2)")
    return float(value)


def _times(number: str, worth: int, finest: str) -> int:
    whole, _, decimals = number.partition(".")
    shift: int = 10 ** len(decimals)
    product, rest = divmod(int(whole + decimals) * worth, shift)
    if rest:
        raise ValueError(f"{number} is too fine here: nothing smaller than {finest} counts")
    return product


def _sane_bytes(count: int, text: str) -> int:
    if count > LARGEST_BYTES:
        raise ValueError(f"{_quoted(text)} is larger than 1024 TiB")
    return count


def _duration_advice(text: str) -> str:
    if re.fullmatch(r"[0-9.]+", text):
        return f"{text} has no unit: write {text}s or {text}ms"
    return f"{_quoted(text)} is not a duration: write 250ms, 30s, 1m30s, 2h or 7d"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
