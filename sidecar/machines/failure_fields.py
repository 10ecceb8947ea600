"""Which field of an answer says that it is a failure, whatever its status: `breaker.failure_headers`.

Some services answer 200 and mean "I could not": GraphQL gateways, gRPC's `grpc-status` in the trailers, a header that a
framework sets. A rule names a field and the values that mean failure, or those that do not; a field that is not
there says nothing. Names are compared without case, values exactly; several lines of one name are looked at one by one.

The hot path does not pay for what is not configured: `suspects` are the statuses that need a second look. Without rules
they are the failure statuses themselves; with rules every status is suspect, for any answer may carry the field.
"""

from collections.abc import Callable, Iterable, Sequence

from sidecar.config.breaker import Breaker, FailureHeader

EVERY_STATUS = frozenset(range(100, 600))

Lines = Callable[[bytes], Iterable[bytes]]
"""The values of all lines of an answer's field, by its lower-case name."""


class FailureFields:
    """The rules of one breaker, compiled."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[FailureHeader]) -> None:
        self._rules = [
            (
                rule.name.lower().encode(),
                frozenset(value.encode() for value in rule.values),
                frozenset(value.encode() for value in rule.unless),
            )
            for rule in rules
        ]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def mean_failure(self, lines: Lines) -> bool:
        """Whether one of the fields says so."""
        return any(_says_failure(lines(name), values, unless) for name, values, unless in self._rules)


def _says_failure(found: Iterable[bytes], values: frozenset[bytes], unless: frozenset[bytes]) -> bool:
    return any((value in values) if values else (value not in unless) for value in found)


def suspects(policy: Breaker) -> frozenset[int]:
    """Statuses whose answers may be failures."""
    return EVERY_STATUS if policy.failure_headers else policy.failure_statuses
