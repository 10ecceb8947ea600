"""Calling an upstream by TLS: the context, the name that is asked for, and whether who answers is the right one.

What can be wrong with who answers has a word of its own: `expired`, `not_trusted` (no authority that we know signed
it), `name_mismatch`, `not_allowed` (allowed_servers), and `refused` when they want no talk with us: our certificate is
not good enough for them, or there is no protocol in common. Everything else is `handshake`.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from sidecar.config.address import parse_address
from sidecar.machines.peer_names import AllowList, Names, names_of
from sidecar.runtime.tls import why

if TYPE_CHECKING:
    from sidecar.config.upstreams import Upstream

_EXPIRED = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""
_MISMATCH = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


class NotAllowed(ssl.SSLCertVerificationError):
    """The certificate is good and names nobody in allowed_servers."""

    def __init__(self, names: Names) -> None:
        self.verify_code = 0
        self.verify_message = f"allowed_servers does not name it: {names}"
        super().__init__(1, self.verify_message)


class Calling:
    """How to call one upstream."""

    __slots__ = ("_allowed", "_name", "context")

    def __init__(self, upstream: Upstream, context: ssl.SSLContext) -> None:
        tls = upstream.tls
        assert tls is not None, "who has no tls is called without"
        self.context = context
        self._allowed = AllowList(tls.allowed_servers) if tls.allowed_servers else None
        self._name = tls.server_name
        if self._name is None and upstream.discovery is not None and upstream.discovery.dns is not None:
            self._name = parse_address(upstream.discovery.dns).host

    def name_for(self, host: str) -> str | None:
        """The name that is sent and verified for an endpoint at `host` (empty: a Unix socket)."""
        return self._name or host or None

    def check(self, connection: ssl.SSLObject) -> None:
        """Raise NotAllowed when the one who answered is not on the list."""
        if self._allowed is not None:
            names = names_of(connection.getpeercert() or {})
            if not self._allowed.admits(names):
                raise NotAllowed(names)


def word_for(error: Exception) -> str:
    """The word for what went wrong; see above."""
    if isinstance(error, NotAllowed):
        return "not_allowed"
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        return "expired" if code in _EXPIRED else "name_mismatch" if code in _MISMATCH else "not_trusted"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return "refused"
    return "handshake"


def sentence_for(error: Exception) -> str:
    """The same for people."""
    return error.verify_message if isinstance(error, NotAllowed) else why(error)
