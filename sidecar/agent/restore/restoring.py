"""Carrying out a restore plan, step by step, so that it can be killed at any moment and resumed.

What comes next, the machine knows (`machines/backup/restore.py`); what a step does, the hands know: into a directory
(`beside.py`), or in place of what is there (`in_place.py`). Each step is journalled before and after.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from sidecar.agent import history
from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import AgentFault, Damaged, StorageFailure, Unknown
from sidecar.agent.paths import chosen
from sidecar.agent.ports import Manifest, SourcePoint, SourcePort
from sidecar.agent.repository.lease import HeldLease
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore.journal import Journal, at_work
from sidecar.agent.restore.plan import RestorePlan
from sidecar.agent.verify import compare_all
from sidecar.config.backup import Backup
from sidecar.machines.backup.restore import Act, Outcome, Restore, Step, steps

FORMAT = 1
"""Of manifests: the newest that is understood here."""


class Stopped(AgentFault):
    """A restore that did not come to its end."""


class Hands(Protocol):
    """What does the steps."""

    def take(self, point: Manifest, lease: HeldLease) -> None:
        """The lease is held, and this is the point."""
        ...

    def acts(self) -> dict[Act, Callable[[Step], None]]: ...


class Restoring:
    """One restore, from its plan and its journal."""

    def __init__(
        self,
        config: Backup,
        repository: Repository,
        catalog: Catalog,
        plan: RestorePlan,
        hands: Hands,
        step: Callable[[str, str], None] = lambda _step, _mark: None,
    ) -> None:
        """`step` hears of every step that begins and ends."""
        self._config = config
        self._repository = repository
        self._catalog = catalog
        self._plan = plan
        self._hands = hands
        self._step = step
        self._journal = Journal(config, plan)

    def run(self) -> float:
        """From where it stands to the end; the seconds it took. Raises what stopped it."""
        with at_work(self._config):
            return self._run()

    def _run(self) -> float:
        began = time.monotonic()
        machine = Restore(steps(self._plan.sources, in_place=self._plan.in_place), self._journal.entries())
        acts = self._hands.acts()
        failure: AgentFault | None = None
        with self._repository.lease("restore", patience=60.0) as lease:
            try:
                point = self._repository.manifest(self._plan.backup)
            except Damaged as damage:
                raise Damaged(f"{damage}; nothing was changed. sidecar backup verify {self._plan.backup} "
                              "offers another point") from None  # fmt: skip
            if point.format > FORMAT:
                raise Stopped(f"{point.id} was made by sidecar {point.sidecar_version}, a newer one: restore with that")
            self._hands.take(point, lease)
            while (step := machine.next()) is not None:
                self._journal.write(machine.begun(step))
                self._step(str(step), "begun")
                try:
                    acts[step.act](step)
                except (AgentFault, OSError) as error:
                    fault = error if isinstance(error, AgentFault) else StorageFailure(f"{step}: {error}")
                    self._journal.write(machine.failed(step, str(fault)))
                    failure = failure or fault
                    self._step(str(step), f"failed: {fault}")
                else:
                    self._journal.write(machine.done(step))
                    self._step(str(step), "done")
        seconds = time.monotonic() - began
        if machine.outcome is Outcome.DONE:
            self._journal.put_away()
            history.note_restore(self._catalog, self._plan.bytes, seconds)
            return seconds
        if machine.outcome is Outcome.GIVEN_UP:
            with contextlib.suppress(OSError):
                self._journal.forget()
            raise failure or Stopped(f"the restore was given up, nothing was changed: {machine.why}")
        raise Stopped(f"{failure}; the restore stopped half way: mend it, then run sidecar restore resume")


def source_of(point: Manifest | None, name: str) -> SourcePoint:
    """What the point holds of a source."""
    found = None if point is None else point.source(name)
    if found is None:
        raise Unknown(f"the backup has no source {name} any more")
    return found


def look_through(
    repository: Repository, point: SourcePoint, into: str, port: SourcePort | None, below: str | None = None
) -> None:
    """Compare every restored file with its hash and open the database; `below`: only this path of the source."""
    only = None if below is None else [below]
    files = (entry for entry in repository.index(point) if entry.sort == "file" and chosen(entry.path, only))
    for entry, wrong in compare_all(into, files):
        if wrong:
            raise Damaged(f"{point.name}: {entry.path}: {wrong}; choose an older backup (sidecar backup list)")
    for wrong in port.validate(into, point) if port is not None else ():  # the first is enough
        raise Damaged(f"{point.name}: {wrong}; choose an older backup (sidecar backup list)")
