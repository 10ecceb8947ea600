"""The fast codec against the reference, over the space of heads and bodies that Hypothesis explores.

What FAST takes the reference takes, with the same meaning and the same bytes out; what the screen refuses nobody
takes; what leaves us is read again as it stands; the cuts never matter; h11 alone finds the same payload.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.proxy.codec.head import Limits
from tests.proxy.codec import grammar
from tests.proxy.codec.oracle import chunked_agrees, request_agrees, response_agrees

many = settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)


@many
@given(grammar.requests, grammar.cuts)
def test_requests(data: bytes, cuts: list[int]) -> None:
    request_agrees(data, cuts=cuts)


@many
@given(grammar.responses, st.sampled_from([b"GET", b"HEAD"]), grammar.cuts)
def test_responses(data: bytes, method: bytes, cuts: list[int]) -> None:
    response_agrees(data, method, cuts=cuts)


@many
@given(grammar.chunked, grammar.cuts)
def test_chunked_bodies(data: bytes, cuts: list[int]) -> None:
    chunked_agrees(data, cuts)


@settings(max_examples=500, deadline=None)
@given(grammar.built_requests(), st.integers(10, 120), st.integers(1, 80), st.integers(0, 8), grammar.cuts)
def test_requests_under_tight_limits(data: bytes, head: int, target: int, fields: int, cuts: list[int]) -> None:
    request_agrees(data, Limits(head, target, fields), cuts)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60), grammar.cuts)
def test_noise(data: bytes, cuts: list[int]) -> None:
    request_agrees(data, cuts=cuts)
    response_agrees(data, cuts=cuts)
    chunked_agrees(data, cuts)
