"""The README promises what is there: its configuration is valid, and what it says is missing is what is missing."""

import re
from pathlib import Path

import pytest

from sidecar.config.inactive import NOT_ACTIVE_YET
from sidecar.config.load import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

WORDS = {
    "shared_state": "shared state",
    "dependencies": "dependencies",
    "recovery": "recovery",
    "incidents": "incidents",
    "backup.drill": "drills",
    "backup.repository.s3": "object stores",
    "backup.rto": "drills",
    "backup.sources.postgres": "PostgreSQL",
    "backup.sources.redis": "Redis",
    "listeners.tls": "TLS on listeners",
    "listeners.routes.fallback": "fallbacks",
    "listeners.routes.breaker": "circuit breakers",
    "upstreams.discovery": "discovery",
    "upstreams.breaker": "circuit breakers",
    "upstreams.breaker.quorum": "replicas share",
    "upstreams.outlier": "outlier ejection",
    "upstreams.health_check": "health checks",
    "upstreams.tls": "to upstreams",
}
"""How the README calls each part that `check` may call not active yet."""


def missing() -> str:
    """The list of what is not there yet."""
    _, _, after = README.partition("## What is not there yet")
    return after.partition("\n## ")[0]


def test_each_inactive_part_has_a_word():
    assert set(NOT_ACTIVE_YET) <= set(WORDS)


@pytest.mark.parametrize("word", sorted(set(WORDS.values())))
def test_what_it_says_is_missing_is_missing(word: str):
    inactive = any(WORDS.get(path) == word for path in NOT_ACTIVE_YET)
    verb = "add to" if inactive else "take from"
    assert (word in missing()) == inactive, f"{verb} README's list of what is not there yet: {word}"


def test_its_configurations_are_valid():
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert parse(block).listeners
