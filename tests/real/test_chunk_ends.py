"""A chunk is worth nothing to many receivers before the line end behind it: it leaves with that."""

import threading

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Message, Wire
from tests.real.harness import ask


def test_a_chunk_is_forwarded_with_its_end(server: ScriptedUpstream, client: Wire) -> None:
    """Many receivers (werkzeug among them) hand a chunk out only when the line end behind it has come."""
    came = threading.Event()

    def script(peer: Wire, request: Message) -> None:
        assert peer.exactly(8) == b"3\r\nabc\r\n"
        came.set()
        peer.read_body(request)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    server.on("/chunk-end", script)
    client.send(ask("/chunk-end", "transfer-encoding: chunked\r\n", "POST"), b"3\r\nabc\r\n")
    assert came.wait(3)
    client.send(b"0\r\n\r\n").read_answer()
