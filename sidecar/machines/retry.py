"""Whether a failed try is followed by another one, and after what wait.

Asked only while no byte of an answer has gone to the client. In this order, cheapest and safest question first:

1. There are tries left (`attempts` counts all of them), and the failure is one that `retry_on` names.
2. Sending again does no harm: either nothing of the request can have reached the upstream (it failed to connect),
   or the method is among the rule's methods, idempotent ones unless told (RFC 9110 section 9.2.2).
3. It can be sent again: there is no body, or all of it is still at hand.
4. The wait, jittered or as Retry-After demands, ends before the request's deadline. A Retry-After that does not
   fit means no retry: knocking earlier than asked is what it forbids.
5. The upstream's retry budget allows it. Asked last, for asking spends.

Apart from rules stands the keep-alive race: an upstream may close an idle connection at the moment we write on it
(RFC 9112 section 9.3.1). Such a failure says nothing about the upstream, so one repetition on a *fresh* connection is
free of rule, attempt, budget and wait; points 2 and 3 hold for it all the same.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sidecar.base.backoff import Uniform, full_jitter
from sidecar.base.names import Decision

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 section 9.2.2."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A route's `retry`, compiled."""

    attempts: int
    """Tries in all, the first included."""
    reasons: frozenset[str]
    """Of connect_failure, reset, timeout, bad_response."""
    statuses: frozenset[int]
    methods: frozenset[bytes]
    backoff: float
    backoff_max: float

    @classmethod
    def compiled(
        cls,
        *,
        attempts: int,
        retry_on: Collection[str | int],
        methods: Collection[str],
        backoff: float,
        backoff_max: float,
    ) -> "RetryPolicy":
        """From what the configuration holds: words and statuses in one list, methods as text."""
        words = {str(item) for item in retry_on}
        return cls(
            attempts=attempts,
            reasons=frozenset(word for word in words if not word.isdecimal()),
            statuses=frozenset(int(word) for word in words if word.isdecimal()),
            methods=frozenset(method.encode("ascii") for method in methods),
            backoff=backoff,
            backoff_max=backoff_max,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of the try that failed."""

    reason: Decision | None = None
    """connect_failure, reset, timeout or bad_response; None: the upstream answered, see `status`."""
    status: int = 0
    sent: bool = True
    """Whether any byte of the request may have reached the upstream."""
    reused: bool = False
    """Whether the connection had carried an earlier exchange."""
    answered: bool = False
    """Whether any byte of an answer came."""
    retry_after: float | None = None
    """Seconds, from the answer's Retry-After."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay` seconds."""

    delay: float


REFUSALS = ("body", "budget", "late")
"""Why a retry that the policy asks for is not made."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The policy asks for another try, but it will not be, for one of REFUSALS."""

    why: str


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    attempt: int,
    method: bytes,
    replayable: bool,
    time_left: float,
    spend: Callable[[], bool],
    uniform: Uniform,
) -> Retry | Refused | None:
    """What follows the failure of try number `attempt` (the first is 1).

    None: the policy asks for nothing. Refused: it does, and something else forbids it.

    `replayable`: there is no body or all of it can be sent again. `time_left`: seconds to the request's deadline.
    `spend`: takes one retry from the budget, False when it is used up; called at most once, and only when
    everything else speaks for the retry.
    """
    if attempt >= policy.attempts:
        return None
    named = failure.status in policy.statuses if failure.reason is None else failure.reason in policy.reasons
    if not named or (failure.sent and method not in policy.methods):
        return None
    if not replayable:
        return Refused("body")
    delay = full_jitter(attempt - 1, policy.backoff, policy.backoff_max, uniform)
    if failure.retry_after is not None:
        delay = max(delay, failure.retry_after)
    if delay >= time_left:
        return Refused("late")
    return Retry(delay) if spend() else Refused("budget")


def lost_keep_alive_race(failure: Failure, *, method: bytes, replayable: bool) -> bool:
    """Whether the try merely met a connection that the upstream was closing, and may be repeated for free.

    Once per request, and on a fresh connection: the caller keeps count.
    """
    return (
        failure.reason == Decision.RESET
        and failure.reused
        and not failure.answered
        and replayable
        and (not failure.sent or method in IDEMPOTENT)
    )
