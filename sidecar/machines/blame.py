"""Whose fault a try's end was, and which ends another tier may answer for: the words, as sets.

What the upstream did counts against it; what the client or we ourselves did counts as neither. A fallback stands in
for an upstream that may not or cannot answer, never for a plain 500: that is the service's own word.
"""

from sidecar.base.names import Decision

UPSTREAMS_FAULT = frozenset({Decision.CONNECT_FAILURE, Decision.RESET, Decision.TIMEOUT, Decision.BAD_RESPONSE})
"""Ends without a whole answer for which the upstream is to blame."""

GATEWAY_STATUSES = frozenset({502, 503, 504})
"""Answers that say that something behind the endpoint, or the endpoint itself, cannot serve."""

FALLBACK_DECISIONS = UPSTREAMS_FAULT | {
    Decision.BREAKER_OPEN,
    Decision.MANUAL_OPEN,
    Decision.OVERFLOW,
    Decision.NO_HEALTHY_ENDPOINT,
}
"""What a route's fallback answers for, beside the statuses."""

FALLBACK_STATUSES = GATEWAY_STATUSES
