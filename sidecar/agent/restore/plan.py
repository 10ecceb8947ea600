"""What a restore would do: which point, which sources, to where, how much, how long. Nothing is written but the plan.

A plan is kept in `state_dir/restores/HASH.json` and named by its hash, so that what is applied is what was looked at.
A directory to restore to must be absent or empty, no symlink, and neither hold nor lie in anything that is backed up,
the repository or the agent's own state.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import AgentFault, NotEmpty, StorageFailure, Unknown
from sidecar.agent.ports import Logged, Manifest, SourcePoint, SourcePort
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore.exchange import Exchange
from sidecar.agent.verdicts import records, verified
from sidecar.config.backup import Backup
from sidecar.machines.backup.restore import steps

GUESSED_RATE = 32 << 20
"""Bytes per second, until a restore was measured."""
BESIDE = ".sidecar-restore-"
"""In the target, while a restore is under way."""
PLANS = "restores"
HEADROOM = 16 << 20
"""Bytes that stay free at least."""


class Refusal(AgentFault):
    """A restore that would do harm, or cannot be what was asked for."""


class NothingToDo(Refusal):
    """There is something already, and only what is empty was to be filled; or there is no backup to fill it from."""


class Place(msgspec.Struct, frozen=True):
    """Where a part of a source comes to stand: `restored` is relative to the source, `live` absolute."""

    source: str
    restored: str
    live: str


class RestorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, as it is printed and kept."""

    hash: str = ""
    backup: str
    consistent_at: datetime
    until: str = ""
    """Where a source with a log ends: `latest`, or a moment in ISO 8601."""
    verified: bool
    target: str
    """Empty: in place."""
    places: tuple[Place, ...] = ()
    skipped: dict[str, str] = {}
    """Sources that stay as they are, and why."""
    sources: tuple[tuple[str, str], ...]
    """(name, sort)"""
    steps: tuple[str, ...]
    bytes: int
    files: int
    seconds: float

    @property
    def in_place(self) -> bool:
        return not self.target

    @property
    def moment(self) -> datetime | None:
        """Up to when a log is replayed; None: as far as it goes."""
        return None if self.until in {"", "latest"} else datetime.fromisoformat(self.until)


def reach(repository: Repository, sources: Mapping[str, SourcePort], point: Manifest) -> datetime | None:
    """The last moment to which all that has a log can be brought from a point; None: nothing of it has one."""
    ends: list[datetime] = []
    for source in point.sources:
        port: object = sources.get(source.name)
        if isinstance(port, Logged) and sources[source.name].sort == source.sort:
            end = port.latest(repository.log_of(source), source)
            ends += [] if end is None else [end]
    return min(ends, default=None)


def choose(
    catalog: Catalog,
    backup: str | None,
    to: datetime | None,
    reach: Callable[[Manifest], datetime | None] = lambda _point: None,
) -> tuple[Manifest, bool]:
    """The point to restore, and whether it is verified; `reach`: up to when its log goes. Raises Unknown, Refusal."""
    known = records(catalog)
    points = [point for point in catalog.points() if point.complete and point.consistent_at is not None]
    if backup is not None:
        found = [point for point in catalog.points() if point.id == backup or point.id.startswith(backup)]
        if len(found) != 1:
            raise Unknown(f"there is no single backup {backup!r}; see: sidecar backup list")
        if not found[0].complete:
            raise Refusal(f"{backup} is incomplete: a source failed in it; choose another (sidecar backup list)")
        first, last = _from(found[0]), reach(found[0]) if to is not None else None
        if to is not None and not first <= to <= max(first, last or first):
            raise Refusal(
                f"{found[0].id} cannot be brought to {_shown(to)}: it is of {_shown(first)}"
                f"{f', and its log goes to {_shown(last)}' if last else ''}; leave out --backup, or --to"
            )
        return found[0], verified(known.get(found[0].id))
    if not points:
        raise Unknown("there is no complete backup yet; see: sidecar backup list, sidecar catalog rebuild")
    if to is not None:
        latest = max(reach(points[0]) or _at(points[0]), *map(_at, points))
        if to > latest:
            raise Refusal(f"nothing was recorded after {_shown(latest)}: that is the latest --to that can be restored")
        points = [point for point in points if _from(point) <= to]
        if not points:
            raise Unknown(f"there is no backup as old as {_shown(to)}; see: sidecar backup list")
    sound = [point for point in points if point.id not in known or known[point.id].ok]
    if not sound:
        raise Refusal("every backup in question is damaged; sidecar backup verify ID tells how; --backup ID insists")
    sure = next((point for point in sound if verified(known.get(point.id))), None)
    chosen = sure or sound[0]
    goes = reach(chosen) if to is not None else None
    if to is not None and goes is not None and to > max(goes, _from(chosen)):
        raise Refusal(f"the log has a gap at {_shown(to)}: the latest --to before it is {_shown(goes)}")
    return chosen, chosen is sure


def make(
    config: Backup,
    point: Manifest,
    target: str,
    *,
    verified: bool,
    only: str | None = None,
    rate: float | None = None,
    sources: Mapping[str, SourcePort] = MappingProxyType({}),
    until: str = "",
    if_empty: bool = False,
) -> RestorePlan:
    """Plan to restore `point` into the directory `target`, "": in place, where `sources` say their parts belong.

    `rate`: bytes per second of earlier restores; `if_empty`: sources whose places hold something stay as they are.
    Raises Unknown, Refusal, NotEmpty, NothingToDo.
    """
    chosen = [source for source in point.sources if only in {None, source.name}]
    if not chosen:
        names = ", ".join(source.name for source in point.sources)
        raise Unknown(f"the backup has no source {only!r}; it has: {names}")
    places: list[Place] = []
    skipped: dict[str, str] = {}
    if target:
        target = os.path.normpath(target)
        check_target(config, target)
        for source in chosen:
            if source.sort == "postgres" and not isinstance(sources.get(source.name), Logged):
                raise Refusal(f"{source.name} needs its log: write it into backup.sources, as it was, or use --only")
    else:
        for source in list(chosen):
            try:
                found, absent = _places(source, sources.get(source.name))
                skipped |= absent
                if if_empty and any(_holds_something(place.live) for place in found):
                    raise NothingToDo(f"{source.name} is not empty")
                places += found
            except AgentFault as fault:
                if only is not None and not if_empty:
                    raise Refusal(f"{fault}; restore it with --target DIR") from None
                skipped[source.name] = str(fault)
                chosen.remove(source)
        if not chosen and if_empty:
            raise NothingToDo(f"nothing to restore: {'; '.join(skipped.values())}")
        if not chosen:
            raise Refusal(f"nothing can be restored in place: {'; '.join(skipped.values())}; use --target DIR")
    order = steps([(source.name, source.sort) for source in chosen], in_place=not target)
    size = sum(source.bytes for source in chosen)
    at = point.consistent_at
    assert at is not None, "a complete point has sources"
    plan = RestorePlan(
        backup=point.id,
        consistent_at=at,
        until=until if any(isinstance(sources.get(one.name), Logged) for one in chosen) else "",
        verified=verified,
        target=target,
        places=tuple(places),
        skipped=skipped,
        sources=tuple((source.name, source.sort) for source in chosen),
        steps=tuple(str(step) for step in order),
        bytes=size,
        files=sum(source.files for source in chosen),
        seconds=round(1.0 + size / (rate or GUESSED_RATE), 1),
    )
    return msgspec.structs.replace(plan, hash=_hash(plan))


def _hash(plan: RestorePlan) -> str:
    """Of all that it does; how long it may take is no part of that."""
    told = msgspec.structs.replace(plan, hash="", seconds=0.0)
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def _places(source: SourcePoint, port: SourcePort | None) -> tuple[list[Place], dict[str, str]]:
    """And which are not in the backup, and why. Raises Refusal, StorageFailure when it cannot be put in place here."""
    if port is None or port.sort != source.sort:
        raise Refusal(f"{source.name} is no source of this configuration")
    found = [Place(source.name, one.restored, one.live) for one in port.placements(source)]
    if not found:
        raise Refusal(f"{source.name} cannot be exchanged as files")
    held = source.details.get("paths")
    absent = {one.live: "it was not backed up then" for one in found if held is not None and one.live not in held}
    found = [one for one in found if one.live not in absent]
    if not found:
        raise Refusal(f"{source.name}: nothing of it was backed up then")
    for place in found:
        Exchange(place.live, "", 0).check()
    return found, absent


def check_target(config: Backup, target: str, ours: str = "") -> None:
    """Refuse a target that is not safe; `ours`: an entry in it that may be there."""
    if not os.path.isabs(target) or target == "/":
        raise Refusal(f"--target {target}: write an absolute path of a directory of its own")
    real = os.path.realpath(target)
    for path, whose in _precious(config):
        if _within(real, os.path.realpath(path)) or _within(os.path.realpath(path), real):
            raise Refusal(f"--target {target} overlaps {path}, {whose}; choose a directory apart from it")
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            raise Refusal(f"--target {target}: {parent} does not exist; make it first") from None
        return
    except OSError as error:
        raise Refusal(f"--target {target}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise Refusal(f"--target {target} is not a directory (a symlink is not followed); choose another")
    if {entry.name for entry in os.scandir(target)} - {ours}:
        raise NotEmpty(f"--target {target} is not empty; nothing is overwritten: empty it or choose another")


def _holds_something(live: str) -> bool:
    if os.path.isdir(live):
        return not is_empty(live)
    return os.path.lexists(live)


def is_empty(target: str) -> bool:
    """Whether there is nothing at `target` yet, for `--if-empty`."""
    try:
        return not any(entry.name != "lost+found" for entry in os.scandir(target))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _precious(config: Backup) -> Iterable[tuple[str, str]]:
    for source in config.sources:
        if source.sqlite:
            yield source.sqlite.path, f"what the source {source.name} backs up"
        for path in source.files.paths if source.files else ():
            yield path, f"what the source {source.name} backs up"
    yield config.state_dir, "backup.state_dir"
    if config.repository.url.startswith("/"):
        yield config.repository.url, "backup.repository.url"


def _within(inner: str, outer: str) -> bool:
    return (inner.rstrip("/") + "/").startswith(outer.rstrip("/") + "/")


def _from(point: Manifest) -> datetime:
    """From which moment on a point can be brought to one: a base backup is whole at its end only."""
    ends = [
        datetime.fromisoformat(one.details["restorable_from"])
        for one in point.sources
        if "restorable_from" in one.details
    ]
    return max([_at(point), *ends])


def _at(point: Manifest) -> datetime:
    assert point.consistent_at is not None, "only points with sources come here"
    return point.consistent_at


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


# Kept plans -----------------------------------------------------------------------------------------------------------


def keep(config: Backup, plan: RestorePlan) -> None:
    """Write it down, for `restore apply HASH`."""
    directory = os.path.join(config.state_dir, PLANS)
    path = os.path.join(directory, f"{plan.hash}.json")

    def write() -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(msgspec.json.encode(plan))
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)

    _told(write, path)


def kept(config: Backup, name: str) -> RestorePlan:
    """The plan of this hash, and what it was when it was made. Raises Unknown, Refusal."""
    path = os.path.join(config.state_dir, PLANS, f"{os.path.basename(name)}.json")
    try:
        with open(path, "rb") as file:
            plan = msgspec.json.decode(file.read(), type=RestorePlan)
    except (OSError, msgspec.DecodeError):
        raise Unknown(f"there is no plan {name!r} here; make one: sidecar restore plan") from None
    if _hash(plan) != plan.hash or plan.hash != name:
        raise Refusal(f"{path} is not the plan that was made: somebody changed it; make another: sidecar restore plan")
    return plan


def _told(deed: Callable[[], None], path: str) -> None:
    try:
        deed()
    except OSError as error:
        raise StorageFailure(f"cannot write {path}: {error.strerror}; backup.state_dir must be writable") from None
