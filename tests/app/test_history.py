"""The plots' points: growth between looks, latencies of that time alone, so many and no more."""

from sidecar.app.history import KEPT, History
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry


class Traffic:
    """Numbers as a proxy would count them, looked at by a history."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.history = History()
        self._labels = ("in", "all", "app", "GET")
        self._durations = self.registry.cell(series.REQUEST_DURATION, *self._of(series.REQUEST_DURATION))

    def _of(self, metric: series.Metric) -> tuple[str, ...]:
        return ("x",) * len(metric.labels)

    def come(self, count: int, seconds: float, code: str = "200", outcome: str = "ok") -> None:
        self.registry.cell(series.REQUESTS, *self._labels, code, outcome).value += count
        for _ in range(count):
            self._durations.observe(seconds)

    def look(self, now: float) -> None:
        self.history.take(1000.0 + now, now, self.registry.snapshot())


def test_the_first_look_only_remembers():
    traffic = Traffic()
    traffic.come(50, 0.001)
    traffic.look(10.0)
    assert traffic.history.after(0) == []


def test_a_point_tells_of_its_own_time_alone():
    traffic = Traffic()
    traffic.come(1000, 0.0001)
    traffic.look(10.0)
    traffic.come(15, 0.2)
    traffic.come(5, 0.2, "503", "breaker_open")
    traffic.look(12.0)
    traffic.look(14.0)
    slow, nothing = traffic.history.after(0)
    assert (slow.at, slow.requests, slow.errors) == (1012.0, 10.0, 2.5)
    assert slow.p50 is not None and slow.p50 > 50
    assert (nothing.requests, nothing.errors, nothing.p50, nothing.p99) == (0.0, 0.0, None, None)


def test_who_has_some_gets_the_rest():
    traffic = Traffic()
    for now in range(5):
        traffic.look(float(now))
    first, second, *_ = traffic.history.after(0)
    assert traffic.history.after(second.number) == traffic.history.after(first.number)[1:]
    assert traffic.history.after(4) == []


def test_only_so_many_are_kept():
    traffic = Traffic()
    for now in range(KEPT + 20):
        traffic.look(float(now))
    kept = traffic.history.after(0)
    assert len(kept) == KEPT
    assert kept[-1].number == KEPT + 19


def test_a_worker_that_takes_its_numbers_with_it_makes_no_negative_rate():
    traffic = Traffic()
    traffic.come(10, 0.1)
    traffic.look(0.0)
    traffic.registry.cell(series.REQUESTS, *traffic._labels, "200", "ok").value = 3
    traffic.look(1.0)
    assert traffic.history.after(0)[0].requests == 0.0
