"""Retention carried out: what the catalog knows goes to the machine, what the machine lets go is forgotten."""

from collections.abc import Sequence
from datetime import datetime

from sidecar.agent.catalog import Catalog
from sidecar.agent.ports import Manifest
from sidecar.agent.repository.repository import Repository
from sidecar.agent.verify import Verification, records, verified
from sidecar.config.backup import Backup
from sidecar.machines.retention import Kept, Plan, Rules, Standing, plan


def decide(config: Backup, catalog: Catalog, now: datetime) -> Plan:
    """What would stay and go now, and why."""
    points = list(catalog.points())
    known = records(catalog)
    owners = {source.snapshot: point.id for point in reversed(points) for source in point.sources}
    rules = config.retention
    return plan(
        [_kept(point, known.get(point.id), owners) for point in points],
        Rules(rules.keep_within, rules.daily, rules.weekly, rules.monthly),
        now,
    )


def carry_out(repository: Repository, catalog: Catalog, ids: Sequence[str]) -> None:
    """Forget these points, under the lease. Their data stays until a prune."""
    with repository.lease("forget") as lease:
        repository.forget(lease, ids)
        for name in ids:
            catalog.remove(name)


def _kept(point: Manifest, seen: Verification | None, owners: dict[str, str]) -> Kept:
    if not point.complete:
        standing = Standing.INCOMPLETE
    elif verified(seen):
        standing = Standing.VERIFIED
    else:
        standing = Standing.UNKNOWN if seen is None or seen.ok else Standing.DAMAGED
    needed = {owners[name] for source in point.sources for name in source.leans_on if name in owners} - {point.id}
    return Kept(point.id, point.consistent_at or point.began_at, standing, leans_on=frozenset(needed))
