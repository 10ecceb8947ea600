"""Where a benchmark works, and what it leaves: every result is written in one form."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec


@contextmanager
def scratch(within: Path | None = None) -> Iterator[Path]:
    """An empty directory that is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=within))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def write(result: Any, path: Path) -> None:
    """The result as JSON that people and diffs can read."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def pairs(rows: dict[str, str]) -> str:
    """Figures and what they are, as Markdown."""
    return "\n".join(["| what | measured |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows.items())])
