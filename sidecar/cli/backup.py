"""`sidecar backup run|list|show|verify|forget|prune`, `sidecar catalog rebuild`: make backups, and look after them."""

import argparse
import json
import socket
import sys
from typing import TYPE_CHECKING

from sidecar.cli import backup_upkeep, exits
from sidecar.cli.agent_desk import Desk, told
from sidecar.cli.progress import Progress

if TYPE_CHECKING:
    from sidecar.agent.ports import Manifest
    from sidecar.agent.verdicts import Verification

_KINDS = ("full", "incremental", "differential")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    if parser.get_default("verb") == "catalog":
        parser.add_argument("action", choices=("rebuild",))
    else:
        parser.add_argument("action", choices=("run", "list", "show", "verify", "forget", "prune"))
        parser.add_argument("id", nargs="?", metavar="ID", help="show, verify, forget: the backup")
        parser.add_argument("--source", metavar="NAME", help="run: this source only; the point is then incomplete")
        parser.add_argument("--kind", choices=_KINDS, default="incremental", help="run: how much is stored anew")
        parser.add_argument("--level", choices=backup_upkeep.LEVELS, help="verify: how thoroughly (default: sample)")
        parser.add_argument("--key-file", metavar="FILE", help="verify: with this copy of the password")
        parser.add_argument("--dry-run", action="store_true", help="forget: only tell what would go")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 4 wrong key."""
    if args.verb == "catalog":
        return told(_rebuild, args)
    if (args.id is not None and args.action in {"run", "list", "prune"}) or (args.id is None and args.action == "show"):
        print(f"sidecar backup {args.action}: {'takes no' if args.id else 'needs an'} ID", file=sys.stderr)
        return exits.USAGE
    upkeep = {"verify": backup_upkeep.verify, "forget": backup_upkeep.forget, "prune": backup_upkeep.prune}
    return told({"run": _run, "list": _list, "show": _show, **upkeep}[args.action], args)


def _run(args: argparse.Namespace) -> int:
    from sidecar.agent.cycle import make_point
    from sidecar.agent.faults import Unknown
    from sidecar.agent.ports import Kind
    from sidecar.agent.repository.repository import Repository
    from sidecar.agent.show import as_plain

    desk = Desk(args)
    sources = desk.sources()
    if args.source is not None and args.source not in sources:
        raise Unknown(f"there is no source {args.source!r}; there are: {', '.join(sources)}")
    chosen = [source for name, source in sources.items() if args.source in {None, name}]
    repository = Repository.open(desk.config, create=True)
    service = desk.document.service
    who = (service.name, service.instance or socket.gethostname())
    with Progress() as progress:
        turn = make_point(
            desk.config, who, repository, desk.catalog, chosen, Kind(args.kind), progress.tell, "operator"
        )
    point, seen = turn.manifest, turn.seen
    if args.json:
        print(json.dumps(as_plain(point, seen), indent=2, ensure_ascii=False))
    else:
        print(_line(point, seen))
    for failure in point.failures:
        print(f"{failure.name} is not in it: {failure.reason}", file=sys.stderr)
    for trouble in seen.troubles:
        print(f"{trouble.what}: {trouble.where}: {trouble.detail}", file=sys.stderr)
    return exits.OK if seen.ok and not point.failures else exits.FAILED


def _list(args: argparse.Namespace) -> int:
    from sidecar.agent.show import as_plain
    from sidecar.agent.verdicts import records

    desk = Desk(args)
    known = records(desk.catalog)
    points = desk.catalog.points()
    if args.json:
        print(json.dumps([as_plain(point, known.get(point.id)) for point in points], indent=2, ensure_ascii=False))
    else:
        print("\n".join(_line(point, known.get(point.id)) for point in points) or "there is no backup yet")
    return exits.OK


def _show(args: argparse.Namespace) -> int:
    from sidecar.agent.faults import Unknown
    from sidecar.agent.show import as_plain
    from sidecar.agent.verdicts import records

    desk = Desk(args)
    found = next((point for point in desk.catalog.points() if point.id == args.id), None)
    if found is None:
        raise Unknown(f"there is no backup {args.id!r}; see: sidecar backup list")
    shown = as_plain(found, records(desk.catalog).get(found.id))
    if args.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"{key.replace('_', ' '):<16} {json.dumps(value)}" for key, value in shown.items()))
    return exits.OK


def _rebuild(args: argparse.Namespace) -> int:
    desk = Desk(args)
    count, damages = desk.catalog.rebuild(desk.repository)
    print(json.dumps({"points": count, "damaged": damages}) if args.json else f"the catalog knows {count} points again")
    for damage in damages:
        print(damage, file=sys.stderr)
    return exits.FAILED if damages else exits.OK


def _line(point: "Manifest", seen: "Verification | None") -> str:
    size = sum(source.bytes for source in point.sources)
    standing = "not verified" if seen is None else f"verified ({seen.level})" if seen.ok else "DAMAGED"
    standing = standing if point.complete else f"INCOMPLETE, {standing}"
    kinds = ", ".join(f"{source.name} {source.kind}" for source in point.sources)
    return f"{point.id}  {size:>12} bytes  {standing}  {kinds}"
