"""`sidecar drill run|report`: restore a backup into an empty place, ask it questions, and tell what it took."""

import argparse
import json
import sys

from sidecar.cli import exits
from sidecar.cli.agent_desk import Desk, told
from sidecar.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("run", "report"))
    parser.add_argument("--backup", metavar="ID", help="run: this one (default: the newest good one, now and then any)")
    parser.add_argument("--target", metavar="DIR", help="run: restore into DIR, absent or empty; it is cleared again")
    parser.add_argument("--last", metavar="N", type=int, default=10, help="report: of so many drills (default: 10)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 passed, 1 failed, 2 usage, 4 wrong key."""
    if args.last < 1:
        print("sidecar drill report: --last needs a number above 0", file=sys.stderr)
        return exits.USAGE
    return told({"run": _run, "report": _report}[args.action], args)


def _run(args: argparse.Namespace) -> int:
    from sidecar.agent.drills.drill import drills, run_drill
    from sidecar.agent.drills.report import as_plain, markdown

    desk = Desk(args)
    with Progress() as progress:
        report = run_drill(
            desk.config, desk.repository, desk.catalog, desk.sources(), progress.tell,
            backup=args.backup, scratch=args.target,
        )  # fmt: skip
    if args.json:
        print(json.dumps(as_plain(report), indent=2, ensure_ascii=False))
    else:
        print(markdown(drills(desk.catalog, args.last)), end="")
    return exits.OK if report.passed else exits.FAILED


def _report(args: argparse.Namespace) -> int:
    from sidecar.agent.drills.drill import drills
    from sidecar.agent.drills.report import as_plain, markdown

    reports = drills(Desk(args).catalog, args.last)
    if args.json:
        print(json.dumps([as_plain(report) for report in reports], indent=2, ensure_ascii=False))
    elif reports:
        print(markdown(reports), end="")
    else:
        print("there was no drill yet; run one: sidecar drill run", file=sys.stderr)
    return exits.OK if reports and reports[0].passed else exits.FAILED
