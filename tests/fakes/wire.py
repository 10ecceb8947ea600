"""HTTP/1.1 as both ends of the tests read it: slowly, plainly, and without mercy.

The proxy promises that whatever comes in, what leaves it is canonical HTTP. So this reader is the judge: it takes
exactly the canonical form (`NAME: value`, CRLF, one framing, bare chunk sizes) and raises `NotCanonical` for anything
else. It shares no code with the proxy and does not want to be fast.

`Wire` wraps a connected blocking socket with one deadline per read, so that nothing can hang a test run.
"""

import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Self

PATIENCE = 30.0
"""Seconds that one read or write may take before the test fails. Generous: it bounds hangs, it measures nothing."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rb"(%s) ([^\x00-\x20\x7f]+) (HTTP/1\.[01])" % _TOKEN)
_STATUS = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(rb"(%s): ?((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)" % _TOKEN)
_CHUNK = re.compile(rb"(0|[1-9a-fA-F][0-9a-fA-F]{0,15})")


class NotCanonical(AssertionError):
    """The other side sent what a careful sender never sends."""


class Truncated(ConnectionError):
    """The stream ended before the message did; `how` is `eof` or `reset`, `message` is what had arrived."""

    def __init__(self, how: str, message: "Message | None" = None) -> None:
        super().__init__(f"{how} before the message was whole: {message}")
        self.how = how
        self.message = message


@dataclass
class Message:
    """A request or an answer: its three words, its fields in order, its body and what followed it."""

    words: tuple[str, str, str]
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list["Message"] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    connection: int = 0
    raw_head: bytes = b""

    @property
    def method(self) -> str:
        return self.words[0]

    @property
    def target(self) -> str:
        return self.words[1]

    @property
    def version(self) -> str:
        return self.words[2] if self.words[2].startswith("HTTP/") else self.words[0]

    @property
    def status(self) -> int:
        return int(self.words[1])

    def get(self, name: str) -> str | None:
        """The one value of a field; two of them are a fault of the test or of the proxy."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def words_of(self, name: str) -> list[str]:
        """The comma-separated members of a field, lower case."""
        return [word.strip().lower() for value in self.all(name) for word in value.split(",") if word.strip()]

    @property
    def decision(self) -> str | None:
        return self.get("x-sidecar-decision")

    @property
    def keeps(self) -> bool:
        """Whether the sender means to go on with this connection."""
        if self.version == "HTTP/1.0":
            return "keep-alive" in self.words_of("connection")
        return "close" not in self.words_of("connection")

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connected socket, read by whole pieces of HTTP, each within PATIENCE."""

    def __init__(self, sock: socket.socket, patience: float = PATIENCE) -> None:
        self.sock = sock
        self.sock.settimeout(patience)
        if sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""
        self._chunk_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------------------- writing
    def send(self, *pieces: bytes) -> Self:
        """Each piece is one segment on its way."""
        for piece in pieces:
            self.sock.sendall(piece)
        return self

    def send_chunk(self, data: bytes) -> Self:
        return self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def bytewise(self, data: bytes) -> Self:
        return self.send(*(data[at : at + 1] for at in range(len(data))))

    def half_close(self) -> Self:
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Leave with RST, as a process does that was killed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -------------------------------------------------------------------------------------------- reading
    def fill(self, limit: int = 1 << 18) -> bool:
        """One more piece into `held`; False at the end of the stream."""
        try:
            piece = self.sock.recv(limit)
        except ConnectionResetError:
            raise Truncated("reset") from None
        self.held += piece
        return bool(piece)

    def line(self, limit: int = 1 << 17) -> bytes:
        while b"\r\n" not in self.held:
            if len(self.held) > limit:
                raise NotCanonical(f"a line without end: {self.held[:80]!r}")
            if not self.fill():
                raise Truncated("eof")
        line, _, self.held = self.held.partition(b"\r\n")
        return line

    def exactly(self, count: int) -> bytes:
        while len(self.held) < count:
            if not self.fill():
                raise Truncated("eof")
        data, self.held = self.held[:count], self.held[count:]
        return data

    def head(self, start: re.Pattern[bytes]) -> Message:
        """The next head; EOFError when the other side has nothing more to say."""
        if not self.held and not self.fill():
            raise EOFError
        first = self.line()
        words = start.fullmatch(first)
        if words is None:
            raise NotCanonical(f"start line {first!r}")
        raw = [first]
        fields = []
        while line := self.line():
            raw.append(line)
            fields.append(_field(line))
        message = Message(tuple(word.decode("latin-1") for word in words.groups()), fields)  # type: ignore[arg-type]
        message.raw_head = b"\r\n".join(raw) + b"\r\n\r\n"
        return message

    def read_request(self) -> Message:
        """A request's head; then `read_body` takes what its framing says."""
        return self.head(_REQUEST)

    def read_status(self) -> Message:
        return self.head(_STATUS)

    def read_body(self, message: Message, *, of_answer: bool = False) -> Message:
        """The body and the trailers into `message`; Truncated tells what had come when the stream ended early."""
        lengths, codings = message.all("content-length"), message.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise NotCanonical(f"two framings: {lengths} {codings}")
        try:
            if codings:
                if [coding.lower() for coding in codings] != ["chunked"]:
                    raise NotCanonical(f"transfer coding {codings}")
                while data := self.read_chunk(message):
                    message.body += data
            elif lengths:
                if not re.fullmatch(r"[0-9]+", lengths[0]):
                    raise NotCanonical(f"length {lengths[0]!r}")
                wanted = int(lengths[0])
                while len(message.body) < wanted:
                    if not self.held and not self.fill():
                        raise Truncated("eof")
                    missing = wanted - len(message.body)
                    message.body, self.held = message.body + self.held[:missing], self.held[missing:]
            elif of_answer:
                while self.fill():
                    pass
                message.body, self.held = self.held, b""
        except Truncated as cut:
            raise Truncated(cut.how, message) from None
        return message

    def read_chunk(self, message: Message) -> bytes:
        """The next chunk's data as soon as it is there; empty at the end, when the trailers stand in `message`."""
        if self._chunk_open and self.exactly(2) != b"\r\n":
            raise NotCanonical("a chunk that does not end in CRLF")
        self._chunk_open = False
        line = self.line()
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise NotCanonical(f"chunk size {line!r}")
        length = int(line, 16)
        if length == 0:
            while trailer := self.line():
                message.trailers.append(_field(trailer))
            return b""
        data = self.exactly(length)
        self._chunk_open = True
        message.chunks.append(length)
        return data

    def read_answer(self, method: str = "GET") -> Message:
        """The next final answer, whole; 1xx before it stand in `interim`."""
        interim = []
        while True:
            message = self.read_status()
            if message.status == 101 or message.status >= 200:
                break
            interim.append(message)
        message.interim = interim
        if method == "HEAD" or message.status in {101, 204, 304}:
            return message
        return self.read_body(message, of_answer=True)

    def read_rest(self) -> tuple[bytes, str]:
        """All that still comes, and how it ended: `eof` or `reset`."""
        try:
            while self.fill():
                pass
            how = "eof"
        except Truncated as cut:
            how = cut.how
        rest, self.held = self.held, b""
        return rest, how

    def discard_rest(self) -> tuple[int, str]:
        """As `read_rest`, for streams too big to keep: how many bytes came."""
        count = len(self.held)
        self.held = b""
        try:
            while self.fill():
                count += len(self.held)
                self.held = b""
            return count, "eof"
        except Truncated as cut:
            return count, cut.how


def _field(line: bytes) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise NotCanonical(f"field line {line!r}")
    return found[1].decode("latin-1"), found[2].decode("latin-1")
