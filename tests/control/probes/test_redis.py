"""Redis probes against real servers: open, with a password, behind Sentinel; and every way of being told no."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.redis import Redis as RedisConfig
from sidecar.config.redis import Sentinel
from sidecar.control.probes.probe import Result, ask
from sidecar.control.probes.redis import RedisProbe
from tests.real.databases import Redis, RedisSentinel


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Redis]:
    with Redis("--requirepass", "hush", "--user", "me", "on", ">mine", "+ping", "~*") as running:
        yield running


def probe(**config: Any) -> Result:
    def no_tls() -> Any:
        raise AssertionError("nothing here is encrypted")

    return asyncio.run(ask(RedisProbe(RedisConfig(**config), no_tls), 5.0))


def secret(directory: Path, text: str) -> str:
    file = directory / "password"
    file.write_text(text + "\n")
    return str(file)


def test_it_pings(server: Redis) -> None:
    assert probe(url=f"redis://127.0.0.1:{server.port}/0")[::2] == (True, "PONG")
    assert probe(url=f"unix://{server.directory}/socket").ok


def test_it_logs_in(guarded: Redis, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{guarded.port}"
    assert probe(url=url, password_file=secret(tmp_path, "hush")).ok
    assert probe(url=url, username="me", password_file=secret(tmp_path, "mine")).ok
    assert probe(url=url.replace("//", "//me@"), password_file=secret(tmp_path, "mine")).ok


def test_it_says_why_not(guarded: Redis, server: Redis, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{guarded.port}"
    assert probe(url=url).detail == "refused: NOAUTH"
    assert probe(url=url, password_file=secret(tmp_path, "wrong")).detail == "refused: WRONGPASS"
    assert probe(url=url, password_file="/none").detail == "/none cannot be read: No such file or directory"
    assert probe(url="redis://127.0.0.1:1").detail == "Connection refused"
    assert probe(url=f"redis://127.0.0.1:{server.port}", cluster=True).detail == "refused: ERR"


def test_the_sentinels_say_who_the_master_is(server: Redis) -> None:
    with RedisSentinel(server) as sentinel:
        places = ("127.0.0.1:1", sentinel.address)
        assert probe(sentinel=Sentinel(master="main", addresses=places)).ok
        unknown = probe(sentinel=Sentinel(master="other", addresses=places))
        assert unknown.detail.startswith("no sentinel told the master: ")
        assert unknown.detail.endswith("knows no such master")


def test_a_secret_that_is_written_anew_is_read_anew(guarded: Redis, tmp_path: Path) -> None:
    file = secret(tmp_path, "wrong")
    asked = RedisProbe(RedisConfig(url=f"redis://127.0.0.1:{guarded.port}", password_file=file), None)  # type: ignore[arg-type]

    async def twice() -> tuple[Result, Result]:
        first = await ask(asked, 5.0)
        secret(tmp_path, "hush")
        return first, await ask(asked, 5.0)

    first, second = asyncio.run(twice())
    assert (first.ok, second.ok) == (False, True)
