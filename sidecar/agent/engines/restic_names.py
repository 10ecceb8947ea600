"""Paths and patterns as restic takes them."""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from sidecar.agent.faults import SourceFailure
from sidecar.agent.paths import unspell
from sidecar.agent.ports import Root


def apart(roots: Sequence[Root]) -> None:
    """Restic keeps a path once: roots that lie in each other could not be told apart."""
    real = sorted(root.path.rstrip("/") + "/" for root in roots)
    for one, other in pairwise(real):
        if other.startswith(one):
            raise SourceFailure(f"{other.rstrip('/')} lies in {one.rstrip('/')}, which is named too: name it once")


def stored_at(path: str, places: Mapping[str, str]) -> bytes:
    """Where in the snapshot a path of the index stands."""
    for at, real in places.items():
        if path == at or path.startswith(f"{at}/"):
            return os.fsencode(real) + unspell(path)[len(unspell(at)) :]
    return b"/" + unspell(path)


def literal(path: bytes) -> bytes:
    """A pattern that this path alone matches."""
    return re.sub(rb"([\\*?\[])", rb"\\\1", path)


def restic_glob(pattern: str) -> str:
    """An exclude pattern of ours for restic, to which `[!…]`, a backslash, `**` and a first `!` mean other things."""
    text = re.sub(r"\*+", "*", pattern.replace("\\", "\\\\").replace("[!", "[^"))
    return f"[!]{text[1:]}" if text.startswith("!") else text
