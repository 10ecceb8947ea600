"""From a snapshot to the text that Prometheus reads, by way of a prometheus_client Collector.

Theory. The library knows how to escape and to format; we know the numbers. Formatting some thousand lines takes tens of
milliseconds, and in a thread it would hold the interpreter's lock against the event loop in pieces of 5 ms. So the text
is made on the loop in slices of at most SLICE lines, and between two of them everything else runs.

This is the only module that imports prometheus_client.
"""

import asyncio
import io
from collections.abc import Callable, Iterator

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sidecar.runtime.metrics import Series, Snapshot
from sidecar.runtime.series import TABLE, AnyMetric, Histogram

SLICE = 40
"""Lines formatted in one go: under a millisecond of work."""
TEXT = exposition.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


class SnapshotCollector(Collector):
    """Presents a snapshot to prometheus_client, one family after the other."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in TABLE:
            found = self._snapshot.families.get(metric.name)
            if found:
                yield _family(metric, found)


class _One(Collector):
    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept field names OpenMetrics. Prometheus always does."""
    return any(item.split(";", 1)[0].strip() == "application/openmetrics-text" for item in accept.split(","))


def render(snapshot: Snapshot, *, as_openmetrics: bool = False) -> bytes:
    """The whole text at once, for tests and for programs without an event loop."""
    return b"".join(slices(snapshot, as_openmetrics=as_openmetrics))


async def render_gently(snapshot: Snapshot, *, as_openmetrics: bool = False) -> bytes:
    """The whole text, made in slices with the event loop turning in between."""
    text = io.BytesIO()
    for piece in slices(snapshot, as_openmetrics=as_openmetrics):
        text.write(piece)
        await asyncio.sleep(0)
    return text.getvalue()


def slices(snapshot: Snapshot, *, as_openmetrics: bool = False) -> Iterator[bytes]:
    """The text in pieces of about SLICE lines; joined they are what prometheus_client makes in one go."""
    generate: Callable[[Collector], bytes] = (
        openmetrics.generate_latest if as_openmetrics else exposition.generate_latest
    )
    for metric in TABLE:
        found = snapshot.families.get(metric.name, ())
        size = max(1, SLICE // (len(metric.bounds) + 3)) if metric.cell is Histogram else SLICE
        for start in range(0, len(found), size):
            text = generate(_One(_family(metric, list(found[start : start + size])))).removesuffix(b"# EOF\n")
            yield text if start == 0 else _without_header(text)
    if as_openmetrics:
        yield b"# EOF\n"


def _without_header(text: bytes) -> bytes:
    while text.startswith(b"# "):
        text = text[text.index(b"\n") + 1 :]
    return text


def _family(metric: AnyMetric, found: list[Series]) -> Family:
    family = Family(metric.name.removesuffix("_total"), metric.help, metric.cell.kind)
    for one in found:
        labels = dict(zip(metric.labels, one.labels, strict=True))
        if metric.cell is Histogram:
            _add_histogram(family, metric, one, labels)
        else:
            family.add_sample(metric.name, labels, one.value)
    return family


def _add_histogram(family: Family, metric: AnyMetric, one: Series, labels: dict[str, str]) -> None:
    seen = 0
    for bound, count in zip((*metric.bounds, float("inf")), one.counts, strict=True):
        seen += count
        family.add_sample(f"{metric.name}_bucket", labels | {"le": _le(bound)}, seen)
    family.add_sample(f"{metric.name}_count", labels, seen)
    family.add_sample(f"{metric.name}_sum", labels, one.value)


def _le(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text
