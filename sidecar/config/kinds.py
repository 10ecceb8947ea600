# ruff: noqa: TRY004 - a value of the wrong type is a wrong value here; one error class keeps callers simple
"""What a single value in the file may look like: one `Kind` per sort of value, and the aliases that structs use.

A struct says `open_for: Annotated[Duration, Doc("…", source="…")] = 60.0`. `Duration` is a float that carries the
`Kind` which reads it (`60s`), prints it again, names it for people and describes it to JSON Schema; `Doc` carries the
field's meaning. Decoder, `print-defaults`, `explain`, the schema and the reference all read these two and nothing else.

A kind's `parse` takes what YAML says (str, int, float, bool or None) and raises `ValueError` with the whole advice.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from sidecar.base import units
from sidecar.config.address import parse_address

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class Doc:
    """What a field means, and whose habit or rule its default follows."""

    meaning: str
    source: str = ""


@dataclass(frozen=True, eq=False)
class Kind:
    """How one sort of value is read, printed and described."""

    word: str
    """What people call it: `duration`."""
    parse: Callable[[Plain], Any]
    """From YAML to the program's value; for an `each` kind, from one item to the values that it stands for."""
    schema: Mapping[str, Any]
    """JSON Schema of the value; for an `each` kind, of one item."""
    show: Callable[[Any], Any] = lambda value: value
    """The inverse of parse."""
    unit: str = ""
    empty: Any = ""
    """What stands for a value that could not be read, until its fault is reported."""
    each: bool = False
    """The value is a list in the file and a frozenset in the program; one item may stand for several values."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file. Field names are the file's keys; what has no default must be given."""

    one_of: ClassVar[tuple[str, ...]] = ()
    """Fields of which exactly one is given."""


def describe(value: Plain) -> str:
    """Name a value as the file's writer sees it, cut short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _text(value: Plain, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is expected, not {describe(value)}; put quotes around it to make it text")
    return value


def _parse_string(value: Plain) -> str:
    return _text(value, "text")


def _parse_bool(value: Plain) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is expected, not {describe(value)}")
    return value


def _parse_duration(value: Plain) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a duration like 30s is expected, not {describe(value)}")
    return units.parse_duration(str(value))


def _parse_positive_duration(value: Plain) -> float:
    seconds = _parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def _parse_size(value: Plain) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"a size like 64KiB is expected, not {describe(value)}")
    return units.parse_size(str(value))


def _parse_ratio(value: Plain) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, str) and value.endswith("%"):
            raise ValueError(f"{describe(value)} is not a ratio: write a number from 0 to 1 (20 % is 0.2)")
        raise ValueError(f"a ratio from 0 to 1 is expected, not {describe(value)}")
    return units.parse_ratio(value)


def whole(low: int, high: int = 1_000_000_000) -> Kind:
    """Return the kind of whole numbers from `low` to `high`."""

    def parse(value: Plain) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"a whole number is expected, not {describe(value)}")
        if not low <= value <= high:
            raise ValueError(f"{value} is not within {low} to {high}")
        return value

    return Kind(
        "whole number", parse, {"type": "integer", "minimum": low, "maximum": high}, unit=f"{low} to {high}", empty=low
    )


def _decimal(low: float, high: float) -> Kind:
    def parse(value: Plain) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"a number is expected, not {describe(value)}")
        if not low <= value <= high:
            raise ValueError(f"{value} is not within {low:g} to {high:g}")
        return float(value)

    schema = {"type": "number", "minimum": low, "maximum": high}
    return Kind("number", parse, schema, unit=f"{low:g} to {high:g}", empty=low)


def words(*allowed: str) -> Kind:
    """Return the kind of a fixed choice of words."""

    def parse(value: Plain) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{describe(value)} is not one of {', '.join(allowed)}")
        return value

    return Kind("word", parse, {"enum": list(allowed)}, unit=" | ".join(allowed))


def pattern(word: str, expression: str, advice: str) -> Kind:
    """Return the kind of text that matches `expression` as a whole."""
    compiled = re.compile(expression)

    def parse(value: Plain) -> str:
        text = _text(value, f"a {word}")
        if not compiled.fullmatch(text):
            raise ValueError(f"{describe(text)} is not a {word}: {advice}")
        return text

    return Kind(word, parse, {"type": "string", "pattern": f"^(?:{expression})$"})


def _address(*, ephemeral: bool) -> Kind:
    def parse(value: Plain) -> str:
        text = _text(value, "an address like 127.0.0.1:8080")
        parse_address(text, ephemeral=ephemeral)
        return text

    return Kind("address", parse, {"type": "string"}, unit="host:port, [ipv6]:port or unix:/path")


def _parse_service_port(value: Plain) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    if isinstance(value, str) and re.fullmatch("[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", value):
        return value
    raise ValueError(f"{describe(value)} is neither a port from 1 to 65535 nor a port's name")


def _parse_network(value: Plain) -> str:
    text = _text(value, "a network like 10.0.0.0/8")
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(f"{describe(text)} is not a network: write 10.0.0.0/8 or fd00::/8, no host bits set") from None


def _url(*schemes: str) -> Kind:
    begins = " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(value: Plain) -> str:
        text = _text(value, "a URL")
        try:  # no message repeats the text: it may hold a password that does not belong here
            parts = urlsplit(text)
            host, password, _ = parts.hostname, parts.password, parts.port
        except ValueError:
            raise ValueError(f"not a URL: one that begins with {begins} is expected") from None
        if parts.scheme not in schemes or not (host or parts.scheme == "unix"):
            raise ValueError(f"a URL that begins with {begins} is expected")
        if password is not None or "password" in parts.query.lower():
            raise ValueError("a URL carries no password here: put it into a file and name it in the *_file key")
        if any(ord(character) <= 32 or ord(character) == 127 for character in text):
            raise ValueError("a URL contains no spaces or control characters")
        return text

    return Kind("URL", parse, {"type": "string", "format": "uri"}, unit=begins)


def _parse_repository(value: Plain) -> str:
    text = _text(value, "a directory or s3:// URL")
    if text.startswith("s3://") and len(text) > 5:
        if "@" in urlsplit(text).netloc:
            raise ValueError("a URL carries no credentials here: name their files in s3.*_file")
        return text
    if not text.startswith("/"):
        raise ValueError(f"{describe(text)} is neither an absolute directory nor s3://bucket/prefix")
    return text


def _parse_path(value: Plain) -> str:
    text = _text(value, "a path")
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{describe(text)} is not an absolute path")
    return text


def _status(text: str) -> int:
    if not re.fullmatch(r"[1-5][0-9][0-9]", text):
        raise ValueError(f"{describe(text)} is not a status: write 503 or a range like 500-599")
    return int(text)


def _parse_statuses(value: Plain) -> range:
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


def _parse_retry_condition(value: Plain) -> tuple[str] | range:
    if isinstance(value, str) and not value[:1].isdigit():
        if value not in RETRY_WORDS:
            raise ValueError(f"{describe(value)} is neither a status nor one of {', '.join(RETRY_WORDS)}")
        return (value,)
    return _parse_statuses(value)


def _show_retry_conditions(conditions: frozenset[str | int]) -> list[int | str]:
    named = [word for word in RETRY_WORDS if word in conditions]
    return [*named, *show_statuses(frozenset(c for c in conditions if isinstance(c, int)))]


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a grammar rule
_STATUS_SCHEMA: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^[1-5][0-9][0-9]( *- *[1-5][0-9][0-9])?$"},
    ]
}
_RETRY_SCHEMA: Final = {"anyOf": [{"enum": list(RETRY_WORDS)}, _STATUS_SCHEMA]}
_DURATION_SCHEMA: Final = {"type": ["string", "integer"], "pattern": units.DURATION_PATTERN, "minimum": 0, "maximum": 0}
_SIZE_SCHEMA: Final = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": units.SIZE_PATTERN}],
}
_DURATION_UNIT: Final = "us, ms, s, m, h, d or w"
NAME_EXPRESSION: Final = "[a-z0-9][a-z0-9_.-]*"

Text = Annotated[str, Kind("text", _parse_string, {"type": "string"})]
Flag = Annotated[bool, Kind("flag", _parse_bool, {"type": "boolean"}, unit="true | false")]
Duration = Annotated[
    float, Kind("duration", _parse_duration, _DURATION_SCHEMA, units.show_duration, unit=_DURATION_UNIT)
]
PositiveDuration = Annotated[
    float,
    Kind("duration", _parse_positive_duration, _DURATION_SCHEMA, units.show_duration, unit=f"{_DURATION_UNIT}; not 0"),
]
Size = Annotated[int, Kind("size", _parse_size, _SIZE_SCHEMA, units.show_size, unit="B, KiB, MiB, GiB or TiB")]
Ratio = Annotated[float, Kind("ratio", _parse_ratio, {"type": "number", "minimum": 0, "maximum": 1}, unit="0 to 1")]
Count = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Port = Annotated[int, whole(1, 65535)]
ServicePort = Annotated[
    int | str, Kind("port", _parse_service_port, {"type": ["integer", "string"]}, unit="number or name")
]
Multiplier = Annotated[float, _decimal(1.0, 100.0)]
Name = Annotated[
    str,
    pattern("name", NAME_EXPRESSION, "lower-case letters, digits, `_`, `.` and `-`, a letter or digit first"),
]
Address = Annotated[str, _address(ephemeral=False)]
Bind = Annotated[str, _address(ephemeral=True)]
Network = Annotated[str, Kind("network", _parse_network, {"type": "string"}, unit="CIDR")]
Path = Annotated[str, Kind("path", _parse_path, {"type": "string", "pattern": "^/"}, unit="absolute")]
HttpUrl = Annotated[str, _url("http", "https")]
RedisUrl = Annotated[str, _url("redis", "rediss", "unix")]
RepositoryUrl = Annotated[str, Kind("repository", _parse_repository, {"type": "string"}, unit="/directory or s3://")]
Token = Annotated[str, pattern("token", _TOKEN, "letters, digits and !#$%&'*+.^_`|~- (RFC 9110 §5.6.2)")]
Method = Annotated[str, pattern("method", "[A-Z][A-Z-]*", "upper-case letters, like GET")]
HostPattern = Annotated[
    str,
    pattern(
        "host",
        r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]",
        "lower case, exact (api.internal) or one leading wildcard (*.example.com), no port",
    ),
]
Authority = Annotated[
    str,
    pattern(
        "host", r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", "a name or address, with a port if need be"
    ),
]
UrlPath = Annotated[str, pattern("path", r"/[!-~]*", "it begins with / and has no spaces")]
FieldValue = Annotated[
    str, pattern("header value", r"[!-~\x80-\U0010ffff](?:[\t -~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?|", "one line")
]
Statuses = Annotated[
    frozenset[int],
    Kind("set of statuses", _parse_statuses, _STATUS_SCHEMA, show_statuses, "100 to 599, ranges as 500-599", each=True),
]
RetryConditions = Annotated[
    frozenset[str | int],
    Kind(
        "set of conditions",
        _parse_retry_condition,
        _RETRY_SCHEMA,
        _show_retry_conditions,
        f"{', '.join(RETRY_WORDS)}, or statuses",
        each=True,
    ),
]
