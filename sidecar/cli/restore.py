"""`sidecar restore plan|apply|resume`: bring a backup back, first on paper, then in steps that survive a crash."""

import argparse
import json
import socket
import sys
from typing import TYPE_CHECKING

from sidecar.cli import exits
from sidecar.cli.agent_desk import Desk, told
from sidecar.cli.progress import Progress

if TYPE_CHECKING:
    from datetime import datetime

    from sidecar.agent.restore.plan import RestorePlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("plan", "apply", "resume"))
    parser.add_argument("hash", nargs="?", metavar="HASH", help="apply: the plan's hash")
    parser.add_argument("--backup", metavar="ID", help="this point (default: the newest verified one)")
    parser.add_argument("--to", metavar="TIME", help="the state at this moment, ISO 8601, UTC unless it says otherwise")
    parser.add_argument("--only", metavar="SOURCE", help="this source only")
    parser.add_argument(
        "--target", metavar="DIR", help="restore to DIR/SOURCE/…; DIR is absent or empty (default: in place)"
    )
    parser.add_argument(
        "--if-empty", action="store_true", help="leave what is there, fill what is empty; apply needs no HASH then"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 4 wrong key."""
    if args.action == "apply" and args.hash is None and not args.if_empty:
        print("sidecar restore apply: needs the HASH of a plan, or --if-empty", file=sys.stderr)
        return exits.USAGE
    if args.hash is not None and args.action != "apply":
        print(f"sidecar restore {args.action}: takes no HASH", file=sys.stderr)
        return exits.USAGE
    if args.to is not None and _moment(args.to) is None:
        print(f"--to {args.to}: write a time like 2026-03-31T12:00:00Z", file=sys.stderr)
        return exits.USAGE
    return told({"plan": _plan, "apply": _apply, "resume": _resume}[args.action], args)


def _moment(text: str) -> "datetime | None":
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _make(args: argparse.Namespace, desk: Desk) -> "RestorePlan":
    """The plan, kept. Raises NothingToDo with --if-empty."""
    from sidecar.agent import history
    from sidecar.agent.faults import NoRepository
    from sidecar.agent.restore import plan as restore_plan

    if args.if_empty:
        if args.target is not None and not restore_plan.is_empty(args.target):
            raise restore_plan.NothingToDo(f"{args.target} is not empty: nothing to restore")
        try:
            points = desk.catalog.points() or desk.repository.ids()
        except NoRepository:
            points = []
        if not points:
            raise restore_plan.NothingToDo(
                f"there is no backup in {desk.config.repository.url} yet: nothing to restore"
            )
    moment, sources = None if args.to is None else _moment(args.to), desk.sources()
    point, verified = restore_plan.choose(
        desk.catalog, args.backup, moment, lambda one: restore_plan.reach(desk.repository, sources, one)
    )
    if args.backup is None and point.service != desk.document.service.name:
        raise restore_plan.Refusal(f"{point.id} is a backup of {point.service}: --backup {point.id} insists")
    plan = restore_plan.make(
        desk.config,
        point,
        args.target or "",
        verified=verified,
        only=args.only,
        rate=history.restore_rate(desk.catalog),
        sources=sources,
        until=_until(point.consistent_at if args.backup and moment is None else moment),
        if_empty=args.if_empty,
    )
    restore_plan.keep(desk.config, plan)
    return plan


def _plan(args: argparse.Namespace) -> int:
    from sidecar.agent.restore.plan import NothingToDo

    try:
        plan = _make(args, Desk(args))
    except NothingToDo as nothing:
        return _nothing(str(nothing), as_json=args.json)
    if args.json:
        shown = {"hash": plan.hash, "backup": plan.backup, "steps": plan.steps, "bytes": plan.bytes}
        more = {
            "consistent_at": plan.consistent_at.isoformat(),
            "verified": plan.verified,
            "target": plan.target or None,
            "until": plan.until or None,
        }
        more |= {"places": [place.live for place in plan.places], "skipped": plan.skipped}
        print(json.dumps({**shown, "seconds": plan.seconds, **more}, indent=2))
        return exits.OK
    print(f"restore {plan.backup}, the state of {plan.consistent_at:%Y-%m-%d %H:%M:%S} UTC, {_where(plan.target)}")
    if not plan.verified:
        print("this backup was never verified; look first: sidecar backup verify " + plan.backup)
    if plan.until:
        print(f"the log is replayed up to {f'{plan.moment:%Y-%m-%d %H:%M:%S.%f} UTC' if plan.moment else 'its end'}")
    for name, why in plan.skipped.items():
        print(f"{name} stays as it is: {why}")
    for place in plan.places:
        print(f"  {place.live} is exchanged")
    print(f"{plan.files} file{'' if plan.files == 1 else 's'}, {plan.bytes} bytes, about {plan.seconds:.0f} s")
    for number, step in enumerate(plan.steps, 1):
        print(f"  {number:>2}. {step}")
    print(f"to do it: sidecar restore apply {plan.hash}")
    return exits.OK


def _until(moment: "datetime | None") -> str:
    return "latest" if moment is None else moment.isoformat()


def _nothing(why: str, *, as_json: bool) -> int:
    nothing: dict[str, object] = {"hash": None, "backup": None, "steps": [], "bytes": 0, "seconds": 0}
    print(json.dumps(nothing) if as_json else why)
    return exits.OK


def _where(target: str) -> str:
    return f"to {target}" if target else "in place"


def _apply(args: argparse.Namespace) -> int:
    from sidecar.agent.restore.plan import NothingToDo

    desk = Desk(args)
    if args.hash is not None:
        return _carry_out(desk, args.hash, as_json=args.json)
    try:
        plan = _make(args, desk)
    except NothingToDo as nothing:
        return _nothing(str(nothing), as_json=args.json)
    return _carry_out(desk, plan.hash, as_json=args.json)


def _resume(args: argparse.Namespace) -> int:
    from sidecar.agent.restore.journal import unfinished

    desk = Desk(args)
    open_ones = unfinished(desk.config)
    if not open_ones:
        return _nothing("there is no unfinished restore", as_json=args.json)
    return max(_carry_out(desk, name, as_json=args.json) for name in open_ones)


def _carry_out(desk: Desk, name: str, *, as_json: bool) -> int:
    from sidecar.agent.faults import AgentFault
    from sidecar.agent.report import tell_once
    from sidecar.agent.restore.beside import Beside
    from sidecar.agent.restore.fence import Fence
    from sidecar.agent.restore.in_place import InPlace
    from sidecar.agent.restore.plan import kept
    from sidecar.agent.restore.restoring import Hands, Restoring
    from sidecar.runtime.observer import Level

    plan = kept(desk.config, name)
    service = desk.document.service
    who = (service.name, service.instance or socket.gethostname())
    with Progress() as progress:
        hands: Hands
        if plan.in_place:
            fence = Fence(desk.config.restore, desk.document.admin.socket, f"sidecar restore {plan.hash}")
            hands = InPlace(
                desk.config, who, desk.repository, desk.catalog, desk.sources(), plan, fence, progress.tell
            )  # fmt: skip
        else:
            hands = Beside(desk.config, desk.repository, desk.sources(), plan, progress.tell)
        told_to = desk.document.admin.socket
        said = f"{plan.backup}, {_where(plan.target)}, plan {plan.hash}"
        tell_once(told_to, "restore_begun", "restore", said)
        try:
            seconds = Restoring(desk.config, desk.repository, desk.catalog, plan, hands, progress.step).run()
        except AgentFault as fault:
            tell_once(told_to, "restore_failed", "restore", f"{said}: {fault}", Level.ERROR)
            raise
        tell_once(told_to, "restore_finished", "restore", f"{said}: {plan.bytes} bytes in {seconds:.1f} s")
    if as_json:
        print(json.dumps({"ok": True, "hash": plan.hash, "backup": plan.backup, "target": plan.target or None,
                          "bytes": plan.bytes, "seconds": round(seconds, 3)}))  # fmt: skip
    else:
        print(f"restored {plan.backup} {_where(plan.target)}: {plan.bytes} bytes in {seconds:.1f} s")
    return exits.OK
