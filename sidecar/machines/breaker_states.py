"""The breaker's states and every change between them, as data.

The breaker changes its state only along this table; the diagram in docs/reference/breaker.md is drawn from it.
Open means refusing, as everywhere.
"""

from enum import StrEnum


class BreakerState(StrEnum):
    """What the breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


class Reason(StrEnum):
    """Why it changed: the label `reason` of `sidecar_breaker_transitions_total`."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    FAILURE_RATE = "failure_rate"
    SLOW_RATE = "slow_rate"
    OPEN_PERIOD_OVER = "open_period_over"
    RECOVERED = "recovered"
    TRIAL_FAILED = "trial_failed"
    TRIAL_SLOW = "trial_slow"
    TRIAL_TIMEOUT = "trial_timeout"
    MANUAL = "manual"
    EXPIRED = "expired"
    RESET = "reset"
    DISABLED = "disabled"
    SHARED = "shared"


MEANING = {
    BreakerState.CLOSED: "Calls pass; their results are counted.",
    BreakerState.OPEN: "Calls are refused until the open period is over and a trial call is admitted.",
    BreakerState.HALF_OPEN: "A few trial calls at a time find out whether the upstream is back; others are refused.",
    BreakerState.FORCED_OPEN: "Someone ordered it: calls are refused until the order expires or is reset.",
    BreakerState.FORCED_CLOSED: "Someone ordered it: calls pass, whatever comes of them, until expiry or reset.",
}

_TRIPS = (Reason.CONSECUTIVE_FAILURES, Reason.FAILURE_RATE, Reason.SLOW_RATE)
_FAILED_TRIALS = (Reason.TRIAL_FAILED, Reason.TRIAL_SLOW, Reason.TRIAL_TIMEOUT)

AUTOMATIC: dict[tuple[BreakerState, BreakerState], tuple[Reason, ...]] = {
    (BreakerState.CLOSED, BreakerState.OPEN): _TRIPS,
    (BreakerState.OPEN, BreakerState.HALF_OPEN): (Reason.OPEN_PERIOD_OVER,),
    (BreakerState.HALF_OPEN, BreakerState.OPEN): _FAILED_TRIALS,
    (BreakerState.HALF_OPEN, BreakerState.CLOSED): (Reason.RECOVERED,),
}
"""What it does by itself."""

BY_ORDER: dict[tuple[BreakerState, BreakerState], tuple[Reason, ...]] = {
    (BreakerState.CLOSED, BreakerState.FORCED_OPEN): (Reason.MANUAL,),
    (BreakerState.OPEN, BreakerState.FORCED_OPEN): (Reason.MANUAL,),
    (BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN): (Reason.MANUAL,),
    (BreakerState.FORCED_CLOSED, BreakerState.FORCED_OPEN): (Reason.MANUAL,),
    (BreakerState.CLOSED, BreakerState.FORCED_CLOSED): (Reason.MANUAL,),
    (BreakerState.OPEN, BreakerState.FORCED_CLOSED): (Reason.MANUAL,),
    (BreakerState.HALF_OPEN, BreakerState.FORCED_CLOSED): (Reason.MANUAL,),
    (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED): (Reason.MANUAL,),
    (BreakerState.FORCED_OPEN, BreakerState.CLOSED): (Reason.RESET, Reason.EXPIRED),
    (BreakerState.FORCED_CLOSED, BreakerState.CLOSED): (Reason.RESET, Reason.EXPIRED),
    (BreakerState.OPEN, BreakerState.CLOSED): (Reason.RESET, Reason.DISABLED),
    (BreakerState.HALF_OPEN, BreakerState.CLOSED): (Reason.RESET, Reason.DISABLED),
}
"""What people do to it: by command, or by a reload that sets mode to disabled."""

SHARED: dict[tuple[BreakerState, BreakerState], tuple[Reason, ...]] = {
    (old, new): (Reason.SHARED,) for old in BreakerState for new in BreakerState if old is not new
}
"""What others decided with whom it shares its state: any change. Theirs went along the two tables above."""

CHANGES = {change: AUTOMATIC.get(change, ()) + BY_ORDER.get(change, ()) + SHARED[change] for change in SHARED}
"""All of them."""
