"""The regular expressions keep to what every supported Python gets right.

Before 3.11.5 a possessive repetition of a group does not step back when an iteration fails half-way: `(?:ab?c)++` finds
all of "aca". In a grammar of lines that takes the beginning of a malformed line for the end of a good one.
"""

import importlib
import pkgutil
import re

import pytest

import sidecar.proxy.codec

PATTERNS = {
    f"{module.name}.{name}": value.pattern
    for module in pkgutil.iter_modules(sidecar.proxy.codec.__path__)
    for name, value in vars(importlib.import_module(f"sidecar.proxy.codec.{module.name}")).items()
    if isinstance(value, re.Pattern)
}


def test_there_are_patterns_to_look_at() -> None:
    assert {"fast._REQUEST", "fast._RESPONSE", "body._ANY_SIZE"} <= PATTERNS.keys()


@pytest.mark.parametrize("name", PATTERNS)
def test_no_group_is_repeated_possessively(name: str) -> None:
    assert not re.search(rb"\)(?:[*+?]|\{[0-9,]+\})\+", PATTERNS[name])
    assert rb"(?>" not in PATTERNS[name]
