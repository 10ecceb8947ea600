"""Names and numbers of PostgreSQL's log, how far a segment reaches, and what of the log brings which base backup on."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sidecar.agent.repository.seal import Keys
from sidecar.agent.repository.store import LocalStore
from sidecar.agent.wal import (
    PARTIAL,
    Span,
    WalArchive,
    WalState,
    lsn,
    name_of,
    number_of,
    reaches,
    segments,
    shown,
)
from tests.fakes.wal import BLOCK, segment

SIZE = 16 << 20
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_segment_and_its_number():
    assert number_of("000000010000000000000007", SIZE) == 7
    assert number_of("000000010000000100000000", SIZE) == 256
    assert name_of("00000001", 256, SIZE) == "000000010000000100000000"
    assert name_of("0000000A", 255, SIZE) == "0000000A00000000000000FF"
    assert number_of("000000010000000000000003", 1 << 30) == 3
    assert name_of("00000001", 5, 1 << 30) == "000000010000000100000001"


@pytest.mark.parametrize("text", ["0/3000060", "0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"])
def test_an_lsn_and_back(text: str):
    assert shown(lsn(text)) == text


def test_what_a_replay_reads():
    first = "0000000100000000000000FE"
    assert list(segments(first, lsn("1/0"), SIZE)) == [first, "0000000100000000000000FF"]
    assert list(segments(first, lsn("1/1"), SIZE))[-1] == "000000010000000100000000"
    assert list(segments(first, 0, SIZE)) == [first], "at least the one it begins with"


def test_how_far_a_segment_reaches():
    start = 5 << 20
    assert reaches(segment(start, 3), start) == start + 3 * BLOCK
    assert reaches(segment(start, 128), start) == start + (1 << 20)
    assert reaches(segment(start, 3), start + (1 << 20)) == start + (1 << 20), "it is another one's content"
    assert reaches(b"", start) == reaches(bytes(1 << 20), start) == start, "it is empty"
    assert reaches(segment(start, 3)[:BLOCK], start) == start + BLOCK, "it is cut short"


def base(wal_from: str, wal_to: str, end: int) -> dict[str, Any]:
    return {"wal_from": wal_from, "wal_to": wal_to, "end_lsn": end, "segment_bytes": SIZE}


def span(since: str, end: int, timeline: int = 1) -> Span:
    return Span(timeline=timeline, since=since, end=end, covered_at=AT)


def test_a_log_goes_on_where_it_holds_the_base_backups_last_segment():
    names = {number: name_of("00000001", number, SIZE) for number in range(10)}
    one = base(names[3], names[4], 4 * SIZE + 100)
    assert span(names[4], 5 * SIZE).goes_on(one)
    assert not span(names[5], 6 * SIZE).goes_on(one), "what others wrote into segment 4 after the backup is not there"
    assert not span(names[4], 4 * SIZE + 99).goes_on(one), "it does not reach the backup's end"
    assert not span(name_of("00000002", 4, SIZE), 6 * SIZE, timeline=2).goes_on(one)


def test_after_a_gap_the_earlier_part_still_brings_its_own_base_backups_on():
    names = {number: name_of("00000001", number, SIZE) for number in range(10)}
    state = WalState(system="7", segment_bytes=SIZE, spans=())
    state = state.grown(span(names[1], 2 * SIZE)).grown(span(names[1], 3 * SIZE))
    assert [one.end for one in state.spans] == [3 * SIZE], "the last one grows"
    state = state.grown(span(names[8], 9 * SIZE))
    assert state.span_of(base(names[1], names[1], SIZE + 1)) == state.spans[0]
    assert state.span_of(base(names[8], names[8], 8 * SIZE + 1)) == state.newest
    assert state.span_of(base(names[5], names[5], 5 * SIZE + 1)) is None
    assert msgspec.json.decode(msgspec.json.encode(state), type=WalState) == state


@dataclass
class Logged:
    """An archive with three segments, of which the last one is being written."""

    archive: WalArchive
    details: dict[str, Any]
    read: list[int] = field(default_factory=list)

    def troubles(self) -> list[str]:
        def read(number: int) -> bool:
            self.read.append(number)
            return True

        return [
            f"{one.what} {one.where[-len(PARTIAL) - 1 :]}" for one in self.archive.troubles(self.details, "s", read)
        ]


@pytest.fixture
def logged(tmp_path: Any) -> Logged:
    size = 1 << 20
    archive = WalArchive(LocalStore(str(tmp_path)), Keys(bytes(32)), "pg", "7")
    for number in (4, 5):
        archive.put(name_of("00000001", number, size), segment(number * size, 128))
    archive.put(name_of("00000001", 6, size) + PARTIAL, segment(6 * size, 20))
    first = name_of("00000001", 4, size)
    details = {**base(first, first, 6 * size + 20 * BLOCK), "segment_bytes": size}
    return Logged(archive, details)


def test_what_a_log_lacks_is_named(logged: Logged):
    size, name = 1 << 20, name_of("00000001", 5, 1 << 20)
    assert logged.troubles() == []
    assert logged.read == [4, 5, 6]
    logged.archive.put(name_of("00000001", 6, size) + PARTIAL, segment(6 * size, 5))
    assert logged.troubles() == ["truncated 6.partial"]
    logged.archive.delete(name)
    logged.archive.put(name + PARTIAL, segment(5 * size, 128))
    assert logged.troubles()[0] == "missing 000000005", "only the last one may be partial"


def test_a_prune_goes_by_the_place_in_the_log_whatever_the_timeline(logged: Logged):
    later = name_of("00000002", 6, 1 << 20)
    logged.archive.put(later, b"x")
    assert logged.archive.prune(name_of("00000001", 6, 1 << 20)) > 0
    assert logged.archive.names() == [name_of("00000001", 6, 1 << 20) + PARTIAL, later]
