"""Retention carried out: what the catalog knows goes to the machine, what the machine lets go is forgotten."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sidecar.agent import findings
from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import AgentFault, Unknown
from sidecar.agent.holds import Hold, holds
from sidecar.agent.ports import Manifest
from sidecar.agent.repository.repository import Repository
from sidecar.agent.verdicts import Verification, records, verified
from sidecar.config.backup import Backup
from sidecar.machines.backup.retention import Kept, Plan, Rules, Standing, dispensable, plan


def decide(config: Backup, catalog: Catalog, held: Mapping[str, Hold], now: datetime) -> Plan:
    """What would stay and go now, and why."""
    rules = config.retention
    return plan(_all(catalog, held), Rules(rules.keep_within, rules.daily, rules.weekly, rules.monthly), now)


def carry_out(repository: Repository, catalog: Catalog, ids: Sequence[str]) -> list[str]:
    """Forget these points, under the lease; what is held stays. Which went; their data stays until a prune."""
    with repository.lease("forget", patience=30.0) as lease:
        held = holds(repository)
        going = [name for name in ids if name not in held]
        repository.forget(lease, going)
        for name in going:
            catalog.remove(name)
        findings.forget(repository, catalog, lease, going)
        return going


def indispensable(repository: Repository, catalog: Catalog, name: str) -> None:
    """Raise when this point must not go, whoever says so. One whose manifest cannot be read may."""
    points = _all(catalog, {})
    if name not in {one.id for one in points} | set(repository.ids()):
        raise Unknown(f"there is no backup {name!r}; see: sidecar backup list")
    why = dispensable(points, name)
    if why:
        raise AgentFault(f"{name} stays: it is {why}; make another backup first")


def _all(catalog: Catalog, held: Mapping[str, Hold]) -> list[Kept]:
    points = list(catalog.points())
    known = records(catalog)
    owners = {source.snapshot: point.id for point in reversed(points) for source in point.sources}
    return [_kept(point, known.get(point.id), owners, held.get(point.id)) for point in points]


def _kept(point: Manifest, seen: Verification | None, owners: dict[str, str], held: Hold | None) -> Kept:
    if not point.complete:
        standing = Standing.INCOMPLETE
    elif verified(seen):
        standing = Standing.VERIFIED
    else:
        standing = Standing.UNKNOWN if seen is None or seen.ok else Standing.DAMAGED
    needed = {owners[name] for source in point.sources for name in source.leans_on if name in owners} - {point.id}
    return Kept(
        point.id,
        point.consistent_at or point.began_at,
        standing,
        held=None if held is None else held.why,
        leans_on=frozenset(needed),
        order=point.generation,
    )
