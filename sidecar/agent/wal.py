"""The WAL of a PostgreSQL source in the repository: each segment an object of its own, sealed, as it came.

    sidecar/wal/SOURCE/SYSTEM/000000010000000000000007           a whole segment
    sidecar/wal/SOURCE/SYSTEM/000000010000000000000008.partial   the one that is being written, again and again
    sidecar/wal/SOURCE/SYSTEM/00000002.history                   where a timeline began
    sidecar/wal/SOURCE/SYSTEM/state                              from where to where there is no gap, and up to when

SYSTEM is the cluster's own number: another cluster under the same name writes segments of the same names. Whoever
streams holds the replication slot, which is one at a time; so segments are written without the lease. They go with the
points that need them, at a prune.

The log is a row of *spans*: within one nothing is missing. A gap, or a new timeline, begins another; moments within
the earlier ones can still be brought back.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
import zstandard

from sidecar.agent.faults import AgentFault, Damaged
from sidecar.agent.ports import Trouble
from sidecar.agent.repository.seal import Keys
from sidecar.agent.repository.store import Missing, Store

WAL = "sidecar/wal"
_LEVEL = 1
_MOST = 1 << 30
"""The largest segment that PostgreSQL knows."""
SEGMENT = re.compile(r"[0-9A-F]{24}")
PARTIAL = ".partial"
PAGE = 1 << 16
"""The largest page of a log that PostgreSQL can be built with."""
_MOST_SPANS = 100
Read = Callable[[int], bool] | None
"""Whether the segment of this number is read; None: none is."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the log, of one timeline, in which nothing is missing."""

    timeline: int
    since: str
    """The segment that it begins with."""
    end: int
    """The LSN up to which all is here."""
    covered_at: datetime
    """By the server's clock: everything that was committed before is here."""

    def goes_on(self, details: dict[str, Any]) -> bool:
        """Whether a base backup can be brought on with it."""
        return self.begins_within(details) and self.end >= int(details["end_lsn"])

    def begins_within(self, details: dict[str, Any]) -> bool:
        """Whether it holds all that comes after a base backup, or will.

        It has to hold the base backup's last segment itself: the copy that came with it ends where the backup ended,
        and others may have written behind that.
        """
        size = int(details["segment_bytes"])
        return self.timeline == int(str(details["wal_from"])[:8], 16) and (
            number_of(self.since, size) <= number_of(str(details["wal_to"]), size)
        )


class WalState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the archive of one cluster reaches."""

    system: str
    """The cluster's own number."""
    segment_bytes: int
    spans: tuple[Span, ...]
    """Oldest first; the last one grows."""

    @property
    def newest(self) -> Span:
        return self.spans[-1]

    def span_of(self, details: dict[str, Any]) -> Span | None:
        """What brings this base backup on; None: nothing does."""
        return next((span for span in reversed(self.spans) if span.goes_on(details)), None)

    def grown(self, span: Span) -> "WalState":
        """With the last span longer, or another one begun."""
        before = self.spans
        if before and (before[-1].timeline, before[-1].since) == (span.timeline, span.since):
            before = before[:-1]
        return msgspec.structs.replace(self, spans=(*before, span)[-_MOST_SPANS:])


class WalArchive:
    """Of one cluster."""

    def __init__(self, store: Store, keys: Keys, source: str, system: str) -> None:
        self._store = store
        self._keys = keys
        self._prefix = f"{WAL}/{source}/{system}"

    def put(self, name: str, data: bytes) -> None:
        """Keep a file; a partial one replaces the one before."""
        place = f"{self._prefix}/{name}"
        self._store.put(place, self._keys.seal(place, zstandard.ZstdCompressor(level=_LEVEL).compress(data)))

    def get(self, name: str) -> bytes:
        """Raises Damaged, also when it is missing."""
        place = f"{self._prefix}/{name}"
        try:
            packed = self._keys.unseal(place, self._store.get(place))
            if zstandard.frame_content_size(packed) <= _MOST:
                return zstandard.ZstdDecompressor().decompress(packed)
        except Missing:
            raise Damaged(f"{place} is missing in {self._store.url}") from None
        except zstandard.ZstdError:
            pass
        raise Damaged(f"{place} is damaged: it cannot be unpacked")

    def delete(self, name: str) -> None:
        self._store.delete(f"{self._prefix}/{name}")

    def names(self) -> list[str]:
        """Of all segments and histories, in order."""
        found = (one.name.rpartition("/")[2] for one in self._store.list(self._prefix))
        return sorted(name for name in found if name != "state")

    def state(self) -> WalState | None:
        """None: nothing was streamed yet. Raises Damaged."""
        place = f"{self._prefix}/state"
        try:
            return msgspec.json.decode(self._keys.unseal(place, self._store.get(place)), type=WalState)
        except Missing:
            return None
        except msgspec.DecodeError:
            raise Damaged(f"{place} is damaged") from None

    def put_state(self, state: WalState) -> None:
        place = f"{self._prefix}/state"
        self._store.put(place, self._keys.seal(place, msgspec.json.encode(state)))

    def needed(
        self, first: str, end: int, segment_bytes: int, there: Container[str] | None = None
    ) -> Iterator[tuple[str, str]]:
        """What a replay from the segment `first` to the LSN `end` reads: (segment, what it is kept as).

        Only the last one may be partial. One that is not kept is told as whole: reading it says that it is missing.
        """
        there = set(self.names()) if there is None else there
        *before, last = segments(first, end, segment_bytes)
        yield from ((name, name) for name in before)
        yield last, last if last in there or last + PARTIAL not in there else last + PARTIAL

    def troubles(self, details: Mapping[str, Any], snapshot: str, read: Read) -> Iterator[Trouble]:
        """What is missing or damaged of what brings a base backup to the LSN that its point ends with.

        Those segments are read of whose numbers `read` says so, and the last one.
        """
        size, end = int(details["segment_bytes"]), int(details["end_lsn"])
        there = set(self.names())
        needed = list(self.needed(str(details["wal_to"]), end, size, there))
        for name, kept in needed:
            place, number = f"{self._prefix}/{kept}", number_of(name, size)
            if kept not in there:
                yield Trouble(what="missing", where=place, snapshots=(snapshot,))
            elif read is not None and (read(number) or name == needed[-1][0]):
                try:
                    content = self.get(kept)
                except AgentFault as fault:
                    yield Trouble(what="damaged", where=place, detail=str(fault), snapshots=(snapshot,))
                    continue
                if kept != name and reaches(content, number * size) < end:
                    detail = f"it does not reach {shown(end)}"
                    yield Trouble(what="truncated", where=place, detail=detail, snapshots=(snapshot,))

    def prune(self, first: str) -> int:
        """Remove what is older than the segment `first`; bytes that came free."""

        def older(name: str) -> bool:
            return SEGMENT.fullmatch(name.removesuffix(PARTIAL)) is not None and name[8:24] < first[8:]

        return self._remove(older)

    def clear(self) -> int:
        """Remove all of it; bytes that came free."""
        return self._remove(lambda _name: True)

    def _remove(self, goes: Callable[[str], bool]) -> int:
        freed = 0
        for found in list(self._store.list(self._prefix)):
            if goes(found.name.rpartition("/")[2]):
                self._store.delete(found.name)
                freed += found.size
        return freed


def segments(first: str, end: int, segment_bytes: int) -> Iterator[str]:
    """The names from `first` to the one that holds the last byte before the LSN `end`."""
    timeline, number = first[:8], number_of(first, segment_bytes)
    last = max(number, (end - 1) // segment_bytes)
    yield from (name_of(timeline, one, segment_bytes) for one in range(number, last + 1))


def reads(details: Mapping[str, Any], place: str) -> bool:
    """Whether a point with these details needs the segment that is kept at this place."""
    if not details.get("streamed"):
        return False
    size = int(details["segment_bytes"])
    return number_of(place.rpartition("/")[2], size) * size < int(details["end_lsn"])


def reaches(content: bytes, start: int) -> int:
    """The LSN up to which the pages of the segment that begins at `start` say that they belong there."""
    return start + sum(map(len, pages(content, start)))


def pages(content: bytes, start: int) -> Iterator[memoryview]:
    """Those pages, each of which begins with its own address.

    The first one also tells how large pages are (PostgreSQL: xlog_internal.h).
    """
    order: Literal["little", "big"] = "little" if int.from_bytes(content[8:16], "little") == start else "big"
    size = int.from_bytes(content[36:40], order)
    if not 1024 <= size <= PAGE:
        return
    for place in range(0, len(content), size):
        page = memoryview(content)[place : place + size]
        if int.from_bytes(page[8:16], order) != start + place:
            return
        yield page


def number_of(name: str, segment_bytes: int) -> int:
    """Which segment it is, counted from the cluster's begin."""
    return int(name[8:16], 16) * (0x1_0000_0000 // segment_bytes) + int(name[16:24], 16)


def name_of(timeline: str, number: int, segment_bytes: int) -> str:
    """The inverse."""
    log, segment = divmod(number, 0x1_0000_0000 // segment_bytes)
    return f"{timeline}{log:08X}{segment:08X}"


def lsn(text: str) -> int:
    """`0/3000060` as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def shown(number: int) -> str:
    """The inverse."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"
