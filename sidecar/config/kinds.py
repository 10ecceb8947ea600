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
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from sidecar.base import units
from sidecar.config.address import parse_address
from sidecar.config.reading import (
    RETRY_WORDS,
    Plain,
    article,
    describe,
    read_bool,
    read_duration,
    read_network,
    read_path,
    read_positive_duration,
    read_ratio,
    read_repository,
    read_retry_condition,
    read_service_port,
    read_size,
    read_statuses,
    read_text,
    show_retry_conditions,
    show_statuses,
)


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
        text = read_text(value, article(word))
        if not compiled.fullmatch(text):
            raise ValueError(f"{describe(text)} is not {article(word)}: {advice}")
        return text

    return Kind(word, parse, {"type": "string", "pattern": f"^(?:{expression})$"})


def _address(*, ephemeral: bool) -> Kind:
    def parse(value: Plain) -> str:
        text = read_text(value, "an address like 127.0.0.1:8080")
        parse_address(text, ephemeral=ephemeral)
        return text

    return Kind("address", parse, {"type": "string"}, unit="host:port, [ipv6]:port or unix:/path")


def _url(*schemes: str) -> Kind:
    begins = " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(value: Plain) -> str:
        text = read_text(value, "a URL")
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

Text = Annotated[str, Kind("text", read_text, {"type": "string"})]
Flag = Annotated[bool, Kind("flag", read_bool, {"type": "boolean"}, unit="true | false")]
Duration = Annotated[float, Kind("duration", read_duration, _DURATION_SCHEMA, units.show_duration, _DURATION_UNIT, 0.0)]
PositiveDuration = Annotated[
    float,
    Kind("duration", read_positive_duration, _DURATION_SCHEMA, units.show_duration, f"{_DURATION_UNIT}; not 0", 0.0),
]
Size = Annotated[int, Kind("size", read_size, _SIZE_SCHEMA, units.show_size, unit="B, KiB, MiB, GiB or TiB")]
Ratio = Annotated[float, Kind("ratio", read_ratio, {"type": "number", "minimum": 0, "maximum": 1}, unit="0 to 1")]
Count = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Port = Annotated[int, whole(1, 65535)]
ServicePort = Annotated[
    int | str, Kind("port", read_service_port, {"type": ["integer", "string"]}, unit="number or name")
]
Multiplier = Annotated[float, _decimal(1.0, 100.0)]
Name = Annotated[
    str,
    pattern("name", NAME_EXPRESSION, "lower-case letters, digits, `_`, `.` and `-`, a letter or digit first"),
]
DnsName = Annotated[
    str, pattern("DNS name", r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", "labels joined by dots")
]
Address = Annotated[str, _address(ephemeral=False)]
Bind = Annotated[str, _address(ephemeral=True)]
Network = Annotated[str, Kind("network", read_network, {"type": "string"}, unit="CIDR")]
Path = Annotated[str, Kind("path", read_path, {"type": "string", "pattern": "^/"}, unit="absolute")]
HttpUrl = Annotated[str, _url("http", "https")]
RedisUrl = Annotated[str, _url("redis", "rediss", "unix")]
RepositoryUrl = Annotated[str, Kind("repository", read_repository, {"type": "string"}, unit="/directory or s3://")]
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
PeerHost = Annotated[
    str,
    pattern("server name", r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:]+", "a DNS name or an address"),
]
PeerName = Annotated[
    str,
    pattern(
        "peer name",
        r"spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)*(?:/\*)?|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*",
        "a SPIFFE ID (spiffe://domain/path, or /* at its end for all below) or a DNS name in lower case",
    ),
]
Protocol = Annotated[str, pattern("protocol", r"[!-~]{1,255}", "an ALPN name, like http/1.1 or h2")]
UrlPath = Annotated[str, pattern("URL path", r"/[!-~]*", "it begins with / and has no spaces")]
FieldValue = Annotated[
    str, pattern("header value", r"[!-~\x80-\U0010ffff](?:[\t -~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?|", "one line")
]
Statuses = Annotated[
    frozenset[int],
    Kind("set of statuses", read_statuses, _STATUS_SCHEMA, show_statuses, "100 to 599, ranges as 500-599", each=True),
]
RetryConditions = Annotated[
    frozenset[str | int],
    Kind(
        "set of conditions",
        read_retry_condition,
        _RETRY_SCHEMA,
        show_retry_conditions,
        f"{', '.join(RETRY_WORDS)}, or statuses",
        each=True,
    ),
]
