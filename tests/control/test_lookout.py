"""One look for all who wait, at once when something happens, and none while nobody waits."""

import asyncio
import copy

import pytest

from sidecar.control.lookout import Lookout
from tests.fakes.program import STATUS


class Watched:
    """A program that counts how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.happened = 0
        self.fails = False

    async def status(self):
        self.looks += 1
        await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError("no status")
        return copy.deepcopy(STATUS)

    async def news(self, seen):
        while self.happened <= seen:
            await asyncio.sleep(0.001)
        return self.happened


def test_all_who_wait_share_a_look_and_what_happens_is_seen_at_once(monkeypatch):
    monkeypatch.setattr("sidecar.control.lookout.EVERY", 4000.0)

    async def story():
        program = Watched()
        lookout = Lookout(program.status, program.news)
        first = await asyncio.gather(*(lookout.after(None) for _ in range(8)))
        assert len(set(map(id, first))) == program.looks == 1
        waiting = [asyncio.ensure_future(lookout.after(first[0])) for _ in range(8)]
        await asyncio.sleep(0.2)
        assert not any(one.done() for one in waiting)
        assert await lookout.after(None) is first[0], "who comes later has the newest at once"
        waiting.pop().cancel()
        program.happened += 1
        second = await asyncio.gather(*waiting)
        assert len(set(map(id, second))) == 1
        assert program.looks == 2
        assert await lookout.after(first[0]) is second[0], "who was slow has it, too"

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_look_that_fails_is_told_and_the_next_is_as_good_as_ever():
    async def story():
        program = Watched()
        lookout = Lookout(program.status, program.news)
        program.fails = True
        with pytest.raises(RuntimeError):
            await lookout.after(None)
        program.fails = False
        assert (await lookout.after(None)).version == STATUS["version"]

    asyncio.run(asyncio.wait_for(story(), 20))
