"""Drills: a point is restored into an empty place and asked questions, to know that it works and how long it takes.

What comes after what, the machine knows (`machines/backup/drill.py`); here it is done. Every file of the copy is
compared with its hash, databases are opened, with a server of their own if they need one, the service may be started on
the copy, and the configured checks must hold. Whatever happens, the copy and what was started on it are cleared away.

A drill needs no lease, for it changes nothing of what is stored and may take long; backups go on meanwhile. It never
touches what is backed up: it works in a directory of its own making, which is refused where it would overlap a source.
"""

import contextlib
import fcntl
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sidecar.agent import findings
from sidecar.agent.catalog import Catalog
from sidecar.agent.cycle import Stopped
from sidecar.agent.drills.checks import Checked, Copy, carry_out, started
from sidecar.agent.faults import AgentFault, Busy, Damaged, OutOfReach, StorageFailure, Unknown
from sidecar.agent.findings import Sort
from sidecar.agent.ports import Database, Logged, Manifest, Progress, SourcePoint, SourcePort, Tell
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore.plan import check_target
from sidecar.agent.scratch import own_directory, sweep
from sidecar.agent.verdicts import records
from sidecar.agent.verify import compare
from sidecar.base.clock import since_boot
from sidecar.config.backup import Backup
from sidecar.config.backup import Drill as Rules
from sidecar.machines.backup.drill import Drill, DrillState, Forecast, extrapolate, pick

LARGE = 100 << 30
"""Bytes, to which a drill's time is stretched to be held against the RTO."""
_HEADROOM = 64 << 20
_PREFIX = "sidecar-drill-"


class DrillReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill showed."""

    at: datetime
    """When it began."""
    point: str
    asked: str
    """By whom: schedule or operator."""
    passed: bool
    why: str
    """Why it did not pass; empty: it did."""
    rto_seconds: float | None
    """From its begin until the last check had held; None: it did not come so far."""
    rpo_seconds: float | None
    """From the state that came back to its begin: what a disaster then would have lost; None: of an older point."""
    rto_target_seconds: float
    rpo_target_seconds: float
    bytes: int
    files: int
    steps: dict[str, float]
    """Seconds by step."""
    checks: tuple[Checked, ...]
    forecast: Forecast | None
    """What 100 GiB would take."""


def run_drill(
    config: Backup,
    repository: Repository,
    catalog: Catalog,
    sources: dict[str, SourcePort],
    tell: Tell,
    *,
    asked: str = "operator",
    backup: str | None = None,
    scratch: str | None = None,
) -> DrillReport:
    """One drill, recorded. `backup`: this point; `scratch`: an absent or empty directory, instead of one of its own.

    Raises Unknown when there is no point, Busy when a drill runs already, a refusal of the directory; what fails in the
    course of it stands in the report.
    """
    with _alone(config), _place(config, scratch) as directory:
        one = _Drilling(config, repository, sources, tell, *_choose(config, catalog, backup), directory)
        try:
            one.run()
        finally:
            one.clear()
        report = one.report(asked)
    findings.add(repository, catalog, Sort.DRILL, findings.ALL, msgspec.json.encode(report))
    return report


class _Drilling:
    """The steps of one drill."""

    def __init__(
        self,
        config: Backup,
        repository: Repository,
        sources: dict[str, SourcePort],
        tell: Tell,
        point: Manifest,
        newest: bool,
        directory: str,
    ) -> None:
        self._config = config
        self._rules = config.drill or Rules()
        self._repository = repository
        self._sources = sources
        self._tell = tell
        self._point = point
        self._newest = newest
        self._directory = directory
        self._machine = Drill()
        self._checks: list[Checked] = []
        self._at = datetime.now(UTC)
        self._reached: dict[str, datetime] = {}
        """The moment to which a source's log went."""

    def run(self) -> None:
        """Up to the last check. Raises Stopped, and Busy while somebody removes what is to be read."""
        machine = self._machine
        machine.done(since_boot())
        try:
            self._make_sure_of_room()
            machine.done(since_boot())
            for source in self._point.sources:
                self._restore(source)
            machine.done(since_boot())
            with contextlib.ExitStack() as stack:
                databases = {
                    one.name: stack.enter_context(found) for one in self._point.sources if (found := self._open(one))
                }
                beat = lambda: self._tell(Progress(phase="start"))  # noqa: E731
                port = stack.enter_context(started(self._rules.start, self._directory, beat))
                machine.done(since_boot())
                self._check(Copy(directory=self._directory, databases=databases, port=port))
        except (Stopped, Busy) as why:
            machine.failed(since_boot(), str(why), stopped=True)
            raise
        except AgentFault as fault:
            self._failed(str(fault))
        except OSError as error:
            self._failed(f"{self._directory}: {error.strerror or error}")

    def clear(self) -> None:
        """Nothing of it stays."""
        if self._machine.state is not DrillState.CLEARING:
            self._machine.failed(since_boot(), "it broke off")  # an error of ours is under way
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        left = os.listdir(self._directory)
        self._machine.cleared(since_boot(), f"{self._directory} cannot be cleared away: {left[0]}" if left else "")

    def report(self, asked: str) -> DrillReport:
        """What came of it."""
        machine, point = self._machine, self._point
        size = sum(source.bytes for source in point.sources)
        at = min(self._reached.get(source.name, source.consistent_at) for source in point.sources)
        forecast = None
        if machine.rto is not None:
            moving = machine.seconds.get("restoring", 0.0)
            forecast = extrapolate(machine.rto, moving, size, LARGE, self._config.rto)
        return DrillReport(
            at=self._at,
            point=point.id,
            asked=asked,
            passed=machine.state is DrillState.PASSED,
            why=machine.why,
            rto_seconds=machine.rto,
            rpo_seconds=max(0.0, (self._at - at).total_seconds()) if self._newest else None,
            rto_target_seconds=self._config.rto,
            rpo_target_seconds=self._config.rpo,
            bytes=size,
            files=sum(source.files for source in point.sources),
            steps=dict(machine.seconds),
            checks=tuple(self._checks),
            forecast=forecast,
        )

    # The steps ----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._tell(Progress(phase="start"))

    def _failed(self, why: str) -> None:
        if self._machine.state is not DrillState.CLEARING:
            self._machine.failed(since_boot(), why)

    def _make_sure_of_room(self) -> None:
        size = sum(source.bytes for source in self._point.sources)
        free = shutil.disk_usage(self._directory).free
        if free < size + _HEADROOM:
            raise StorageFailure(
                f"{self._directory} has room for {free} bytes, and {size} are restored: name another in drill.scratch"
            )

    def _restore(self, source: SourcePoint) -> None:
        into = os.path.join(self._directory, source.name)
        os.mkdir(into, 0o700)
        self._repository.engine.restore(source, lambda: self._repository.index(source), into, None, self._tell)
        for entry in self._repository.index(source):
            wrong = compare(into, entry.path, entry) if entry.sort == "file" else ""
            if wrong:
                raise Damaged(f"{source.name}: {entry.path}: {wrong}")
        port = self._sources.get(source.name)
        for wrong in port.validate(into, source) if port is not None else ():  # the first is enough
            raise Damaged(f"{source.name}: {wrong}")
        logged: object = port
        if isinstance(logged, Logged):
            log = self._repository.log_of(source)
            self._reached[source.name] = logged.latest(log, source) or source.consistent_at
            try:
                logged.complete(into, into, source, log, None)
            except OutOfReach:  # only newer points reach further
                self._reached[source.name] = source.consistent_at
                logged.complete(into, into, source, log, source.consistent_at)

    def _open(self, source: SourcePoint) -> "contextlib.AbstractContextManager[Any] | None":
        port: object = self._sources.get(source.name)
        if not isinstance(port, Database):
            return None
        scratch = os.path.join(self._directory, f".{source.name}")
        os.mkdir(scratch, 0o700)
        return port.opened(os.path.join(self._directory, source.name), source, scratch)

    def _check(self, copy: Copy) -> None:
        for check in self._rules.checks:
            self._tell(Progress(phase="check", source=check.source or ""))
            self._checks.append(carry_out(check, copy))
        wrong = [f"{one.name}: {one.wrong}" for one in self._checks if one.wrong]
        if wrong:
            self._failed("; ".join(wrong))
        else:
            self._machine.done(since_boot())


def _choose(config: Backup, catalog: Catalog, backup: str | None) -> tuple[Manifest, bool]:
    """Mostly the newest good point, now and then any; or the named one. And whether it is the newest good one."""
    known = records(catalog)
    points = [one for one in catalog.points() if one.complete and (one.id not in known or known[one.id].ok)]
    newest = points[0].id if points else None
    if backup is not None:
        points = [one for one in catalog.points() if one.id == backup]
        if not points:
            raise Unknown(f"there is no backup {backup!r}; see: sidecar backup list")
    share = (config.drill or Rules()).random if backup is None else 0.0
    chosen = pick([one.id for one in points], share, random.random)
    if chosen is None:
        raise Unknown("there is no good backup yet to be restored in a drill; see: sidecar backup list")
    return next(one for one in points if one.id == chosen), chosen == newest


@contextlib.contextmanager
def _alone(config: Backup) -> Iterator[None]:
    """One drill at a time on this machine."""
    try:
        os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(config.state_dir, "drill.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailure(f"backup.state_dir: {config.state_dir}: {error.strerror}; it must be writable") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Busy("a drill runs already; look again when it is done: sidecar drill report") from None
    finally:
        os.close(fd)


@contextlib.contextmanager
def _place(config: Backup, scratch: str | None) -> Iterator[str]:
    """An empty directory, gone afterwards; what a killed drill left is removed first."""
    if scratch is not None:
        scratch = os.path.normpath(scratch)
        check_target(config, scratch)
        existed = os.path.isdir(scratch)
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        try:
            yield scratch
        finally:
            if not existed:
                with contextlib.suppress(OSError):
                    os.rmdir(scratch)
        return
    top, stack = _top(config), contextlib.ExitStack()
    try:
        if config.drill is None or config.drill.scratch is None:
            os.makedirs(top, mode=0o700, exist_ok=True)
        made = stack.enter_context(own_directory(top, _PREFIX))
    except OSError as error:
        raise StorageFailure(f"a drill has no room in {top}: {error.strerror}; look at drill.scratch") from None
    with stack:
        yield made


def clear_away(config: Backup) -> None:
    """Remove what a killed drill left."""
    with contextlib.suppress(OSError):
        sweep(_top(config), _PREFIX)


def _top(config: Backup) -> str:
    return (config.drill.scratch if config.drill else None) or os.path.join(config.state_dir, "scratch")


# The record -----------------------------------------------------------------------------------------------------------


def drills(catalog: Catalog, count: int = 100) -> list[DrillReport]:
    """The last ones, newest first."""
    found = findings.found(catalog, Sort.DRILL, count)
    return [msgspec.json.decode(body, type=DrillReport) for _, body in found if body is not None]


def usual(earlier: Sequence[DrillReport], name: str) -> float | None:
    """What a check's median usually is: the middle one of earlier drills that passed."""
    known = sorted(
        one.median_seconds
        for report in earlier
        if report.passed
        for one in report.checks
        if one.name == name and one.median_seconds is not None
    )
    return known[len(known) // 2] if known else None
