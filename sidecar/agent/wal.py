"""The WAL of a PostgreSQL source in the repository: each segment an object of its own, sealed, as it came.

    sidecar/wal/SOURCE/000000010000000000000007           a whole segment
    sidecar/wal/SOURCE/000000010000000000000008.partial   the one that is being written, again and again
    sidecar/wal/SOURCE/00000002.history                   where a timeline began
    sidecar/wal/SOURCE/state                              from where to where there is no gap, and up to which moment

Whoever streams holds the replication slot, which is one at a time; so segments are written without the lease. They go
with the points that need them, at a prune.
"""

import re
from collections.abc import Iterator
from datetime import datetime

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


class WalState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the archive reaches."""

    system: str
    """The cluster's own number."""
    timeline: int
    segment_bytes: int
    since: str
    """The segment from which on there is no gap."""
    end: int
    """The LSN up to which all is here."""
    covered_at: datetime
    """By the server's clock: everything that was committed before is here."""


class WalArchive:
    """Of one source."""

    def __init__(self, store: Store, keys: Keys, source: str) -> None:
        self._store = store
        self._keys = keys
        self._prefix = f"{WAL}/{source}"

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

    def needed(self, first: str, end: int, segment_bytes: int) -> Iterator[tuple[str, str]]:
        """What a replay from the segment `first` to the LSN `end` reads: (segment, what it is kept as).

        A segment that is kept under neither name is told as whole: reading it says that it is missing.
        """
        there = set(self.names())
        for name in segments(first, end, segment_bytes):
            kept = f"{name}{PARTIAL}" if name not in there and f"{name}{PARTIAL}" in there else name
            yield name, kept

    def troubles(self, first: str, end: int, segment_bytes: int, snapshot: str, *, read: bool) -> Iterator[Trouble]:
        """What is missing of it, or damaged when it is `read`."""
        there = set(self.names())
        for _, kept in self.needed(first, end, segment_bytes):
            place = f"{self._prefix}/{kept}"
            if kept not in there:
                yield Trouble(what="missing", where=place, snapshots=(snapshot,))
            elif read:
                try:
                    self.get(kept)
                except AgentFault as fault:
                    yield Trouble(what="damaged", where=place, detail=str(fault), snapshots=(snapshot,))

    def prune(self, first: str) -> int:
        """Remove what is older than the segment `first`; bytes that came free."""
        freed = 0
        for found in list(self._store.list(self._prefix)):
            name = found.name.rpartition("/")[2].removesuffix(PARTIAL)
            if SEGMENT.fullmatch(name) and name[8:] < first[8:]:
                self._store.delete(found.name)
                freed += found.size
        return freed


def segments(first: str, end: int, segment_bytes: int) -> Iterator[str]:
    """The names from `first` to the one that holds the last byte before the LSN `end`."""
    timeline, number = first[:8], number_of(first, segment_bytes)
    last = max(number, (end - 1) // segment_bytes)
    yield from (name_of(timeline, one, segment_bytes) for one in range(number, last + 1))


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
