"""The lease in an object store: a claim is an object `sidecar/claims/GENERATION-…` that its holder rewrites.

Who wants the lease puts a claim, then lists: is there another that lives, it withdraws its own. Of two who come at once
the later to list sees the other, so never do both hold it, and this needs nothing but a store that lists what was put
(not every server honours conditional writes); both may withdraw, and try again after a random pause. A claim is dead
when it did not change for TTL seconds, measured by the challenger's own monotonic clock: nobody's wall clock counts. A
holder on this very machine whose process is gone is dead at once. So a challenger watches a claim that it does not know
until it changes (its holder lives) or is dead, however little patience it has: else a dead one would stand for ever.

A holder that could not renew for most of the TTL (it was suspended, or the store away) must assume that it lost it:
`check` raises, and is called before a manifest is written and before anything is deleted.
"""

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from sidecar.agent.faults import Busy, LeaseLost, StorageFailure
from sidecar.agent.repository.lease import HeldLease, Holder, busy, read_holder
from sidecar.agent.repository.store import Missing, Store
from sidecar.base.clock import since_boot

CLAIMS = "sidecar/claims"
GENERATION = "sidecar/generation"
TTL = 45.0
_RENEW = TTL / 5
_LOST = TTL * 0.7
_TRIES = 8
_LOOK = 1.0
"""Seconds between two looks at another's claim."""


class _Rival(NamedTuple):
    """Somebody else's claim."""

    holder: Holder
    lives: bool
    """For certain: it changed under our eyes, or its process is here."""


class Claim:
    """A claim in an object store, renewed by a thread."""

    def __init__(self, store: Store, me: Holder, newest: Callable[[], int]) -> None:
        self._store = store
        self._me = me
        self._newest = newest
        self._name = ""
        self._stop = threading.Event()
        self._renewed = 0.0
        self._lost = ""
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Others' claims: what they said, and since when they say it."""

    def acquire(self, patience: float) -> HeldLease:
        until = time.monotonic() + patience
        tries = 0
        while (rival := self._others()) or (rival := self._claim()):
            tries += 1
            at_once = bool(self._name) and tries < _TRIES  # two who came together: one of them should have it
            if rival.lives and not at_once and time.monotonic() >= until:
                raise Busy(busy(rival.holder))
            time.sleep(random.uniform(0.05, 0.5) if at_once else _LOOK)
        thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        thread.start()

        def release() -> None:
            self._stop.set()
            thread.join()
            if not self._lost:
                with contextlib.suppress(StorageFailure):
                    self._store.delete(self._name)

        return HeldLease(self._me.generation, self._check, release)

    def _claim(self) -> "_Rival | None":
        """Claim it. None: it is ours; otherwise who came at the same moment, and the claim is withdrawn."""
        generation = 1 + max(self._last_generation(), self._newest())
        self._me = msgspec.structs.replace(self._me, generation=generation)
        self._name = f"{CLAIMS}/{generation:012d}-{uuid.uuid4().hex[:12]}"
        self._beat()
        if rival := self._others():
            self._store.delete(self._name)
            return rival
        self._store.put(GENERATION, str(generation).encode())
        return None

    def _last_generation(self) -> int:
        try:
            return int(self._store.get(GENERATION))
        except (Missing, ValueError):
            return 0

    def _others(self) -> "_Rival | None":
        """Who else claims it and is not known to be dead; claims of the dead are removed."""
        found: _Rival | None = None
        for item in list(self._store.list(CLAIMS)):
            if item.name == self._name:
                continue
            try:
                said = self._store.get(item.name)
            except Missing:
                continue
            now = time.monotonic()
            before, since = self._seen.get(item.name, (b"", now))
            changed = said != before
            self._seen[item.name] = (said, now if changed else since)
            other = read_holder(said) or Holder(who="somebody", why="something")
            if other.gone() or (not changed and now - since >= TTL):
                self._store.delete(item.name)
            elif found is None or not found.lives:
                beside = other.here() and other.pid != self._me.pid  # ours is one that could not be given back
                found = _Rival(other, beside or (changed and before != b""))
        return found

    def _beat(self) -> None:
        self._me = msgspec.structs.replace(self._me, beat=self._me.beat + 1)
        began = since_boot()
        self._store.put(self._name, msgspec.json.encode(self._me))
        self._renewed = began

    def _keep(self) -> None:
        while not self._stop.wait(_RENEW):
            try:
                if self._store.size(self._name) is None:
                    self._lost = "somebody else took it: this process was silent for too long"
                    return
                self._beat()
            except Exception:  # noqa: BLE001, S112 - `check` notices when it lasts
                continue

    def _check(self) -> None:
        if not self._lost and since_boot() - self._renewed > _LOST:
            self._lost = "it could not be renewed in time: the store was away, or this process stood still"
        if self._lost:
            raise LeaseLost(f"the repository's lease is lost: {self._lost}; nothing half is kept, run it again")
