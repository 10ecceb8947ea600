"""Taking over: what a new program does to go on where the running one is.

`Predecessor` is the running one, seen from here. Nothing is taken from it until this program has started and could
serve at once; whatever fails before that is told to it, and it goes on as if nothing had been. The protocol stands in
`control/handover.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from sidecar import __version__
from sidecar.control.handover import (
    MAX_AT_ONCE,
    PROTOCOL,
    Goodbye,
    Hello,
    Inheritance,
    Line,
    More,
    Offer,
    Ready,
    Refusal,
    Serving,
    Standing,
    TakeOverFailed,
    Word,
    Yours,
    adopt,
    expect,
    is_gone,
    knock,
)
from sidecar.machines.breaker import Snapshot
from sidecar.machines.fleet.words import NO_END, Record
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    import socket

    from sidecar.config.listeners import Listener
    from sidecar.runtime.admin_http import Door

DEATH_SECONDS = 2.0
"""Between the end of the line and the end of the process behind it, at most."""

_log = Log(__name__)


class Predecessor:
    """The program that runs, from which we take over."""

    def __init__(self, line: Line, offer: Offer, pidfd: int, inheritance: Inheritance) -> None:
        self.pid = offer.pid
        self.version = offer.version
        self._line = line
        self._offer = offer
        self._offered_at = monotonic()
        self._pidfd = pidfd
        self._inheritance = inheritance

    @classmethod
    async def find(cls, path: str) -> Predecessor | None:
        """The one behind the admin socket `path`; None: nobody is. Raises TakeOverFailed."""
        line = await knock(path)
        if line is None:
            _log.info("nothing_to_take_over", socket=path)
            return None
        try:
            await line.send(Hello(PROTOCOL, __version__, os.getpid()))
            offer = expect(Offer, await line.receive())
            for _ in range(0, 1 + len(offer.places), MAX_AT_ONCE):
                expect(More, await line.receive())
            descriptors = line.take()
            sockets = {place: adopt(one) for place, one in zip(offer.places, descriptors[1:], strict=True)}
            return cls(line, offer, descriptors[0], Inheritance(sockets))
        except TimeoutError:
            line.close()
            raise TakeOverFailed("the proxy that runs does not answer") from None
        except BaseException:
            line.close()
            raise

    def listener(self, listener: Listener) -> socket.socket | None:
        """Its socket at this listener's address."""
        return self._inheritance.take("listener", listener.name, listener.bind)

    def door(self, door: Door, address: str) -> socket.socket | None:
        """Its socket of an admin door."""
        return self._inheritance.take("admin", door.value, address)

    async def standing(self) -> Standing:
        """Say that we could serve; what it knows at the moment in which it accepts no more. Raises TakeOverFailed."""
        word = await self._say(Ready())
        if word is not None:
            return expect(Yours, word).standing
        await self._insist_it_died()
        return self._offer.standing

    def breakers(self, standing: Standing) -> dict[str, Snapshot]:
        """Its breakers as they are now; those that this version does not understand are left out."""
        since = self._since(standing)
        found = {}
        for name, fields in standing.breakers.items():
            try:
                one = msgspec.convert(fields, Snapshot)
            except msgspec.ValidationError as error:
                _log.warning("breaker_not_understood", breaker=name, error=error)
                continue
            left = None if one.remaining is None else max(0.0, one.remaining - since)
            found[name] = dataclasses.replace(one, remaining=left)
        return found

    def orders(self, standing: Standing) -> dict[str, Record]:
        """The fleet's orders that it follows; none that this version does not understand."""
        try:
            found = msgspec.convert(standing.orders, dict[str, Record])
        except msgspec.ValidationError as error:
            _log.warning("orders_not_understood", error=error)
            return {}
        since = int(self._since(standing) * 1000)
        return {
            name: one if one.left == NO_END else msgspec.structs.replace(one, left=max(0, one.left - since))
            for name, one in found.items()
        }

    def _since(self, standing: Standing) -> float:
        """How many seconds ago it was so."""
        return monotonic() - self._offered_at if standing is self._offer.standing else 0.0

    async def take_leave(self) -> None:
        """Say that we serve, and wait until it has let go. Raises TakeOverFailed: it serves again, so we must not."""
        word = await self._say(Serving(self._inheritance.left()))
        self._inheritance.close()
        if word is None:
            await self._insist_it_died()
            return
        expect(Goodbye, word)
        with contextlib.suppress(TimeoutError):
            await self._line.receive()  # its end: what only one may do is ours now

    async def refuse(self, reason: str) -> None:
        """We cannot; let it know why."""
        with contextlib.suppress(OSError):
            await self._line.send(Refusal(reason))

    def close(self) -> None:
        """Hang up, and let go of what we did not take."""
        self._line.close()
        self._inheritance.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def _say(self, word: Word) -> Word | None:
        with contextlib.suppress(OSError):  # it may be gone, and have said why before
            await self._line.send(word)
        try:
            return await self._line.receive()
        except TimeoutError:
            raise TakeOverFailed("the proxy that runs does not answer any more") from None

    async def _insist_it_died(self) -> None:
        if not await asyncio.to_thread(is_gone, self._pidfd, DEATH_SECONDS):
            raise TakeOverFailed("the proxy that runs hung up; its log has the reason")
        _log.warning("predecessor_died", predecessor=self.pid, advice="going on alone with what it had handed over")
