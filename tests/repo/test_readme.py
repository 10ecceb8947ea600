"""The README promises what is there: its configurations are valid."""

import re
from pathlib import Path

from sidecar.config.load import parse

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_its_configurations_are_valid():
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert parse(block).listeners
