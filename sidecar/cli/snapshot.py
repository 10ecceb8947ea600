"""`sidecar snapshot create|list|hold|release|delete`: points that are kept for a reason, whatever retention says."""

import argparse
import getpass
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from sidecar.cli import exits
from sidecar.cli.agent_desk import Desk, told
from sidecar.cli.progress import Progress

if TYPE_CHECKING:
    from sidecar.agent.holds import Hold
    from sidecar.agent.ports import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("create", "list", "hold", "release", "delete"))
    parser.add_argument("id", nargs="?", metavar="ID", help="hold, release, delete: the backup")
    parser.add_argument("--why", default="", metavar="TEXT", help="create, hold: for those who wonder later")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 4 wrong key."""
    if (args.id is None) != (args.action in {"create", "list"}):
        print(f"sidecar snapshot {args.action}: {'needs an' if args.id is None else 'takes no'} ID", file=sys.stderr)
        return exits.USAGE
    work = {"create": _create, "list": _list, "hold": _hold, "release": _release, "delete": _delete}[args.action]
    return told(work, args)


def _create(args: argparse.Namespace) -> int:
    """A backup now, verified, and held."""
    from sidecar.agent.cycle import make_point
    from sidecar.agent.holds import hold
    from sidecar.agent.ports import Kind
    from sidecar.agent.repository.repository import Repository

    desk = Desk(args)
    repository = Repository.open(desk.config, create=True)
    service = desk.document.service
    who = (service.name, service.instance or socket.gethostname())
    sources = list(desk.sources().values())
    with Progress() as progress:
        turn = make_point(
            desk.config, who, repository, desk.catalog, sources, Kind.INCREMENTAL, progress.tell, "snapshot"
        )  # fmt: skip
    if not turn.good:
        for why in [*(one.reason for one in turn.manifest.failures), *(one.where for one in turn.seen.troubles)]:
            print(why, file=sys.stderr)
        print(f"{turn.manifest.id} was made and is not good: it is not held", file=sys.stderr)
        return exits.FAILED
    one = hold(repository, turn.manifest.id, args.why, _who())
    _show(_plain(turn.manifest, one), as_json=args.json)
    return exits.OK


def _list(args: argparse.Namespace) -> int:
    from sidecar.agent.holds import holds

    desk = Desk(args)
    points = {point.id: point for point in desk.catalog.points()}
    held = holds(desk.repository) if points else {}  # before the first backup there is no repository
    found = sorted(held.values(), key=lambda one: one.point, reverse=True)
    shown = [_plain(points.get(one.point), one) for one in found]
    if args.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_line(one) for one in shown) or "nothing is held")
    return exits.OK


def _hold(args: argparse.Namespace) -> int:
    from sidecar.agent.holds import hold

    desk = Desk(args)
    one = hold(desk.repository, args.id, args.why, _who())
    points = {point.id: point for point in desk.catalog.points()}
    _show(_plain(points.get(one.point), one), as_json=args.json)
    return exits.OK


def _release(args: argparse.Namespace) -> int:
    from sidecar.agent.faults import Unknown
    from sidecar.agent.holds import holds, release

    desk = Desk(args)
    if args.id not in holds(desk.repository):
        raise Unknown(f"{args.id!r} is not held; see: sidecar snapshot list")
    release(desk.repository, args.id)
    print(json.dumps({"id": args.id, "held": False}) if args.json else f"{args.id} is kept by the rules only")
    return exits.OK


def _delete(args: argparse.Namespace) -> int:
    """Let it go, held or not; never the newest verified one, nor what is all there is."""
    from sidecar.agent.holds import release
    from sidecar.agent.retain import carry_out, indispensable

    desk = Desk(args)
    indispensable(desk.repository, desk.catalog, args.id)
    release(desk.repository, args.id)
    carry_out(desk.repository, desk.catalog, [args.id])
    print(
        json.dumps({"id": args.id, "deleted": True}) if args.json else f"deleted {args.id}; prune gives the room back"
    )
    return exits.OK


def _who() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _plain(point: "Manifest | None", one: "Hold") -> dict[str, Any]:
    at = None if point is None else point.consistent_at
    return {
        "id": one.point,
        "why": one.why,
        "by": one.by,
        "held_at": one.at.isoformat(timespec="seconds"),
        "consistent_at": None if at is None else at.isoformat(),
        "bytes": 0 if point is None else sum(source.bytes for source in point.sources),
    }


def _line(one: dict[str, Any]) -> str:
    return f"{one['id']}  {one['bytes']:>12} bytes  held by {one['by']}{': ' + one['why'] if one['why'] else ''}"


def _show(one: dict[str, Any], *, as_json: bool) -> None:
    print(json.dumps(one, indent=2, ensure_ascii=False) if as_json else _line(one))
