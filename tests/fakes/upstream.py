"""A real server for the proxy to talk to: each path behaves as its script says, every other path is an echo.

`ScriptedUpstream` listens on a free port of 127.0.0.1 and gives each connection a thread. A script is a function of
the connection and the request head that just came:

    def cut(peer: Wire, request: Message) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").reset()

    upstream.on("/cut", cut)

When a script returns and left the socket open, the connection goes on with its next request. `on_connect` scripts
speak before any request. The default script is the echo: it reads the body and answers with JSON that says what came.

What is recorded: `seen` (every request head, with its body once read), `connections`, `open_now`; `wait_until` blocks
on a change of these with a deadline. A script that fails with anything but a lost connection fails the test.
"""

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.fakes.wire import PATIENCE, Message, Truncated, Wire

Script = Callable[[Wire, Message], object]


class ScriptedUpstream:
    """One listening port whose behaviour the test writes down, path by path."""

    def __init__(self, port: int = 0, backlog: int = 512, context: ssl.SSLContext | None = None) -> None:
        """`context`: speak TLS."""
        self.context = context
        self._listener = socket.create_server(("127.0.0.1", port), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.seen: list[Message] = []
        self.connections = 0
        self.faults: list[BaseException] = []
        self._scripts: dict[str, Script] = {}
        self._on_connect: Callable[[Wire], object] | None = None
        self._default: Script = echo
        self._live: dict[int, Wire] = {}
        self._changed = threading.Condition()
        self._accepting = threading.Thread(target=self._accept, name=f"upstream-{self.port}", daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------------- scripting
    def on(self, path: str, script: Script) -> Self:
        """Requests whose target's path is `path` are answered by `script`."""
        self._scripts[path] = script
        return self

    def otherwise(self, script: Script) -> Self:
        """What happens on all other paths, instead of the echo."""
        self._default = script
        return self

    def on_connect(self, script: Callable[[Wire], object] | None) -> Self:
        """Speaks first on every new connection; may close it."""
        self._on_connect = script
        return self

    # ------------------------------------------------------------------------------------------- observing
    def requests(self, path: str) -> list[Message]:
        with self._changed:
            return [message for message in self.seen if path_of(message.target) == path]

    def wait_until(
        self, true: Callable[[], object], what: str = "the expected state", patience: float = PATIENCE
    ) -> None:
        """Block until `true()`, which is asked whenever something happened here."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(true()), patience), f"{what} did not come: {self}"

    def note(self) -> None:
        """A script changed what somebody may be waiting for."""
        with self._changed:
            self._changed.notify_all()

    @property
    def open_now(self) -> int:
        return len(self._live)

    def is_open(self, number: int) -> bool:
        """Whether the connection with this number (`Message.connection`) still stands."""
        return number in self._live

    def __str__(self) -> str:
        targets = [f"{m.method} {m.target} #{m.connection}" for m in self.seen[-10:]]
        return f"upstream {self.address}: {self.connections} connections, {self.open_now} open, last {targets}"

    # --------------------------------------------------------------------------------------------- serving
    def stop(self) -> None:
        """Close everything; raise what a script did wrong."""
        self.refuse()
        with self._changed:
            live = list(self._live.values())
        for wire in live:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        if self.faults:
            raise self.faults[0]

    def refuse(self) -> None:
        """Stop listening: new connections are refused, those that stand go on."""
        if self._listener.fileno() == -1:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        self._listener.close()

    def close_idle(self) -> None:
        """Hang up on every connection, as a server does whose keep-alive time is over."""
        with self._changed:
            live = list(self._live.values())
        for wire in live:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)

    def say(self, number: int, data: bytes) -> None:
        """Speak on a connection without having been asked."""
        self._live[number].send(data)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                number = self.connections
                wire = self._live[number] = Wire(sock, patience=60)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(wire, number), name=f"upstream-{number}", daemon=True).start()

    def _serve(self, wire: Wire, number: int) -> None:
        try:
            if self.context is not None:
                wire.sock = self.context.wrap_socket(wire.sock, server_side=True)
            if self._on_connect is not None:
                self._on_connect(wire)
            while wire.sock.fileno() != -1:
                request = wire.read_request()
                request.connection = number
                with self._changed:
                    self.seen.append(request)
                    self._changed.notify_all()
                self._scripts.get(path_of(request.target), self._default)(wire, request)
        except (EOFError, OSError):
            pass  # the proxy left, or a script did
        except BaseException as fault:
            self.faults.append(fault)
        finally:
            with self._changed:
                self._live.pop(number, None)
                self._changed.notify_all()
            wire.close()


def path_of(target: str) -> str:
    """The path of an origin-form or absolute-form target."""
    if "://" in target:
        target = "/" + target.split("://", 1)[1].partition("/")[2]
    return target.partition("?")[0]


def answer(
    body: bytes = b"", status: str = "200 OK", fields: list[tuple[str, str]] | None = None, *, length: bool = True
) -> bytes:
    """A plain answer as bytes, with Content-Length unless told otherwise."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields or [])]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body as bytes."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def says(body: bytes = b"", status: str = "200 OK", fields: list[tuple[str, str]] | None = None) -> Script:
    """A script that takes the whole request and answers always the same."""
    whole = answer(body, status, fields)

    def script(peer: Wire, request: Message) -> None:
        peer.read_body(request)
        peer.send(whole)

    return script


def sends(*pieces: bytes, then: str = "go on") -> Script:
    """A script that takes the request, sends exactly these bytes, and then goes on, closes or resets."""

    def script(peer: Wire, request: Message) -> None:
        peer.read_body(request)
        peer.send(*pieces)
        if then == "close":
            peer.close()
        elif then == "reset":
            peer.reset()

    return script


def resets(peer: Wire, request: Message) -> None:
    """Take the request and leave with RST."""
    peer.read_body(request)
    peer.reset()


def never(peer: Wire, request: Message) -> None:
    """Take the request, never answer, and stay until the proxy hangs up."""
    peer.read_body(request)
    peer.read_rest()
    peer.close()


def echo(peer: Wire, request: Message) -> None:
    """Answer with JSON: what came, field by field, and the body's length, hash and (when small) bytes."""
    digest, length, kept = hashlib.sha256(), 0, b""
    wanted = int(request.get("content-length") or 0)
    if request.get("expect") is not None:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.all("transfer-encoding"):
        while data := peer.read_chunk(request):
            digest.update(data)
            length += len(data)
            kept = (kept + data)[:4096]
    while length < wanted:
        if not peer.held and not peer.fill(1 << 20):
            raise Truncated("eof")
        data, peer.held = peer.held[: wanted - length], peer.held[wanted - length :]
        digest.update(data)
        length += len(data)
        kept = (kept + data)[:4096]
    request.body = kept
    report = {
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "fields": request.fields,
        "trailers": request.trailers,
        "length": length,
        "sha256": digest.hexdigest(),
        "body": base64.b64encode(kept).decode(),
        "connection": request.connection,
        "port": peer.sock.getsockname()[1],
    }
    body = json.dumps(report).encode()
    whole = answer(body, fields=[("content-type", "application/json")])
    peer.send(whole if request.method != "HEAD" else whole[: -len(body)])


def drip(data: bytes, gap: float) -> Script:
    """Answer one byte at a time, `gap` seconds apart: the pace is the behaviour, nothing waits on it."""

    def script(peer: Wire, request: Message) -> None:
        peer.read_body(request)
        for at in range(len(data)):
            peer.send(data[at : at + 1])
            time.sleep(gap)

    return script
