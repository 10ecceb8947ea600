"""The last good answers of a route, kept for the day its upstream is gone.

Bounded by bytes; what was used least recently goes first.

This is not a cache that spares the upstream work: nothing is served from it while the upstream answers. So it needs
no validation and no freshness, but it must never hand one caller what was meant for another (RFC 9111 section 3):

* only answers 200, 203, 301, 308, 404 and 410 to GET are kept, and asked for by GET and HEAD;
* not when the answer says `no-store`, `private` or `Vary: *`, or sets a cookie; nor when it forbids to be used stale,
  by `no-cache`, `must-revalidate` or `proxy-revalidate` (section 4.2.4);
* not when the request carried Authorization, unless the route says `across_authorization` or the answer is `public`;
* an answer that varies is given only to a request whose named fields are the same as the first one's.

Age counts from the moment of keeping, plus the Age that the answer came with.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT_STATUSES = frozenset({200, 203, 301, 308, 404, 410})
REFRESH_SECONDS = 1.0
"""An answer is not looked at more often than this: under load, one copy a second is as good as a thousand."""
QUIET_TARGETS = 4096
"""So many targets are remembered as just looked at; more only means looking sooner again."""
_ENTRY_OVERHEAD = 512
"""Bytes that an entry costs beside its own; an estimate."""

_FORBIDDING = frozenset({b"no-store", b"private", b"no-cache", b"must-revalidate", b"proxy-revalidate"})
"""Cache-Control's words for answers that nobody else may get, or nobody later."""
_AGE = re.compile(rb"(?<=\r\n)age:[^\r]*\r\n", re.IGNORECASE)

FieldOf = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer: its canonical head without Age and the final empty line, its body as framed in the head."""

    wire: bytes
    body: bytes
    status: int
    stored: float
    """Monotonic seconds, moved back by the Age that it came with."""
    varies: tuple[tuple[bytes, bytes | None], ...]
    """The request fields that it depends on, and their values then."""
    size: int
    """Bytes that it costs."""


class AnswerCache:
    """The kept answers of one route."""

    __slots__ = ("_across_authorization", "_entries", "_max_age", "_max_bytes", "_quiet_until", "size")

    def __init__(self, max_bytes: int, max_age: float, *, across_authorization: bool) -> None:
        """`max_age` in seconds."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._across_authorization = across_authorization
        self._entries: OrderedDict[tuple[bytes, bytes], Kept] = OrderedDict()
        self._quiet_until: dict[int, float] = {}  # by hashes: who shares one waits a second longer, no more
        self.size = 0

    @property
    def largest(self) -> int:
        """No body larger than this is kept: one answer shall not push out all others."""
        return self._max_bytes // 8

    def wants(self, host: bytes, target: bytes, now: float) -> bool:
        """Whether it is worth asking `may_keep`: no answer of this target was looked at a moment ago."""
        return now >= self._quiet_until.get(hash((host, target)), 0.0)

    def refuse(self, host: bytes, target: bytes, now: float) -> None:
        """`may_keep` said no: do not ask again for a moment."""
        self._be_quiet(host, target, now)

    def _be_quiet(self, host: bytes, target: bytes, now: float) -> None:
        if len(self._quiet_until) >= QUIET_TARGETS:
            self._quiet_until.clear()
        self._quiet_until[hash((host, target))] = now + REFRESH_SECONDS

    def may_keep(self, method: bytes, status: int, request: FieldOf, answer: FieldOf) -> bool:
        """Whether this answer may be kept for others who ask the same."""
        if method != b"GET" or status not in KEPT_STATUSES or answer(b"set-cookie") is not None:
            return False
        directives = _directives(answer(b"cache-control"))
        if directives & _FORBIDDING or b"no-store" in _directives(request(b"cache-control")):
            return False
        if request(b"authorization") is not None and not self._across_authorization and b"public" not in directives:
            return False
        return b"*" not in _names(answer(b"vary"))

    def keep(
        self,
        host: bytes,
        target: bytes,
        request: FieldOf,
        answer: FieldOf,
        wire: bytes,
        body: bytes,
        status: int,
        now: float,
    ) -> None:
        """Keep an answer that `may_keep` allowed; it replaces the one before for the same host and target."""
        came_with = answer(b"age") or b""
        age = int(came_with) if came_with.isdigit() and len(came_with) < 10 else 0
        varies = tuple((name, request(name)) for name in sorted(_names(answer(b"vary"))))
        self._be_quiet(host, target, now)
        size = len(wire) + len(body) + len(host) + len(target) + _ENTRY_OVERHEAD
        size += sum(len(name) + len(value or b"") for name, value in varies)
        kept = Kept(_AGE.sub(b"", wire), body, status, now - age, varies, size)
        self._drop((host, target))
        if len(body) > self.largest or kept.size > self._max_bytes:
            return
        self._entries[host, target] = kept
        self.size += kept.size
        while self.size > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def find(self, host: bytes, target: bytes, request: FieldOf, now: float) -> Kept | None:
        """The last good answer to the same request, no older than `max_age`; None without one."""
        kept = self._entries.get((host, target))
        if kept is None:
            return None
        if now - kept.stored > self._max_age:
            self._drop((host, target))
            return None
        if any(request(name) != value for name, value in kept.varies):
            return None
        if request(b"authorization") is not None and not self._across_authorization and not _is_public(kept.wire):
            return None
        self._entries.move_to_end((host, target))
        return kept

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._quiet_until.clear()
        self.size = 0

    def _drop(self, key: tuple[bytes, bytes]) -> None:
        kept = self._entries.pop(key, None)
        if kept is not None:
            self.size -= kept.size


def _directives(value: bytes | None) -> set[bytes]:
    """The names of Cache-Control's directives, lower case."""
    return {part.partition(b"=")[0].strip().lower() for part in (value or b"").split(b",")} - {b""}


def _names(value: bytes | None) -> set[bytes]:
    """A list of field names, lower case."""
    return {part.strip().lower() for part in (value or b"").split(b",")} - {b""}


def _is_public(wire: bytes) -> bool:
    for line in wire.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"cache-control" and b"public" in _directives(value):
            return True
    return False
