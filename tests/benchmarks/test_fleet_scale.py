"""The simulated fleets of the benchmark: small ones keep what is promised, and the page shows the last result."""

import msgspec

from benchmarks.fleet_scale.__main__ import simulate
from benchmarks.fleet_scale.price import Prices
from benchmarks.fleet_scale.report import DRAWING, PAGE, RESULT, Report, draw, met, page

PRICES = Prices(beat=40.0, command=20.0, tell=5.0)


def test_a_small_fleet_keeps_what_is_promised():
    figures = simulate(6, 3, PRICES)
    report = Report({"cpu": "a CPU", "date": "today"}, PRICES, [figures])
    assert met(report)
    assert 0.08 <= figures.healthy_ops / 6 <= 0.12
    assert figures.votes >= 2
    assert figures.failing_calls < 6 * 15, "alone, each would have made five calls, and more at each trial"
    assert 0.0 < figures.restored < 2.0
    assert not met(Report({}, PRICES, [msgspec.structs.replace(figures, most_trials=4)]))


def test_the_page_shows_the_last_result():
    report = msgspec.json.decode(RESULT.read_bytes(), type=Report)
    assert page(PAGE.read_text(), report) == PAGE.read_text()
    assert draw(report) == DRAWING.read_text()
