"""`sidecar restore plan|apply|resume`: bring a backup back, first on paper, then in steps that survive a crash."""

import argparse
import json
import sys

from sidecar.cli import exits
from sidecar.cli.agent_desk import Desk, told
from sidecar.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("plan", "apply", "resume"))
    parser.add_argument("hash", nargs="?", metavar="HASH", help="apply: the plan's hash")
    parser.add_argument("--backup", metavar="ID", help="this point (default: the newest verified one)")
    parser.add_argument("--to", metavar="TIME", help="the state at this moment, ISO 8601, UTC unless it says otherwise")
    parser.add_argument("--only", metavar="SOURCE", help="this source only")
    parser.add_argument("--target", metavar="DIR", help="restore to DIR/SOURCE/…; DIR is absent or empty")
    parser.add_argument("--if-empty", action="store_true", help="nothing to do, and no error, when DIR holds something")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 4 wrong key."""
    if (args.hash is None) != (args.action != "apply"):
        print(f"sidecar restore {args.action}: {'needs a' if args.hash is None else 'takes no'} HASH", file=sys.stderr)
        return exits.USAGE
    if args.action == "plan" and args.target is None:
        print("sidecar restore plan: give --target DIR; restoring in place is not there yet", file=sys.stderr)
        return exits.USAGE
    return told({"plan": _plan, "apply": _apply, "resume": _resume}[args.action], args)


def _plan(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from sidecar.agent import restore_plan

    moment = None
    if args.to is not None:
        try:
            moment = datetime.fromisoformat(args.to)
        except ValueError:
            print(f"--to {args.to}: write a time like 2026-03-31T12:00:00Z", file=sys.stderr)
            return exits.USAGE
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if args.if_empty and not restore_plan.is_empty(args.target):
        nothing: dict[str, object] = {"hash": None, "backup": None, "steps": [], "bytes": 0, "seconds": 0}
        print(json.dumps(nothing) if args.json else f"{args.target} is not empty: nothing to restore")
        return exits.OK
    desk = Desk(args)
    point, verified = restore_plan.choose(desk.catalog, args.backup, moment)
    plan = restore_plan.make(desk.config, point, args.target, verified=verified, only=args.only)
    restore_plan.keep(desk.config, plan)
    if args.json:
        shown = {"hash": plan.hash, "backup": plan.backup, "steps": plan.steps, "bytes": plan.bytes}
        more = {"consistent_at": plan.consistent_at.isoformat(), "verified": plan.verified, "target": plan.target}
        print(json.dumps({**shown, "seconds": plan.seconds, **more}, indent=2))
        return exits.OK
    print(f"restore {plan.backup}, the state of {plan.consistent_at:%Y-%m-%d %H:%M:%S} UTC, to {plan.target}")
    if not plan.verified:
        print("this backup was never verified; look first: sidecar backup verify " + plan.backup)
    print(f"{plan.files} files, {plan.bytes} bytes, about {plan.seconds:.0f} s")
    for number, step in enumerate(plan.steps, 1):
        print(f"  {number:>2}. {step}")
    print(f"to do it: sidecar restore apply {plan.hash}")
    return exits.OK


def _apply(args: argparse.Namespace) -> int:
    from sidecar.agent import restore_plan

    desk = Desk(args)
    return _carry_out(desk, restore_plan.kept(desk.config, args.hash).hash, as_json=args.json)


def _resume(args: argparse.Namespace) -> int:
    from sidecar.agent.restore import unfinished

    desk = Desk(args)
    open_ones = unfinished(desk.config)
    if not open_ones:
        print("there is no unfinished restore")
        return exits.OK
    return max(_carry_out(desk, plan.hash, as_json=args.json) for plan in open_ones)


def _carry_out(desk: Desk, name: str, *, as_json: bool) -> int:
    from sidecar.agent.restore import Restoring
    from sidecar.agent.restore_plan import kept

    plan = kept(desk.config, name)
    with Progress() as progress:
        doing = Restoring(desk.config, desk.repository, desk.sources(), plan, progress.tell, progress.step)
        seconds = doing.run()
    if as_json:
        print(json.dumps({"ok": True, "hash": plan.hash, "backup": plan.backup, "target": plan.target,
                          "bytes": plan.bytes, "seconds": round(seconds, 3)}))  # fmt: skip
    else:
        print(f"restored {plan.backup} to {plan.target}: {plan.bytes} bytes in {seconds:.1f} s")
    return exits.OK
