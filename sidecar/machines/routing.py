"""Which rule of a listener a request belongs to.

Rules are tried in the order of the YAML and the first that matches wins: what the operator reads from top to
bottom is what happens, no hidden notion of "more specific". A rule matches when every condition it states holds:

* `host`: exact, or `*.example.com` for any name below it (not the name itself). Compared without regard to
  case, port and a trailing dot (RFC 9110 section 4.2.3).
* `path`: exact; `path_prefix`: by whole segments, so `/v1` covers `/v1` and `/v1/x`, never `/v1x`; `/` covers
  all. Bytes are compared as they came, nothing is decoded: a service behind us sees the same bytes.
* `methods`: any of them; none stated means all.  * `headers`: every named field has exactly that value.

Speed: the verdict depends on method, host and path only, except for header conditions, so it is remembered in a
bounded dictionary. A path that is not in it is cut behind the deepest segment that any rule looks at and looked
up once more: as rules speak of whole segments, the cut path has the same verdict, so `/orders/1` and `/orders/2`
cost a scan of the rules only once. Entries with header conditions hold the candidates instead of the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.config.listeners import Match

_CACHE_ENTRIES = 4096
_CACHE_KEY_BYTES = 256
_NO_MATCH = -1

FieldOf = Callable[[bytes], bytes | None]
"""The value of a header field by its lower-case name, or None."""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One rule's conditions; what is absent matches everything."""

    host: bytes | None = None
    path: bytes | None = None
    path_prefix: bytes | None = None
    methods: frozenset[bytes] = frozenset()
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    """Field names in lower case."""

    @classmethod
    def of(cls, match: Match) -> "RouteRule":
        """A route's `match`, compiled."""
        return cls(
            host=None if match.host is None else match.host.lower().encode(),
            path=None if match.path is None else match.path.encode(),
            path_prefix=None if match.path_prefix is None else match.path_prefix.encode(),
            methods=frozenset(method.encode() for method in match.methods),
            headers={name.lower().encode(): value.encode() for name, value in match.headers.items()},
        )

    def covers(self, method: bytes, host: bytes, path: bytes) -> bool:
        """Whether all conditions but the header ones hold. `host` as `bare_host` returns it."""
        if self.methods and method not in self.methods:
            return False
        if self.host is not None and not _host_matches(self.host.lower(), host):
            return False
        if self.path is not None and path != self.path:
            return False
        return self.path_prefix is None or _prefix_matches(self.path_prefix, path)


class RouteTable:
    """The compiled rules of one listener. Immutable but for its cache; build a new one to change rules."""

    __slots__ = ("_cache", "_catch_all", "_cuts", "_rules")

    def __init__(self, rules: Sequence[RouteRule]) -> None:
        self._rules = tuple(rules)
        self._cache: dict[tuple[bytes, bytes, bytes], int | tuple[int, ...]] = {}
        self._catch_all = bool(rules) and _matches_everything(rules[0])
        slashes = max((_slashes(rule) for rule in rules), default=0)
        self._cuts = range(slashes + 1)

    def find(self, method: bytes, host: bytes, path: bytes, field_of: FieldOf) -> int | None:
        """Index of the first rule that matches, or None.

        `host` is the authority as the client sent it, `path` the target's path without the query. `field_of` is
        asked only when a candidate has header conditions.
        """
        if self._catch_all:
            return 0
        found = self._cache.get((method, host, path))
        if found is None:
            found = self._decide(method, host, path)
        if found.__class__ is int:
            return found if found >= 0 else None
        return self._by_headers(found, field_of)  # type: ignore[arg-type]

    def _by_headers(self, candidates: tuple[int, ...], field_of: FieldOf) -> int | None:
        for index in candidates:
            if all(field_of(name) == value for name, value in self._rules[index].headers.items()):
                return index
        return None

    def _decide(self, method: bytes, host: bytes, path: bytes) -> int | tuple[int, ...]:
        end = -1
        for _ in self._cuts:
            end = path.find(b"/", end + 1)
            if end < 0:
                return self._remember(method, host, path)
        cut = path[: end + 1]
        verdict = self._cache.get((method, host, cut))
        if verdict is None:
            verdict = self._remember(method, host, cut)
        self._store(method, host, path, verdict)
        return verdict

    def _remember(self, method: bytes, host: bytes, path: bytes) -> int | tuple[int, ...]:
        verdict = self._candidates(method, bare_host(host), path)
        self._store(method, host, path, verdict)
        return verdict

    def _store(self, method: bytes, host: bytes, path: bytes, verdict: int | tuple[int, ...]) -> None:
        if len(method) + len(host) + len(path) <= _CACHE_KEY_BYTES:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()  # cheaper than any order of eviction, and refilled within microseconds
            self._cache[method, host, path] = verdict

    def _candidates(self, method: bytes, host: bytes, path: bytes) -> int | tuple[int, ...]:
        """The verdict when headers do not matter, else the rules to ask in order."""
        candidates: list[int] = []
        for index, rule in enumerate(self._rules):
            if rule.covers(method, host, path):
                if not rule.headers and not candidates:
                    return index
                candidates.append(index)
                if not rule.headers:
                    break
        return tuple(candidates) if candidates else _NO_MATCH


def bare_host(authority: bytes) -> bytes:
    """Lower case, without port and trailing dot: `B.Example.:80` -> `b.example`, `[::1]:80` -> `[::1]`."""
    host = authority.lower()
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1] or host
    colon = host.find(b":")
    if colon >= 0:
        host = host[:colon]
    return host.removesuffix(b".")


def _host_matches(pattern: bytes, host: bytes) -> bool:
    if pattern.startswith(b"*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def _prefix_matches(prefix: bytes, path: bytes) -> bool:
    stem = prefix.rstrip(b"/")
    return not stem or path == stem or path.startswith(stem + b"/")


def _slashes(rule: RouteRule) -> int:
    """How many slashes of a path the rule can look at."""
    return max((rule.path or b"").count(b"/"), (rule.path_prefix or b"").rstrip(b"/").count(b"/"))


def _matches_everything(rule: RouteRule) -> bool:
    no_prefix = rule.path_prefix is None or not rule.path_prefix.strip(b"/")
    return rule.host is None and rule.path is None and no_prefix and not rule.methods and not rule.headers
