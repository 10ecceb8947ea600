"""The words that metrics, access log, answers and people share. One word per verdict, everywhere the same.

`Decision` is what stands in `X-Sidecar-Decision`, in the access log and in the metric label `outcome`
when the proxy, not the upstream, made or altered an answer. `Outcome` holds the words that the label
`outcome` knows beside them.
"""

from enum import StrEnum


class Decision(StrEnum):
    """Why the caller got an answer that the upstream did not make as it stands. Behind each: status, then why."""

    BREAKER_OPEN = "breaker_open"
    """503 with Retry-After. The upstream failed too often, or all trial calls are given out; it was not called."""
    MANUAL_OPEN = "manual_open"
    """503 with Retry-After. Somebody holds the breaker open; the upstream was not called."""
    OVERFLOW = "overflow"
    """503. A limit of the upstream is reached: requests, connections, or those that wait for one."""
    NO_HEALTHY_ENDPOINT = "no_healthy_endpoint"
    """503. The upstream has no endpoint to try, or all fail their checks and panic_threshold is 0."""
    NO_ROUTE = "no_route"
    """404. No route of the listener takes the request."""
    TIMEOUT = "timeout"
    """504. No head of an answer within the route's timeout, or the last try's per_try_timeout."""
    CONNECT_FAILURE = "connect_failure"
    """502. No endpoint could be connected to."""
    RESET = "reset"
    """502. The upstream hung up before its answer."""
    BAD_RESPONSE = "bad_response"
    """502. What the upstream sent is not HTTP/1.1 as the RFC has it, or larger than allowed."""
    CLIENT_TIMEOUT = "client_timeout"
    """408. The client was too slow with its head or body."""
    FALLBACK_UPSTREAM = "fallback_upstream"
    """Any. Another upstream answered instead."""
    FALLBACK_CACHE = "fallback_cache"
    """Any. The last good answer stands in, marked as stale."""
    FALLBACK_RESPOND = "fallback_respond"
    """As configured. The route's fixed answer stands in."""
    BAD_REQUEST = "bad_request"
    """400, 405, 413, 414, 417, 431, 501 or 505. The request is malformed, ambiguous or too large; nothing of it was
    sent on, and the connection is closed."""
    DRAINING = "draining"
    """503. The proxy stops, and the request had no answer when `shutdown.drain_timeout` was over."""


class Outcome(StrEnum):
    """How a request ended when no `Decision` was made about it."""

    OK = "ok"
    """The upstream's answer, whatever its status, went to the client whole."""
    CLIENT_GONE = "client_gone"
    """The client left before the answer was whole; nobody's fault on our side."""
