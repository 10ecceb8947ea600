"""Which endpoint of an upstream gets the next try.

Two questions, kept apart:

*Who is eligible?* Endpoints stand in levels by `priority`, lower first. A level serves when it has an available
endpoint and the available share reaches the panic threshold; then only its available endpoints are used. Otherwise
the next level takes over. When no level serves, few healthy endpoints would drown under everyone's load and the
health data is likely wrong anyway: panic, all endpoints of the level with the best share are used, available or
not. A threshold of 0 switches panic off; then any available endpoint makes its level serve, and with none at all
there is nobody to pick. (Envoy's panic threshold and priority levels, without its graded spill-over.)

*Which of them?* `LeastRequest`: two drawn by weight, the one with fewer requests in flight per weight wins
(Mitzenmacher, "The Power of Two Choices"; Envoy's least request). `RoundRobin`: smooth weighted, as nginx does.
`RingHash`: consistent hashing over virtual nodes (ketama), the same key meets the same endpoint in every replica.

A retry hands in the endpoints it has tried; they are skipped while another one can be had, first in the serving
level, then in the next ones. The state of eligibility is computed when availability changes, never per pick.
"""

import hashlib
from bisect import bisect, bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Protocol

from sidecar.base.backoff import Uniform

_VIRTUAL_NODES = 160
_RING_POINTS = 40_960


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
    """The eligible endpoints of one level."""

    __slots__ = ("cumulative", "endpoints", "even", "level", "members")

    def __init__(self, level: int, endpoints: list[Endpoint]) -> None:
        self.level = level
        self.endpoints = endpoints
        self.members = frozenset(endpoints)
        self.even = len({endpoint.weight for endpoint in endpoints}) == 1
        self.cumulative = list(accumulate(endpoint.weight for endpoint in endpoints))

    def without(self, tried: Collection[Endpoint]) -> "_Tier | None":
        """This tier less the tried ones; itself when none was tried here, None when all were."""
        fresh = [endpoint for endpoint in self.endpoints if endpoint not in tried]
        if len(fresh) == len(self.endpoints):
            return self
        return _Tier(self.level, fresh) if fresh else None


class _Levels:
    """Keeps the tiers, best first, in step with availability; the strategy is the subclass's `_choose`."""

    __slots__ = ("_levels", "_panic_threshold", "_sole", "_tiers", "_uniform", "endpoints", "panicking")

    def __init__(self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform) -> None:
        """Takes over the endpoints: their changes of availability are told to this picker from now on."""
        self.endpoints = tuple(endpoints)
        self.panicking = False
        self._panic_threshold = panic_threshold
        self._uniform = uniform
        priorities = sorted({endpoint.priority for endpoint in endpoints})
        self._levels = [[e for e in endpoints if e.priority == priority] for priority in priorities]
        self._tiers: list[_Tier] = []
        self._sole: Endpoint | None = None
        for endpoint in endpoints:
            endpoint._on_change = self._refresh
        self._refresh()

    def pick(self, tried: Collection[Endpoint] = (), hash_key: bytes = b"") -> Endpoint | None:
        if self._sole is not None:
            return self._sole
        if not self._tiers:
            return None
        if tried:
            for tier in self._tiers:
                fresh = tier.without(tried)
                if fresh is not None:
                    return self._choose(fresh, hash_key)
        return self._choose(self._tiers[0], hash_key)

    def _choose(self, tier: _Tier, hash_key: bytes, /) -> Endpoint:
        raise NotImplementedError

    def _refresh(self) -> None:
        serving: list[_Tier] = []
        best_level, best_share = -1, -1.0
        for level, endpoints in enumerate(self._levels):
            available = [endpoint for endpoint in endpoints if endpoint.available]
            share = len(available) / len(endpoints)
            if available and share >= self._panic_threshold:
                serving.append(_Tier(level, available))
            if share > best_share:
                best_level, best_share = level, share
        self.panicking = not serving and best_level >= 0 and self._panic_threshold > 0.0
        if self.panicking:
            serving.append(_Tier(best_level, self._levels[best_level]))
        self._tiers = serving
        eligible = [endpoint for tier in serving for endpoint in tier.endpoints]
        self._sole = eligible[0] if len(eligible) == 1 else None


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

    def __init__(self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform) -> None:
        super().__init__(endpoints, panic_threshold, uniform)
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

    def __init__(self, endpoints: Sequence[Endpoint], panic_threshold: float, uniform: Uniform) -> None:
        super().__init__(endpoints, panic_threshold, uniform)
        self._rings = [_ring(level) for level in self._levels]

    def _choose(self, tier: _Tier, hash_key: bytes, /) -> Endpoint:
        points, owners = self._rings[tier.level]
        at = bisect(points, _hash(hash_key))
        eligible = tier.members
        for step in range(len(owners)):
            owner = owners[(at + step) % len(owners)]
            if owner in eligible:
                return owner
        return tier.endpoints[0]


PICKERS: dict[str, Callable[[Sequence[Endpoint], float, Uniform], Picker]] = {
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
