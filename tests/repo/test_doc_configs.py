"""Every configuration in the docs can be used: each YAML block is completed with what it leaves out, and read.

A block shows a whole file, some of its sections, or the inside of an upstream or a listener; what kind it is, its keys
tell. What belongs to other programs is left out by its keys.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.document import Config
from sidecar.config.listeners import Listener
from sidecar.config.load import parse
from sidecar.config.shape import fields
from sidecar.config.upstreams import Upstream

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OTHERS = {"apiVersion", "resources", "scrape_configs", "phases", "groups", "services"}
"""Keys of Kubernetes', kustomize's, Prometheus', Compose's files, and of scenarios (which `sidecar simulate` reads)."""
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOUND = [
    (page, number, text)
    for page in PAGES
    for number, text in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")), 1)
]
ENDPOINTS = [{"address": "127.0.0.1:8000"}]
SOURCES = [
    {"name": "db", "sqlite": {"path": "/data/orders.db"}},
    {"name": "uploads", "files": {"paths": ["/data/uploads"]}},
]


def keys(section: Any) -> set[str]:
    return {field.name for field in fields(section)}


def whole(block: dict[str, Any]) -> dict[str, Any]:
    """The file that the block shows a part of."""
    given = set(block)
    if not given <= keys(Config):
        if given <= keys(Upstream):
            block = {"upstreams": [{"name": "app", "endpoints": ENDPOINTS, **block}]}
        elif given <= keys(Listener):
            block = {"listeners": [{"name": "in", "bind": "127.0.0.1:8080", **block}]}
        else:
            raise AssertionError(f"keys of no section: {sorted(given)}")
    document = {"version": 1, **block}
    text = str(document)
    known = {one["name"] for one in document.get("upstreams", ())}
    named = {name for name in ("app", "payments", "payments-dr", "orders") if f"'{name}'" in text} | {"app"}
    missing = [{"name": name, "endpoints": ENDPOINTS} for name in sorted(named - known)]
    document["upstreams"] = [*document.get("upstreams", ()), *missing]
    if "listeners" not in document:
        routes = [{"name": "all", "upstream": "app"}]
        document["listeners"] = [{"name": "in", "bind": "127.0.0.1:8080", "routes": routes}]
    if "backup" in document:
        repository = {"url": "/var/backups/orders", "engine": "sealed", "password_file": "/run/secrets/key"}
        document["backup"] = {"repository": repository, "sources": SOURCES, **document["backup"]}
    if "recovery" in document and "dependencies" not in document and "orders-db" in text:
        document["dependencies"] = [{"name": "orders-db", "check": {"tcp": {"address": "127.0.0.1:5432"}}}]
    return document


@pytest.mark.parametrize(
    ("page", "number", "text"), FOUND, ids=[f"{page.relative_to(ROOT)}:{number}" for page, number, _ in FOUND]
)
def test_it_can_be_used(page: Path, number: int, text: str) -> None:
    block, *others = yaml.safe_load_all(text)
    assert not others or OTHERS & set(block), "our files hold one document"
    if not isinstance(block, dict) or OTHERS & set(block):
        return
    parse(yaml.safe_dump(whole(block)), "the block", {"POD_IP": "10.0.0.1"})


def test_there_are_some() -> None:
    assert len(FOUND) > 15
