"""The locks say what pyproject.toml asks for, every file by hash and from no named address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPS = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["all"]
LOCKS = {
    "requirements.txt": SHIPS,
    "requirements-build.txt": PROJECT["dependency-groups"]["build"],
    "requirements-dev.txt": [item for item in PROJECT["dependency-groups"]["dev"] if isinstance(item, str)]
    + PROJECT["dependency-groups"]["build"]
    + SHIPS,
}


def blocks(name: str) -> list[str]:
    """One requirement each, with its continuation lines joined."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, Version]:
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", block) for block in blocks(name))
    return {canonicalize_name(match[1]): Version(match[2]) for match in found if match}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_hash(name: str):
    assert blocks(name)
    for block in blocks(name):
        assert re.fullmatch(r"[a-z0-9_.-]+==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", block), block


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_satisfies_what_the_project_asks_for(name: str):
    locked = pins(name)
    for line in LOCKS[name]:
        wanted = Requirement(line)
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted} is missing in {name}: run `make lock`"
        assert version in wanted.specifier, f"{name} has {version}, {wanted} is asked for: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_names_no_address(name: str):
    assert not re.search(r"://|--index-url|--find-links|--trusted-host", (ROOT / name).read_text())


def test_tests_run_on_what_ships():
    ships, tested = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: tested.get(name) for name in ships} == ships
