"""The watch as a whole, on real sockets: what is asked, who hears of it, and what a reload keeps."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import msgspec
import pytest

from sidecar.config.dependencies import Dependency, DependencyCheck, HttpCheck, TcpCheck
from sidecar.config.document import Config
from sidecar.config.upstreams import Discovery, Endpoint, HealthCheck, HttpProbe, TcpProbe, Upstream
from sidecar.control.health import HealthChecks
from sidecar.control.probes.probe import ask
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Observer
from sidecar.runtime.series import DEPENDENCY_STATUS
from sidecar.runtime.tasks import Supervisor
from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import PATIENCE
from tests.real.documents import free_port

pytestmark = pytest.mark.anyio

OFTEN = HealthCheck(tcp=TcpProbe(), interval=0.02, timeout=1.0, unhealthy_after=2, healthy_after=2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Watch:
    """Health checks with everything around them; `verdicts` is what the crew would have heard."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.tasks = Supervisor(self.registry)
        self.verdicts: dict[tuple[str, str], bool] = {}
        self.requests: dict[str, float] = {}
        self.checks = HealthChecks(self.registry, self.tasks, Observer(), self._tell, self._count, lambda _: None)

    async def _tell(self, upstream: str, address: str, healthy: bool) -> None:
        self.verdicts[upstream, address] = healthy

    async def _count(self) -> dict[str, float]:
        return self.requests

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(0.005)

    def seen(self, **labels: str) -> dict[str, Any]:
        (one,) = [one for one in self.checks.view() if labels.items() <= one.items()]
        return one

    def status(self, name: str) -> dict[str, float]:
        found = self.registry.snapshot().select(DEPENDENCY_STATUS, dependency=name)
        return {one.labels[1]: one.value for one in found}


@contextlib.asynccontextmanager
async def watching(*upstreams: Upstream, dependencies: tuple[Dependency, ...] = ()) -> AsyncIterator[Watch]:
    watch = Watch()
    await watch.checks.apply(Config(upstreams=upstreams, dependencies=dependencies))
    try:
        yield watch
    finally:
        await watch.tasks.stop()


def app(*addresses: str, check: HealthCheck | None = OFTEN) -> Upstream:
    return Upstream(name="app", endpoints=tuple(Endpoint(address=one) for one in addresses), health_check=check)


def listen(port: int = 0) -> tuple[socket.socket, str]:
    sock = socket.create_server(("127.0.0.1", port))
    return sock, f"127.0.0.1:{sock.getsockname()[1]}"


# ----------------------------------------------------------------------------------------------- endpoints
async def test_an_endpoint_that_dies_is_told_and_comes_back() -> None:
    sock, address = listen()
    async with watching(app(address)) as watch:
        assert watch.checks.healthy("app", address) is None
        await watch.until(lambda: watch.verdicts.get(("app", address)) is True)
        assert watch.checks.healthy("app", address) is True
        sock.close()
        await watch.until(lambda: watch.verdicts["app", address] is False)
        assert watch.checks.healthy("app", address) is False
        assert watch.seen(endpoint=address)["detail"] == "Connection refused"
        sock, _ = listen(int(address.rpartition(":")[2]))
        await watch.until(lambda: watch.verdicts["app", address] is True)
        sock.close()


async def test_the_verdict_is_repeated_for_who_missed_it() -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with watching(app(dead)) as watch:
        for _ in range(2):
            await watch.until(lambda: watch.verdicts.get(("app", dead)) is False)
            watch.verdicts.clear()


async def test_discovered_endpoints_are_asked_instead_of_those_written_down() -> None:
    dead, new = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    found = msgspec.structs.replace(app(dead), discovery=Discovery(file="/x"))
    async with watching(found) as watch:
        await watch.until(lambda: watch.checks.healthy("app", dead) is False)
        await watch.checks.set_endpoints("app", [new])
        assert watch.verdicts["app", dead] is True  # nobody asks any more: no verdict stays behind
        await watch.until(lambda: watch.checks.healthy("app", new) is False)
        assert [one["endpoint"] for one in watch.checks.view()] == [new]
        await watch.checks.apply(Config(upstreams=(found,)))  # a reload does not go back to what is written down
        assert [one["endpoint"] for one in watch.checks.view()] == [new]


async def test_endpoints_of_an_upstream_without_a_check_are_left_alone() -> None:
    async with watching(app("127.0.0.1:1", check=None)) as watch:
        await watch.checks.set_endpoints("app", ["127.0.0.1:2"])
        assert watch.checks.view() == []
        assert watch.tasks.running() == []


@pytest.mark.parametrize("requests", [1, 0])
async def test_without_traffic_a_healthy_endpoint_is_asked_half_as_often(requests: int) -> None:
    sock, address = listen()
    check = HealthCheck(tcp=TcpProbe(), interval=0.5, timeout=0.5)

    def pause(watch: Watch) -> float:
        seen = watch.seen(endpoint=address)
        return (datetime.fromisoformat(seen["next_check"]) - datetime.fromisoformat(seen["last_check"])).total_seconds()

    async with watching(app(address, check=check)) as watch:
        await watch.until(lambda: watch.verdicts)
        assert pause(watch) < 0.75  # in use until it is known not to be
        watch.verdicts.clear()
        watch.checks._counted_at -= 10.0  # the counters are old enough to be read again
        watch.requests["app"] = requests
        await watch.until(lambda: watch.verdicts)
        assert (pause(watch) < 0.75) is bool(requests)  # 0.5 or 1.0, jittered by a tenth
    sock.close()


# -------------------------------------------------------------------------------------------------- reload
async def test_a_reload_keeps_what_is_known_when_the_question_is_the_same() -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with watching(app(dead)) as watch:
        await watch.until(lambda: watch.checks.healthy("app", dead) is False)
        since = watch.seen(endpoint=dead)["since"]
        slower = msgspec.structs.replace(OFTEN, interval=30.0, healthy_after=5)
        await watch.checks.apply(Config(upstreams=(app(dead, check=slower),)))
        assert watch.seen(endpoint=dead)["state"] == "unhealthy"
        assert watch.seen(endpoint=dead)["since"] == since
        assert watch.verdicts["app", dead] is False
        await watch.checks.apply(Config(upstreams=(app(dead),)))  # and goes on asking
        watch.verdicts.clear()
        await watch.until(lambda: watch.verdicts)


async def test_another_question_begins_anew() -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with watching(app(dead)) as watch:
        await watch.until(lambda: watch.checks.healthy("app", dead) is False)
        other = msgspec.structs.replace(OFTEN, tcp=None, http=HttpProbe(), interval=60.0)
        await watch.checks.apply(Config(upstreams=(app(dead, check=other),)))
        assert watch.checks.healthy("app", dead) is None
        assert watch.verdicts["app", dead] is True


@pytest.mark.parametrize("upstreams", [(), (app("127.0.0.1:1", check=None),)], ids=["upstream", "check"])
async def test_what_is_gone_is_not_asked(upstreams: tuple[Upstream, ...]) -> None:
    async with watching(app("127.0.0.1:1")) as watch:
        await watch.until(lambda: watch.checks.healthy("app", "127.0.0.1:1") is False)
        await watch.checks.apply(Config(upstreams=upstreams))
        assert watch.verdicts["app", "127.0.0.1:1"] is True
        assert watch.checks.view() == []
        assert watch.tasks.running() == []


# -------------------------------------------------------------------------------------------- dependencies
def tcp(address: str, **changes: Any) -> Dependency:
    fields = {"interval": 0.02, "timeout": 1.0, "unhealthy_after": 2} | changes
    return Dependency(name="db", check=DependencyCheck(tcp=TcpCheck(address=address)), **fields)


async def test_a_dependencys_status_is_one_of_four() -> None:
    sock, address = listen()
    async with watching(dependencies=(tcp(address),)) as watch:
        assert watch.status("db") == {"unknown": 1, "healthy": 0, "degraded": 0, "unhealthy": 0}
        await watch.until(lambda: watch.status("db")["healthy"])
        sock.close()
        await watch.until(lambda: watch.status("db")["unhealthy"])
        assert sum(watch.status("db").values()) == 1
        await watch.checks.apply(Config())
        assert watch.status("db") == {}
        assert watch.checks.view() == []


async def test_a_changed_dependency_begins_anew() -> None:
    sock, address = listen()
    async with watching(dependencies=(tcp(address),)) as watch:
        await watch.until(lambda: watch.status("db")["healthy"])
        await watch.checks.apply(Config(dependencies=(tcp(address, unhealthy_after=7),)))
        assert watch.status("db")["healthy"]
        await watch.checks.apply(Config(dependencies=(tcp(f"127.0.0.1:{free_port()}"),)))
        assert watch.status("db")["unknown"]
        await watch.until(lambda: watch.status("db")["unhealthy"])
    sock.close()


async def test_services_that_stand_for_each_other() -> None:
    """All answer: healthy. Some: degraded. None: unhealthy."""
    with ScriptedUpstream() as one, ScriptedUpstream() as two:
        check = DependencyCheck(http=HttpCheck(urls=(f"http://{one.address}/up", f"http://{two.address}/up")))
        either = Dependency(name="tax", check=check, interval=0.05, unhealthy_after=2)
        async with watching(dependencies=(either,)) as watch:
            await watch.until(
                lambda: watch.status("tax")["healthy"] and watch.seen(dependency="tax")["detail"][0] == "2"
            )
            one.on("/up", says(b"", "500 Oops"))
            await watch.until(lambda: watch.status("tax")["degraded"])
            seen = watch.seen(dependency="tax")
            assert (seen["state"], seen["detail"]) == ("degraded", "1 of 2 healthy")
            assert {part["target"]: part["state"] for part in seen["parts"]} == {
                f"http://{one.address}/up": "unhealthy",
                f"http://{two.address}/up": "healthy",
            }
            two.on("/up", says(b"", "500 Oops"))
            await watch.until(lambda: watch.status("tax")["unhealthy"])
            one.on("/up", says())
            two.on("/up", says())
            await watch.until(lambda: watch.status("tax")["healthy"])


# -------------------------------------------------------------------------------------------------- asking
async def test_a_probe_that_breaks_is_a_failure() -> None:
    async def broken() -> str:
        raise ZeroDivisionError

    assert (await ask(broken, 1.0))[::2] == (False, "the check itself failed: ZeroDivisionError")
