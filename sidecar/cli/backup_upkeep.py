"""`sidecar backup verify|forget|prune`: look whether backups are sound, and let go of those that are not needed."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from sidecar.cli import exits
from sidecar.cli.agent_desk import Desk
from sidecar.cli.progress import Progress

LEVELS = ("manifest", "sample", "read")


def verify(args: argparse.Namespace) -> int:
    """Verify one point, else the newest; 0 sound, 1 not. With a key file: that a copy of the password opens it, too."""
    from sidecar.agent.faults import Unknown
    from sidecar.agent.history import note_key
    from sidecar.agent.ports import Level
    from sidecar.agent.verdicts import offered, record
    from sidecar.agent.verify import verify_point

    desk = Desk(args)
    points = [point for point in desk.catalog.points() if args.id in (None, point.id)]
    if not points:
        what = f"no backup {args.id!r}" if args.id else "no backup to verify yet"
        raise Unknown(f"there is {what}; see: sidecar backup list, sidecar catalog rebuild")
    point = points[0]
    with Progress() as progress:
        scratch = os.path.join(desk.config.state_dir, "scratch")
        found = verify_point(
            desk.repository, point, Level(args.level or "sample"), desk.sources(), scratch, progress.tell
        )
    record(desk.repository, desk.catalog, found)
    if args.key_file is not None:
        note_key(desk.catalog)
    better = None if found.ok else offered(desk.catalog, found)
    if args.json:
        troubles = [{"what": one.what, "where": one.where, "detail": one.detail} for one in found.troubles]
        told: dict[str, Any] = {"backup": point.id, "level": found.level, "ok": found.ok, "troubles": troubles}
        print(json.dumps({**told, "seconds": round(found.seconds, 3), "offered": better}, indent=2, ensure_ascii=False))
    elif found.ok:
        opened = f"; the password in {args.key_file} opens it" if args.key_file else ""
        print(f"{point.id} is sound (level {found.level}, {found.seconds:.1f} s){opened}")
    else:
        for one in found.troubles:
            print(f"{one.what}: {one.where}{': ' if one.detail else ''}{one.detail}", file=sys.stderr)
        advice = f"the next older good one is {better}" if better else "no other verified one is whole"
        print(f"{point.id} cannot be relied on; {advice}", file=sys.stderr)
    return exits.OK if found.ok else exits.FAILED


def forget(args: argparse.Namespace) -> int:
    """Forget what no rule keeps, or the named point; --dry-run only tells."""
    from sidecar.agent.faults import AgentFault
    from sidecar.agent.holds import holds
    from sidecar.agent.retain import carry_out, decide, indispensable

    desk = Desk(args)
    held = holds(desk.repository)
    plan = decide(desk.config, desk.catalog, held, datetime.now(UTC))
    going = dict(plan.delete)
    if args.id is not None:
        indispensable(desk.repository, desk.catalog, args.id)
        if args.id in held:
            raise AgentFault(f"{args.id} is held{': ' + held[args.id].why if held[args.id].why else ''}; first: "
                             f"sidecar snapshot release {args.id}")  # fmt: skip
        going = {args.id: "by order"}
    if not args.dry_run and going:
        carry_out(desk.repository, desk.catalog, list(going))
    if args.json:
        keep = {name: why for name, why in plan.keep.items() if name not in going}
        print(json.dumps({"keep": keep, "delete": going, "dry_run": args.dry_run}, indent=2, ensure_ascii=False))
    else:
        for name, why in going.items():
            print(f"{'would forget' if args.dry_run else 'forgot'} {name}: {why}")
        for name, why in plan.keep.items():
            if name not in going:
                print(f"kept {name}: {why}")
    return exits.OK


def prune(args: argparse.Namespace) -> int:
    """Remove the data that no point needs any more."""
    from sidecar.agent import cycle

    with Progress() as progress:
        freed = cycle.prune(Desk(args).repository, progress.tell)
    print(json.dumps({"bytes_freed": freed}) if args.json else f"{freed} bytes freed")
    return exits.OK
