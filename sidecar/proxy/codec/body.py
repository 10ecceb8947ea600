"""Bodies: how much of what arrived belongs to this message, and what of it goes on.

A reader is fed what arrives and returns what may be forwarded and how many bytes it took. It takes everything
until its message is over; what it does not take belongs to the next message. With `decode` it yields the payload
alone (for a peer that speaks HTTP/1.0), otherwise the body as it goes out on the wire, canonically framed.

Payload is never looked at. A chunked body costs one short match per chunk, and where the framing that came in is
canonical already (lower-case size without leading zeros, no extension, no trailer), what is returned is the very
object that was fed. Anything else is checked against RFC 9112, 7.1 by the line: extensions must be well-formed and
are dropped, trailer fields are screened like header fields. The end of a body leaves only when all of it was found to
be right, so a receiver never takes a body for whole that was not. Every bound is on bytes of a line, of all extensions
or of all trailers and none on what one `feed` holds; so the verdict does not depend on the cuts.
"""

import re
from typing import Protocol

from sidecar.base.errors import SidecarError
from sidecar.proxy.codec.fields import FIELD_LINE, TOKEN, allowed_in_trailer

MAX_LINE = 1024
"""Bytes of a chunk's size line, extensions and line end included."""
MAX_EXTENSIONS = 16 * 1024
"""Bytes of all extensions of a body: they cost work and carry nothing."""
MAX_TRAILER = 8 * 1024
"""Bytes of the trailer section before its final empty line."""
MAX_TRAILER_FIELDS = 100
MAX_CHUNK = 2**60

_FIRST_SIZE = re.compile(rb"([1-9a-f][0-9a-f]{0,14}+)\r\n")
_NEXT_SIZE = re.compile(rb"\r\n([1-9a-f][0-9a-f]{0,14}+)\r\n")
_UNESCAPED = rb"[\t !#-\[\]-~\x80-\xff]*+"
_QUOTED = rb'"' + _UNESCAPED + rb"(?:\\[\t -~\x80-\xff]" + _UNESCAPED + rb')*"'
_ANY_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,16}+)((?:;" + TOKEN + rb"++(?:=(?:" + TOKEN + rb"++|" + _QUOTED + rb")|))*)\r\n"
)


class BadBody(SidecarError):
    """A body that breaks its framing, or ends before it is over. Who is at fault, the caller knows."""


class BodyReader(Protocol):
    """One body. `done` once its last byte was taken, `received` counts bytes of payload so far."""

    done: bool
    received: int

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(bytes to forward, bytes taken from `data`); after `done` it takes nothing. Raises BadBody."""
        ...

    def eof(self) -> None:
        """The peer closed its side: ends a body that ends with its connection, raises BadBody within any other."""
        ...

    def trailer(self, name: bytes) -> list[bytes]:
        """The values of a trailer field (lower-case name), a line each; none before `done`, and none without chunks."""
        ...


class LengthReader:
    """A body of as many bytes as Content-Length said."""

    __slots__ = ("_left", "done", "received")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.received = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            self.received += size
            return data, size
        self._left = 0
        self.done = True
        self.received += left
        return (data if size == left else data[:left]), left

    def eof(self) -> None:
        if not self.done:
            raise BadBody("the connection closed before the body was complete")

    def trailer(self, name: bytes) -> list[bytes]:  # noqa: ARG002
        return []


class CloseReader:
    """An answer's body that ends where the connection does."""

    __slots__ = ("done", "received")

    def __init__(self) -> None:
        self.done = False
        self.received = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        if self.done:
            return b"", 0
        self.received += len(data)
        return data, len(data)

    def eof(self) -> None:
        self.done = True

    def trailer(self, name: bytes) -> list[bytes]:  # noqa: ARG002
        return []


class ChunkedReader:
    """A chunked body, its framing forwarded (canonically) or taken off (`decode`)."""

    __slots__ = (
        "_decode",
        "_extensions",
        "_fields",
        "_held",
        "_left",
        "_open",
        "_trailer",
        "_trailer_size",
        "done",
        "received",
    )

    def __init__(self, decode: bool = False) -> None:
        self.done = False
        self.received = 0
        self._decode = decode
        self._left = 0  # payload still to come of the chunk that we are in
        self._open = False  # the CRLF that ends the last chunk is still to come, before the next line
        self._held = b""  # the beginning of a line whose end has not come yet
        self._extensions = 0  # bytes of them so far
        self._trailer: list[bytes] | None = None  # the lines to forward, once the last chunk was seen
        self._trailer_size = 0  # bytes of all trailer lines, dropped ones included
        self._fields = 0  # number of them

    def feed(self, data: bytes) -> tuple[bytes, int]:
        left = self._left
        if left > len(data):
            self._left = left - len(data)
            self.received += len(data)
            return data, len(data)
        if self.done:
            return b"", 0
        held = len(self._held)  # never together with `left`
        if held:
            data = self._held + data
        size = len(data)
        decode = self._decode
        received = self.received + left
        out = [data[:left]] if decode and left else []
        mark = 0  # unless decoding: data[mark:pos] goes out as it came in
        pos = left
        if self._trailer is None:
            next_size = _NEXT_SIZE.match if self._open else _FIRST_SIZE.match
            while pos <= size:
                line = next_size(data, pos)
                if line is not None:
                    start = line.end()
                    length = int(line[1], 16)
                elif self._open and data.startswith(b"\r\n0\r\n\r\n", pos):
                    self.done = True
                    pos += 7
                    break
                else:
                    found = self._size_line(data, pos)
                    if found is None:
                        break
                    start, length = found
                    if not decode:
                        out.append(data[mark:pos])
                        mark = start
                    if length == 0:
                        if self._open and not decode:
                            out.append(b"\r\n")
                        self._open = False
                        self._trailer = []
                        pos = start
                        break
                    if not decode:
                        out.append(b"\r\n%x\r\n" % length if self._open else b"%x\r\n" % length)
                if decode:
                    out.append(data[start : start + length])
                pos = start + length
                received += length
                if line is not None and not decode:
                    # Servers that stream from a buffer send runs of chunks of one size.
                    again = b"\r\n" + line[1] + b"\r\n"
                    step = len(again) + length
                    while data.startswith(again, pos):
                        pos += step
                        received += length
                self._open = True
                next_size = _NEXT_SIZE.match
        self._left = 0
        if pos > size:
            self._left = pos - size
            received -= self._left
            pos = size
        elif self._open and self._trailer is None and not self.done and data.startswith(b"\r\n", pos):
            # a chunk leaves with its line end, without waiting for the next one: receivers may hold it until then
            self._open = False
            pos += 2
        self.received = received
        if self._trailer is not None:
            mark = pos = self._read_trailer(data, pos)
            if self.done and not decode:
                out += (b"0\r\n", *self._trailer, b"\r\n")
        self._held = b"" if self.done else data[pos:]
        if decode:
            payload = b"".join(out)
        elif not out and not mark:
            payload = data if pos == size else data[:pos]
        else:
            out.append(data[mark:pos])
            payload = b"".join(out)
        return payload, (pos if self.done else size) - held

    def eof(self) -> None:
        if not self.done:
            raise BadBody("the connection closed within a chunked body")

    def trailer(self, name: bytes) -> list[bytes]:
        fields = (line[:-2].split(b": ", 1) for line in self._trailer or ())
        return [value for found, value in fields if found.lower() == name]

    def _size_line(self, data: bytes, pos: int) -> tuple[int, int] | None:
        """(offset after a chunk's line, size of the chunk); None while the line is incomplete."""
        start = pos
        if self._open:
            line_end = data[pos : pos + 2]
            if line_end != b"\r\n":
                if b"\r\n".startswith(line_end):
                    return None
                raise BadBody("a chunk is longer than its size says")
            start = pos + 2
        line = _ANY_SIZE.match(data, start, start + MAX_LINE)
        if line is None:
            if b"\n" in data[start : start + MAX_LINE] or len(data) - start >= MAX_LINE:
                raise BadBody("the line of a chunk's size is malformed")
            return None
        length = int(line[1], 16)
        self._extensions += len(line[2])
        if length >= MAX_CHUNK or self._extensions > MAX_EXTENSIONS:
            raise BadBody("a chunk's size or its extensions are out of bounds")
        return line.end(), length

    def _read_trailer(self, data: bytes, pos: int) -> int:
        """Takes the complete lines from `pos` on; returns the offset after them."""
        assert self._trailer is not None
        while (end := data.find(b"\n", pos)) >= 0:
            line = data[pos : end + 1]
            pos = end + 1
            if line == b"\r\n":
                self.done = True
                return pos
            self._trailer_size += len(line)
            self._fields += 1
            if self._trailer_size > MAX_TRAILER or self._fields > MAX_TRAILER_FIELDS:
                raise BadBody("the trailer section is too large")
            field = FIELD_LINE.fullmatch(line[:-2])
            if field is None or line[-2:] != b"\r\n":
                raise BadBody("a trailer field is malformed")
            name, value = field.groups()
            if allowed_in_trailer(name.lower()):
                self._trailer.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
        begun = len(data) - pos
        if begun > 1 and self._trailer_size + begun >= MAX_TRAILER:
            raise BadBody("the trailer section is too large")
        return pos
