"""The reference codec: the screen, then h11; slow, plain, and the oracle for the fast one.

What the screen admits h11 must read too, and h11's reading is what counts. It serves everything that the fast lane
does not take, and whole listeners with `codec: h11`.

A body goes through our own readers first, which know our bounds and give the canonical framing; h11 then reads
what they let out and must find the same payload and the same end in it.
"""

import h11

from sidecar.base.errors import ClientFault, UpstreamFault
from sidecar.proxy.codec import screen
from sidecar.proxy.codec.body import BadBody, BodyReader, ChunkedReader, CloseReader, LengthReader
from sidecar.proxy.codec.fields import CLIENT_CERT, FORWARDED, is_removed, options, upgrade_of
from sidecar.proxy.codec.head import CHUNKED, UNTIL_CLOSE, Claims, Limits, RequestHead, ResponseHead

Fields = list[tuple[bytes, bytes]]

_CODING_LINE = b"Transfer-Encoding: chunked\r\n"
_ASKED = [("Host", "upstream"), ("Connection", "upgrade"), ("Upgrade", "any")]


class ReferenceCodec:
    """Screen and h11 behind the interface `Codec`."""

    def request(self, data: bytes, limits: Limits, last: RequestHead | None = None) -> RequestHead | None:  # noqa: ARG002
        size = screen.request_head(data, limits)
        if size is None:
            return None
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head)
        try:
            connection.receive_data(data[:size])
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise ClientFault("the request is malformed", error.error_status_hint) from None
        if not isinstance(event, h11.Request):
            raise ClientFault("the request is malformed")
        return _request_head(event, size)

    def response(self, data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
        size = screen.response_head(data, limits)
        if size is None:
            return None
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.max_head)
        # Nothing but HEAD changes how an answer is read, and h11 refuses a 101 to who did not ask for one.
        connection.send(h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=_ASKED))
        try:
            connection.receive_data(data[:size])
            event = connection.next_event()
        except h11.RemoteProtocolError:
            raise UpstreamFault("the answer is malformed") from None
        if not isinstance(event, (h11.Response, h11.InformationalResponse)):
            raise UpstreamFault("the answer is malformed")
        return _response_head(event, method, size)

    def body(self, length: int, decode: bool = False) -> BodyReader:
        return CheckedReader(length, decode)


class CheckedReader:
    """One body, read by our own reader and again by h11."""

    __slots__ = ("_connection", "_decode", "_reader", "done", "received")

    def __init__(self, length: int, decode: bool) -> None:
        self.done = False
        self.received = 0
        self._decode = decode
        self._reader: BodyReader
        if length == CHUNKED:
            self._reader = ChunkedReader()
            self._connection = _upload(b"Transfer-Encoding: chunked")
        elif length == UNTIL_CLOSE:
            self._reader = CloseReader()
            self._connection = h11.Connection(h11.CLIENT)
            self._connection.send(h11.Request(method="GET", target="/", headers=_ASKED))
            self._connection.receive_data(b"HTTP/1.0 200 OK\r\n\r\n")
            self._connection.next_event()
        else:
            self._reader = LengthReader(length)
            self._connection = _upload(b"Content-Length: %d" % length)
            self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        wire, taken = self._reader.feed(data)
        if not wire:
            return wire, taken
        payload = self._read(wire)
        self.received += len(payload)
        if self.received != self._reader.received or self.done != self._reader.done:
            raise BadBody("the readers of a body disagree")
        return (payload if self._decode else wire), taken

    def eof(self) -> None:
        self._reader.eof()
        self.done = True

    def trailer(self, name: bytes) -> list[bytes]:
        return self._reader.trailer(name)

    def _read(self, wire: bytes) -> bytes:
        payload = []
        try:
            self._connection.receive_data(wire)
            while isinstance(event := self._connection.next_event(), (h11.Data, h11.EndOfMessage)):
                if isinstance(event, h11.EndOfMessage):
                    self.done = True
                    break
                payload.append(bytes(event.data))
        except h11.RemoteProtocolError:
            raise BadBody("the body is malformed") from None
        return b"".join(payload)


def _upload(framing: bytes) -> h11.Connection:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: any\r\n" + framing + b"\r\n\r\n")
    connection.next_event()
    return connection


def _request_head(event: h11.Request, size: int) -> RequestHead:
    method = event.method
    minor = 1 if event.http_version == b"1.1" else 0
    target, authority = screen.split_target(method, event.target)
    fields = event.headers.raw_items()
    named = options(_values(fields, b"connection"))
    host = authority if authority is not None else b"".join(_values(fields, b"host"))
    expect_continue = minor == 1 and bool(_values(fields, b"expect"))
    lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, host)]
    for name, value in fields:
        lower = name.lower()
        if lower in (b"host", CLIENT_CERT) or lower in FORWARDED or (lower == b"expect" and minor == 0):
            continue
        if is_removed(lower, named):
            continue
        lines.append(_line(name, lower, value))
    claims = Claims(*(_joined(fields, name) for name in FORWARDED))
    return RequestHead(
        method,
        target,
        target.partition(b"?")[0],
        host,
        minor,
        _declared_length(fields, 0),
        _keep_alive(minor, named),
        expect_continue,
        upgrade_of(named, _values(fields, b"upgrade")) if minor == 1 else None,
        size,
        b"".join(lines),
        None if claims == (None,) * len(claims) else claims,
        _joined(fields, b"x-request-id"),
    )


def _response_head(event: h11.Response | h11.InformationalResponse, method: bytes, size: int) -> ResponseHead:
    status = event.status_code
    minor = 1 if event.http_version == b"1.1" else 0
    fields = event.headers.raw_items()
    named = options(_values(fields, b"connection"))
    unframed = status < 200 or status == 204
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, bytes(event.reason).strip(b" \t"))]
    for name, value in fields:
        lower = name.lower()
        if is_removed(lower, named) or (unframed and lower in (b"content-length", b"transfer-encoding")):
            continue
        lines.append(_line(name, lower, value))
    bodiless = unframed or status == 304 or method == b"HEAD"
    length = 0 if bodiless else _declared_length(fields, UNTIL_CLOSE)
    return ResponseHead(
        status,
        minor,
        length,
        _keep_alive(minor, named) and length != UNTIL_CLOSE and status != 101,
        size,
        b"".join(lines),
        upgrade_of(named, _values(fields, b"upgrade")) if status == 101 else None,
    )


def _values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for field, value in fields if field.lower() == name]


def _joined(fields: Fields, name: bytes) -> bytes | None:
    values = _values(fields, name)
    return b", ".join(values) if values else None


def _declared_length(fields: Fields, otherwise: int) -> int:
    for name, value in fields:
        lower = name.lower()
        if lower == b"content-length":
            return int(value)
        if lower == b"transfer-encoding":
            return CHUNKED
    return otherwise


def _keep_alive(minor: int, named: set[bytes]) -> bool:
    return b"close" not in named and (minor == 1 or b"keep-alive" in named)


def _line(name: bytes, lower: bytes, value: bytes) -> bytes:
    if lower == b"transfer-encoding":
        return _CODING_LINE
    if lower == b"content-length":
        return b"%b: %d\r\n" % (name, int(value))
    return b"%b: %b\r\n" % (name, value)
