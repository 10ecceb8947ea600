"""The last good answers: who gets them, who never does, and that memory stays bounded."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.answer_cache import QUIET_TARGETS, AnswerCache

NONE: Mapping[bytes, bytes] = {}


def cache(max_bytes: int = 100_000, *, across_authorization: bool = False) -> AnswerCache:
    return AnswerCache(max_bytes, 600.0, across_authorization=across_authorization)


def offer(
    to: AnswerCache,
    answer: Mapping[bytes, bytes] = NONE,
    request: Mapping[bytes, bytes] = NONE,
    *,
    target: bytes = b"/a",
    status: int = 200,
    method: bytes = b"GET",
    body: bytes = b"body",
    now: float = 0.0,
) -> bool:
    """Hand an answer over as the proxy does; whether it may be kept."""
    if not to.may_keep(method, status, request.get, answer.get):
        return False
    wire = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % field for field in answer.items())
    to.keep(b"host", target, request.get, answer.get, wire, body, status, now)
    return True


def test_the_last_good_answer_comes_back_until_it_is_too_old():
    kept = cache()
    assert offer(kept, now=0.0)
    assert offer(kept, body=b"newer", now=10.0)
    found = kept.find(b"host", b"/a", NONE.get, 610.0)
    assert found is not None
    assert (found.body, found.status, found.stored) == (b"newer", 200, 10.0)
    assert kept.find(b"host", b"/a", NONE.get, 610.1) is None
    assert kept.size == 0


def test_a_popular_answer_is_kept_once_a_second():
    kept = cache()
    assert kept.wants(b"host", b"/a", 0.0)
    offer(kept, now=0.0)
    assert not kept.wants(b"host", b"/a", 0.9)
    assert kept.wants(b"host", b"/b", 0.9)
    assert kept.wants(b"host", b"/a", 1.0)


def test_a_refusal_is_remembered_as_long():
    kept = cache()
    kept.refuse(b"host", b"/a", 0.0)
    assert not kept.wants(b"host", b"/a", 0.9)
    assert kept.wants(b"host", b"/a", 1.0)


def test_what_is_remembered_as_looked_at_is_bounded():
    kept = cache()
    for number in range(3 * QUIET_TARGETS):
        kept.refuse(b"host", b"/%d" % number, 0.0)
    assert len(kept._quiet_until) <= QUIET_TARGETS


def test_another_target_or_host_is_another_answer():
    kept = cache()
    offer(kept)
    assert kept.find(b"host", b"/b", NONE.get, 1.0) is None
    assert kept.find(b"other", b"/a", NONE.get, 1.0) is None


@pytest.mark.parametrize(
    ("answer", "request_fields", "status", "method"),
    [
        ({b"cache-control": b"max-age=1, no-store"}, {}, 200, b"GET"),
        ({b"cache-control": b"Private"}, {}, 200, b"GET"),
        ({b"cache-control": b"max-age=1, must-revalidate"}, {}, 200, b"GET"),
        ({b"cache-control": b"Proxy-Revalidate"}, {}, 200, b"GET"),
        ({b"cache-control": b'no-cache="x-field"'}, {}, 200, b"GET"),
        ({b"vary": b"accept, *"}, {}, 200, b"GET"),
        ({b"set-cookie": b"a=b"}, {}, 200, b"GET"),
        ({}, {b"authorization": b"Bearer x"}, 200, b"GET"),
        ({}, {b"cache-control": b"no-store"}, 200, b"GET"),
        ({}, {}, 500, b"GET"),
        ({}, {}, 206, b"GET"),
        ({}, {}, 200, b"POST"),
        ({}, {}, 200, b"HEAD"),
    ],
)
def test_what_is_not_for_others_is_not_kept(answer, request_fields, status, method):
    assert not offer(cache(), answer, request_fields, status=status, method=method)


def test_an_answer_is_not_given_to_who_presents_authorization_unless_it_is_public():
    kept = cache()
    offer(kept)
    assert kept.find(b"host", b"/a", {b"authorization": b"x"}.get, 1.0) is None
    offer(kept, {b"cache-control": b"public"}, {b"authorization": b"y"})
    assert kept.find(b"host", b"/a", {b"authorization": b"x"}.get, 1.0) is not None
    told = cache(across_authorization=True)
    assert offer(told, {}, {b"authorization": b"y"})
    assert told.find(b"host", b"/a", {b"authorization": b"x"}.get, 1.0) is not None


def test_a_varying_answer_is_given_only_to_the_same_kind_of_request():
    kept = cache()
    offer(kept, {b"vary": b"Accept-Language"}, {b"accept-language": b"de"})
    assert kept.find(b"host", b"/a", {b"accept-language": b"de"}.get, 1.0) is not None
    assert kept.find(b"host", b"/a", {b"accept-language": b"en"}.get, 1.0) is None
    assert kept.find(b"host", b"/a", NONE.get, 1.0) is None


def test_age_that_came_along_counts():
    kept = cache()
    offer(kept, {b"age": b"599"}, now=0.0)
    found = kept.find(b"host", b"/a", NONE.get, 1.0)
    assert found is not None
    assert found.wire == b"HTTP/1.1 200 OK\r\n"
    assert kept.find(b"host", b"/a", NONE.get, 1.5) is None


def test_a_body_too_large_replaces_nothing_but_removes_the_outdated_one():
    kept = cache()
    offer(kept)
    offer(kept, body=b"x" * (kept.largest + 1))
    assert kept.find(b"host", b"/a", NONE.get, 1.0) is None
    assert kept.size == 0


def test_long_targets_and_varying_fields_are_memory_too():
    kept = cache(20_000)
    for number in range(100):
        offer(kept, {b"vary": b"a"}, {b"a": b"v" * 500}, target=b"/%d/" % number + b"x" * 2000, now=float(number))
    assert sum(len(target) + 500 for _, target in kept._entries) <= kept.size <= 20_000


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000), st.booleans()), max_size=60))
def test_memory_is_bounded_and_the_least_used_go_first(steps):
    kept = cache(20_000)
    used: list[bytes] = []
    for place, (number, size, ask) in enumerate(steps):
        target = b"/%d" % number
        if ask:
            if kept.find(b"host", target, NONE.get, float(place)) is not None:
                used.remove(target)
                used.append(target)
        else:
            offer(kept, target=target, body=b"x" * size, now=float(place))
            if target in used:
                used.remove(target)
            if size <= kept.largest:
                used.append(target)
        present = [one for one in used if kept.find(b"host", one, NONE.get, float(place)) is not None]
        assert present == used[len(used) - len(present) :]
        used = present
        assert 0 <= kept.size <= 20_000
