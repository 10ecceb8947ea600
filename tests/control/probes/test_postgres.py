"""PostgreSQL probes against a real server: every way of logging in, every way of being told no."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.control.probes.postgres import PostgresProbe
from sidecar.control.probes.probe import Result, ask
from tests.fakes.tls import certificate
from tests.real.databases import PASSWORD, Postgres

QUOTED = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
IN_URL = "p%C3%A4ssword%3D1%20%27%5C"


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def probe(database: Postgres, tmp_path: Path):
    """Ask once, with this connection string; {port} and {socket} are filled in."""
    file = tmp_path / "dsn"

    def once(dsn: str, query: str = "SELECT 1") -> Result:
        file.write_text(dsn.format(port=database.port, socket=database.directory) + "\n")
        return asyncio.run(ask(PostgresProbe(str(file), query), 5.0))

    return once


@pytest.mark.parametrize("user", ["scram", "md5", "plain"])
def test_it_logs_in_by_every_method(probe, user: str) -> None:
    url = f"postgresql://{user}:{IN_URL}@127.0.0.1:{{port}}/postgres"
    pairs = f"host=127.0.0.1 port={{port}} user={user} dbname=postgres password='{QUOTED}'"
    for dsn in (url, pairs):
        assert probe(dsn)[::2] == (True, "answered the query")


def test_it_asks_over_a_unix_socket(probe) -> None:
    assert probe("postgresql:///postgres?host={socket}&port={port}&user=postgres").ok


def test_of_several_hosts_the_first_that_can_be_reached_is_asked(probe) -> None:
    assert probe(f"postgresql://scram:{IN_URL}@127.0.0.1:1,127.0.0.1:{{port}}/postgres").ok


@pytest.mark.parametrize(
    ("dsn", "detail"),
    [
        ("postgresql://scram:wrong@127.0.0.1:{port}/postgres", "error 28P01, wrong password"),
        ("postgresql://md5:wrong@127.0.0.1:{port}/postgres", "error 28P01, wrong password"),
        ("postgresql://scram:" + IN_URL + "@127.0.0.1:{port}/none", "error 3D000, there is no such database"),
        ("postgresql://stranger@127.0.0.1:{port}/postgres", "error 28000, not let in (pg_hba.conf)"),
        (
            "postgresql://scram:x@127.0.0.1:{port}/postgres?sslmode=require",
            "does not speak TLS, which sslmode=require asks for",
        ),
        ("postgresql://scram:x@127.0.0.1:1/postgres", "Connection refused"),
    ],
)
def test_it_says_why_not(probe, dsn: str, detail: str) -> None:
    assert probe(dsn)[::2] == (False, detail)


def test_it_asks_what_it_is_told_to_ask(probe) -> None:
    login = "postgresql:///postgres?host={socket}&port={port}&user=postgres"
    assert probe(login, "SELECT count(*) FROM pg_class").ok
    assert probe(login, "SELECT 1 FROM nowhere").detail == "error 42P01, the query names a table that is not there"
    assert probe(login, "SELEC").detail == "error 42601, the query is not SQL"


def test_a_long_answer_is_not_read(probe) -> None:
    login = "postgresql:///postgres?host={socket}&port={port}&user=postgres"
    assert probe(login, "SELECT repeat('x', 100000)").detail == "announced more than 64 KiB"
    assert probe(login, "SELECT repeat('x', 1000) FROM generate_series(1, 100000)").detail == "sent more than 64 KiB"


def test_it_leaves_no_connection_behind(probe, database: Postgres) -> None:
    for _ in range(30):  # max_connections is 20
        assert probe("postgresql:///postgres?host={socket}&port={port}&user=postgres").ok


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Path]]:
    """A server with a certificate for localhost, and that certificate."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = certificate(directory)
    with Postgres(certificate=(cert, key)) as running:
        yield running, cert


@pytest.mark.parametrize(
    ("host", "mode", "detail"),
    [
        ("localhost", "disable", "error 28000, not let in (pg_hba.conf)"),
        ("localhost", "prefer", "answered the query"),
        ("localhost", "require", "answered the query"),
        ("localhost", "verify-full&sslrootcert={cert}", "answered the query"),
        ("127.0.0.1", "verify-ca&sslrootcert={cert}", "answered the query"),
        (
            "127.0.0.1",
            "verify-full&sslrootcert={cert}",
            "TLS: IP address mismatch, certificate is not valid for '127.0.0.1'.",
        ),
        ("localhost", "verify-full", "TLS: self-signed certificate"),
    ],
)
def test_tls(encrypted: tuple[Postgres, Path], tmp_path: Path, host: str, mode: str, detail: str) -> None:
    database, cert = encrypted
    file = tmp_path / "dsn"
    mode = mode.format(cert=cert)
    file.write_text(f"postgresql://scram:{IN_URL}@{host}:{database.port}/postgres?sslmode={mode}")
    assert asyncio.run(ask(PostgresProbe(str(file)), 5.0)).detail == detail


def test_a_missing_file_is_named_and_no_secret_is(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    assert asyncio.run(ask(PostgresProbe(str(file)), 1.0)).detail == f"{file} cannot be read: No such file or directory"
    file.write_text("postgresql://me:hush@h:x/db")
    told = asyncio.run(ask(PostgresProbe(str(file)), 1.0)).detail
    assert told.startswith(str(file))
    assert "hush" not in told
