"""Balancing: who is eligible, and which of them is picked."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.balance import Endpoint, LeastRequest, Picker, RingHash, RoundRobin, spill_over

STRATEGIES = [LeastRequest, RoundRobin, RingHash]
EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)


def endpoints(*weights: int, priority: int = 0) -> list[Endpoint]:
    return [Endpoint(f"10.0.{priority}.{number}:80", weight, priority) for number, weight in enumerate(weights)]


def picks(picker: Picker, times: int, key: bytes = b"k") -> Counter[Endpoint]:
    return Counter(endpoint for endpoint in (picker.pick((), key) for _ in range(times)) if endpoint is not None)


def build(strategy: type, members: Sequence[Endpoint], panic_threshold: float = 0.5, seed: int = 7) -> Picker:
    picker: Picker = strategy(members, panic_threshold, random.Random(seed).random)
    return picker


@EVERY_STRATEGY
class TestWhoIsEligible:
    def test_nobody_is_picked_from_nothing(self, strategy: type) -> None:
        assert build(strategy, []).pick() is None

    def test_the_unavailable_is_left_out_while_enough_are_available(self, strategy: type) -> None:
        members = endpoints(1, 1, 1)
        picker = build(strategy, members)
        members[1].available = False
        assert not picker.panicking
        assert members[1] not in picks(picker, 60)
        members[1].available = True
        assert all(picker.pick((members[0], members[2]), b"k") is members[1] for _ in range(9))

    def test_below_the_panic_threshold_everybody_is_tried(self, strategy: type) -> None:
        members = endpoints(1, 1, 1)
        picker = build(strategy, members)
        members[0].available = members[1].available = False
        assert picker.panicking
        assert {picker.pick((), b"%d" % number) for number in range(200)} == set(members)

    def test_the_only_endpoint_is_tried_even_when_unhealthy(self, strategy: type) -> None:
        (only,) = members = endpoints(1)
        picker = build(strategy, members)
        only.available = False
        assert picker.pick() is only
        assert picker.pick((only,)) is only

    def test_without_panic_there_may_be_nobody(self, strategy: type) -> None:
        members = endpoints(1, 1, 1)
        picker = build(strategy, members, panic_threshold=0.0)
        members[0].available = members[1].available = False
        assert set(picks(picker, 20)) == {members[2]}
        members[2].available = False
        assert picker.pick() is None
        assert not picker.panicking

    def test_the_next_level_takes_over_and_gives_back(self, strategy: type) -> None:
        first, second = endpoints(1, 1, 1, 1), endpoints(1, 1, priority=1)
        picker = build(strategy, second + first)
        keys = [b"%d" % number for number in range(400)]

        def spilled() -> float:
            chosen = Counter(picker.pick((), key) for key in keys)
            return sum(chosen[endpoint] for endpoint in second) / len(keys)

        assert spilled() == 0.0
        first[0].available = False  # 3 of 4, times 1.4: still everything
        assert spilled() == 0.0
        first[1].available = False  # 2 of 4, times 1.4: 70 %
        assert spilled() == pytest.approx(0.3, abs=0.08)
        first[2].available = False
        assert spilled() == pytest.approx(0.65, abs=0.08)
        assert not picker.panicking
        first[3].available = False
        assert spilled() == 1.0
        assert not picker.panicking
        for endpoint in first:
            endpoint.available = True
        assert spilled() == 0.0

    def test_where_levels_together_cannot_carry_it_those_below_the_threshold_panic(self, strategy: type) -> None:
        first, second = endpoints(1, 1, 1, 1, 1), endpoints(1, 1, 1, 1, 1, priority=1)
        picker = build(strategy, first + second)
        for endpoint in [*first[1:], *second[:3]]:
            endpoint.available = False  # 20 % and 40 %, times 1.4: 84 % in all
        assert picker.panicking
        chosen = Counter(picker.pick((), b"%d" % number) for number in range(1000))
        assert set(chosen) == {*first, *second}, "both are below the threshold, so both are tried as a whole"
        picker = build(strategy, first + second, panic_threshold=0.3)
        assert picker.panicking
        chosen = Counter(picker.pick((), b"%d" % number) for number in range(1000))
        assert set(chosen) == {*first, *second[3:]}, "the second believes its checks"
        assert sum(chosen[endpoint] for endpoint in first) / 1000 == pytest.approx(0.28 / 0.84, abs=0.08)

    def test_when_all_are_dead_each_level_gets_what_its_number_is_worth(self, strategy: type) -> None:
        first, second = endpoints(1, 1, 1), endpoints(1, priority=1)
        picker = build(strategy, second + first)
        for endpoint in [*first, *second]:
            endpoint.available = False
        assert picker.panicking
        chosen = Counter(picker.pick((), b"%d" % number) for number in range(1000))
        assert set(chosen) == {*first, *second}
        assert chosen[second[0]] / 1000 == pytest.approx(0.25, abs=0.08)

    def test_a_factor_of_one_spills_over_from_the_first_that_is_out(self, strategy: type) -> None:
        first, second = endpoints(1, 1, 1, 1), endpoints(1, priority=1)
        picker = strategy(first + second, 0.5, random.Random(7).random, 1.0)
        first[0].available = False
        chosen = Counter(picker.pick((), b"%d" % number) for number in range(1000))
        assert chosen[second[0]] / 1000 == pytest.approx(0.25, abs=0.08)

    def test_a_retry_goes_to_another_endpoint_while_there_is_one(self, strategy: type) -> None:
        first, second = endpoints(1, 2), endpoints(1, priority=1)
        picker = build(strategy, first + second)
        for _ in range(20):
            tried: list[Endpoint] = []
            for _ in range(3):
                endpoint = picker.pick(tried, b"k")
                assert endpoint is not None
                tried.append(endpoint)
            assert set(tried[:2]) == set(first)
            assert tried[2] is second[0]
            assert picker.pick(tried, b"k") in first, "all tried: back to the serving level"

    def test_an_endpoint_carried_into_a_new_picker_informs_that_one(self, strategy: type) -> None:
        members = endpoints(1, 1)
        build(strategy, members)
        second = build(strategy, members)
        members[0].available = False
        assert set(picks(second, 10)) == {members[1]}


@given(
    st.sampled_from(STRATEGIES),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2), st.booleans()), max_size=6),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.binary(max_size=3),
    st.integers(0, 3),
)
def test_a_pick_is_always_justified(
    strategy: type, shape: list[tuple[int, int, bool]], threshold: float, key: bytes, seed: int
) -> None:
    members = [Endpoint(str(number), weight, priority) for number, (weight, priority, _) in enumerate(shape)]
    picker = build(strategy, members, threshold, seed)
    for member, (_, _, available) in zip(members, shape, strict=True):
        member.available = available
    anybody = any(member.available for member in members)
    tried: list[Endpoint] = []
    for _ in range(len(members) + 1):
        endpoint = picker.pick(tried, key)
        if endpoint is None:
            assert not members or (threshold == 0.0 and not anybody)
            return
        assert endpoint.available or picker.panicking
        tried.append(endpoint)
    assert set(tried[: len(set(tried))]) == set(tried), "nobody twice before everybody eligible once"


@pytest.mark.parametrize(
    ("shares", "loads"),
    [
        # the tables in Envoy's documentation of priority levels, in hundredths
        ([100, 100], [100, 0]),
        ([72, 72], [100, 0]),
        ([71, 71], [99, 1]),
        ([50, 60], [70, 30]),
        ([25, 100], [35, 65]),
        ([25, 25], [50, 50]),
        ([0, 100], [0, 100]),
        ([100, 100, 100], [100, 0, 0]),
        ([72, 72, 100], [100, 0, 0]),
        ([50, 50, 100], [70, 30, 0]),
        ([25, 100, 100], [35, 65, 0]),
        ([25, 25, 100], [35, 35, 30]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_load_spills_over_as_it_does_in_envoy(shares: list[int], loads: list[int]) -> None:
    found = spill_over([share / 100 for share in shares], 1.4)
    assert found == pytest.approx([load / 100 for load in loads], abs=0.01)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5), st.floats(1.0, 100.0))
def test_what_spills_over_adds_up(shares: list[float], factor: float) -> None:
    loads = spill_over(shares, factor)
    assert all(0.0 <= load <= 1.0 for load in loads)
    assert sum(loads) == pytest.approx(1.0 if any(factor * share > 0.0 for share in shares) else 0.0)
    assert all(share > 0.0 or load == 0.0 for share, load in zip(shares, loads, strict=True))


class TestLeastRequest:
    def test_of_two_the_less_loaded_wins(self) -> None:
        one, other = members = endpoints(1, 1)
        picker = build(LeastRequest, members)
        one.active = 3
        assert picker.pick() is other
        other.active = 4
        assert picker.pick() is one

    def test_load_is_measured_per_weight(self) -> None:
        heavy, light = members = endpoints(4, 1)
        picker = build(LeastRequest, members)
        heavy.active, light.active = 3, 1
        assert picker.pick() is heavy
        heavy.active = 5
        assert picker.pick() is light
        assert build(LeastRequest, [light, heavy]).pick() is light
        heavy.active = 3
        assert build(LeastRequest, [light, heavy]).pick() is heavy

    @pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 1, 1, 1), (4, 2, 1, 1)])
    def test_idle_endpoints_share_by_weight(self, weights: tuple[int, ...]) -> None:
        members = endpoints(*weights)
        counts = picks(build(LeastRequest, members), 8000)
        for member in members:
            assert counts[member] / 8000 == pytest.approx(member.weight / sum(weights), abs=0.03)

    def test_the_most_loaded_of_many_is_never_picked(self) -> None:
        members = endpoints(1, 1, 1, 1, 1)
        members[3].active = 100
        assert members[3] not in picks(build(LeastRequest, members), 500)


class TestRoundRobin:
    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_equal_weights_take_turns(self, count: int) -> None:
        members = endpoints(*[1] * count)
        picker = build(RoundRobin, members)
        first = [picker.pick() for _ in range(count)]
        assert set(first) == set(members)
        assert [picker.pick() for _ in range(count)] == first

    def test_unequal_weights_interleave(self) -> None:
        heavy, light = members = endpoints(3, 1)
        picker = build(RoundRobin, members)
        order = [picker.pick() for _ in range(8)]
        assert order.count(light) == 2
        assert order[:4] == order[4:]
        assert order[0] is heavy
        assert all(pair != (light, light) for pair in pairwise(order))


class TestRingHash:
    KEYS = tuple(b"user-%d" % number for number in range(3000))

    def homes(self, picker: Picker) -> dict[bytes, str]:
        found = {key: picker.pick((), key) for key in self.KEYS}
        return {key: endpoint.address for key, endpoint in found.items() if endpoint is not None}

    def test_a_key_keeps_its_home_in_every_replica(self) -> None:
        assert self.homes(build(RingHash, endpoints(1, 1, 1, 1), seed=1)) == self.homes(
            build(RingHash, endpoints(1, 1, 1, 1)[::-1], seed=2)
        )

    def test_shares_follow_the_weights(self) -> None:
        shares = Counter(self.homes(build(RingHash, endpoints(1, 1, 2))).values())
        assert shares["10.0.0.2:80"] / len(self.KEYS) == pytest.approx(0.5, abs=0.12)

    def test_only_the_keys_of_a_lost_endpoint_move(self) -> None:
        members = endpoints(1, 1, 1, 1)
        picker = build(RingHash, members)
        before = self.homes(picker)
        members[2].available = False
        after = self.homes(picker)
        moved = {key for key in self.KEYS if before[key] != after[key]}
        assert moved == {key for key in self.KEYS if before[key] == members[2].address}

    def test_a_key_keeps_its_home_while_levels_share_the_load(self) -> None:
        first, second = endpoints(1, 1), endpoints(1, 1, priority=1)
        picker = build(RingHash, first + second)
        first[0].available = False
        homes = self.homes(picker)
        assert homes == self.homes(picker)
        assert set(homes.values()) == {first[1].address, second[0].address, second[1].address}

    def test_a_new_endpoint_takes_only_its_share(self) -> None:
        before = self.homes(build(RingHash, endpoints(1, 1, 1, 1)))
        after = self.homes(build(RingHash, endpoints(1, 1, 1, 1, 1)))
        moved = [key for key in self.KEYS if before[key] != after[key]]
        assert {after[key] for key in moved} == {"10.0.0.4:80"}
        assert len(moved) / len(self.KEYS) == pytest.approx(0.2, abs=0.08)


def test_a_weight_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Endpoint("a", weight=0)
