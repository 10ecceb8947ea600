"""A drill's report as a page of Markdown, and as plain data."""

from collections.abc import Sequence
from typing import Any

import msgspec

from sidecar.agent.drills.drill import DrillReport, usual

_SLOW = 3.0
"""Times the usual, from which an answer is called slow."""


def as_plain(report: DrillReport) -> dict[str, Any]:
    """For JSON."""
    told: dict[str, Any] = msgspec.to_builtins(report)
    return told


def markdown(reports: Sequence[DrillReport]) -> str:
    """The newest in full, and a line for each before it; `reports`: newest first, at least one."""
    newest, *earlier = reports
    lines = [
        f"# Restore drill of {newest.at:%Y-%m-%d %H:%M} UTC: {'passed' if newest.passed else 'FAILED'}",
        "",
        *([f"**{newest.why}**", ""] if newest.why else []),
        f"The backup `{newest.point}`, {newest.files} files, {newest.bytes} bytes, was restored into an empty place.",
        "",
        "| | measured | promised |",
        "|---|---|---|",
        f"| RTO: until the last check had held | {_span(newest.rto_seconds)} | {_span(newest.rto_target_seconds)} |",
        f"| RPO: age of the restored state | {_span(newest.rpo_seconds)} | {_span(newest.rpo_target_seconds)} |",
    ]
    if newest.forecast is not None:
        within = "within" if newest.forecast.within else "BEYOND"
        lines += [
            f"| 100 GiB would take, by what grew with the bytes | {_span(newest.forecast.seconds)} | {within} the RTO |"
        ]
    lines += ["", "| step | took |", "|---|---|"]
    lines += [f"| {step} | {_span(seconds)} |" for step, seconds in newest.steps.items() if step != "waiting"]
    if newest.checks:
        lines += ["", "| check | holds | median | p95 | usually |", "|---|---|---|---|---|"]
    for one in newest.checks:
        before = usual(earlier, one.name)
        slow = before is not None and one.median_seconds is not None and one.median_seconds > _SLOW * before
        held = one.wrong or ("yes, but slowly" if slow else "yes")
        times = (one.median_seconds, one.p95_seconds, before)
        lines.append(f"| {_cell(one.name)} | {_cell(held)} | {' | '.join(_span(seconds) for seconds in times)} |")
    if earlier:
        lines += ["", "## Before", "", "| when | backup | passed | RTO | RPO |", "|---|---|---|---|---|"]
    for report in earlier:
        held = "yes" if report.passed else _cell(report.why)
        spans = f"{_span(report.rto_seconds)} | {_span(report.rpo_seconds)}"
        lines.append(f"| {report.at:%Y-%m-%d %H:%M} | `{report.point}` | {held} | {spans} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1.0:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120.0:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200.0 else f"{seconds / 3600:.1f} h"
