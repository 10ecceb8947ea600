"""Leases: trial calls that are dealt out to several breakers which share one state.

While a breaker is led (`../breaker.py`), only who holds a lease may make a trial call. Who deals them (the parent of
several workers, the replicas' shared store) counts them, so that no more than `half_open_permits` are under way
anywhere. A lease that nobody used in time goes back; each one comes back exactly once, as `Ended`.
"""

from enum import StrEnum
from typing import NamedTuple


class TrialEnd(StrEnum):
    """What came of a lease."""

    OK = "ok"
    FAILED = "failed"
    SLOW = "slow"
    TIMEOUT = "timeout"
    UNUSED = "unused"
    """No call was made with it, or one that told nothing about the upstream."""


class Lease(NamedTuple):
    """The right to make one trial call."""

    token: str
    use_by: float
    """Monotonic seconds: whoever has not begun by then gives it back."""
    deadline: float
    """Monotonic seconds: a trial without an answer by then has failed."""


class Ended(NamedTuple):
    """A lease that is no more."""

    token: str
    end: TrialEnd
    at: float
    """Monotonic seconds."""
