"""When an upstream may not be called (breaker), and which of its endpoints are passed over (outlier)."""

from typing import Annotated

from sidecar.config.kinds import (
    Count,
    Doc,
    Duration,
    FieldValue,
    Flag,
    Multiplier,
    Positive,
    PositiveDuration,
    Ratio,
    Section,
    Statuses,
    Token,
    words,
)

Mode = Annotated[str, words("enforce", "observe", "disabled")]
SERVER_ERRORS = frozenset(range(500, 600))


class FailureHeader(Section, frozen=True, kw_only=True):
    """A header or trailer field of an answer that says it is a failure."""

    name: Annotated[
        Token,
        Doc("The field, in any case; in the answer's head or, after a chunked body, its trailers.", "RFC 9110 §5.1"),
    ]
    values: Annotated[
        tuple[FieldValue, ...], Doc("These values mean failure. Neither this nor unless: any value.", "any")
    ] = ()
    unless: Annotated[tuple[FieldValue, ...], Doc("All values but these mean failure.", "none")] = ()


class Breaker(Section, frozen=True, kw_only=True):
    """The circuit breaker of one upstream. Open means refusing. 0 switches a rule off; rates trigger at >=."""

    mode: Annotated[
        Mode,
        Doc(
            "enforce refuses calls while open; observe only counts what it would have refused; disabled does nothing.",
            "resilience4j knows the same three (METRICS_ONLY, DISABLED)",
        ),
    ] = "enforce"
    consecutive_failures: Annotated[
        Count, Doc("So many failed tries in a row open it. 0 switches the rule off.", "the requirement: 5; pybreaker 5")
    ] = 5
    failure_rate: Annotated[
        Ratio,
        Doc("Opens when so large a share of the window's tries failed. 0 switches the rule off.", "Hystrix: 50 %"),
    ] = 0.5
    slow_rate: Annotated[
        Ratio,
        Doc("Opens when so large a share of the window's tries was slow. 0 switches it off.", "resilience4j: 100 %"),
    ] = 1.0
    slow_after: Annotated[
        PositiveDuration,
        Doc(
            "A try is slow when the answer's head takes this long or longer. Tunnels are exempt.", "resilience4j: 60 s"
        ),
    ] = 60.0
    minimum_requests: Annotated[
        Positive, Doc("The rates judge only a window that holds at least so many tries.", "Hystrix: 20 requests")
    ] = 20
    window: Annotated[PositiveDuration, Doc("The rates look back this far.", "Hystrix: 10 s")] = 10.0
    open_for: Annotated[
        PositiveDuration,
        Doc("How long it refuses before the first trial call. The first period is exact.", "the requirement: 60 s"),
    ] = 60.0
    open_multiplier: Annotated[
        Multiplier,
        Doc("Each re-opening multiplies the period by this, up to open_max, with at most 10 % jitter.", "1: no growth"),
    ] = 1.0
    open_max: Annotated[PositiveDuration, Doc("No open period grows beyond this.", "ten times open_for")] = 600.0
    half_open_permits: Annotated[
        Positive,
        Doc(
            "At most so many trial calls at once while half open; fleet-wide when state is shared.",
            "the requirement: 3",
        ),
    ] = 3
    half_open_successes: Annotated[Positive, Doc("So many good trial calls close it.", "the requirement: 3")] = 3
    half_open_timeout: Annotated[
        PositiveDuration,
        Doc(
            "A trial call that has no answer after this counts as failed, so half open can never wedge.",
            "2 × route timeout",
        ),
    ] = 30.0
    ramp: Annotated[
        Duration,
        Doc("After closing, the admitted share grows from little to all over this time. 0s: at once.", "0s: no ramp"),
    ] = 0.0
    failure_statuses: Annotated[Statuses, Doc("Answers with these statuses count as failures.", "Envoy: all 5xx")] = (
        SERVER_ERRORS
    )
    failure_headers: Annotated[
        tuple[FailureHeader, ...],
        Doc("Answers with one of these fields count as failures, whatever their status.", "none; Polly's ShouldHandle"),
    ] = ()
    shared: Annotated[
        Flag,
        Doc(
            "Whether replicas agree about it when there is shared_state. false for an upstream that is each replica's "
            "own, such as the service beside it.",
            "true: replicas mostly call the same upstream",
        ),
    ] = True
    quorum: Annotated[
        Positive | None,
        Doc(
            "Replicas that must see the failure before all open, when state is shared. An explicit number is literal; "
            "null is the smaller of 2 and the replicas that carry traffic.",
            "one sick replica must not open a healthy fleet",
        ),
    ] = None


class Outlier(Section, frozen=True, kw_only=True):
    """Which endpoint of an upstream is passed over for a while because it fails more than its peers.

    The only endpoint of an upstream is never ejected.
    """

    mode: Annotated[
        Mode, Doc("enforce ejects; observe only counts what it would have ejected; disabled does nothing.", "Envoy")
    ] = "enforce"
    consecutive_failures: Annotated[
        Count, Doc("So many failures in a row eject an endpoint. 0 switches the rule off.", "Envoy: 5")
    ] = 5
    consecutive_gateway_failures: Annotated[
        Count | None,
        Doc(
            "So many failures to connect and answers 502 to 504 in a row eject an endpoint, however many others "
            "may. 0 switches the rule off. null: as consecutive_failures.",
            "Envoy consecutive_gateway_failure: 5",
        ),
    ] = None
    failure_rate: Annotated[
        Ratio, Doc("So large a share of failures within an interval ejects. 0 switches it off.", "Envoy: 85 %")
    ] = 0.85
    slow_rate: Annotated[
        Ratio,
        Doc(
            "So large a share of slow calls within an interval ejects. 0 switches the rule off.",
            "off: how slow is too slow only you know; Envoy has no such rule",
        ),
    ] = 0.0
    slow_after: Annotated[
        PositiveDuration,
        Doc("A call is slow when the answer's head takes this long or longer.", "as the breaker's: 60 s"),
    ] = 60.0
    interval: Annotated[PositiveDuration, Doc("How often rates are judged and ejections end.", "Envoy: 10 s")] = 10.0
    base_ejection: Annotated[
        PositiveDuration, Doc("The first ejection lasts this long, the n-th n times as long.", "Envoy: 30 s")
    ] = 30.0
    max_ejection: Annotated[PositiveDuration, Doc("No ejection lasts longer.", "Envoy: 300 s")] = 300.0
    max_ejected: Annotated[
        Ratio, Doc("At most this share of an upstream's endpoints is ejected at once.", "Envoy: 10 %")
    ] = 0.1
