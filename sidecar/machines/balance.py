"""Which endpoint of an upstream gets the next try.

Two questions, kept apart:

*Who is eligible?* Endpoints stand in levels by `priority`, lower first. A level's health is its available share times
the overprovisioning factor (1.4), at most 1: it carries everything until more than two sevenths of it are out. What
it cannot carry spills over to the next level, and so on; when all together cannot carry it, each carries its part
of the sum. Then a level whose available share is below the panic threshold panics: few healthy endpoints would
drown under everyone's load and the health data is likely wrong anyway, so all of its endpoints are used, available or
not. When all levels panic, each gets what its number of endpoints is worth. A threshold of 0 switches panic off;
then only available endpoints are used, and with none at all there is nobody to pick. An upstream with one level panics
below its threshold, whatever the factor. (All this is Envoy's, but for the last sentence: there a threshold above five
sevenths does nothing.)

*Which of them?* `LeastRequest`: two drawn by weight, the one with fewer requests in flight per weight wins
(Mitzenmacher, "The Power of Two Choices"; Envoy's least request). `RoundRobin`: smooth weighted, as nginx does.
`RingHash`: consistent hashing over virtual nodes (ketama), the same key meets the same endpoint in every replica.

A retry hands in the endpoints it has tried; they are skipped while another one can be had, first in the level that
was drawn, then in the others, best first. The state of eligibility is computed when availability changes, never per
pick.
"""

import hashlib
from bisect import bisect, bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Protocol

from sidecar.base.backoff import Uniform

_VIRTUAL_NODES = 160
_RING_POINTS = 40_960
OVERPROVISIONING = 1.4
"""Envoy's overprovisioning factor: a level with five sevenths of its endpoints still carries everything."""
_ROUNDING = 1e-9
_HASHES = 1 << 64


class Endpoint:
    """One address that requests may go to. The connection pool subclasses or carries it."""

    __slots__ = ("_available", "_on_change", "active", "address", "priority", "weight")

    def __init__(self, address: str, weight: int = 1, priority: int = 0) -> None:
        if weight < 1:
            raise ValueError("an endpoint's weight is at least 1")
        self.address = address
        self.weight = weight
        self.priority = priority
        self.active = 0
        """Requests in flight; the data plane counts it up and down."""
        self._available = True
        self._on_change: Callable[[], None] | None = None

    @property
    def available(self) -> bool:
        """Neither failed by health checks nor ejected. Setting it makes the picker look anew."""
        return self._available

    @available.setter
    def available(self, value: bool) -> None:
        if value != self._available:
            self._available = value
            if self._on_change is not None:
                self._on_change()

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r}, weight={self.weight}, priority={self.priority})"


class Picker(Protocol):
    """What the data plane knows of balancing."""

    @property
    def panicking(self) -> bool:
        """Whether picks ignore availability at the moment."""
        ...

    def pick(self, tried: Collection[Endpoint] = (), hash_key: bytes = b"") -> Endpoint | None:
        """The endpoint for the next try, or None when nobody may be asked.

        Endpoints in `tried` come again only when no other is left. `hash_key` matters to `RingHash` alone.
        """
        ...


class _Tier:
    """The eligible endpoints of one level, and its part of the load."""

    __slots__ = ("cumulative", "endpoints", "even", "level", "load", "members")

    def __init__(self, level: int, endpoints: list[Endpoint], load: float) -> None:
        self.level = level
        self.load = load
        self.endpoints = endpoints
        self.members = frozenset(endpoints)
        self.even = len({endpoint.weight for endpoint in endpoints}) == 1
        self.cumulative = list(accumulate(endpoint.weight for endpoint in endpoints))

    def without(self, tried: Collection[Endpoint]) -> "_Tier | None":
        """This tier less the tried ones; itself when none was tried here, None when all were."""
        fresh = [endpoint for endpoint in self.endpoints if endpoint not in tried]
        if len(fresh) == len(self.endpoints):
            return self
        return _Tier(self.level, fresh, self.load) if fresh else None


class _Levels:
    """Keeps the tiers, best first, in step with availability; the strategy is the subclass's `_choose`."""

    __slots__ = (
        "_factor",
        "_first",
        "_levels",
        "_loads",
        "_panic_threshold",
        "_sole",
        "_tiers",
        "_uniform",
        "endpoints",
        "panicking",
    )

    def __init__(
        self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform, factor: float = OVERPROVISIONING
    ) -> None:
        """Takes over the endpoints: their changes of availability are told to this picker from now on."""
        self.endpoints = tuple(endpoints)
        self.panicking = False
        self._panic_threshold = panic_threshold
        self._factor = factor
        self._uniform = uniform
        priorities = sorted({endpoint.priority for endpoint in endpoints})
        self._levels = [[e for e in endpoints if e.priority == priority] for priority in priorities]
        self._tiers: list[_Tier] = []  # those that carry load, then those that could
        self._loads: list[float] = []  # cumulative, of those that carry load
        self._first: _Tier | None = None  # the only one that carries load
        self._sole: Endpoint | None = None
        for endpoint in endpoints:
            endpoint._on_change = self._refresh
        self._refresh()

    def pick(self, tried: Collection[Endpoint] = (), hash_key: bytes = b"") -> Endpoint | None:
        if self._sole is not None:
            return self._sole
        if not self._tiers:
            return None
        first = self._first or self._draw_tier(hash_key)
        if tried:
            for tier in (first, *self._tiers):
                fresh = tier.without(tried)
                if fresh is not None:
                    return self._choose(fresh, hash_key)
        return self._choose(first, hash_key)

    def _draw_tier(self, hash_key: bytes) -> _Tier:
        """One of those that share the load."""
        at = bisect_right(self._loads, self._point(hash_key) * self._loads[-1])
        return self._tiers[min(at, len(self._loads) - 1)]

    def _point(self, _hash_key: bytes, /) -> float:
        """Where between 0 and 1 the levels' shares are cut."""
        return self._uniform()

    def _choose(self, tier: _Tier, hash_key: bytes, /) -> Endpoint:
        raise NotImplementedError

    def _refresh(self) -> None:
        available = [[endpoint for endpoint in level if endpoint.available] for level in self._levels]
        shares = [len(some) / len(level) for some, level in zip(available, self._levels, strict=True)]
        panics = self._panics(shares)
        if panics and all(panics):
            loads = [float(len(level)) for level in self._levels]
        else:
            loads = spill_over(shares, self._factor)
        tiers = [
            _Tier(at, self._levels[at] if panics[at] else available[at], loads[at])
            for at in range(len(shares))
            if loads[at] > 0.0 or available[at]
        ]
        tiers.sort(key=lambda tier: tier.load <= 0.0)  # stable: best level first within both halves
        carrying = [tier for tier in tiers if tier.load > 0.0]
        self._tiers = tiers
        self._loads = list(accumulate(tier.load for tier in carrying))
        self._first = carrying[0] if len(carrying) == 1 else None
        self.panicking = any(panics)
        eligible = [endpoint for tier in tiers for endpoint in tier.endpoints]
        self._sole = eligible[0] if len(eligible) == 1 else None

    def _panics(self, shares: list[float]) -> list[bool]:
        """By level, whether availability is not believed."""
        enough = len(shares) > 1 and sum(min(1.0, self._factor * share) for share in shares) >= 1.0
        return [not enough and share < self._panic_threshold for share in shares]


def spill_over(shares: Sequence[float], factor: float) -> list[float]:
    """The part of the load, 0 to 1, that each level takes, by the available shares of the levels, best first."""
    health = [min(1.0, factor * share) for share in shares]
    whole = min(1.0, sum(health))
    loads, left = [], 1.0
    for one in health:
        loads.append(min(left, one / whole) if whole > 0.0 else 0.0)
        left -= loads[-1]
        left = left if left > _ROUNDING else 0.0
    return loads


class LeastRequest(_Levels):
    """Two drawn at random by weight; the one with fewer requests in flight per weight wins."""

    __slots__ = ()

    def _choose(self, tier: _Tier, _hash_key: bytes, /) -> Endpoint:
        endpoints = tier.endpoints
        count = len(endpoints)
        if count == 2:
            one, other = endpoints
        elif count == 1:
            return endpoints[0]
        elif tier.even:
            first = int(self._uniform() * count)
            second = int(self._uniform() * (count - 1))
            one, other = endpoints[first], endpoints[second if second < first else second + 1]
        else:
            one, other = self._draw(tier), self._draw(tier)
        load, other_load = one.active * other.weight, other.active * one.weight
        if load != other_load:
            return one if load < other_load else other
        if count > 2:
            return one  # drawn at random already
        return one if self._uniform() * (one.weight + other.weight) < one.weight else other

    def _draw(self, tier: _Tier) -> Endpoint:
        return tier.endpoints[bisect_right(tier.cumulative, self._uniform() * tier.cumulative[-1])]


class RoundRobin(_Levels):
    """In turn; with unequal weights smoothly interleaved (a:2 b:1 gives a b a, not a a b)."""

    __slots__ = ("_credit", "_turn")

    def __init__(
        self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform, factor: float = OVERPROVISIONING
    ) -> None:
        super().__init__(endpoints, panic_threshold, uniform, factor)
        self._turn = int(uniform() * len(endpoints))  # replicas that start together do not march in step
        self._credit = dict.fromkeys(endpoints, 0)

    def _choose(self, tier: _Tier, _hash_key: bytes, /) -> Endpoint:
        if tier.even:
            self._turn += 1
            return tier.endpoints[self._turn % len(tier.endpoints)]
        credit = self._credit
        for endpoint in tier.endpoints:
            credit[endpoint] += endpoint.weight
        chosen = max(tier.endpoints, key=credit.__getitem__)
        credit[chosen] -= tier.cumulative[-1]
        return chosen


class RingHash(_Levels):
    """Consistent hashing: a key keeps its endpoint while that one is eligible; only its keys move when it is not."""

    __slots__ = ("_rings",)

    def __init__(
        self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform, factor: float = OVERPROVISIONING
    ) -> None:
        super().__init__(endpoints, panic_threshold, uniform, factor)
        self._rings = [_ring(level) for level in self._levels]

    def _point(self, hash_key: bytes, /) -> float:
        return _hash(b"level " + hash_key) / _HASHES  # a key keeps its level, too

    def _choose(self, tier: _Tier, hash_key: bytes, /) -> Endpoint:
        points, owners = self._rings[tier.level]
        at = bisect(points, _hash(hash_key))
        eligible = tier.members
        for step in range(len(owners)):
            owner = owners[(at + step) % len(owners)]
            if owner in eligible:
                return owner
        return tier.endpoints[0]


PICKERS: dict[str, Callable[[Sequence[Endpoint], float, Uniform, float], Picker]] = {
    "least_request": LeastRequest,
    "round_robin": RoundRobin,
    "ring_hash": RingHash,
}
"""By the word that an upstream's `balance` says."""


def _ring(level: Sequence[Endpoint]) -> tuple[list[int], list[Endpoint]]:
    """Points on the circle, sorted, and who owns each. Every endpoint's points depend on its address alone."""
    per_endpoint = max(8, min(_VIRTUAL_NODES, _RING_POINTS // len(level)))
    mean_weight = sum(endpoint.weight for endpoint in level) / len(level)
    owned = [
        (_hash(b"%s#%d" % (endpoint.address.encode(), node)), index)
        for index, endpoint in enumerate(level)
        for node in range(max(1, round(per_endpoint * endpoint.weight / mean_weight)))
    ]
    owned.sort()
    return [point for point, _ in owned], [level[index] for _, index in owned]


def _hash(key: bytes) -> int:
    """The same in every process and release, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
