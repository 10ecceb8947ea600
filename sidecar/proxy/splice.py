"""Splice: the rest of a long answer goes from the upstream's socket to the client's inside the kernel.

For a body whose length is known, between two sockets without TLS, of which nothing is kept here. Both transports stay,
and neither is used meanwhile: the upstream's is paused, the client's has written everything. What moves is what the
two sockets and a pipe between them hold (splice(2)); a byte more than the body never leaves the upstream's socket, and
where there is one, nobody gets the connection after us: it would be taken for the next answer. The transports own their
descriptors, so this works on copies, and lets go of them when the connection ends, however it does
(`UpstreamConnection.discard`). It costs two thirds of what reading and writing does, and one pipe in the kernel.
Where no pipe is to be had, or half of the descriptors are in use (connections need them more), the answer is relayed as
usual.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.names import Decision
from sidecar.proxy.attempt import cut_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.exchange import Exchange

SPLICE_FROM = 1024 * 1024
"""Bytes that are still to come, below which the way there costs more than it saves."""
PIPE = 256 * 1024
"""Bytes that wait in the kernel for a client that does not read."""
_TURNS = 8
"""Moves before others have their turn."""
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


def splice(
    exchange: Exchange, connection: UpstreamConnection, left: int, finish: Callable[[Exchange, bool], None]
) -> None:
    """Move the `left` bytes that are still to come, then `finish(exchange, quiet)`; or do nothing, where that fails.

    `quiet`: the upstream sent nothing beyond the body, not even its end.
    """
    client = exchange.client
    ends = (connection.transport, client.transport)
    if client.write_paused or any(one.get_extra_info("tls") is not None for one in ends):
        return
    descriptors: list[int] = []
    try:
        descriptors += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(descriptors[1], fcntl.F_SETPIPE_SZ, PIPE)
        descriptors += [os.dup(one.get_extra_info("socket").fileno()) for one in ends]
        scarce = max(descriptors) > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    except OSError:  # no descriptor left, or no more memory for pipes
        scarce = True
    if scarce:
        for one in descriptors:
            os.close(one)
        return
    connection.transport.pause_reading()
    connection.splice = Splice(exchange, connection, left, descriptors, finish)


class Splice:
    """One body on its way."""

    __slots__ = (
        "_connection",
        "_descriptors",
        "_exchange",
        "_finish",
        "_held",
        "_into",
        "_left",
        "_loop",
        "_out",
        "_sink",
        "_source",
    )

    def __init__(
        self,
        exchange: Exchange,
        connection: UpstreamConnection,
        left: int,
        descriptors: list[int],
        finish: Callable[[Exchange, bool], None],
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._left = left  # bytes that the upstream's socket still owes
        self._held = 0  # bytes in the pipe
        self._descriptors = descriptors
        self._out, self._into, self._source, self._sink = descriptors
        self._finish = finish
        self._loop = exchange.plan.state.loop
        self._wait_for_client()

    def close(self) -> None:
        """Let go; what is under way is lost. Idempotent."""
        if self._connection.splice is self:
            self._connection.splice = None
            self._exchange.client.write_paused = False
            self._loop.remove_reader(self._source)
            self._loop.remove_writer(self._sink)
            for one in self._descriptors:
                os.close(one)

    def _wait_for_client(self) -> None:
        """It does not take what we have: the client's time counts."""
        client = self._exchange.client
        client.write_paused = True
        client.wait_for_reader(monotonic())
        self._loop.remove_reader(self._source)
        self._loop.add_writer(self._sink, self._on_writable)

    def _on_writable(self) -> None:
        client = self._exchange.client
        if client.transport.get_write_buffer_size():
            return  # what was written before goes first
        client.write_paused = False
        self._loop.remove_writer(self._sink)
        self._loop.add_reader(self._source, self._move)
        self._move()

    def _move(self) -> None:
        """As much as both sides have and take; after some turns others have theirs, and the upstream's socket calls."""
        self._exchange.client.deadline = monotonic() + self._exchange.upstream.idle_timeout
        for _ in range(_TURNS):
            if not (self._held or self._fill()) or not self._drain():
                return
            if not self._left:
                quiet = self._is_quiet()
                self.close()
                self._connection.transport.resume_reading()
                self._finish(self._exchange, quiet)
                return

    def _fill(self) -> bool:
        """Whether the upstream had something."""
        try:
            self._held = os.splice(self._source, self._into, min(self._left, PIPE), flags=_FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it broke: as bad as its end
        self._left -= self._held
        if not self._held:
            cut_off(self._exchange, Decision.RESET)
        return self._held > 0

    def _is_quiet(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        return not poll.poll(0)

    def _drain(self) -> bool:
        """Whether the client took all of it."""
        while self._held:
            try:
                moved = os.splice(self._out, self._sink, self._held, flags=_FLAGS)
            except BlockingIOError:
                self._wait_for_client()
                return False
            except OSError:
                self._exchange.client.transport.abort()  # it is gone: that ends the exchange
                return False
            self._held -= moved
            self._exchange.bytes_out += moved
        return True
