"""What verification says of each point: the last word that counts, and what follows from it."""

from datetime import datetime

import msgspec

from sidecar.agent import findings
from sidecar.agent.catalog import Catalog
from sidecar.agent.findings import Sort
from sidecar.agent.ports import Level, Manifest, Trouble
from sidecar.agent.repository.repository import Repository
from sidecar.agent.wal import WAL, reads
from sidecar.machines.backup.verification import Candidate, offer


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one."""

    point: str
    level: Level
    at: datetime
    seconds: float
    troubles: tuple[Trouble, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.troubles


def record(repository: Repository, catalog: Catalog, one: Verification) -> None:
    """Keep what came of it, here and in the repository."""
    findings.add(repository, catalog, Sort.VERIFICATION, one.point, msgspec.json.encode(one))


def records(catalog: Catalog) -> dict[str, Verification]:
    """The last verification of each point, of whatever level; without those of which nobody can tell any more."""
    last: dict[str, Verification | None] = {}
    for point, body in reversed(findings.found(catalog, Sort.VERIFICATION)):
        one = None if body is None else msgspec.json.decode(body, type=Verification)
        before = last.get(point)
        if one is not None and before is not None and one.ok and one.level is Level.MANIFEST:
            continue  # a quick look does not take back what a thorough one found, good or bad
        last[point] = one
    return {point: one for point, one in last.items() if one is not None}


def verified(one: Verification | None) -> bool:
    """Whether a point with this last verification counts as verified."""
    return one is not None and one.ok and one.level is not Level.MANIFEST


def sampled(catalog: Catalog) -> frozenset[str]:
    """Snapshots of verified points in which nothing bad was found: who shares one need not have it sampled again."""
    known = records(catalog)
    good = {one.snapshot for point in catalog.points() if verified(known.get(point.id)) for one in point.sources}
    return frozenset(good) - damaged_snapshots(catalog)


def damaged_snapshots(catalog: Catalog) -> frozenset[str]:
    """Whom the troubles that the last verifications found concern."""
    known = records(catalog).values()
    return frozenset(name for one in known for trouble in one.troubles for name in trouble.snapshots)


def newest_troubles(catalog: Catalog) -> tuple[Trouble, ...]:
    """What the last verification of the newest point found."""
    newest = next(iter(catalog.points()), None)
    known = records(catalog).get(newest.id) if newest is not None else None
    return known.troubles if known is not None else ()


def concerns(trouble: Trouble, point: Manifest) -> bool:
    """Whether the trouble is in something that this point needs; one that names nobody may be anybody's."""
    return not trouble.snapshots or _needs(point, trouble)


def _needs(point: Manifest, trouble: Trouble) -> bool:
    """Points that share a base backup go on from it differently far."""
    in_log = trouble.where.startswith(f"{WAL}/")
    return any(
        not in_log or reads(source.details, trouble.where)
        for source in point.sources
        if not {source.snapshot, *source.leans_on}.isdisjoint(trouble.snapshots)
    )


def offered(catalog: Catalog, bad: Verification) -> str | None:
    """The newest verified point that what is wrong with `bad` leaves whole."""
    known = records(catalog)
    candidates = [
        Candidate(manifest.id, verified(known.get(manifest.id)), not any(_needs(manifest, one) for one in bad.troubles))
        for manifest in catalog.points()
        if manifest.complete
    ]
    return offer(candidates, {bad.point})
