"""The endpoints of an upstream: written, found, and kept while they answer."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.membership import LIMIT, Answer, Member, Membership

A, B, C = (Member(f"10.0.0.{number}:80") for number in (1, 2, 3))


def unknown(address):
    return None


def passing(address):
    return True


def answer(*members, withdrawn=()):
    return Answer(members, frozenset(withdrawn))


def test_written_and_found_ones_are_joined():
    upstream = Membership([A])
    assert upstream.members == [A]
    upstream.found(answer(B), unknown)
    assert upstream.members == [A, B]
    assert [upstream.origin(one.address) for one in upstream.members] == ["written", "found"]


def test_what_is_written_counts_where_both_name_it():
    written = Member(A.address, weight=7, priority=1)
    upstream = Membership([written])
    upstream.found(answer(A, B), unknown)
    assert upstream.members == [written, B]
    upstream.rewrite([])
    assert upstream.members == [A, B]


def test_an_empty_answer_means_nobody():
    upstream = Membership()
    upstream.found(answer(A, B), unknown)
    upstream.found(answer(), unknown)
    assert upstream.members == []


def test_the_dropped_one_stays_until_its_checks_fail():
    upstream = Membership()
    upstream.found(answer(A, B), passing)
    upstream.found(answer(A), lambda address: address == B.address or None)
    assert upstream.members == [A, B]
    assert upstream.origin(B.address) == "kept"
    assert upstream.keeps
    upstream.judge(passing)
    assert upstream.members == [A, B]
    upstream.judge(lambda address: False)
    assert upstream.members == [A], "the one that discovery names stays, whatever checks say"
    assert not upstream.keeps
    upstream.judge(passing)
    assert upstream.members == [A]


def test_the_dropped_one_goes_when_nobody_checks_it():
    upstream = Membership()
    upstream.found(answer(A, B), unknown)
    upstream.found(answer(A), unknown)
    assert upstream.members == [A]


def test_the_withdrawn_one_goes_though_it_answers():
    upstream = Membership()
    upstream.found(answer(A, B), passing)
    upstream.found(answer(A, withdrawn=[B.address]), passing)
    assert upstream.members == [A]


def test_the_kept_one_can_be_withdrawn_later():
    upstream = Membership()
    upstream.found(answer(A, B), passing)
    upstream.found(answer(A), passing)
    upstream.found(answer(A, withdrawn=[B.address]), passing)
    assert upstream.members == [A]


def test_the_kept_one_that_is_found_again_takes_its_new_weight():
    upstream = Membership()
    upstream.found(answer(A, B), passing)
    upstream.found(answer(A), passing)
    heavier = B._replace(weight=5)
    upstream.found(answer(A, heavier), passing)
    assert upstream.members == [A, heavier]
    assert upstream.origin(B.address) == "found"


def test_a_thousand_records_are_cut_and_shuffling_them_changes_nothing():
    many = [Member(f"10.0.{number >> 8}.{number & 255}:80") for number in range(1000)]
    upstream = Membership([Member("10.9.9.9:80")])
    upstream.found(answer(*many), unknown)
    first = upstream.members
    assert len(first) == LIMIT + 1
    assert upstream.cut == 1000 - LIMIT
    upstream.found(answer(*reversed(many)), unknown)
    assert upstream.members == first
    upstream.found(answer(*many[:3]), unknown)
    assert upstream.cut == 0


def test_a_new_record_does_not_push_one_in_use_out():
    many = [Member(f"10.1.{number >> 8}.{number & 255}:80") for number in range(LIMIT)]
    upstream = Membership()
    upstream.found(answer(*many), unknown)
    upstream.found(answer(Member("10.0.0.0:80"), *many), unknown)
    assert upstream.members == sorted(many)


def test_a_source_that_names_others_each_time_does_not_grow_without_end():
    upstream = Membership()
    for turn in range(5):
        upstream.found(answer(*(Member(f"10.{turn}.0.{number}:80") for number in range(LIMIT))), passing)
    assert len(upstream.members) == 2 * LIMIT


members = st.lists(st.builds(Member, st.sampled_from("abcdefg"), st.integers(1, 3), st.integers(0, 2)), max_size=8)
healths = st.dictionaries(st.sampled_from("abcdefg"), st.booleans())


@given(written=members, steps=st.lists(st.tuples(members, st.frozensets(st.sampled_from("abcdefg")), healths)))
def test_whatever_the_answers_are(written, steps):
    upstream = Membership(written)
    own = {one.address for one in written}
    before: set[str] = set()
    for named, withdrawn, health in steps:
        upstream.found(Answer(tuple(named), withdrawn), health.get)
        addresses = [one.address for one in upstream.members]
        assert len(addresses) == len(set(addresses))
        present, said = set(addresses), {one.address for one in named}
        assert own | said <= present, "who is written or named takes part"
        for kept in present - own - said:
            assert kept in before
            assert kept not in withdrawn
            assert health.get(kept) is True
        before = present
