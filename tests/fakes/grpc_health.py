"""A gRPC health server on h2's server side: answers as told, records what it was asked."""

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded


@dataclass
class Answer:
    """One call's answer. `message` is the frame's payload, None for none; `trailers` after it."""

    message: bytes | None = b"\x08\x01"
    headers: dict[str, str] = field(default_factory=lambda: {":status": "200", "content-type": "application/grpc"})
    trailers: dict[str, str] | None = field(default_factory=lambda: {"grpc-status": "0"})
    flag: int = 0
    reset: bool = False
    ping_first: bool = False


class GrpcHealth:
    """Listens on a free port; every call gets `answer`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """`context`: speak TLS."""
        self.context = context
        self.answer = Answer()
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        fields: dict[str, str] = {}
        body = b""
        with contextlib.suppress(OSError), sock:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                assert sock.selected_alpn_protocol() == "h2"
            sock.sendall(connection.data_to_send())
            while data := sock.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        fields = dict(event.headers)
                    elif isinstance(event, DataReceived):
                        body += event.data
                    elif isinstance(event, StreamEnded):
                        self.asked.append((fields, body))
                        self._say(connection, event.stream_id)
                sock.sendall(connection.data_to_send())

    def _say(self, connection: H2Connection, number: int) -> None:
        answer = self.answer
        if answer.reset:
            connection.reset_stream(number)
            return
        if answer.ping_first:
            connection.ping(b"12345678")
        bare = answer.message is None and answer.trailers is None
        connection.send_headers(number, list(answer.headers.items()), end_stream=bare)
        if answer.message is not None:
            framed = bytes([answer.flag]) + len(answer.message).to_bytes(4, "big") + answer.message
            connection.send_data(number, framed, end_stream=answer.trailers is None)
        if answer.trailers is not None:
            connection.send_headers(number, list(answer.trailers.items()), end_stream=True)
