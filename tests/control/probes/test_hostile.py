"""Targets that hang, flood, babble and leave: every probe ends in time, takes little, and says so in a sentence."""

import asyncio
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.address import Address
from sidecar.config.redis import Redis, Sentinel
from sidecar.config.upstreams import SUCCESSES
from sidecar.control.probes.grpc import GrpcProbe
from sidecar.control.probes.http import HttpProbe
from sidecar.control.probes.postgres import PostgresProbe
from sidecar.control.probes.probe import Probe, ask
from sidecar.control.probes.redis import RedisProbe
from sidecar.control.probes.tcp import TcpProbe
from tests.fakes import peers

Make = Callable[[int, Path], Probe]


def http(port: int, _: Path) -> Probe:
    return HttpProbe(Address(host="127.0.0.1", port=port), authority="x", path="/", expect=SUCCESSES, contains="well")


def grpc(port: int, _: Path) -> Probe:
    return GrpcProbe(Address(host="127.0.0.1", port=port), authority="x")


def redis(port: int, _: Path) -> Probe:
    return RedisProbe(Redis(url=f"redis://127.0.0.1:{port}"), None)  # type: ignore[arg-type]


def sentinel(port: int, _: Path) -> Probe:
    config = Redis(sentinel=Sentinel(master="main", addresses=(f"127.0.0.1:{port}",)))
    return RedisProbe(config, None)  # type: ignore[arg-type]


def postgres(mode: str) -> Make:
    def make(port: int, directory: Path) -> Probe:
        (directory / "dsn").write_text(f"postgresql://me:hush@127.0.0.1:{port}/db?sslmode={mode}")
        return PostgresProbe(str(directory / "dsn"))

    return make


PROBES: dict[str, Make] = {
    "http": http,
    "grpc": grpc,
    "redis": redis,
    "sentinel": sentinel,
    "postgres": postgres("disable"),
    "postgres with tls": postgres("require"),
}


@pytest.mark.parametrize("make", PROBES.values(), ids=PROBES.keys())
@pytest.mark.parametrize("behaviour", peers.ALL, ids=lambda one: one.__name__)
def test_it_fails_in_time_and_in_little_memory(make: Make, behaviour: peers.Behaviour, tmp_path: Path) -> None:
    with peers.peer(behaviour) as port:
        probe = make(port, tmp_path)
        tracemalloc.start()
        try:
            result = asyncio.run(asyncio.wait_for(ask(probe, 0.15), 10.0))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert not result.ok
    assert result.detail
    assert "itself" not in result.detail  # no exception that nobody thought of
    assert "hush" not in result.detail
    assert peak < 2 << 20


def test_tcp_only_connects(tmp_path: Path) -> None:
    with peers.peer(peers.floods) as port:
        assert asyncio.run(ask(TcpProbe(Address(host="127.0.0.1", port=port)), 5.0))[::2] == (True, "connected")
    assert asyncio.run(ask(TcpProbe(Address(path=str(tmp_path / "none"))), 5.0)).detail == "No such file or directory"


def test_a_hanging_target_holds_up_no_other() -> None:
    """A thousand that hang and one that answers, all at once."""

    async def all_at_once() -> None:
        with peers.peer(peers.hangs) as hanging, peers.peer(peers.hangs) as answering:
            waiting = [asyncio.ensure_future(ask(http(hanging, Path()), 30.0)) for _ in range(100)]
            await asyncio.sleep(0)
            assert (await ask(TcpProbe(Address(host="127.0.0.1", port=answering)), 5.0)).ok
            assert not any(one.done() for one in waiting)
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)

    asyncio.run(all_at_once())


def test_a_name_that_is_none() -> None:
    for host in ("no-such-host.invalid", "a" * 70 + ".invalid", "a..b"):
        told = asyncio.run(ask(TcpProbe(Address(host=host, port=1)), 10.0)).detail
        assert told.startswith(f"the name {host} does not resolve")
