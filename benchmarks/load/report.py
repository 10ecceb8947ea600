"""What the load's result file holds."""

import msgspec

from benchmarks.load.tally import Figure
from benchmarks.rig.sample import Sample


class Report(msgspec.Struct, frozen=True):
    """The machine, the run's length, the figures by work, and every sample behind them by work and peer."""

    machine: dict[str, str | int]
    rounds: int
    seconds: float
    figures: dict[str, list[Figure]]
    samples: dict[str, dict[str, list[Sample]]]
