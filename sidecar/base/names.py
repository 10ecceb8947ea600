"""The words that metrics, access log, answers and people share. One word per verdict, everywhere the same.

`Decision` is what stands in `X-Sidecar-Decision`, in the access log and in the metric label `outcome`
when the proxy, not the upstream, made or altered an answer. `Outcome` holds the words that the label
`outcome` knows beside them.
"""

from enum import StrEnum


class Decision(StrEnum):
    """Why the caller got an answer that the upstream did not make as it stands."""

    BREAKER_OPEN = "breaker_open"
    MANUAL_OPEN = "manual_open"
    OVERFLOW = "overflow"
    NO_HEALTHY_ENDPOINT = "no_healthy_endpoint"
    NO_ROUTE = "no_route"
    TIMEOUT = "timeout"
    CONNECT_FAILURE = "connect_failure"
    RESET = "reset"
    BAD_RESPONSE = "bad_response"
    CLIENT_TIMEOUT = "client_timeout"
    FALLBACK_UPSTREAM = "fallback_upstream"
    FALLBACK_CACHE = "fallback_cache"
    FALLBACK_RESPOND = "fallback_respond"
    BAD_REQUEST = "bad_request"
    DRAINING = "draining"


class Outcome(StrEnum):
    """How a request ended when no `Decision` was made about it."""

    OK = "ok"
    """The upstream's answer, whatever its status, went to the client whole."""
    CLIENT_GONE = "client_gone"
    """The client left before the answer was whole; nobody's fault on our side."""
