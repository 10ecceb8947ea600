"""Which programs of PostgreSQL are taken: of the server's version or newer, where newer ones understand it."""

from pathlib import Path

import pytest

from sidecar.agent.faults import EngineFailure
from sidecar.agent.sources.postgres_tools import find


def program(directory: Path, name: str, version: str) -> str:
    """One that only says of which version it is."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
    path.chmod(0o755)
    return str(path)


def test_an_older_one_is_refused_and_what_to_install_is_named(tmp_path: Path):
    program(tmp_path / "old", "pg_basebackup", "97.4")
    with pytest.raises(EngineFailure, match=r"no pg_basebackup of PostgreSQL 98 here: install postgresql-client-98"):
        find("pg_basebackup", str(tmp_path / "old"), 98)


def test_a_newer_client_will_do_and_a_newer_server_will_not(tmp_path: Path):
    newer = program(tmp_path / "new", "pg_basebackup", "99beta1")
    program(tmp_path / "new", "postgres", "99beta1")
    assert find("pg_basebackup", str(tmp_path / "new"), 98) == newer
    with pytest.raises(EngineFailure, match=r"no postgres of PostgreSQL 98 here: install postgresql-98"):
        find("postgres", str(tmp_path / "new"), 98, newer=False)
    assert find("postgres", str(tmp_path / "new"), 99, newer=False).startswith(str(tmp_path))
