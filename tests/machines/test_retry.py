"""Retries: what speaks against one is asked before the budget is touched."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.base.names import Decision
from sidecar.machines.retry import IDEMPOTENT, Failure, Refused, Retry, RetryPolicy, decide, lost_keep_alive_race

POLICY = RetryPolicy.compiled(
    attempts=3,
    retry_on=["connect_failure", "reset", 502, "503"],
    methods=["GET", "PUT"],
    backoff=0.025,
    backoff_max=0.25,
)


@dataclass
class Purse:
    coins: int = 1

    def spend(self) -> bool:
        self.coins -= 1
        return self.coins >= 0


def ask(
    failure: Failure,
    *,
    attempt: int = 1,
    method: bytes = b"GET",
    replayable: bool = True,
    time_left: float = 10.0,
    purse: Purse | None = None,
    u: float = 0.5,
) -> Retry | Refused | None:
    return decide(
        POLICY,
        failure,
        attempt=attempt,
        method=method,
        replayable=replayable,
        time_left=time_left,
        spend=(purse or Purse()).spend,
        uniform=lambda: u,
    )


RESET = Failure(Decision.RESET)
REFUSED = Failure(Decision.CONNECT_FAILURE, sent=False)
BUSY = Failure(status=503)


def test_words_and_statuses_of_one_list_are_told_apart() -> None:
    assert POLICY.reasons == {"connect_failure", "reset"}
    assert POLICY.statuses == {502, 503}
    assert POLICY.methods == {b"GET", b"PUT"}


@pytest.mark.parametrize("failure", [RESET, REFUSED, BUSY, Failure(status=502)])
def test_what_the_rule_names_is_tried_again(failure: Failure) -> None:
    assert ask(failure) == Retry(0.0125)


@pytest.mark.parametrize("failure", [Failure(Decision.TIMEOUT), Failure(Decision.BAD_RESPONSE), Failure(status=500)])
def test_what_the_rule_does_not_name_is_final(failure: Failure) -> None:
    assert ask(failure) is None


def test_attempts_count_the_first_try() -> None:
    assert ask(RESET, attempt=2) is not None
    assert ask(RESET, attempt=3) is None


def test_a_request_that_may_have_arrived_is_repeated_only_for_the_rules_methods() -> None:
    assert ask(RESET, method=b"POST") is None
    assert ask(BUSY, method=b"POST") is None
    assert ask(REFUSED, method=b"POST") is not None, "nothing was sent: repeating is safe"


def test_a_body_that_is_gone_cannot_be_sent_again() -> None:
    assert ask(RESET, method=b"PUT", replayable=False) == Refused("body")


def test_the_wait_grows_and_is_capped() -> None:
    policy = replace(POLICY, attempts=9)
    waits = [
        decide(
            policy,
            RESET,
            attempt=n,
            method=b"GET",
            replayable=True,
            time_left=9,
            spend=Purse().spend,
            uniform=lambda: 1.0,
        )
        for n in range(1, 7)
    ]
    assert waits == [Retry(wait) for wait in (0.025, 0.05, 0.1, 0.2, 0.25, 0.25)]


def test_retry_after_is_waited_for_when_it_fits_and_obeyed_when_not() -> None:
    assert ask(replace(BUSY, retry_after=2.0)) == Retry(2.0)
    assert ask(replace(BUSY, retry_after=0.0)) == Retry(0.0125)
    purse = Purse()
    assert ask(replace(BUSY, retry_after=2.0), time_left=2.0, purse=purse) == Refused("late")
    assert purse.coins == 1


def test_an_empty_budget_ends_it() -> None:
    assert ask(RESET, purse=Purse(coins=0)) == Refused("budget")


@given(
    st.sampled_from([RESET, REFUSED, BUSY, Failure(status=500), replace(BUSY, retry_after=5.0)]),
    st.integers(1, 4),
    st.sampled_from([b"GET", b"POST"]),
    st.booleans(),
    st.sampled_from([0.0, 0.01, 4.0, 60.0]),
    st.integers(0, 1),
)
def test_a_coin_is_spent_exactly_when_a_retry_follows(
    failure: Failure, attempt: int, method: bytes, replayable: bool, time_left: float, coins: int
) -> None:
    purse = Purse(coins)
    verdict = ask(failure, attempt=attempt, method=method, replayable=replayable, time_left=time_left, purse=purse)
    if isinstance(verdict, Retry):
        assert purse.coins == coins - 1 >= 0
        assert verdict.delay < time_left
    elif coins:
        assert purse.coins == coins


class TestKeepAliveRace:
    STALE = Failure(Decision.RESET, sent=True, reused=True, answered=False)

    @pytest.mark.parametrize("method", sorted(IDEMPOTENT))
    def test_an_idempotent_request_is_repeated_for_free(self, method: bytes) -> None:
        assert lost_keep_alive_race(self.STALE, method=method, replayable=True)

    def test_another_method_only_when_nothing_was_sent(self) -> None:
        assert not lost_keep_alive_race(self.STALE, method=b"POST", replayable=True)
        assert lost_keep_alive_race(replace(self.STALE, sent=False), method=b"POST", replayable=True)

    @pytest.mark.parametrize(
        "failure",
        [
            replace(STALE, reused=False),
            replace(STALE, answered=True),
            replace(STALE, reason=Decision.TIMEOUT),
            replace(STALE, reason=None, status=503),
        ],
    )
    def test_nothing_else_is_free(self, failure: Failure) -> None:
        assert not lost_keep_alive_race(failure, method=b"GET", replayable=True)

    def test_a_body_that_is_gone_cannot_be_repeated(self) -> None:
        assert not lost_keep_alive_race(self.STALE, method=b"PUT", replayable=False)
