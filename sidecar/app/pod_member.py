"""A worker's tie to its pod: says what its breakers found out, and does what the program says (`pod.py`).

A worker follows the program's word, always. If the program has been silent for a while (it asks for the numbers once a
second), the breakers that it led go on alone; when it speaks again, they ask for its word.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.app.pod import TOPIC, USE_WITHIN
from sidecar.machines.breaker import Snapshot
from sidecar.machines.breaker_states import AUTOMATIC, BreakerState, Reason
from sidecar.machines.fleet.leases import Ended, Lease, TrialEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.machines.breaker import BreakerChange
    from sidecar.proxy.breakers import Guarded

SILENCE_SECONDS = 3.0
"""So long without a word from the program, and it is taken for gone."""
_AGAIN = 0.2
_TRIPS = AUTOMATIC[BreakerState.CLOSED, BreakerState.OPEN]


class PodMember:
    """The tie of every breaker of this worker."""

    tells = True

    def __init__(self, say: Callable[[str, Any], bool]) -> None:
        """`say(topic, payload)` reaches the program; False: it does not read."""
        self._say = say
        self._epochs: dict[str, int] = {}
        self._asked: set[str] = set()  # breakers for which the program knows that we want leases
        self._heard = monotonic()

    def heard(self) -> None:
        """The program is there."""
        self._heard = monotonic()

    def told(self, payload: Any, breakers: Mapping[str, Guarded]) -> None:
        """Do what the program says."""
        name, verb, *told = payload
        guarded = breakers.get(name)
        if verb == "word":
            epoch, state = told
            self._epochs[name] = epoch
            self._asked.discard(name)
            if guarded is not None:
                guarded.adopt(msgspec.convert(state, Snapshot))
        elif verb == "lease":
            token, seconds = told
            now = monotonic()
            if guarded is not None and guarded.breaker.state is BreakerState.HALF_OPEN and guarded.breaker.led:
                guarded.grant([Lease(token, now + USE_WITHIN, now + seconds)])
            else:
                self._tell(name, "ended", token, TrialEnd.UNUSED)

    def alone(self, breakers: Mapping[str, Guarded]) -> None:
        """The program is gone."""
        for guarded in breakers.values():
            guarded.alone()

    # Tie ------------------------------------------------------------------------------------------------------------

    def moved(self, guarded: Guarded, change: BreakerChange | None) -> None:
        """Tell an own trip; whatever else it did alone, it asks whether that is still so."""
        if change is None or change.reason == Reason.SHARED:
            return
        if change.reason in _TRIPS and change.old is BreakerState.CLOSED:
            self._tell(guarded.name, "tripped", self._epochs.get(guarded.name, 0), str(change.reason), change.detail)
        else:
            self._tell(guarded.name, "behind")

    def refused(self, guarded: Guarded) -> None:
        """Say once that a lease could be used; give the program up when it has been silent for long."""
        if monotonic() - self._heard > SILENCE_SECONDS:
            guarded.alone()
        elif guarded.name not in self._asked:
            self._asked.add(guarded.name)
            self._tell(guarded.name, "wants")

    def granted(self, guarded: Guarded) -> None:
        """Nothing more to do."""

    def ended(self, guarded: Guarded, ended: Ended) -> None:
        """Tell what came of a lease."""
        if ended.end is TrialEnd.UNUSED:
            self._asked.discard(guarded.name)  # the program takes it so
        self._tell(guarded.name, "ended", ended.token, ended.end)

    def _tell(self, *payload: Any) -> None:
        if not self._say(TOPIC, payload):
            asyncio.get_running_loop().call_later(_AGAIN, self._tell, *payload)
