"""`python -m benchmarks.failures`: an upstream that dies and comes back under load, and the price of deciding.

Two storms over a real proxy, with a fallback and without; then the breaker's decision in microseconds, and its share
of a request's instructions (callgrind). The result is committed; `--json` elsewhere is for trials.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.failures import cost, tally
from benchmarks.failures.report import Report, rows, table
from benchmarks.failures.storm import OPEN_FOR, storm
from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts

PARTS = ("storms", "micro", "instructions")


def measure(scratch: Path, parts: list[str], rate: float, seconds: float, faults: int, requests: int) -> Report:
    """Whatever of PARTS is asked for. `scratch` is an empty directory."""
    sheltered = exposed = None
    if "storms" in parts:
        sheltered = storm(scratch / "with-fallback", rate, seconds, faults, fallback=True)
        exposed = storm(scratch / "without", rate, seconds, faults, fallback=False)
    return Report(
        machine=facts(),
        rate=rate,
        seconds=seconds,
        open_for=OPEN_FOR,
        with_fallback=None if sheltered is None else tally.outcome(sheltered),
        without=None if exposed is None else tally.outcome(exposed),
        decisions=None if sheltered is None or exposed is None else tally.decisions((sheltered, exposed)),
        micro=cost.micro() if "micro" in parts else None,
        instructions=cost.instructions(scratch / "cost", requests) if "instructions" in parts else None,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failures", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated, of {','.join(PARTS)}")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument(
        "--quick", action="store_true", help="storms of 15 seconds and 3 faults, fewer requests counted"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/failures.json")
    asked = parser.parse_args()
    seconds, faults, requests = (15.0, 3, 300) if asked.quick else (60.0, 10, 1000)
    shared_memory = Path("/dev/shm")
    with results.scratch(shared_memory if shared_memory.is_dir() else None) as scratch:
        report = measure(scratch, asked.parts.split(","), asked.rate, seconds, faults, requests)
    results.write(report, asked.json)
    print(table(report))
    return 0 if all(row.met for row in rows(report)) else 1


if __name__ == "__main__":
    sys.exit(main())
