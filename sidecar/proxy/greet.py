"""Greet: the TLS handshake between accept and parse. Bounded in time and in number, and told when it fails.

A client is nobody's connection until its handshake is done and its certificate, where one is asked for, names somebody
who is allowed. A handshake that takes longer than `handshake_timeout` is dropped by the sweep. When all of
`max_handshakes` are under way, one that has taken a second gives its place up; without such a one we stop accepting,
and who comes waits in the kernel's queue: a crowd that hurries loses nobody, one that dawdles keeps nobody out.

Who speaks HTTP without TLS to us is told so in HTTP. Every failure is counted by its kind and logged with the client's
address and OpenSSL's reason, each kind once in ten seconds.
"""

from __future__ import annotations

import re
import ssl
from time import monotonic, time
from typing import TYPE_CHECKING

from sidecar.base.errors import ClientFault
from sidecar.machines.client_cert import element
from sidecar.machines.peer_names import AllowList, has_ended, names_of
from sidecar.proxy.answer import fault_answer
from sidecar.proxy.record import record_refused
from sidecar.proxy.tls import TlsTransport
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.tls import why

if TYPE_CHECKING:
    import asyncio

    from sidecar.config.tls import ListenerTls
    from sidecar.proxy.accept import Acceptor

DAWDLES_SECONDS = 1.0
_LOG_SECONDS = 10.0
_HTTP = re.compile(rb"[A-Z]{3,10} ")
_PLAIN_HTTP = "this port speaks TLS: ask with https://"

_log = Log(__name__)


class Terms:
    """A listener's TLS, compiled: the context, whom it lets in, and how long a handshake may take."""

    __slots__ = ("allowed", "context", "forward", "limit", "timeout")

    def __init__(self, config: ListenerTls, context: ssl.SSLContext) -> None:
        self.context = context
        self.allowed = AllowList(config.allowed_clients) if config.allowed_clients else None
        self.forward = config.forward_client_cert
        self.timeout = config.handshake_timeout
        self.limit = config.max_handshakes


class Greeting(TlsTransport):
    """A client's TLS; until the handshake is done, one of the greeter's."""

    __slots__ = ("_began", "_greeter", "_terms", "peer", "plain")

    def __init__(self, greeter: Greeter, protocol: asyncio.Protocol, terms: Terms) -> None:
        super().__init__(protocol, terms.context, greeter.greeted)
        self._greeter = greeter
        self._terms = terms
        self._began = monotonic()
        self.deadline = self._began + terms.timeout
        self.peer = ""
        self.plain = False  # it speaks, and not TLS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else "unix"

    def begin_shaking(self, data: bytes) -> bool:
        if not _HTTP.match(data):
            return True
        self.plain = True
        self.fail(ssl.SSLError(1, _PLAIN_HTTP))
        return False

    def expire(self, now: float) -> None:  # noqa: ARG002
        """The sweep found that the handshake takes too long."""
        self.fail(TimeoutError("no handshake within handshake_timeout"))
        self.abort()

    def dawdles(self, now: float) -> bool:
        """Whether it has had its time."""
        return now - self._began >= DAWDLES_SECONDS

    def give_way(self) -> None:
        """Somebody else needs the place."""
        self.fail(ConnectionAbortedError("too many handshakes at once, and this one took its time"))
        self.abort()

    def refusal(self) -> str:
        """Why this client may not come; empty: it may."""
        if self.tls.session_reused and has_ended(self.tls.getpeercert() or {}, time()):
            return "its certificate has ended since the session that it resumes"  # OpenSSL looks at first only
        allowed = self._terms.allowed
        if allowed is not None and not allowed.admits(names_of(self.tls.getpeercert() or {})):
            return "allowed_clients does not name it"
        return ""

    def answer_plain(self, answer: bytes) -> None:
        """Say something without TLS, and close."""
        self._raw.write(answer)
        self.shut()

    def certificate_element(self) -> bytes | None:
        """What X-Forwarded-Client-Cert says; None when the client showed no certificate or nobody is to hear of it."""
        der = self.tls.getpeercert(binary_form=True) if self._terms.forward else None
        return None if der is None else element(der, self.tls.getpeercert() or {})


class Greeter:
    """The handshakes of one listener in this process."""

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._registry = acceptor.state.registry
        self._name = acceptor.plan.name
        self.under_way: dict[Greeting, None] = {}  # the oldest first
        self._registry.gauge_function(series.TLS_HANDSHAKES_INFLIGHT, lambda: len(self.under_way), self._name)

    def begin(self, protocol: asyncio.Protocol, terms: Terms) -> Greeting:
        """What stands between an accepted socket and `protocol`."""
        greeting = Greeting(self, protocol, terms)
        self.under_way[greeting] = None
        self._acceptor.state.sweeper.watched.add(greeting)
        return greeting

    def has_room(self, terms: Terms, to_come: int) -> bool:
        """Whether another handshake may begin after the `to_come`."""
        return len(self.under_way) + to_come < terms.limit

    def make_room(self) -> bool:
        """Somebody waits: the oldest handshake gives way if it has had its time."""
        oldest = next(iter(self.under_way), None)
        if oldest is None or not oldest.dawdles(monotonic()):
            return False
        oldest.give_way()
        return True

    def greeted(self, greeting: TlsTransport, error: Exception | None) -> None:
        """A handshake is over."""
        assert isinstance(greeting, Greeting)
        self.under_way.pop(greeting, None)
        self._acceptor.state.sweeper.watched.discard(greeting)
        if error is not None:
            self._tell(greeting, error)
        elif refusal := greeting.refusal():
            self._count("refused")
            names = str(names_of(greeting.tls.getpeercert() or {}))
            _log.warning("tls_client_refused", every=_LOG_SECONDS, about=names, listener=self._name,
                         client=greeting.peer, names=names, reason=refusal)  # fmt: skip
            greeting.close()
        else:
            self._count("resumed" if greeting.tls.session_reused else "ok")
        if not self._acceptor.accepting:
            self._acceptor.start()

    def abort_all(self) -> None:
        """Nobody is served any more."""
        for greeting in list(self.under_way):
            greeting.abort()

    def _tell(self, greeting: Greeting, error: Exception) -> None:
        if greeting.plain:
            self._count("plain")
            self._answer_plain(greeting)
        elif isinstance(error, TimeoutError):
            self._count("timeout")
        elif isinstance(error, ConnectionAbortedError):
            self._count("gave_way")
        elif isinstance(error, ssl.SSLError):
            self._count("failed")
        else:
            self._count("gone")
            return  # a load balancer that looks whether somebody listens, mostly
        reason = _PLAIN_HTTP if greeting.plain else why(error)
        _log.warning("tls_handshake_failed", every=_LOG_SECONDS, about=f"{self._name} {reason}", listener=self._name,
                     client=greeting.peer, reason=reason)  # fmt: skip

    def _answer_plain(self, greeting: Greeting) -> None:
        plan = self._acceptor.plan
        if plan.config.protocol == "http":
            fault = ClientFault(_PLAIN_HTTP)
            greeting.answer_plain(fault_answer(fault, keep_alive=False))
            record_refused(plan, greeting.peer, fault)
        else:
            greeting.abort()

    def _count(self, result: str) -> None:
        self._registry.cell(series.TLS_HANDSHAKES, self._name, result).value += 1
