"""A restore into a directory: each source beside its place, in a directory of the restore's own within the target.

Every file is compared with its hash, databases are opened, and only then is the whole renamed to TARGET/SOURCE.
"""

import os
import shutil
from collections.abc import Callable

from sidecar.agent.faults import StorageFailure
from sidecar.agent.ports import Logged, Manifest, SourcePort, Tell
from sidecar.agent.repository.lease import HeldLease
from sidecar.agent.repository.repository import Repository
from sidecar.agent.restore.exchange import settle, settling, sync
from sidecar.agent.restore.plan import BESIDE, HEADROOM, RestorePlan, check_target
from sidecar.agent.restore.restoring import look_through, source_of
from sidecar.config.backup import Backup
from sidecar.machines.backup.restore import Act, Step


class Beside:
    """The hands of one restore into a directory."""

    def __init__(
        self, config: Backup, repository: Repository, sources: dict[str, SourcePort], plan: RestorePlan, tell: Tell
    ) -> None:
        self._config = config
        self._repository = repository
        self._sources = sources
        self._plan = plan
        self._tell = tell
        self._point: Manifest | None = None
        self._beside = os.path.join(plan.target, BESIDE + plan.hash)

    def take(self, point: Manifest, lease: HeldLease) -> None:  # noqa: ARG002 - it is held around all of it
        self._point = point

    def acts(self) -> dict[Act, Callable[[Step], None]]:
        return {
            Act.PREFLIGHT: self._preflight,
            Act.LEASE: lambda _step: None,
            Act.FETCH: self._fetch,
            Act.VALIDATE: self._validate,
            Act.SWAP: self._swap,
            Act.CLEAR: lambda _step: shutil.rmtree(self._beside, ignore_errors=True),
        }

    def _preflight(self, _step: Step) -> None:
        plan = self._plan
        check_target(self._config, plan.target, ours=os.path.basename(self._beside))
        os.makedirs(plan.target, mode=0o700, exist_ok=True)
        free = shutil.disk_usage(plan.target).free
        if free < plan.bytes + HEADROOM:
            raise StorageFailure(f"{plan.target} has room for {free} bytes; {plan.bytes} are to be restored: make room")

    def _fetch(self, step: Step) -> None:
        into = os.path.join(self._beside, step.source)
        if os.path.islink(self._beside):
            raise StorageFailure(f"{self._beside} is a symlink that somebody put there; remove it")
        shutil.rmtree(into, ignore_errors=True)  # what a killed one left
        os.makedirs(self._beside, mode=0o700, exist_ok=True)
        os.mkdir(into, 0o700)
        point = source_of(self._point, step.source)
        with settling(self._plan.target):
            self._repository.engine.restore(point, lambda: self._repository.index(point), into, None, self._tell)

    def _validate(self, step: Step) -> None:
        point = source_of(self._point, step.source)
        into = os.path.join(self._beside, step.source)
        look_through(self._repository, point, into, self._sources.get(step.source))

    def _swap(self, step: Step) -> None:
        into, final = os.path.join(self._beside, step.source), os.path.join(self._plan.target, step.source)
        if not os.path.lexists(into) and os.path.isdir(final) and not os.path.islink(final):
            return  # it was renamed, and we were killed before we could say so
        if os.path.lexists(final):
            raise StorageFailure(f"{final} came into being meanwhile; nothing is overwritten: remove it, then resume")
        port: object = self._sources.get(step.source)
        if isinstance(port, Logged):
            log = self._repository.log_of(source_of(self._point, step.source))
            port.complete(into, final, source_of(self._point, step.source), log, self._plan.moment)
        settle(self._plan.target)
        os.rename(into, final)
        sync(self._plan.target)
