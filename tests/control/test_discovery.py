"""Discovery's word to those who serve: what is told, when, and what is never believed."""

import asyncio
import contextlib

import pytest

from sidecar.config.load import parse
from sidecar.control import discovery as module
from sidecar.control.discovery import Discovery
from sidecar.machines.membership import Answer, Member
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer
from sidecar.runtime.tasks import Supervisor

OWN = frozenset({("127.0.0.1", 9901), ("0.0.0.0", 9902)})


class Scripted:
    """A source that says what the test says."""

    kind = "file"

    def __init__(self, target):
        self.target = target
        self.report = None
        self.running = False

    async def run(self, report):
        self.report, self.running = report, True
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False


class Stage:
    """Discovery with scripted sources, what it told, and the health that it asks for."""

    def __init__(self):
        self.told = []
        self.health = {}
        self.sources = {}
        self.metrics = Registry()
        self.tasks = Supervisor(self.metrics)
        self.discovery = Discovery(
            self._source,
            self._tell,
            lambda _, address: self.health.get(address),
            self.tasks,
            self.metrics,
            Observer(),
        )
        self.discovery.keep_out(OWN)

    def _source(self, config):
        self.sources[config.file] = Scripted(config.file)
        return self.sources[config.file]

    async def _tell(self, upstream, endpoints):
        self.told.append((upstream, endpoints))

    async def apply(self, *upstreams):
        text = "listeners: [{name: in, bind: '127.0.0.1:1', routes: [{name: all, upstream: app}]}]\nupstreams:\n"
        await self.discovery.apply(parse(text + "\n".join(upstreams)))
        await asyncio.sleep(0)

    async def found(self, file, *addresses, withdrawn=()):
        members = tuple(Member(one) for one in addresses)
        await self.sources[file].report.found(Answer(members, frozenset(withdrawn)))

    def last(self, upstream="app"):
        return [address for name, told in self.told if name == upstream for address in [told]][-1]


@contextlib.asynccontextmanager
async def stage():
    one = Stage()
    try:
        yield one
    finally:
        await one.tasks.stop()


APP = "- {name: app, endpoints: [{address: '10.0.0.1:80', priority: 1}], discovery: {file: /one}}"
WRITTEN = ("10.0.0.1:80", 1, 1)


def test_written_ones_are_joined_and_only_changes_are_told():
    async def story():
        async with stage() as one:
            await one.apply(APP)
            assert one.told == [("app", [WRITTEN])]
            await one.found("/one", "10.0.0.3:80", "10.0.0.2:80")
            assert one.last() == [WRITTEN, ("10.0.0.2:80", 1, 0), ("10.0.0.3:80", 1, 0)]
            await one.found("/one", "10.0.0.2:80", "10.0.0.3:80")
            assert len(one.told) == 2
            snapshot = one.metrics.snapshot()
            assert snapshot.total(series.DISCOVERY_UPDATES, result="changed") == 1
            assert snapshot.total(series.DISCOVERY_UPDATES, result="unchanged") == 1
            assert snapshot.total(series.DISCOVERY_ENDPOINTS, upstream="app") == 3
            assert snapshot.total(series.DISCOVERY_LAST_SUCCESS) > 1e9

    asyncio.run(story())


def test_an_error_keeps_the_last_good_and_is_shown_until_an_answer_comes():
    async def story():
        async with stage() as one:
            await one.apply(APP)
            await one.found("/one", "10.0.0.2:80")
            one.sources["/one"].report.failed("no idea")
            assert len(one.told) == 2
            shown = one.discovery.view("app")
            assert shown["error"] == "no idea"
            assert [(each["address"], each["origin"]) for each in shown["endpoints"]] == [
                ("10.0.0.1:80", "written"),
                ("10.0.0.2:80", "found"),
            ]
            assert one.metrics.snapshot().total(series.DISCOVERY_UPDATES, result="error") == 1
            await one.found("/one")
            assert one.discovery.view("app")["error"] is None
            assert one.last() == [WRITTEN]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("127.0.0.1:9901", True),
        ("0.0.0.0:80", True),
        ("[::]:80", True),
        ("224.0.0.1:80", True),
        ("[ff02::1]:80", True),
        ("[::ffff:127.0.0.1]:9901", True),
        ("localhost:9901", True),
        ("127.0.0.1:9902", True),
        ("127.0.0.5:9902", True),
        ("127.0.0.1:9903", False),
        ("10.9.8.7:9901", False),
        ("10.9.8.7:9902", False),
        ("[::1]:80", False),
        ("example.com:9902", False),
        ("unix:/run/app", False),
    ],
)
def test_our_own_admin_and_nobodys_addresses_are_left_out(address, refused):
    async def story():
        async with stage() as one:
            await one.apply("- {name: app, discovery: {file: /one}}")
            await one.found("/one", address, "10.0.0.2:80")
            told = [each[0] for each in one.last()]
            assert (address not in told) is refused
            assert "10.0.0.2:80" in told
            assert one.discovery.view("app")["refused"] == ([address] if refused else [])

    asyncio.run(story())


def test_the_dropped_one_is_kept_while_it_is_healthy(monkeypatch):
    monkeypatch.setattr(module, "JUDGE_SECONDS", 0.01)

    async def story():
        async with stage() as one:
            await one.apply(APP)
            await one.found("/one", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")
            one.health = {"10.0.0.3:80": True}
            await one.found("/one", "10.0.0.2:80")
            assert one.last() == [WRITTEN, ("10.0.0.2:80", 1, 0), ("10.0.0.3:80", 1, 0)]
            assert one.discovery.view("app")["endpoints"][2]["origin"] == "kept"
            one.health = {"10.0.0.3:80": False}
            async with asyncio.timeout(10):
                while len(one.last()) == 3:
                    await asyncio.sleep(0.01)
            assert one.last() == [WRITTEN, ("10.0.0.2:80", 1, 0)]

    asyncio.run(story())


def test_a_reload_leaves_alone_what_it_does_not_change():
    async def story():
        async with stage() as one:
            other = "- {name: other, discovery: {file: /two}}"
            await one.apply(APP, other)
            await one.found("/one", "10.0.0.2:80")
            first = one.sources["/one"]
            await one.apply(APP.replace("priority: 1", "priority: 2"), other)
            assert one.sources["/one"] is first
            assert first.running
            assert one.last() == [("10.0.0.1:80", 1, 2), ("10.0.0.2:80", 1, 0)]
            await one.apply(APP.replace("/one", "/new"), other)
            assert not first.running
            assert one.last() == [WRITTEN, ("10.0.0.2:80", 1, 0)], "until the new source has answered"
            await one.found("/new", "10.0.0.5:80")
            assert one.last() == [WRITTEN, ("10.0.0.5:80", 1, 0)]
            await one.apply("- {name: app, endpoints: [{address: '10.0.0.1:80'}]}")
            assert not one.sources["/new"].running
            assert not one.sources["/two"].running
            assert one.discovery.view("app") is None
            assert one.metrics.snapshot().select(series.DISCOVERY_ENDPOINTS) == []

    asyncio.run(story())


def test_the_start_waits_for_first_answers_but_not_for_ever():
    async def story():
        async with stage() as one:
            await one.apply(APP, "- {name: other, discovery: {file: /two}}")
            waiting = asyncio.ensure_future(one.discovery.settled(30))
            await one.found("/one")
            await asyncio.sleep(0)
            assert not waiting.done()
            one.sources["/two"].report.failed("no idea")
            async with asyncio.timeout(5):
                await waiting
            await one.apply("- {name: third, discovery: {file: /three}}", APP)
            await one.discovery.settled(0.01)

    asyncio.run(story())
