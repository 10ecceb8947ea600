"""The strict screen before every codec: what a head must be for anybody here to believe it.

Parsers disagree over heads at the edges of the grammar, and a request that two of them read differently is a
request smuggled. So the screen admits RFC 9112's grammar without any of the liberties that it grants recipients: CRLF
only, no folding, no blank before a colon, no repeated framing, no coding but `chunked`, no empty line in front.

It reads complete lines in order and raises at the first that is wrong. What a line is worth depends on the lines
before it alone, and a size is refused as soon as it is passed, so the verdict on a head is the same however it was cut.
It builds nothing: the verdict is screen and codec, and the codec behind it gives the meaning.
"""

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address

from sidecar.base.errors import ClientFault, RequestFault, UpstreamFault
from sidecar.proxy.codec.fields import CONNECTION_OPTIONS, FIELD_LINE, TOKEN, options, upgrade_of
from sidecar.proxy.codec.head import Limits

MAX_METHOD = 20
"""Bytes; the longest registered method, UPDATEREDIRECTREF, has 17."""
MAX_LENGTH = 2**60
"""Largest Content-Length."""

PATH = rb"[!$-;=@-\[\]-~]"
"""One byte of a path: visible ASCII but `"`, `#`, `<`, `>`, `?` and `\\`."""
QUERY = rb"[!$-;=?-~]"
"""One byte of a query: a path's, and `?` and `\\`."""

_NAMED = rb"[()A-Za-z0-9\-._~!$&'*+;=]*+"
"""A run of bytes of a host's name (RFC 3986, 3.2.2) but the comma, which joins two Hosts in some parsers."""
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]++)\]|(?!:|\Z)" + _NAMED + rb"(?:%[0-9A-Fa-f]{2}" + _NAMED + rb")*)(?::[0-9]{0,5}+|)"
)
DOT_SEGMENT = re.compile(rb"(?:/|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/;?]|%2f|%5c)", re.IGNORECASE)
"""A segment that climbs or stays once somebody decodes the path: the way around a route by prefix."""

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb"++) ([!-~]++) HTTP/([0-9]\.[0-9])")
_METHOD_START = re.compile(TOKEN)
_REQUEST_LINE_BESIDE_TARGET = MAX_METHOD + len(b"  HTTP/1.1\r\n")
_ORIGIN_FORM = re.compile(PATH + rb"++(?:\?" + QUERY + rb"*+|)")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]*+)(.*+)", re.IGNORECASE)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*+|)")
_DIGITS = re.compile(rb"[0-9]++")

Fault = Callable[[str, int], RequestFault]


def request_head(data: bytes, limits: Limits) -> int | None:
    """The size of the request head at the front of `data`, None while it is incomplete and right so far.

    Raises ClientFault (400, 405, 414, 417, 431, 501, 505).
    """
    if data and not _METHOD_START.match(data):
        raise ClientFault("the request line is malformed")  # a TLS handshake need not wait for its line to end
    line_limit = limits.max_target + _REQUEST_LINE_BESIDE_TARGET
    if line_limit < min(len(data), limits.max_head) and b"\n" not in data[:line_limit]:
        raise ClientFault("the request line is too long", 414)
    lines = _lines(data, limits, _client_fault)
    line, end = next(lines, (b"", 0))
    if not end:
        return None
    minor = _request_line(line, limits)
    hosts = lengths = codings = expectations = 0
    for line, end in lines:
        if not line:
            if hosts == 0 and minor == 1:
                raise ClientFault("HTTP/1.1 without Host")
            return end
        name, value = _field(line, _client_fault)
        if name == b"host":
            hosts += 1
            if hosts > 1 or (value and not is_host(value)):
                raise ClientFault("more than one Host, or an invalid one")
        elif name == b"content-length":
            lengths += 1
            _check_length(value, lengths, codings, _client_fault)
        elif name == b"transfer-encoding":
            codings += 1
            _check_coding(value, lengths, codings, minor, _client_fault)
        elif name == b"connection":
            _check_connection(value, _client_fault)
        elif name == b"expect":
            expectations += 1
            if expectations > 1 or value.lower() != b"100-continue":
                raise ClientFault("an expectation that cannot be met", 417)
    return None


def response_head(data: bytes, limits: Limits) -> int | None:
    """The size of the response head at the front of `data`, None while it is incomplete and right so far.

    Raises UpstreamFault.
    """
    if not data.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(data):
        raise UpstreamFault("the answer is not HTTP/1")
    lines = _lines(data, limits, _upstream_fault)
    line, end = next(lines, (b"", 0))
    if not end:
        return None
    status_line = _STATUS_LINE.fullmatch(line)
    if status_line is None:
        raise UpstreamFault("the status line is malformed")
    minor, status = int(status_line[1]), int(status_line[2])
    lengths = codings = 0
    connection: list[bytes] = []
    upgrade: list[bytes] = []
    for line, end in lines:
        if not line:
            if status == 101 and (minor == 0 or not upgrade_of(options(connection), upgrade)):
                raise UpstreamFault("101 without an upgrade")
            return end
        name, value = _field(line, _upstream_fault)
        if name == b"content-length":
            lengths += 1
            _check_length(value, lengths, codings, _upstream_fault)
        elif name == b"transfer-encoding":
            codings += 1
            _check_coding(value, lengths, codings, minor, _upstream_fault)
        elif name == b"connection":
            _check_connection(value, _upstream_fault)
            connection.append(value)
        elif name == b"upgrade":
            upgrade.append(value)
    return None


def is_host(value: bytes) -> bool:
    """Whether `value` is uri-host [":" port], not empty."""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode("ascii"))
        except AddressValueError:
            return False
    return True


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """(target as it goes upstream, authority if the client named it there); raises ClientFault."""
    authority = None
    if target[:1] != b"/":
        if target == b"*" and method == b"OPTIONS":
            return target, None
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise ClientFault("the target is neither a path nor a URL")
        authority, target = absolute.groups()
        if not is_host(authority):
            raise ClientFault("the target's authority is invalid")
        if not target and method == b"OPTIONS":
            return b"*", authority
        if target[:1] != b"/":
            target = b"/" + target
    if not _ORIGIN_FORM.fullmatch(target):
        raise ClientFault("the target holds what a target may not")
    if DOT_SEGMENT.search(target.partition(b"?")[0]):
        raise ClientFault("the path holds dot segments")
    return target, authority


def _client_fault(detail: str, status: int) -> RequestFault:
    return ClientFault(detail, status)


def _upstream_fault(detail: str, _status: int) -> RequestFault:
    return UpstreamFault(detail)


def _lines(data: bytes, limits: Limits, fault: Fault) -> Iterator[tuple[bytes, int]]:
    """The complete lines of a head without their CRLF, each with the offset after it; the first may be empty too."""
    start = 0
    count = -2  # neither the first line nor the empty one is a field
    while True:
        end = data.find(b"\n", start)
        if (end + 1 or len(data)) > limits.max_head:
            raise fault("the head is too large", 431)
        if end < 0:
            return
        if end == start or data[end - 1] != 0x0D:
            raise fault("a line ends with a bare LF", 400)
        count += 1
        if count >= limits.max_fields and end - start > 1:
            raise fault("too many header fields", 431)
        yield data[start : end - 1], end + 1
        start = end + 1


def _request_line(line: bytes, limits: Limits) -> int:
    """Checks the request line; returns the minor version."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise ClientFault("the request line is malformed")
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise ClientFault("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    if len(method) > MAX_METHOD:
        raise ClientFault("the method is not known", 501)
    if method in (b"CONNECT", b"TRACE"):
        raise ClientFault("the method is not allowed", 405)
    if len(target) > limits.max_target:
        raise ClientFault("the target is too long", 414)
    split_target(method, target)
    return version[2] - 0x30


def _field(line: bytes, fault: Fault) -> tuple[bytes, bytes]:
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise fault("a header field is malformed", 400)
    name, value = match.groups()
    return name.lower(), value.rstrip(b" \t")


def _check_length(value: bytes, lengths: int, codings: int, fault: Fault) -> None:
    if lengths > 1 or codings:
        raise fault("the body's length is said twice", 400)
    if not _DIGITS.fullmatch(value) or len(value) > len(str(MAX_LENGTH)) or int(value) > MAX_LENGTH:
        raise fault("Content-Length is not a length", 400)


def _check_coding(value: bytes, lengths: int, codings: int, minor: int, fault: Fault) -> None:
    if lengths or codings > 1 or minor == 0:
        raise fault("Transfer-Encoding where it may not be", 400)
    if value.lower() != b"chunked":
        named = [coding.strip(b" \t") for coding in value.lower().split(b",")]
        # Without chunked at the very end, or with it twice, nobody can tell where the body ends (RFC 9112, 6.3).
        ambiguous = b"chunked" in named[:-1]
        raise fault("a transfer coding other than chunked", 400 if ambiguous else 501)


def _check_connection(value: bytes, fault: Fault) -> None:
    if not CONNECTION_OPTIONS.fullmatch(value):
        raise fault("Connection is malformed", 400)
