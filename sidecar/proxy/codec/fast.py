"""The fast codec: one anchored regular expression per head for what is common, everything else to the reference.

The expressions match only heads that are canonical already: HTTP/1.1, origin-form, "Name: value" with one space and
no blank at the end, one Host, at most one each of the fields that mean something here, and those with their usual
values. A match is a proof; a miss says nothing, it only costs more. So there is nothing to decide here but where to
cut: a head goes on as it came, less the spans of hop-by-hop fields.

How the expressions stay fast and safe:

* The first letter of a field's name chooses its branch, so most fields meet one character class and no name.
* A branch with special names refuses each of them, in any case, in its general half (a negative look-ahead); the
  special half follows. So a line has one way to match, and a group that was set is part of the match.
* `(?(n)(?!)|…)` lets a special field match only while group n is unset: a second one makes the whole head miss.
* A repetition of bytes is possessive, a repetition of lines goes on until the empty one: no byte is tried twice in the
  same way, the work is linear in the head. Groups are never repeated possessively: Python before 3.11.5 forgets to step
  back when such a repetition fails half-way, and would take a malformed line for a good one.
"""

import re

from sidecar.proxy.codec.body import BodyReader, ChunkedReader, CloseReader, LengthReader
from sidecar.proxy.codec.fields import CLIENT_CERT, FORWARDED, TOKEN, X_FORWARDED
from sidecar.proxy.codec.head import CHUNKED, UNTIL_CLOSE, Claims, Codec, Limits, RequestHead, ResponseHead
from sidecar.proxy.codec.screen import DOT_SEGMENT, PATH, QUERY

_VALUE = rb"[!-~\x80-\xff][\t -~\x80-\xff]*+(?<![ \t])"
_REST = TOKEN + rb"*+: " + _VALUE + rb"\r\n"
_HOST = rb"[A-Za-z0-9.\-_]++(?::[0-9]{1,5}+|)"
_FIELDS = 128
"""More fields than this are left to the reference; it keeps the work and memory for a hostile head small."""
_LENGTH = rb"0|[1-9][0-9]{0,17}+"
_PERSISTENCE = rb"[Kk]eep-[Aa]live|[Cc]lose"


def _once(group: int, value: bytes) -> bytes:
    return rb"(?(%d)(?!)|(%b)\r\n)" % (group, value)


def _first(letters: bytes, *special: bytes) -> bytes:
    """Fields whose names begin with one of these letters, except those with the (lower-case) special names."""
    excluded = rb"(?!(?i:%b):)" % b"|".join(name[1:] for name in special) if special else b""
    return rb"[%b%b]%b%b" % (letters, letters.lower(), excluded, _REST)


_REQUEST_LINE = rb"(?!CONNECT |TRACE )([A-Z]{1,20}+) ((/" + PATH + rb"*+)(?:\?" + QUERY + rb"*+|)) HTTP/1\.1\r\n"

# Groups: method, target, path, Host in front, Connection, Content-Length, Transfer-Encoding, X-Forwarded-For, -Proto,
# -Host, X-Request-Id, Host elsewhere, Forwarded; in the order in which they stand here.
_REQUEST = re.compile(
    _REQUEST_LINE + rb"(?:Host: (" + _HOST + rb")\r\n|(?!Host: ))"
    rb"(?:"
    + rb"|".join(
        (
            _first(rb"ABDGIJLMNOQRSVWYZ0-9!#$%&'*+\-.^_`|~"),
            _first(b"C", b"connection", b"content-length"),
            rb"[Cc]onnection: " + _once(5, _PERSISTENCE),
            rb"[Cc]ontent-[Ll]ength: " + _once(6, _LENGTH),
            _first(b"U", b"upgrade"),
            _first(b"T", b"te", b"transfer-encoding"),
            rb"[Tt]ransfer-[Ee]ncoding: " + _once(7, b"chunked"),
            _first(b"X", *X_FORWARDED, CLIENT_CERT, b"x-request-id"),
            rb"[Xx]-[Ff]orwarded-[Ff]or: " + _once(8, _VALUE),
            rb"[Xx]-[Ff]orwarded-[Pp]roto: " + _once(9, _VALUE),
            rb"[Xx]-[Ff]orwarded-[Hh]ost: " + _once(10, _VALUE),
            rb"[Xx]-[Rr]equest-[Ii][Dd]: " + _once(11, _VALUE),
            _first(b"H", b"host", b"http2-settings"),
            rb"[Hh]ost: (?(4)(?!)|" + _once(12, _HOST) + rb")",
            _first(b"E", b"expect"),
            _first(b"K", b"keep-alive"),
            _first(b"P", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
            _first(b"F", b"forwarded"),
            rb"[Ff]orwarded: " + _once(13, _VALUE),
        )
    )
    + rb"){0,%d}?\r\n" % _FIELDS
)

# Groups: status, Content-Length, Connection, Keep-Alive, Transfer-Encoding; in the order in which they stand here.
_RESPONSE = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) (?:" + _VALUE + rb"|)\r\n"
    rb"(?:"
    + rb"|".join(
        (
            _first(rb"ABDEFGIJLMNOQRSVWXYZ0-9!#$%&'*+\-.^_`|~"),
            _first(b"C", b"connection", b"content-length"),
            rb"[Cc]ontent-[Ll]ength: " + _once(2, _LENGTH),
            rb"[Cc]onnection: " + _once(3, _PERSISTENCE),
            _first(b"K", b"keep-alive"),
            rb"[Kk]eep-[Aa]live: " + _once(4, _VALUE),
            _first(b"T", b"te", b"transfer-encoding"),
            rb"[Tt]ransfer-[Ee]ncoding: " + _once(5, b"chunked"),
            _first(b"U", b"upgrade"),
            _first(b"H", b"http2-settings"),
            _first(b"P", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        )
    )
    + rb"){0,%d}?\r\n" % _FIELDS
)

_LINE = re.compile(_REQUEST_LINE)
_AROUND = len(b"  HTTP/1.1")
"""Bytes of a request line beside method and target."""
_DOT, _PERCENT = b".%"
_STATUSES = {b"%d" % status: status for status in range(200, 600)}
_CODING = b"Transfer-Encoding: "
_LINE_END = len(b"\r\n")
_CONNECTION = len(b"Connection: ")
_CLAIMED = tuple((group, len(name + b": ")) for group, name in zip((8, 9, 10, 13), FORWARDED, strict=True))

Edit = tuple[int, int, bytes]
"""(start, end, what stands there instead)."""


class FastCodec:
    """The common heads in a few microseconds, all others as the reference reads them."""

    def __init__(self, reference: Codec) -> None:
        self._reference = reference

    def request(self, data: bytes, limits: Limits, last: RequestHead | None = None) -> RequestHead | None:
        if last is not None and last.raw is not None:
            head = _again(data, limits, last, last.raw)
            if head is not None:
                return head
        match = _REQUEST.match(data)
        if match is None:
            return self._reference.request(data, limits)
        (
            method,
            target,
            path,
            host,
            connection,
            content_length,
            coding,
            forwarded_for,
            forwarded_proto,
            forwarded_host,
            request_id,
            late_host,
            forwarded,
        ) = match.groups()
        size = match.end()
        if (
            (size > limits.unquestioned and not _within(data, size, len(target), limits))
            or ((_DOT in path or _PERCENT in path) and DOT_SEGMENT.search(path))
            or (host is None and late_host is None)
            or (coding is not None and content_length is not None)
        ):
            return self._reference.request(data, limits)
        claims = None
        if forwarded_for or forwarded_proto or forwarded_host or forwarded:
            claims = Claims(forwarded_for, forwarded_proto, forwarded_host, forwarded)
        if host is None or coding or claims:
            wire = _request_wire(data, match, size)
        elif connection is None:
            wire = data[: size - _LINE_END]
        else:
            start, end = match.span(5)
            wire = data[: start - _CONNECTION] + data[end + _LINE_END : size - _LINE_END]
        head = RequestHead(
            method,
            target,
            path,
            host or late_host,
            1,
            0 if content_length is coding else CHUNKED if content_length is None else int(content_length),
            connection is None or len(connection) == 10,
            False,
            None,
            size,
            wire,
            claims,
            request_id,
        )
        head.raw = data if len(data) == size else data[:size]
        return head

    def response(self, data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
        match = _RESPONSE.match(data)
        if match is None:
            return self._reference.response(data, method, limits)
        digits, content_length, connection, keep_alive, coding = match.groups()
        size = match.end()
        status = _STATUSES[digits]
        unstated = UNTIL_CLOSE if coding is None else CHUNKED
        length = unstated if content_length is None else int(content_length)
        if (
            (size > limits.unquestioned and not _within(data, size, 0, limits))
            or (coding is not None and content_length is not None)
            or (status == 204 and length != UNTIL_CLOSE)
        ):
            return self._reference.response(data, method, limits)
        if status in (204, 304) or method == b"HEAD":
            length = 0
        if keep_alive is not None or coding is not None:
            wire = _response_wire(data, match, size)
        elif connection is None:
            wire = data[: size - _LINE_END]
        else:
            start, end = match.span(3)
            wire = data[: start - _CONNECTION] + data[end + _LINE_END : size - _LINE_END]
        return ResponseHead(
            status, 1, length, (connection is None or len(connection) == 10) and length != UNTIL_CLOSE, size, wire, None
        )

    def body(self, length: int, decode: bool = False) -> BodyReader:
        if length >= 0:
            return LengthReader(length)
        return ChunkedReader(decode) if length == CHUNKED else CloseReader()


def _again(data: bytes, limits: Limits, last: RequestHead, raw: bytes) -> RequestHead | None:
    """A head whose fields are byte by byte those of the one before on its connection; None when they are not.

    Clients repeat themselves: with another request line comes the same block of fields. What they mean was found out
    already, so only the line is read; comparing costs next to nothing when it is in vain.
    """
    end = data.find(b"\r\n")
    before = len(last.method) + len(last.target) + _AROUND
    if not data.startswith(raw[before:], end):
        return None
    match = _LINE.match(data)
    if match is None:
        return None
    method, target, path = match.groups()
    size = end + len(raw) - before
    if (size > limits.unquestioned and not _within(data, size, len(target), limits)) or (
        (_DOT in path or _PERCENT in path) and DOT_SEGMENT.search(path)
    ):
        return None
    head = RequestHead(
        method,
        target,
        path,
        last.host,
        1,
        last.length,
        last.keep_alive,
        False,
        None,
        size,
        data[:end] + last.wire[before:],
        last.claims,
        last.request_id,
    )
    head.raw = data if len(data) == size else data[:size]
    return head


def _within(data: bytes, size: int, target: int, limits: Limits) -> bool:
    fields = data.count(b"\n", 0, size) - 2
    return size <= limits.max_head and target <= limits.max_target and fields <= limits.max_fields


def _request_wire(data: bytes, match: re.Match[bytes], size: int) -> bytes:
    edits: list[Edit] = []
    start, end = match.span(5)
    if start >= 0:
        edits.append((start - _CONNECTION, end + _LINE_END, b""))
    for group, name in _CLAIMED:
        start, end = match.span(group)
        if start >= 0:
            edits.append((start - name, end + _LINE_END, b""))
    start, end = match.span(12)
    if start >= 0:
        front = match.end(2) + len(b" HTTP/1.1\r\n")
        edits.append((front, front, b"Host: %b\r\n" % match[12]))
        edits.append((start - len(b"Host: "), end + _LINE_END, b""))
    _edit_coding(data, match.start(7), edits)
    return _edited(data, edits, size)


def _response_wire(data: bytes, match: re.Match[bytes], size: int) -> bytes:
    edits: list[Edit] = []
    for group, name in ((3, _CONNECTION), (4, len(b"Keep-Alive: "))):
        start, end = match.span(group)
        if start >= 0:
            edits.append((start - name, end + _LINE_END, b""))
    _edit_coding(data, match.start(5), edits)
    return _edited(data, edits, size)


def _edit_coding(data: bytes, value: int, edits: list[Edit]) -> None:
    name = value - len(_CODING)
    if value >= 0 and not data.startswith(_CODING, name):
        edits.append((name, value, _CODING))


def _edited(data: bytes, edits: list[Edit], size: int) -> bytes:
    """The head up to its empty line, edited."""
    pieces: list[bytes] = []
    done = 0
    for start, end, instead in sorted(edits):
        pieces += (data[done:start], instead)
        done = end
    pieces.append(data[done : size - _LINE_END])
    return b"".join(pieces)
