"""Carrying out a restore plan, step by step, so that it can be killed at any moment and resumed.

What comes next, the machine knows (`machines/restore.py`); here a step is done. Each source is restored beside its
place, in a directory of the restore's own within the target, every file is compared with its hash, databases are
opened, and only then is the whole renamed to TARGET/SOURCE. The journal is a file of JSON lines next to the plan, each
on the disk before the next deed.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator

import msgspec

from sidecar.agent.faults import AgentFault, Damaged, StorageFailure, Unknown
from sidecar.agent.ports import Manifest, SourcePoint, SourcePort, Tell
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore_plan import BESIDE, PLANS, RestorePlan, check_target, kept
from sidecar.agent.verify import compare
from sidecar.config.backup import Backup
from sidecar.machines.restore import Act, Entry, Outcome, Restore, Step, steps

_HEADROOM = 16 << 20


class Stopped(AgentFault):
    """A restore that did not come to its end."""


class Restoring:
    """One restore, from its plan and its journal."""

    def __init__(
        self,
        config: Backup,
        repository: Repository,
        sources: dict[str, SourcePort],
        plan: RestorePlan,
        tell: Tell,
        step: Callable[[str, str], None] = lambda _step, _mark: None,
    ) -> None:
        """`step` hears of every step that begins and ends."""
        self._config = config
        self._repository = repository
        self._sources = sources
        self._plan = plan
        self._tell = tell
        self._step = step
        self._point: Manifest | None = None
        self._beside = os.path.join(plan.target, BESIDE + plan.hash)
        self._journal = os.path.join(config.state_dir, PLANS, f"{plan.hash}.journal")
        self._acts: dict[Act, Callable[[Step], None]] = {
            Act.PREFLIGHT: self._preflight,
            Act.LEASE: lambda _step: None,  # held around all of it
            Act.FETCH: self._fetch,
            Act.VALIDATE: self._validate,
            Act.SWAP: self._swap,
            Act.CLEAR: self._clear,
        }

    def run(self) -> float:
        """From where it stands to the end; the seconds it took. Raises what stopped it."""
        began = time.monotonic()
        machine = Restore(steps(self._plan.sources, in_place=False), self._entries())
        failure: AgentFault | None = None
        with self._repository.lease("restore"):
            self._point = self._repository.manifest(self._plan.backup)
            while (step := machine.next()) is not None:
                self._write(machine.begun(step))
                self._step(str(step), "begun")
                try:
                    self._acts[step.act](step)
                except AgentFault as fault:
                    failure = failure or fault
                    self._write(machine.failed(step, str(fault)))
                    self._step(str(step), "failed")
                except OSError as error:
                    failure = failure or StorageFailure(f"{step}: {error.strerror or error}")
                    self._write(machine.failed(step, str(failure)))
                    self._step(str(step), "failed")
                else:
                    self._write(machine.done(step))
                    self._step(str(step), "done")
        if machine.outcome is Outcome.DONE:
            finish(self._config, self._plan)
            return time.monotonic() - began
        if machine.outcome is Outcome.GIVEN_UP:
            with contextlib.suppress(OSError):
                os.unlink(self._journal)  # nothing was touched: the plan may be applied anew
        if failure is not None:
            raise failure
        raise Stopped(f"the restore was given up: {machine.why}")

    # The steps ----------------------------------------------------------------------------------------------------

    def _preflight(self, _step: Step) -> None:
        plan = self._plan
        check_target(self._config, plan.target, ours=os.path.basename(self._beside))
        os.makedirs(plan.target, mode=0o700, exist_ok=True)
        free = shutil.disk_usage(plan.target).free
        if free < plan.bytes + _HEADROOM:
            raise StorageFailure(f"{plan.target} has room for {free} bytes; {plan.bytes} are to be restored: make room")

    def _fetch(self, step: Step) -> None:
        into = os.path.join(self._beside, step.source)
        if os.path.lexists(self._beside) and os.path.islink(self._beside):
            raise StorageFailure(f"{self._beside} is a symlink that somebody put there; remove it")
        shutil.rmtree(into, ignore_errors=True)  # what a killed one left
        os.makedirs(self._beside, mode=0o700, exist_ok=True)
        os.mkdir(into, 0o700)
        point = self._source(step)
        self._repository.engine.restore(point, lambda: self._repository.index(point), into, None, self._tell)

    def _validate(self, step: Step) -> None:
        into = os.path.join(self._beside, step.source)
        point = self._source(step)
        for entry in self._repository.index(point):
            wrong = compare(into, entry.path, entry) if entry.sort == "file" else ""
            if wrong:
                raise Damaged(f"{step.source}: {entry.path}: {wrong}; choose an older backup (sidecar backup list)")
        port = self._sources.get(step.source)
        for wrong in port.validate(into, point) if port is not None else ():  # the first is enough
            raise Damaged(f"{step.source}: {wrong}; choose an older backup (sidecar backup list)")

    def _swap(self, step: Step) -> None:
        into, final = os.path.join(self._beside, step.source), os.path.join(self._plan.target, step.source)
        if not os.path.lexists(into) and os.path.isdir(final) and not os.path.islink(final):
            return  # it was renamed, and we were killed before we could say so
        if os.path.lexists(final):
            raise StorageFailure(f"{final} came into being meanwhile; nothing is overwritten: remove it, then resume")
        os.rename(into, final)
        _sync(self._plan.target)

    def _clear(self, _step: Step) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)

    def _source(self, step: Step) -> SourcePoint:
        assert self._point is not None, "it is read first"
        found = self._point.source(step.source)
        if found is None:
            raise Unknown(f"the backup {self._plan.backup} has no source {step.source} any more")
        return found

    # The journal --------------------------------------------------------------------------------------------------

    def _entries(self) -> Iterator[Entry]:
        try:
            with open(self._journal, "rb") as file:
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if line.endswith(b"\n"):  # a half-written last line was never acted on
                yield msgspec.json.decode(line, type=Entry)

    def _write(self, entry: Entry) -> None:
        with open(self._journal, "ab") as file:
            if file.tell() and not _ends_whole(self._journal):
                file.write(b"\n")
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def unfinished(config: Backup) -> list[RestorePlan]:
    """Plans whose journal has not come to its end."""
    directory = os.path.join(config.state_dir, PLANS)
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [kept(config, name.removesuffix(".journal")) for name in names if name.endswith(".journal")]


def finish(config: Backup, plan: RestorePlan) -> None:
    """A plan is applied once: its journal is put away."""
    directory = os.path.join(config.state_dir, PLANS)
    os.rename(os.path.join(directory, f"{plan.hash}.journal"), os.path.join(directory, f"{plan.hash}.applied"))


def _ends_whole(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
