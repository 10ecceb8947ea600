"""Names and numbers of PostgreSQL's log."""

import pytest

from sidecar.agent.wal import lsn, name_of, number_of, segments, shown

SIZE = 16 << 20


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
