"""The lane of reading: a seventh of all that is stored is read again each day, so that rot is found in time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from sidecar.agent import cycle
from sidecar.agent.cycle import Stopped
from sidecar.agent.faults import AgentFault
from sidecar.agent.figures import Figures
from sidecar.agent.lanes.lane import Lane
from sidecar.agent.ports import Level
from sidecar.agent.report import Reporter, damaged
from sidecar.agent.stock import Stock
from sidecar.base.clock import since_boot
from sidecar.machines.backup.verification import ReadTurn
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Observer

EVERY, PARTS = 86_400.0, 7
LOOK = 5.0
"""Seconds between two looks at the clock."""

_log = Log(__name__)


class Rereading:
    """Reads again for one agent."""

    def __init__(
        self,
        stock: Stock,
        figures: Figures,
        reporter: Reporter,
        observer: Observer,
        look_again: Callable[[], Awaitable[None]],
    ) -> None:
        """`look_again`: which point is the newest good one may have changed."""
        self._stock = stock
        self._figures = figures
        self._reporter = reporter
        self._observer = observer
        self._look_again = look_again
        self.lane = Lane("read")

    async def run(self) -> None:
        """Read a part whenever it is due, until cancelled."""
        turn = None
        while True:
            await asyncio.sleep(LOOK)
            turn = turn or await self._begin()
            if turn is not None and turn.due(since_boot()):
                turn.done(since_boot(), read=await self._read(turn.part))

    async def _begin(self) -> ReadTurn | None:
        """Go on where the last agent was; None: there is nothing to read yet."""
        with contextlib.suppress(AgentFault):
            last = await self.lane.do(lambda _tell: cycle.last_read(self._stock.catalog()))
            if last is not None:
                ago = (datetime.now(UTC) - last[1]).total_seconds()
                return ReadTurn(EVERY, PARTS, since_boot(), (last[0], ago))
        return None

    async def _read(self, part: int) -> bool:
        stock = self._stock
        try:
            found = await self.lane.do(
                lambda tell: cycle.read_part(stock.repository(), stock.catalog(), part, PARTS, tell)
            )  # fmt: skip
        except Stopped:
            return False
        except AgentFault as fault:
            _log.warning("read_failed", reason=str(fault), part=part)
            return False
        subject = f"part {part} of {PARTS} of the repository"
        self._figures.looked(Level.READ, ok=not found, at=datetime.now(UTC).timestamp())
        if found:
            damaged(found, subject, stock.catalog(), self._reporter, self._observer)
        else:
            self._reporter.over("verify_failed", subject)
        await self._look_again()
        return True
