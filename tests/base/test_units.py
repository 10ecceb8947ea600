"""Durations, sizes and ratios: what is read, what is refused, and that printing is the inverse of reading."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.base import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("0s", 0.0),
        ("0", 0.0),
        ("1h30m", 5400.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("1.5s", 1.5),
        ("5us", 0.000005),
        ("1d2h3m4s5ms6us", 93784.005006),
    ],
)
def test_a_duration_is_read_as_seconds(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("30", "30 has no unit: write 30s or 30ms"),
        ("1.5", "1.5 has no unit"),
        ("", "is not a duration"),
        ("-5s", "is not a duration"),
        ("5 s", "is not a duration"),
        ("5S", "is not a duration"),
        ("5sec", "is not a duration"),
        ("s", "is not a duration"),
        ("30s1m", "largest first"),
        ("1s1s", "each unit once"),
        ("0.5us", "too fine"),
        ("٣s", "is not a duration"),
        ("99999d", "longer than ten years"),
        ("1" * 30 + "s", "is not a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_advice(text, advice):
    with pytest.raises(ValueError, match=advice):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(60, "60s"), (90, "90s"), (600, "10m"), (3600, "1h"), (86400, "24h"), (604800, "7d"), (0.25, "250ms"), (0, "0s")],
)
def test_a_duration_prints_as_people_write_it(seconds, text):
    assert units.show_duration(seconds) == text


@given(st.integers(0, int(units.LONGEST_SECONDS * 1_000_000)))
@example(int(units.LONGEST_SECONDS * 1_000_000))
def test_a_printed_duration_reads_the_same_to_the_microsecond(microseconds):
    seconds = microseconds / 1_000_000
    assert units.parse_duration(units.show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65536),
        ("1MiB", 1 << 20),
        ("1.5MiB", 3 << 19),
        ("2GiB", 2 << 30),
    ],
)
def test_a_size_is_read_as_bytes(text, count):
    assert units.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "64K", "64KB", "64kib", "-1", "1.5", "0.3B", "1 MiB", "²", "9999TiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        units.parse_size(text)


@given(st.integers(0, units.LARGEST_BYTES))
def test_a_printed_size_reads_the_same(count):
    assert units.parse_size(str(units.show_size(count))) == count


def test_a_size_prints_in_the_largest_unit_that_divides_it():
    assert units.show_size(3 << 30) == "3GiB"
    assert units.show_size(1025) == 1025


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_ratio_is_within_0_and_1(value):
    if 0 <= value <= 1:
        assert units.parse_ratio(value) == value
    else:
        with pytest.raises(ValueError, match="not a ratio"):
            units.parse_ratio(value)


@given(st.text())
def test_any_text_is_read_or_refused_never_anything_else(text):
    for parse in (units.parse_duration, units.parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as refusal:
            assert str(refusal)  # noqa: PT017 - refused or read: both are right
