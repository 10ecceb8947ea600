"""Errors named by who is at fault: the client, the upstream, or this process.

Each carries what the answer needs: `status` (HTTP), `decision` (the word on metric, log and
`X-Sidecar-Decision`), `detail` (one sentence for people, free of secrets and of bytes from the network)
and `retryable` (whether another try might help).
"""

from sidecar.base.names import Decision


class SidecarError(Exception):
    """Anything that this program raises on purpose."""


class ConfigError(SidecarError):
    """The configuration cannot be used; the message says where and what to do."""


class RequestFault(SidecarError):
    """A request that ends in an answer of our own."""

    status = 500
    decision = Decision.BAD_REQUEST
    retryable = False

    def __init__(self, detail: str, status: int | None = None, decision: Decision | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if status is not None:
            self.status = status
        if decision is not None:
            self.decision = decision


class ClientFault(RequestFault):
    """The client broke the protocol, was too slow or too large: 4xx/5xx of RFC 9110/9112, then close."""

    status = 400


class UpstreamFault(RequestFault):
    """The upstream refused, reset, timed out, or answered what is not HTTP."""

    status = 502
    decision = Decision.BAD_RESPONSE
    retryable = True


class OwnRefusal(RequestFault):
    """We decided not to call: no route, overflow, breaker open, nothing healthy, draining."""

    status = 503
    decision = Decision.OVERFLOW
