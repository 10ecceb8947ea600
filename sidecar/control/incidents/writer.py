"""Brings to the store what changed, and owes it while the store does not take it.

One task writes, one batch at a time; what changes meanwhile is the next batch. While the file fails (full disk, no
permission, a disk that hangs) everything goes on in memory: it is told once, the batch is kept and brought again after
1 s, 2 s … 1 min, and its end is told too. What is owed is bounded: of more than MAX_ENTRIES timeline entries the
oldest are lost, and counted. Without a store there is nothing to owe.
"""

import asyncio
import contextlib

from sidecar.base.backoff import exponential
from sidecar.control.incidents.store import Batch, Loaded, Store, StoreFailed
from sidecar.machines.incident import Incident
from sidecar.machines.incident_book import KEEP_TIMELINES, Change, Entry
from sidecar.machines.outbox import Stored
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Kind, Level, Observer
from sidecar.runtime.series import INCIDENT_STORE_OK

MAX_ENTRIES = 20_000
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
HANGS_AFTER = 2.0
"""Seconds, after which nobody waits for a write any more."""
LOAD_LATEST = 200
"""Closed incidents that a start reads."""


class Writer:
    """Between the incidents in memory and their file; `store` None: memory only."""

    def __init__(self, store: Store | None, registry: Registry, observer: Observer) -> None:
        self.failing = False
        self.lost = 0
        """Timeline entries that were given up."""
        self._store = store
        self._observer = observer
        self._registry = registry
        self._owed = Batch()
        self._asked = 0
        self._written = 0
        self._work = asyncio.Event()
        self._news = asyncio.Event()  # set, and replaced, after each attempt

    @property
    def durable(self) -> bool:
        """There is a file."""
        return self._store is not None

    # What is owed -----------------------------------------------------------------------------------------------------

    def owe(self, change: Change) -> None:
        """An incident changed."""
        if self._store is None:
            return
        self._owed.incidents[change.incident.id] = change.incident
        if change.entry is not None:
            self._owed.entries.append((change.incident.id, change.number, change.entry))
        self._ask()

    def owe_message(self, stored: Stored) -> None:
        """Something is to be sent, or is not any more."""
        if self._store is not None:
            self._owed.messages[stored.message.id] = None if stored.gone else stored.message
            self._ask()

    def owe_run(self, began: float, seen: float) -> None:
        """We watched from `began` to `seen`."""
        if self._store is not None:
            self._owed.run = (began, seen)
            self._ask()

    def _ask(self) -> None:
        self._asked += 1
        over = len(self._owed.entries) - MAX_ENTRIES
        if over > 0:
            del self._owed.entries[:over]
            self.lost += over
        self._work.set()

    async def settled(self, within: float = HANGS_AFTER) -> None:
        """Return once what is owed now is on the disk, or cannot be: fails, or takes too long."""
        asked = self._asked
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._store is not None and self._written < asked and not self.failing:
                    await self._news.wait()

    async def read(self, incident: str) -> tuple[Incident, list[Entry]] | None:
        """An incident of long ago; None: unknown, or the file cannot be read."""
        if self._store is None:
            return None
        try:
            async with asyncio.timeout(HANGS_AFTER):
                return await self._store.read(incident)
        except (StoreFailed, TimeoutError):
            return None

    # The work ---------------------------------------------------------------------------------------------------------

    async def load(self) -> Loaded:
        """What the file holds; nothing when it cannot be read, which is told."""
        if self._store is None:
            return Loaded([], [], [])
        try:
            async with asyncio.timeout(HANGS_AFTER * 2):
                loaded = await self._store.load(LOAD_LATEST, KEEP_TIMELINES)
        except (StoreFailed, TimeoutError) as error:
            self._failed(str(error) or "the disk does not answer")
            return Loaded([], [], [])
        self._registry.cell(INCIDENT_STORE_OK).value = 1
        if loaded.set_aside:
            self._observer.tell(
                Kind.INCIDENT_STORE_SET_ASIDE, self._store.path, level=Level.ERROR, reason="damaged",
                detail=f"{loaded.why}; the damaged file is kept, a new one begun", kept_as=loaded.set_aside,
            )  # fmt: skip
        return loaded

    async def run(self) -> None:
        """Write whatever is owed, until cancelled."""
        failures = 0
        while self._store is not None:
            await self._work.wait()
            self._work.clear()
            while self._owed:
                failures = 0 if await self._attempt(self._store) else failures + 1
                if failures:
                    await asyncio.sleep(exponential(failures - 1, FIRST_PAUSE, LONGEST_PAUSE))

    async def close(self) -> None:
        """Bring what is owed, not for ever, and close the file."""
        if self._store is not None:
            if self._owed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HANGS_AFTER):
                        await self._attempt(self._store)
            await self._store.close()

    async def _attempt(self, store: Store) -> bool:
        batch, self._owed = self._owed, Batch()
        asked = self._asked
        writing = asyncio.ensure_future(store.write(batch))
        try:
            done, _ = await asyncio.wait({writing}, timeout=HANGS_AFTER)
            if not done:
                self._failed("the disk does not answer")
            await writing
        except StoreFailed as error:
            self._give_back(batch)
            self._failed(str(error))
            return False
        except asyncio.CancelledError:
            self._give_back(batch)
            raise
        self._written = asked
        if self.failing:
            self.failing = False
            self._registry.cell(INCIDENT_STORE_OK).value = 1
            lost = f"{self.lost} timeline entries are lost" if self.lost else "nothing is lost"
            self._observer.tell(Kind.INCIDENT_STORE_RECOVERED, store.path, detail=lost)
        self._tell()
        return True

    def _give_back(self, batch: Batch) -> None:
        """What could not be written is owed again; what changed meanwhile counts."""
        newer, self._owed = self._owed, batch
        batch.incidents.update(newer.incidents)
        batch.entries.extend(newer.entries)
        batch.messages.update(newer.messages)
        batch.run = newer.run or batch.run

    def _failed(self, why: str) -> None:
        assert self._store is not None, "without a store nothing is tried"
        self._registry.cell(INCIDENT_STORE_OK).value = 0
        if not self.failing:
            self.failing = True
            self._observer.tell(
                Kind.INCIDENT_STORE_FAILED, self._store.path, level=Level.ERROR, reason=why,
                detail="incidents go on in memory and are lost if the sidecar ends before the file can be written",
            )  # fmt: skip
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
