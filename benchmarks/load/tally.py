"""From samples to figures: medians, spreads, and ratios that are taken within a round.

On a shared machine a minute is not like the next one, so a ratio is formed between two peers of the same round, which
ran seconds apart, and the median is taken over those ratios; dividing two medians would mix rounds.
"""

from statistics import median

import msgspec

from benchmarks.rig.sample import Sample

REFERENCES = ("envoy", "haproxy")


class Figure(msgspec.Struct, frozen=True):
    """One peer at one work. CPU in microseconds per `unit` (seconds per GiB are a millionth of that).

    `ratios` holds, for each reference peer, median, lowest and highest of the per-round ratios. A figure with `errors`
    is not valid: work that failed is cheaper than work that was done.
    """

    peer: str
    unit: str
    cpu_us: float
    cpu_us_low: float
    cpu_us_high: float
    per_second: float
    p50_us: float
    p99_us: float
    errors: int
    ratios: dict[str, tuple[float, float, float]]

    @property
    def valid(self) -> bool:
        return self.errors == 0


def tally(samples: dict[str, list[Sample]], unit: str) -> list[Figure]:
    """Figures for one work from `samples`, a list per peer with the rounds in order (a peer may have fewer)."""
    figures = []
    for peer, rounds in samples.items():
        if not rounds:
            continue
        ratios = {}
        for reference in REFERENCES:
            pairs = [
                own.cpu_us / other.cpu_us
                for own, other in zip(rounds, samples.get(reference, []), strict=False)
                if other.cpu_us > 0
            ]
            if pairs and reference != peer:
                ratios[reference] = (median(pairs), min(pairs), max(pairs))
        prices = [sample.cpu_us for sample in rounds]
        figures.append(
            Figure(
                peer=peer,
                unit=unit,
                cpu_us=median(prices),
                cpu_us_low=min(prices),
                cpu_us_high=max(prices),
                per_second=median(sample.units / sample.seconds for sample in rounds),
                p50_us=median(sample.p50_us for sample in rounds),
                p99_us=median(sample.p99_us for sample in rounds),
                errors=sum(sample.errors for sample in rounds),
                ratios=ratios,
            )
        )
    return figures
