"""`python -m benchmarks.report`: writes the figures in benchmarks/results into the pages, and draws docs/cpu.svg.

The prose of those pages is written by hand; what stands between their markers is written here and nowhere else.
"""

import argparse
import sys
from typing import Any, TypeVar

import msgspec

from benchmarks import (
    backup,
    backup_hour,
    backup_stream,
    backup_week,
    first_look,
    fleet,
    footprint,
    incidents,
    instructions,
    latency,
    page,
    recovery,
    upgrade,
)
from benchmarks.failures import report as failures
from benchmarks.load import drawing, table
from benchmarks.load.report import Report as LoadReport
from benchmarks.rig.machine import ROOT

DRAWING = ROOT / "docs/cpu.svg"
PAGES = (ROOT / "docs/performance.md", ROOT / "docs/comparison.md", ROOT / "README.md")
_RESULTS = ROOT / "benchmarks/results"
Kind = TypeVar("Kind")


PLAIN: dict[str, Any] = {
    "footprint": footprint,
    "fleet": fleet,
    "recovery": recovery,
    "incidents": incidents,
    "backup-stream": backup_stream,
    "page": page,
}
"""Result file -> the benchmark, whose `Report` it holds and whose `table` says all of it, but for the machine."""


def sections() -> dict[str, str]:
    """Markdown by marker name, for those results that are there."""
    found: dict[str, str] = {}
    if (load := _result("load", LoadReport)) is not None:
        run = f"{load.rounds} interleaved rounds of {load.seconds:g} s. {_machine(load.machine)}"
        found["summary"] = f"{run}\n\n{table.summary(load.figures)}"
        found["load"] = table.tables(load.figures).rstrip()
    if (paced := _result("latency", latency.Report)) is not None:
        run = f"{paced.rate:,.0f} requests/s, {paced.rounds} interleaved rounds of {paced.seconds:g} s."
        found["latency"] = f"{run} {_machine(paced.machine)}\n\n{latency.table(paced)}"
    if (stormed := _result("failures", failures.Report)) is not None:
        run = f"{stormed.rate:,.0f} requests/s for {stormed.seconds:g} s, `open_for` {stormed.open_for:g} s."
        found["failures"] = f"{run} {_machine(stormed.machine)}\n\n{failures.table(stormed)}"
    if (replaced := _result("upgrade", upgrade.Report)) is not None:
        run = f"{replaced.rate:,.0f} requests/s for {replaced.seconds:g} s."
        found["upgrade"] = f"{run} {_machine(replaced.machine)}\n\n{upgrade.table(replaced)}"
    for name, benchmark in PLAIN.items():
        if (report := _result(name, benchmark.Report)) is not None:
            found[name.replace("-", "_")] = f"{_machine(report.machine)}\n\n{benchmark.table(report)}"
    if (backed := _result("backup", backup.Report)) is not None:
        found["backup"] = f"{_machine(backed.machine, 'python')}\n\n{backup.table(backed)}"
    if (hour := _result("backup-hour", backup_hour.Report)) is not None:
        found["backup_hour"] = f"{_machine(hour.machine, 'python')}\n\n{backup_hour.table(hour)}"
    if (lived := _result("backup-week", backup_week.Report)) is not None:
        found["backup_week"] = backup_week.table(lived)
    if (first := _result("first_look", first_look.Report)) is not None:
        found["first_look"] = (
            f"{_machine(first.machine)}\n\n`git clone` took {first.cloned:.0f} s, the page was there after "
            f"{first.page:.0f} s, and showed an open breaker after {first.open_breaker:.0f} s "
            f"(at most {first_look.LIMIT:.0f})."
        )
    if (allowed := instructions.budget()) is not None:
        rows = [f"| {work} | {count:,.0f} |" for work, count in allowed.per_request.items()]
        build = ", ".join(f"{key} {value}" for key, value in allowed.build.items())
        found["instructions"] = "\n".join([f"Build: {build}.", "", "| request | instructions |", "|---|---|", *rows])
    return found


def _result(name: str, kind: type[Kind]) -> Kind | None:
    """What the result file holds; None: there is none."""
    path = _RESULTS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else None


def written(whole: str) -> str:
    """`whole` with the text between each pair of markers replaced by that section."""
    for name, text in sections().items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found, rest = whole.partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            whole = f"{before}{begin}\n{text}\n{end}{after}"
    return whole


def _machine(facts: dict[str, str | int], *programs: str) -> str:
    shown = programs or ("nginx", "haproxy", "envoy", "python", "uvloop")
    versions = ", ".join(f"{name} {facts[name]}" for name in shown)
    return f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, {facts['date']}; {versions}."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    asked = parser.parse_args()
    stale = 0
    fresh = {path: written(path.read_text()) for path in PAGES}
    if (load := _result("load", LoadReport)) is not None:
        fresh[DRAWING] = drawing.draw(load.figures)
    for path, after in fresh.items():
        if path.exists() and path.read_text() == after:
            continue
        if asked.check:
            print(f"{path.name} is stale: run `python -m benchmarks.report`", file=sys.stderr)
            stale += 1
        else:
            path.write_text(after)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
