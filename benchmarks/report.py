"""`python -m benchmarks.report`: writes the figures in benchmarks/results into the pages, and draws docs/cpu.svg.

The prose of those pages is written by hand; what stands between their markers is written here and nowhere else.
"""

import argparse
import sys

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


def sections() -> dict[str, str]:
    """Markdown by marker name, for those results that are there."""
    found: dict[str, str] = {}
    if (path := _RESULTS / "load.json").exists():
        load = msgspec.json.decode(path.read_bytes(), type=LoadReport)
        run = f"{load.rounds} interleaved rounds of {load.seconds:g} s. {_machine(load.machine)}"
        found["summary"] = f"{run}\n\n{table.summary(load.figures)}"
        found["load"] = table.tables(load.figures).rstrip()
    if (path := _RESULTS / "latency.json").exists():
        paced = msgspec.json.decode(path.read_bytes(), type=latency.Report)
        run = f"{paced.rate:,.0f} requests/s, {paced.rounds} interleaved rounds of {paced.seconds:g} s."
        found["latency"] = f"{run} {_machine(paced.machine)}\n\n{latency.table(paced)}"
    if (path := _RESULTS / "footprint.json").exists():
        taken = msgspec.json.decode(path.read_bytes(), type=footprint.Report)
        found["footprint"] = f"{_machine(taken.machine)}\n\n{footprint.table(taken)}"
    if (path := _RESULTS / "failures.json").exists():
        stormed = msgspec.json.decode(path.read_bytes(), type=failures.Report)
        run = f"{stormed.rate:,.0f} requests/s for {stormed.seconds:g} s, `open_for` {stormed.open_for:g} s."
        found["failures"] = f"{run} {_machine(stormed.machine)}\n\n{failures.table(stormed)}"
    if (path := _RESULTS / "fleet.json").exists():
        shared = msgspec.json.decode(path.read_bytes(), type=fleet.Report)
        found["fleet"] = f"{_machine(shared.machine)}\n\n{fleet.table(shared)}"
    if (path := _RESULTS / "upgrade.json").exists():
        replaced = msgspec.json.decode(path.read_bytes(), type=upgrade.Report)
        run = f"{replaced.rate:,.0f} requests/s for {replaced.seconds:g} s."
        found["upgrade"] = f"{run} {_machine(replaced.machine)}\n\n{upgrade.table(replaced)}"
    if (path := _RESULTS / "recovery.json").exists():
        healed = msgspec.json.decode(path.read_bytes(), type=recovery.Report)
        found["recovery"] = f"{_machine(healed.machine)}\n\n{recovery.table(healed)}"
    if (path := _RESULTS / "incidents.json").exists():
        told = msgspec.json.decode(path.read_bytes(), type=incidents.Report)
        found["incidents"] = f"{_machine(told.machine)}\n\n{incidents.table(told)}"
    if (path := _RESULTS / "backup.json").exists():
        backed = msgspec.json.decode(path.read_bytes(), type=backup.Report)
        found["backup"] = f"{_machine(backed.machine, 'python')}\n\n{backup.table(backed)}"
    if (path := _RESULTS / "backup-hour.json").exists():
        hour = msgspec.json.decode(path.read_bytes(), type=backup_hour.Report)
        found["backup_hour"] = f"{_machine(hour.machine, 'python')}\n\n{backup_hour.table(hour)}"
    if (path := _RESULTS / "backup-week.json").exists():
        lived = msgspec.json.decode(path.read_bytes(), type=backup_week.Report)
        found["backup_week"] = backup_week.table(lived)
    if (path := _RESULTS / "backup-stream.json").exists():
        streamed = msgspec.json.decode(path.read_bytes(), type=backup_stream.Report)
        found["backup_stream"] = f"{_machine(streamed.machine)}\n\n{backup_stream.table(streamed)}"
    if (path := _RESULTS / "page.json").exists():
        looked = msgspec.json.decode(path.read_bytes(), type=page.Report)
        found["page"] = f"{_machine(looked.machine)}\n\n{page.table(looked)}"
    if (path := _RESULTS / "first_look.json").exists():
        first = msgspec.json.decode(path.read_bytes(), type=first_look.Report)
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
    load = msgspec.json.decode((_RESULTS / "load.json").read_bytes(), type=LoadReport)
    for path, after in {**fresh, DRAWING: drawing.draw(load.figures)}.items():
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
