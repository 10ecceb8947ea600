"""Counting: cells that hot code writes in place, and the registry that knows them all.

Theory. Hot code asks the registry once for a cell (`registry.cell(REQUESTS, ...)`), keeps it, and afterwards only adds
to a slot: no lookup, no lock, no call into a metrics library. Everything is written by the event loop's thread. At
scrape, `snapshot()` copies the numbers into plain data that crosses process borders (msgspec encodes it), `merge()`
makes one snapshot of several workers', and `runtime/exposition.py` turns it into text.

Rules. A metric holds at most `metric.limit` series; what comes later shares one series labelled `other` and is counted
in `sidecar_metrics_series_dropped_total`. Gauges go when what they speak of goes (`remove`); counters and histograms
stay, so that sums over time stay true.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sidecar.runtime import series
from sidecar.runtime.series import TABLE, Cell, Counter, Gauge, Histogram, Metric

MAX_LABEL = 128
"""Characters of a label's value that are kept."""

_log = logging.getLogger(__name__)


class Series(msgspec.Struct, array_like=True, frozen=True):
    """One series at one moment. For a histogram `value` is the sum, and `counts` the buckets, not cumulative."""

    labels: tuple[str, ...]
    value: float
    counts: tuple[int, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """Every exported series at one moment, by the metric's name."""

    families: dict[str, list[Series]]

    def total(self, metric: Metric[Any], **labels: str) -> float:
        """Sum of the values (for histograms: of the sums) of the metric's series that carry these labels."""
        return sum(one.value for one in self.select(metric, **labels))

    def select(self, metric: Metric[Any], **labels: str) -> list[Series]:
        """The metric's series that carry these labels."""
        wanted = [(metric.labels.index(name), value) for name, value in labels.items()]
        found = self.families.get(metric.name, ())
        return [one for one in found if all(one.labels[place] == value for place, value in wanted)]

    def quantile(self, metric: Metric[Histogram], q: float, **labels: str) -> float | None:
        """Estimate of the q-quantile in the metric's unit over all series with these labels; None without data."""
        chosen = self.select(metric, **labels)
        counts = [sum(column) for column in zip(*(one.counts for one in chosen), strict=True)]
        return quantile(metric.bounds, counts, q)


class Registry:
    """All cells of one process."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[tuple[str, ...], Counter | Gauge | Histogram]] = {}
        self._functions: dict[str, dict[tuple[str, ...], Callable[[], float | None]]] = {}

    def cell(self, metric: Metric[Cell], *labels: str) -> Cell:
        """The cell of these label values, made at the first call. Not for the hot path: keep what it returns."""
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {len(labels)} of them")
        cells = self._cells.setdefault(metric.name, {})
        labels = tuple(value[:MAX_LABEL] for value in labels)
        cell = cells.get(labels)
        if cell is None:
            if len(cells) >= metric.limit:
                labels = ("other",) * len(labels)
                if metric is not series.SERIES_DROPPED:
                    self.cell(series.SERIES_DROPPED, metric.name).value += 1
                cell = cells.get(labels)
            if cell is None:
                cell = cells[labels] = metric.cell(metric.bounds)
        return cell  # type: ignore[return-value]  # a metric's name leads to cells of its kind only

    def gauge_function(self, metric: Metric[Gauge], function: Callable[[], float | None], *labels: str) -> None:
        """Let `function` say the gauge's value at each scrape; replaces an earlier one for the same labels.

        None: it is not known, and the series is left out of this scrape. What is not known is never told as 0.
        """
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {len(labels)} of them")
        functions = self._functions.setdefault(metric.name, {})
        if labels in functions or len(functions) < metric.limit:
            functions[labels] = function
        else:
            self.cell(series.SERIES_DROPPED, metric.name).value += 1

    def remove(self, **labels: str) -> None:
        """Forget every gauge that carries all of these labels, such as `upstream="pay", endpoint="10.0.0.7:80"`."""
        for metric in TABLE:
            if metric.cell is Gauge and labels.keys() <= set(metric.labels):
                places = [(metric.labels.index(name), value) for name, value in labels.items()]
                for held in (self._cells.get(metric.name), self._functions.get(metric.name)):
                    for key in [key for key in held or () if all(key[at] == value for at, value in places)]:
                        del held[key]  # type: ignore[union-attr]  # an absent one has no keys to come here with

    def snapshot(self) -> Snapshot:
        """The numbers as they are now. A gauge function that raises leaves its series out and is logged."""
        families: dict[str, list[Series]] = {}
        for metric in TABLE:
            found = [_read(labels, cell) for labels, cell in self._cells.get(metric.name, {}).items()]
            for labels, function in self._functions.get(metric.name, {}).items():
                try:
                    value = function()
                    if value is not None:
                        found.append(Series(labels, float(value)))
                except Exception:  # noqa: BLE001 - whatever a gauge does, the others are still told
                    _log.exception("metric_failed", extra={"fields": {"metric": metric.name}})
            if found:
                families[metric.name] = found
        return Snapshot(families)


def _read(labels: tuple[str, ...], cell: Counter | Gauge | Histogram) -> Series:
    if isinstance(cell, Histogram):
        return Series(labels, cell.sum, tuple(cell.counts))
    return Series(labels, cell.value)


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of several workers': counters and histograms add up, gauges follow their metric's rule."""
    gathered = list(snapshots)
    families: dict[str, list[Series]] = {}
    for metric in TABLE:
        merged: dict[tuple[str, ...], Series] = {}
        for snapshot in gathered:
            for one in snapshot.families.get(metric.name, ()):
                known = merged.get(one.labels)
                merged[one.labels] = one if known is None else _join(metric, known, one)
        if merged:
            families[metric.name] = list(merged.values())
    return Snapshot(families)


def _join(metric: Metric[Any], left: Series, right: Series) -> Series:
    if metric.cell is Gauge:
        match metric.merge:
            case "max":
                return left if left.value >= right.value else right
            case "min":
                return left if left.value <= right.value else right
            case "last":
                return right
    counts = tuple(a + b for a, b in zip(left.counts, right.counts, strict=True))
    return Series(left.labels, left.value + right.value, counts)


def lasting(snapshot: Snapshot) -> Snapshot:
    """What outlives a worker: its counters and histograms, kept by the parent so that sums never go back."""
    kept = {metric.name for metric in TABLE if metric.cell is not Gauge}
    return Snapshot({name: found for name, found in snapshot.families.items() if name in kept})


def quantile(bounds: tuple[float, ...], counts: list[int], q: float) -> float | None:
    """Estimate of the q-quantile from buckets, linear within one; None without data, the last bound beyond it."""
    rank = q * sum(counts)
    if not rank:
        return None
    seen = 0.0
    for place, count in enumerate(counts[:-1]):
        if count and seen + count >= rank:
            low = bounds[place - 1] if place else 0.0
            return low + (bounds[place] - low) * (rank - seen) / count
        seen += count
    return bounds[-1]
