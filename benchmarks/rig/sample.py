"""What one turn of one peer at one work gave."""

from typing import Self

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """`units` were done in `seconds` at the price of `cpu_us` microseconds of the proxy's CPU each."""

    units: float
    seconds: float
    cpu_us: float
    p50_us: float
    p99_us: float
    errors: int

    @classmethod
    def of(cls, units: float, seconds: float, cpu_seconds: float, p50_us: float, p99_us: float, errors: int) -> Self:
        """`cpu_seconds` are those of the whole window; a window in which nothing was done counts as an error."""
        return cls(units, seconds, cpu_seconds / max(units, 1e-9) * 1e6, p50_us, p99_us, errors + (units <= 0))
