"""Fields that say an answer is a failure: which values do, and what it costs when there are none."""

import pytest

from sidecar.config.breaker import Breaker, FailureHeader
from sidecar.machines.failure_fields import FailureFields, suspects


@pytest.mark.parametrize(
    ("rule", "values", "failure"),
    [
        (FailureHeader(name="X-Failed"), [b"anything"], True),
        (FailureHeader(name="X-Failed"), [b""], True),
        (FailureHeader(name="X-Failed"), [], False),
        (FailureHeader(name="X-Failed", values=("yes", "1")), [b"1"], True),
        (FailureHeader(name="X-Failed", values=("yes", "1")), [b"no", b"yes"], True),
        (FailureHeader(name="X-Failed", values=("yes", "1")), [b"YES"], False),
        (FailureHeader(name="X-Failed", unless=("0",)), [b"14"], True),
        (FailureHeader(name="X-Failed", unless=("0",)), [b"0"], False),
        (FailureHeader(name="X-Failed", unless=("0",)), [], False),
    ],
)
def test_what_a_rule_takes_for_a_failure(rule: FailureHeader, values: list[bytes], failure: bool) -> None:
    fields = FailureFields([rule])
    assert fields.mean_failure(lambda name: values if name == b"x-failed" else []) is failure


def test_one_rule_of_several_is_enough() -> None:
    fields = FailureFields([FailureHeader(name="a"), FailureHeader(name="b")])
    assert fields.mean_failure(lambda name: [b"x"] if name == b"b" else [])


def test_without_rules_only_failure_statuses_get_a_second_look() -> None:
    assert suspects(Breaker()) == frozenset(range(500, 600))
    assert not FailureFields(())
    assert 200 in suspects(Breaker(failure_headers=(FailureHeader(name="a"),)))
