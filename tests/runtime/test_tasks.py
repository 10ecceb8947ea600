"""The supervisor: what fails is started again, what is stopped has ended; and the lag probe it runs."""

import asyncio

import pytest

from sidecar.runtime import lag, series, tasks
from sidecar.runtime.metrics import Registry
from sidecar.runtime.tasks import Supervisor


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)


def test_a_task_that_fails_is_started_again_and_counted():
    async def scenario() -> None:
        registry = Registry()
        supervisor = Supervisor(registry)
        tries = 0
        done = asyncio.Event()

        async def work() -> None:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise RuntimeError("not yet")
            done.set()

        supervisor.start("watch", work)
        await done.wait()
        await asyncio.sleep(0)
        assert tries == 4
        assert registry.snapshot().total(series.TASK_CRASHES, task="watch") == 3
        while supervisor.running():
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_stop_ends_every_task_and_waits_for_what_it_gives_back():
    async def scenario() -> None:
        supervisor = Supervisor(Registry())
        given_back: list[int] = []

        def holding(number: int):
            async def work() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    given_back.append(number)

            return work

        for number in range(3):
            supervisor.start(f"task-{number}", holding(number))
        await asyncio.sleep(0)
        await supervisor.stop()
        assert sorted(given_back) == [0, 1, 2]
        assert supervisor.running() == []

    asyncio.run(scenario())


def test_stop_does_not_wait_for_ever_for_one_that_will_not_end():
    async def scenario() -> None:
        supervisor = Supervisor(Registry())
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        supervisor.start("stubborn", stubborn)
        await asyncio.sleep(0)
        await supervisor.stop(within=0.01)
        assert supervisor.running() == ["stubborn"]
        release.set()

    asyncio.run(scenario())


def test_one_task_can_be_ended_and_its_name_taken_again():
    async def scenario() -> None:
        supervisor = Supervisor(Registry())
        supervisor.start("poll", asyncio.Event().wait)
        with pytest.raises(ValueError, match="poll"):
            supervisor.start("poll", asyncio.Event().wait)
        await supervisor.end("poll")
        supervisor.start("poll", asyncio.Event().wait)
        assert supervisor.running() == ["poll"]
        await supervisor.end("unknown")
        await supervisor.stop()

    asyncio.run(scenario())


def test_the_probe_sees_a_loop_that_was_held_up():
    async def scenario() -> None:
        cell = Registry().cell(series.EVENT_LOOP_LAG)
        probing = asyncio.ensure_future(lag.probe(cell, interval=0.001))
        await asyncio.sleep(0)
        import time

        time.sleep(0.06)
        while not sum(cell.counts):
            await asyncio.sleep(0)
        probing.cancel()
        assert cell.sum > 0.05

    asyncio.run(scenario())
