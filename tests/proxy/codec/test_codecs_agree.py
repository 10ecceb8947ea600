"""The fast codec against the reference, over the space of heads and bodies that Hypothesis explores.

What FAST takes the reference takes, with the same meaning and the same bytes out; what the screen refuses nobody
takes; what leaves us is read again as it stands; the cuts never matter; h11 alone finds the same payload.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.proxy.codec.head import Limits
from tests.proxy.codec import grammar
from tests.proxy.codec.oracle import chunked_agrees, memory_changes_nothing, request_agrees, response_agrees

many = settings(
    max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)


@many
@given(grammar.requests, grammar.cuts)
def test_requests(data: bytes, cuts: list[int]) -> None:
    request_agrees(data, cuts=cuts)


@many
@given(grammar.requests, grammar.requests, st.binary(max_size=4))
def test_requests_after_one_another(first: bytes, second: bytes, noise: bytes) -> None:
    memory_changes_nothing(first, second)
    line, _, _ = second.partition(b"\r\n")
    _, _, fields = first.partition(b"\r\n")
    memory_changes_nothing(first, line + b"\r\n" + fields)
    memory_changes_nothing(first, line + b"\r\n" + fields + noise)
    memory_changes_nothing(first, line + noise + b"\r\n" + fields)


@settings(max_examples=500, deadline=None)
@given(grammar.built_requests(), grammar.built_requests(), st.integers(10, 200), st.integers(1, 80), st.integers(0, 8))
def test_a_repeated_block_is_held_to_the_limits(
    first: bytes, second: bytes, head: int, target: int, fields: int
) -> None:
    line, _, _ = second.partition(b"\r\n")
    _, _, block = first.partition(b"\r\n")
    memory_changes_nothing(first, line + b"\r\n" + block, Limits(head, target, fields))


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
