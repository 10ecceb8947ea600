"""A restore in place that broke off between two exchanges: some of the data is old, some new, and nobody may use it.

A proxy that starts anew beside it (the pod was) knows nothing of that. So the agent looks into the journals, keeps the
service fenced where it stands half way, and says who must go on: `sidecar restore resume`. Before the first exchange
and after the last the data is whole, and nothing is done here.
"""

from sidecar.agent.faults import AgentFault, Damaged
from sidecar.agent.report import Reporter
from sidecar.agent.restore.fence import Fence
from sidecar.agent.restore.journal import Journal, at_work, unfinished
from sidecar.agent.restore.plan import kept
from sidecar.config.document import Config
from sidecar.machines.backup.restore import Entry, Restore, steps
from sidecar.runtime.logs import Log

_REASON = "restore_unfinished"

_log = Log(__name__)


class HalfWay:
    """Looks after the restores of one agent's configuration."""

    def __init__(self, document: Config, reporter: Reporter) -> None:
        self._document = document
        self._reporter = reporter
        self._fenced: set[str] = set()

    def look(self) -> dict[str, str]:
        """What stands half way, by the plan's hash, in a sentence; the first time it is seen it is fenced. Blocking."""
        config = self._document.backup
        assert config is not None, "an agent has one"
        found: dict[str, str] = {}
        try:
            with at_work(config, wait=False) as alone:
                for name in unfinished(config):
                    torn, found[name] = self._torn(name)
                    if torn and alone:  # else it is being gone on with, and fenced by that
                        self._fence(name)
        except (AgentFault, OSError) as fault:
            _log.error("restore_not_fenced", every=60.0, reason=str(fault))
        return {name: detail for name, detail in found.items() if detail}

    def _torn(self, name: str) -> tuple[bool, str]:
        """Whether it is exchanged in part, for all that can be read; and what is wrong with it, in a sentence."""
        config, damage = self._document.backup, ""
        told: list[Entry] = []
        assert config is not None, "an agent has one"
        try:
            plan = kept(config, name)
            told.extend(Journal(config, plan).entries())
        except Damaged as fault:
            damage = str(fault)
        except AgentFault as fault:
            return False, str(fault)
        torn = plan.in_place and Restore(steps(plan.sources, in_place=plan.in_place), told).torn
        return torn, damage or (f"{plan.backup} is exchanged in part; run: sidecar restore resume" if torn else "")

    def _fence(self, name: str) -> None:
        if name not in self._fenced:
            assert self._document.backup is not None, "an agent has one"
            who = f"sidecar restore {name}"
            Fence(self._document.backup.restore, self._document.admin.socket, who).keep_closed()
            self._fenced.add(name)

    def tell(self, found: dict[str, str]) -> None:
        """Conditions of what `look` found."""
        for one in [one for one in self._reporter.conditions if one.reason == _REASON and one.subject not in found]:
            self._reporter.over(_REASON, one.subject)
        for name, detail in found.items():
            self._reporter.holds(_REASON, name, detail)
