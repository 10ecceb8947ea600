"""A real Redis backed up by command, and brought back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.trust import Authority
from tests.real.databases import Redis, RedisSentinel
from tests.real.documents import free_port
from tests.real.estate import Estate

SECRET = "hush hush"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis("--requirepass", SECRET) as server:
        yield server


@pytest.fixture
def estate(tmp_path: Path, redis: Redis) -> Estate:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    estate = Estate(tmp_path)
    write(estate, redis)
    return estate


def write(estate: Estate, redis: Redis, **more: object) -> None:
    source = {"url": f"redis://{redis.address}", "password_file": str(estate.directory / "secret"), **more}
    estate.write(sources=[{"name": "cache", "redis": source}])


def ask(port: int, *words: str, password: str | None = None) -> str:
    login = ["-a", password] if password else []
    line = ["redis-cli", "-p", str(port), "--no-auth-warning", *login, *words]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def test_its_state_comes_back(estate: Estate, redis: Redis, tmp_path: Path):
    ask(redis.port, "SET", "tea", "hot", password=SECRET)
    fill = "for i = 1, 20000 do redis.call('SET', 'k' .. i, i) end"
    ask(redis.port, "EVAL", fill, "0", password=SECRET)
    for mode in ("yes", "no"):  # sent as it is made, or from a file
        ask(redis.port, "CONFIG", "SET", "repl-diskless-sync", mode, "repl-diskless-sync-delay", "0", password=SECRET)
        made = estate.json("backup", "run")
        assert made["verified"]
        assert made["sources"][0]["sort"] == "redis"
    ask(redis.port, "SET", "tea", "cold", password=SECRET)
    target = tmp_path / "t"
    estate.run("restore", "apply", estate.json("restore", "plan", "--target", str(target))["hash"])
    with Redis("--dir", str(target / "cache"), "--dbfilename", "dump.rdb") as back:
        assert ask(back.port, "GET", "tea") == "hot"
        assert ask(back.port, "DBSIZE") == "20001"


def test_what_cannot_work_is_told_and_repeats_no_secret(estate: Estate, redis: Redis, tmp_path: Path):
    (tmp_path / "secret").write_text("a guess")
    refused = estate.run("backup", "run", code=1).stderr
    assert "refuses the password" in refused
    assert "guess" not in refused
    (tmp_path / "secret").write_text(SECRET)
    ask(redis.port, "ACL", "SETUSER", "reader", "on", "~*", "+@read", "+info", f">{SECRET}", password=SECRET)
    write(estate, redis, username="reader")
    assert "the user needs +sync" in estate.run("backup", "run", code=1).stderr
    write(estate, redis, url="redis://127.0.0.1:1")
    assert "does not answer" in estate.run("backup", "run", code=1).stderr
    write(estate, redis, cluster=True)
    assert "each primary" in estate.run("backup", "run", code=1).stderr
    assert estate.json("backup", "list") == []


def test_every_way_to_reach_it(tmp_path: Path):
    authority = Authority(tmp_path)
    pair, tls_port = authority.issue("server", "127.0.0.1"), free_port()
    with_tls = ["--tls-port", str(tls_port), "--tls-cert-file", str(pair.cert), "--tls-key-file", str(pair.key)]
    (tmp_path / "secret").write_text(SECRET)
    estate, password = Estate(tmp_path), {"password_file": str(tmp_path / "secret")}
    with Redis("--requirepass", SECRET, *with_tls, "--tls-auth-clients", "no") as server, RedisSentinel(server) as told:
        ask(server.port, "SET", "tea", "hot", password=SECRET)
        ask(server.port, "ACL", "SETUSER", "backup", "on", "+sync", "+info", f">{SECRET}", password=SECRET)
        tls = {"url": f"rediss://127.0.0.1:{tls_port}", "ca_file": str(authority.file)}
        ways = {
            "socket": {"url": f"unix://{server.directory}/socket"},
            "tls": tls,
            "sentinel": {"sentinel": {"master": "main", "addresses": ["127.0.0.1:1", told.address]}},
            "user": {**tls, "username": "backup"},
        }
        estate.write(sources=[{"name": name, "redis": {**way, **password}} for name, way in ways.items()])
        made = estate.json("backup", "run")
        assert made["verified"]
        assert [(one["name"], one["bytes"] > 100) for one in made["sources"]] == [(name, True) for name in ways]
        stranger = Authority(tmp_path, "stranger")
        estate.write(sources=[{"name": "cache", "redis": {**tls, **password, "ca_file": str(stranger.file)}}])
        assert "certificate verify failed" in estate.run("backup", "run", code=1).stderr
