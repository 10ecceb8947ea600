"""What a head means, once it has been found to be HTTP.

A codec turns the first bytes of a message into one of the two objects here. They carry what routing,
framing and forwarding need, and `wire`: the head as it goes out, canonical whatever came in. `wire` has no
final empty line, so that the caller adds its own fields (Via, X-Forwarded-*, …), the empty line and the body
in one join. These are plain slotted classes because one is built per message and their cost shows.
"""

import re
from functools import lru_cache
from typing import NamedTuple, Protocol

from sidecar.proxy.codec.body import BodyReader
from sidecar.proxy.codec.fields import FORWARDED

CHUNKED = -1
"""`length` of a message whose body comes in chunks."""
UNTIL_CLOSE = -2
"""`length` of an answer whose body ends where its connection does."""


class Limits:
    """How much a peer may ask us to hold: bytes of a head, bytes of a target, number of fields.

    A head of `unquestioned` bytes or fewer, whose fields all have a value, cannot break any of the three: the usual
    one needs no counting.
    """

    __slots__ = ("max_fields", "max_head", "max_target", "unquestioned")

    def __init__(self, max_head: int, max_target: int, max_fields: int) -> None:
        self.max_head = max_head
        self.max_target = max_target
        self.max_fields = max_fields
        self.unquestioned = min(max_head, max_target, max_fields * len(b"a: b\r\n"))


def head_end(data: bytes, start: int) -> int:
    """The offset after the first line that ends at `start` or later, -1 when none does."""
    return data.find(b"\n", start) + 1 or -1


@lru_cache(maxsize=256)
def _finder(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n" + re.escape(name) + rb": ([^\r]*)", re.IGNORECASE)


def look_up(wire: bytes, name: bytes) -> bytes | None:
    """The value of a field in a canonical head, several lines joined with ", "; None when it is not there."""
    values = _finder(name).findall(wire)
    return b", ".join(values) if values else None


class Claims(NamedTuple):
    """What a request says of where it comes from: the values of the fields `FORWARDED`, several lines of one joined
    with ", "; None for a field that is not there.
    """

    forwarded_for: bytes | None
    forwarded_proto: bytes | None
    forwarded_host: bytes | None
    forwarded: bytes | None


class RequestHead:
    """A request's head.

    `method` (case-sensitive), `target` (what goes upstream: origin-form, or `*` for OPTIONS), `path` (the target up
    to "?"), `host` (as routed: absolute-form's authority wins; empty when an HTTP/1.0 client named none), `minor`
    (the client's HTTP/1.<minor>), `length` (bytes of body, 0 for none, CHUNKED), `keep_alive` (what version and
    Connection ask for), `expect_continue`, `upgrade` (lower-case protocol, when Connection names it), `size` (bytes of
    input that the head took), `wire` ("METHOD target HTTP/1.1", "Host: …", then the fields in their order, case and
    number; hop-by-hop fields, X-Forwarded-For/-Proto/-Host/-Client-Cert and Forwarded are not among them), `claims`
    (what was cut out of X-Forwarded-For/-Proto/-Host and Forwarded; None when none of them was there), `request_id`
    (stays in `wire`), `raw` (the head as it came, where a codec wants to see it again with the next one).
    """

    __slots__ = (
        "claims",
        "expect_continue",
        "host",
        "keep_alive",
        "length",
        "method",
        "minor",
        "path",
        "raw",
        "request_id",
        "size",
        "target",
        "upgrade",
        "wire",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        host: bytes,
        minor: int,
        length: int,
        keep_alive: bool,
        expect_continue: bool,
        upgrade: bytes | None,
        size: int,
        wire: bytes,
        claims: Claims | None,
        request_id: bytes | None,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.host = host
        self.minor = minor
        self.length = length
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade
        self.size = size
        self.wire = wire
        self.claims = claims
        self.request_id = request_id
        self.raw: bytes | None = None

    def field(self, name: bytes) -> bytes | None:
        """The value of an end-to-end field by name (any case), several lines joined with ", "; None without one."""
        lower = name.lower()
        if lower in FORWARDED:
            return None if self.claims is None else self.claims[FORWARDED.index(lower)]
        return look_up(self.wire, lower)

    def with_host(self, host: bytes) -> bytes:
        """`wire` with another Host."""
        start = self.wire.index(b"\r\n") + len(b"\r\nHost: ")
        return self.wire[:start] + host + self.wire[start + len(self.host) :]


class ResponseHead:
    """An answer's head.

    `status` (100–599), `minor` (the upstream's HTTP/1.<minor>), `length` (bytes of body, CHUNKED or UNTIL_CLOSE; 0 for
    HEAD, 1xx, 204, 304), `keep_alive` (the connection may be used again after the body), `size` (bytes of input),
    `wire` ("HTTP/1.1 200 Reason", then the fields in their order, case and number without hop-by-hop ones;
    Content-Length and Transfer-Encoding stand as they frame the body, also for HEAD and 304), `upgrade` (lower-case
    protocol of a 101; Connection and Upgrade are not in `wire`).
    """

    __slots__ = ("keep_alive", "length", "minor", "size", "status", "upgrade", "wire")

    def __init__(
        self, status: int, minor: int, length: int, keep_alive: bool, size: int, wire: bytes, upgrade: bytes | None
    ) -> None:
        self.status = status
        self.minor = minor
        self.length = length
        self.keep_alive = keep_alive
        self.size = size
        self.wire = wire
        self.upgrade = upgrade

    def field(self, name: bytes) -> bytes | None:
        """The value of an end-to-end field by name (any case), several lines joined with ", "; None without one."""
        return look_up(self.wire, name.lower())

    def lines(self, name: bytes) -> list[bytes]:
        """The values of an end-to-end field by its lower-case name, a line each."""
        return _finder(name).findall(self.wire)


class Codec(Protocol):
    """The way from bytes to heads and bodies.

    `data` begins at the message's first byte and holds all received since; a verdict on it does not depend on how it
    was cut. A head that is not complete is judged by its complete lines alone, so a call pays only once a further
    line has ended (`head_end`) or `max_head` is passed.
    """

    def request(self, data: bytes, limits: Limits, last: RequestHead | None = None) -> RequestHead | None:
        """The head of a request, None while more bytes are needed; raises ClientFault with the status to answer.

        `last`, the head before it on the same connection, may spare work and changes nothing else.
        """
        ...

    def response(self, data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
        """The head of the answer to a request with `method`, None while more is needed; raises UpstreamFault."""
        ...

    def body(self, length: int, decode: bool = False) -> BodyReader:
        """The reader of a body that follows a head with this `length`; `decode` yields payload instead of framing."""
        ...
