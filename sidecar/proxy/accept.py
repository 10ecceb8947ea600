"""Accept: take clients from a listening socket, and stop taking when there is no room for them.

The socket belongs to whoever bound it (the program, or the parent of its workers) and is shared by all workers.
We accept ourselves instead of leaving it to the event loop's server, for two reasons: when descriptors run out, libuv
accepts and drops clients, while the kernel's queue would keep them; and a full listener should not accept at all.
Pausing costs nothing: the socket is taken out of the poll set, and looked at again when a client left or a moment
later.
"""

from __future__ import annotations

import errno
import socket
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.proxy.client import ClientConnection
from sidecar.proxy.greet import Greeter
from sidecar.proxy.tcp import TcpClient
from sidecar.runtime import series
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    import asyncio

    from sidecar.proxy.dataplane import DataPlane
    from sidecar.proxy.plan import ListenerPlan

BATCH = 64
"""Clients taken per turn of the loop, so that those already here are served too. Where workers share the socket, one:
who is quick shall not take all.
"""
PAUSE_SECONDS = 0.1
OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = Log(__name__)


class Acceptor:
    """One listener of one process: its socket, its plan, its clients."""

    def __init__(self, state: DataPlane, plan: ListenerPlan, sock: socket.socket) -> None:
        self.state = state
        self.plan = plan
        self.sock = sock
        self.clients: set[ClientConnection | TcpClient] = set()
        self.welcoming = 0  # accepted, and not clients yet
        self.accepting = False
        self._held = False
        self._closed = False
        self.greeter = Greeter(self)
        self._protocol = ClientConnection if plan.config.protocol == "http" else TcpClient
        state.registry.gauge_function(series.CONNECTIONS, lambda: len(self.clients), plan.name)

    def start(self) -> None:
        """Begin, or go on, accepting."""
        if not self._closed and not self._held and not self.accepting:
            self.accepting = True
            self.state.loop.add_reader(self.sock.fileno(), self._accept)

    def hold(self) -> None:
        """Accept nobody until `release`; who knocks waits in the kernel's queue, for us or for a successor."""
        self._held = True
        self._stop()

    def release(self) -> None:
        """Go on after `hold`."""
        self._held = False
        self.start()

    def close(self) -> None:
        """Take who waits in the queue and accept no more; where workers share the socket, the last one closes it."""
        if self._closed:
            return
        while self.accepting and self._accept():
            pass
        self._stop()
        self._closed = True
        self.sock.close()

    def joined(self, client: ClientConnection | TcpClient) -> None:
        """A client's connection is made."""
        self.clients.add(client)
        self.state.sweeper.watched.add(client)
        if self._closed:
            client.drain(monotonic())

    def unwatch(self, client: ClientConnection | TcpClient) -> None:
        """The client became a tunnel, which keeps its own time."""
        self.state.sweeper.watched.discard(client)

    def left(self, client: ClientConnection | TcpClient) -> None:
        """A client's connection is lost."""
        self.clients.discard(client)
        self.state.sweeper.watched.discard(client)
        if not self.accepting:
            self.start()

    def _stop(self) -> None:
        if self.accepting:
            self.accepting = False
            self.state.loop.remove_reader(self.sock.fileno())

    def _pause(self, reason: str) -> None:
        self._stop()
        self.state.registry.cell(series.ACCEPT_PAUSED, self.plan.name, reason).value += 1

    def _accept(self) -> bool:
        """Take a batch of clients; whether there may be more."""
        for turn in range(1 if self.state.shares_sockets else BATCH):
            tls = self.plan.tls
            greeting = self.welcoming + len(self.greeter.under_way)
            if greeting + len(self.clients) >= self.plan.max_connections:
                self._pause("max_connections")
                _log.warning("accept_paused", every=60.0, listener=self.plan.name, reason="max_connections",
                             max_connections=self.plan.max_connections)  # fmt: skip
                return False
            if tls is not None and not self.greeter.has_room(tls, self.welcoming):
                if turn:
                    return True  # nobody gives way before somebody is known to wait
                if self.greeter.make_room():
                    continue
                self._pause("handshakes")
                self.state.loop.call_later(PAUSE_SECONDS, self.start)
                return False
            try:
                sock, _ = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno not in OUT_OF_ROOM:
                    raise
                self._pause("descriptors")
                _log.error("accept_paused", every=60.0, listener=self.plan.name, reason=error.strerror,
                           advice="raise the limit of open files (ulimit -n) or lower max_connections")  # fmt: skip
                self.state.loop.call_later(PAUSE_SECONDS, self.start)
                return False
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.welcoming += 1
            self.state.spawn(self._welcome(sock))
        return True

    async def _welcome(self, sock: socket.socket) -> None:
        try:
            await self.state.loop.connect_accepted_socket(self._answerer, sock)
        except OSError:
            sock.close()  # it left before it was welcome
        finally:
            self.welcoming -= 1
            if not self.accepting:
                self.start()

    def _answerer(self) -> asyncio.Protocol:
        protocol = self._protocol(self)
        tls = self.plan.tls
        return protocol if tls is None else self.greeter.begin(protocol, tls)
