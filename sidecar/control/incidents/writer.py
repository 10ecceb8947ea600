"""Brings to the store what changed, and owes it while the store does not take it.

One task writes, one batch at a time; what changes meanwhile is the next batch. While the file fails (full disk, no
permission, a disk that hangs) everything goes on in memory: it is told once, the batch is kept and brought again after
1 s, 2 s … 1 min, and its end is told too. What is owed is bounded: of more than MAX_ENTRIES timeline entries the
oldest are lost, and counted. A file that could not be read at the start is read as soon as it can be; of one that was
damaged or removed under us a new one is begun, with everything that is in memory. Without a store nothing is owed.
"""

import asyncio
import contextlib
from collections.abc import Callable

from sidecar.base.backoff import exponential
from sidecar.control.incidents.ledger import Batch, Ledger, Loaded, StoreDamaged, StoreFailed
from sidecar.machines.incidents.book import KEEP_TIMELINES, Change, Entry
from sidecar.machines.incidents.incident import Incident
from sidecar.machines.incidents.outbox import Stored
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

    def __init__(self, store: Ledger | None, registry: Registry, observer: Observer) -> None:
        self.failing = False
        self.lost = 0
        """Timeline entries that were given up."""
        self.adopt: Callable[[Loaded], None] = lambda _: None
        """Called with what the file held, at the start or as soon as it can be read."""
        self.owe_everything: Callable[[], None] = lambda: None
        """Called when a new file was begun: has everything owed that is in memory."""
        self._store = store
        self._loaded = store is None
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

    async def load(self) -> None:
        """Have what the file holds adopted; when it cannot be read, that is told, and tried again with each write."""
        if self._store is None:
            return
        try:
            async with asyncio.timeout(HANGS_AFTER * 2):
                await self._load(self._store)
        except (StoreFailed, TimeoutError) as error:
            self._failed(str(error) or "the disk does not answer")
            self._work.set()

    async def _load(self, store: Ledger) -> None:
        loaded = await store.load(LOAD_LATEST, KEEP_TIMELINES)
        self._loaded = True
        self._registry.cell(INCIDENT_STORE_OK).value = 1
        if loaded.set_aside:
            self._begun_anew(store, loaded.why, loaded.set_aside)
        self.adopt(loaded)

    def _begun_anew(self, store: Ledger, why: str, kept_as: str) -> None:
        kept = f"the damaged file is kept as {kept_as}" if kept_as else "it is not there any more"
        self._observer.tell(
            Kind.INCIDENT_STORE_SET_ASIDE, store.path, level=Level.ERROR, reason=why,
            detail=f"{kept}, a new one is begun", path=store.path, kept_as=kept_as,
        )  # fmt: skip

    async def run(self) -> None:
        """Write whatever is owed, until cancelled."""
        failures = 0
        while self._store is not None:
            await self._work.wait()
            self._work.clear()
            while self._owed or not self._loaded:
                failures = 0 if await self._attempt(self._store) else failures + 1
                if failures:
                    await asyncio.sleep(exponential(failures - 1, FIRST_PAUSE, LONGEST_PAUSE))

    async def close(self) -> None:
        """Bring what is owed, not for ever, and close the file; from now on there is none."""
        store = self._store
        if store is not None:
            if self._owed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HANGS_AFTER):
                        await self._attempt(store)
            self._store = None
            await store.close()

    async def _attempt(self, store: Ledger) -> bool:
        if not self._loaded:
            try:
                await self._load(store)
            except StoreFailed as error:
                self._failed(str(error))
                return False
        batch, self._owed = self._owed, Batch()
        asked = self._asked
        writing = asyncio.ensure_future(store.write(batch))
        try:
            done, _ = await asyncio.wait({writing}, timeout=HANGS_AFTER)
            if not done:
                self._failed("the disk does not answer")
            await writing
        except StoreDamaged as damage:
            self._give_back(batch)
            self._begun_anew(store, str(damage), damage.kept_as)
            self.owe_everything()
            return await self._attempt(store)
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
            self._observer.tell(Kind.INCIDENT_STORE_RECOVERED, store.path, detail=lost, path=store.path)
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
                path=self._store.path,
            )  # fmt: skip
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
