"""Ratios are formed within a round; a figure with errors is invalid; the verdict follows the aims."""

from benchmarks.load.table import summary
from benchmarks.load.tally import tally
from benchmarks.rig.sample import Sample


def _sample(cpu_us: float, errors: int = 0) -> Sample:
    return Sample(units=1000, seconds=1, cpu_us=cpu_us, p50_us=1, p99_us=2, errors=errors)


def test_ratio_is_the_median_of_the_rounds_not_of_the_medians() -> None:
    # A machine that is ten times slower in round two: the ratio is the same in each round, 0.5.
    own = [_sample(10), _sample(100), _sample(11)]
    envoy = [_sample(20), _sample(200), _sample(22)]
    figure = next(f for f in tally({"sidecar": own, "envoy": envoy}, "request") if f.peer == "sidecar")
    assert figure.ratios == {"envoy": (0.5, 0.5, 0.5)}
    assert (figure.cpu_us_low, figure.cpu_us, figure.cpu_us_high) == (10, 11, 100)


def test_missing_rounds_pair_with_nothing() -> None:
    figures = tally({"sidecar": [_sample(10), _sample(90)], "haproxy": [_sample(10)], "envoy": []}, "request")
    assert [figure.peer for figure in figures] == ["sidecar", "haproxy"]
    assert figures[0].ratios == {"haproxy": (1, 1, 1)}


def test_errors_make_a_figure_invalid_and_the_table_says_so() -> None:
    figures = tally({"sidecar": [_sample(1, errors=3)], "envoy": [_sample(10)], "haproxy": [_sample(10)]}, "request")
    assert "invalid" in summary({"get-1k": figures})


def test_verdict_needs_every_aim() -> None:
    def verdict(own: float) -> str:
        samples = {"sidecar": [_sample(own)], "envoy": [_sample(100)], "haproxy": [_sample(40)]}
        return summary({"get-1k": tally(samples, "request")}).splitlines()[-1].rsplit("|", 2)[1].strip()

    assert verdict(50) == "yes"
    assert verdict(60) == "no"


def test_nothing_done_is_an_error() -> None:
    assert Sample.of(units=0, seconds=1, cpu_seconds=1, p50_us=0, p99_us=0, errors=0).errors == 1
