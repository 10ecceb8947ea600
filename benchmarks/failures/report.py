"""What the result file holds, what is required of it, and both as Markdown."""

import msgspec

from benchmarks.failures.cost import Instructions, Micro
from benchmarks.failures.tally import Decisions, Detection, Outcome


class Report(msgspec.Struct, frozen=True):
    """Parts that were not asked for are null."""

    machine: dict[str, str | int]
    rate: float
    seconds: float
    open_for: float
    with_fallback: Outcome | None = None
    without: Outcome | None = None
    decisions: Decisions | None = None
    micro: Micro | None = None
    instructions: Instructions | None = None


class Row(msgspec.Struct, frozen=True):
    """One requirement and what was measured."""

    what: str
    required: str
    measured: str
    met: bool


def rows(report: Report) -> list[Row]:
    """Every requirement that was measured."""
    found: list[Row] = []
    if (outcome := report.with_fallback) is not None:
        seen = outcome.seen
        told = f"{seen.good_share:.3%} of {seen.requests:,} (p99 {seen.p99_ms:.1f} ms)"
        found.append(Row("good answers, with a fallback", "≥ 99.9 %", told, seen.good_share >= 0.999))
    if (outcome := report.without) is not None:
        refused = outcome.refusals
        share = refused.within_5ms_share
        told = (
            f"{share:.2%} of {refused.count:,} (p50 {refused.p50_ms:.2f} ms, p99 {refused.p99_ms:.2f} ms; "
            f"the generator itself was late by p99 {outcome.seen.generator_late_p99_ms:.2f} ms)"
        )
        found.append(Row("refusals answered in < 5 ms, without one", "≥ 99 %", told, share >= 0.99))
        found.append(_detected(outcome.detections))
    outcomes = [outcome for outcome in (report.with_fallback, report.without) if outcome is not None]
    if outcomes:
        touched = sum(outcome.touched_while_open for outcome in outcomes)
        found.append(Row("requests that reached the upstream while open", "0", str(touched), touched == 0))
        closed = all(outcome.closed_at_last for outcome in outcomes)
        found.append(Row("closed again at the end", "yes", "yes" if closed else "no", closed))
    if (decided := report.decisions) is not None:
        told = (
            f"p50 ≤ {decided.p50_us:g} µs, p99 ≤ {decided.p99_us:g} µs, p99.9 ≤ {decided.p999_us:g} µs "
            f"of {decided.count:,}"
        )
        met = 0 < decided.p999_us <= 100
        found.append(Row("a decision, in the running proxy", "p99.9 < 100 µs (contract: 100 ms)", told, met))
    if (micro := report.micro) is not None:
        told = f"{micro.median_us:.2f} µs (single calls: p99.9 {micro.p999_us:.2f} µs)"
        found.append(Row("breaker admit and record, alone", "≤ 2 µs median", told, micro.median_us <= 2))
    if (counted := report.instructions) is not None:
        for name, share in counted.shares().items():
            found.append(Row(f"deciding, of a request's instructions: {name}", "≤ 10 %", f"{share:.1%}", share <= 0.1))
    return found


def _detected(detections: list[Detection]) -> Row:
    """Five failures in a row open it; what was on its way then still fails, nothing else does."""
    reached = [one.reached for one in detections if one.reached is not None]
    waits = [one.opened_after_ms for one in detections if one.opened_after_ms is not None]
    met = len(waits) == len(detections) and all(
        one.why == "5 failures in a row" and one.failures >= 5 and not one.let_through for one in detections
    )
    told = (
        f"{', '.join(sorted({one.why for one in detections}))}; clients saw {_span([o.failures for o in detections])}"
    )
    if reached:
        told += f", the upstream {_span(reached)}"
    if waits:
        told += f", within {max(waits):.0f} ms"
    return Row(f"open at the 5th failure, in each of {len(detections)} faults", "5, and what is on its way", told, met)


def _span(counts: list[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return str(low) if low == high else f"{low}–{high}"


def table(report: Report) -> str:
    """The requirements, then the instructions by variant."""
    lines = ["| what | required | measured | within |", "|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.required} | {row.measured} | {'yes' if row.met else '**no**'} |" for row in rows(report)
    ]
    if (counted := report.instructions) is not None:
        lines += ["", "| a request | instructions |", "|---|---|"]
        lines += [f"| {name} | {value:,.0f} |" for name, value in counted.per_request.items()]
        lines.append(f"| the guard's steps alone | {counted.guard_alone:,.0f} |")
    return "\n".join(lines)
