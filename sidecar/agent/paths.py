"""Paths as text that JSON can carry, their order, and what an exclude pattern means.

A path that is not UTF-8 is spelt as a NUL, which no path contains, and its bytes read as Latin-1. Paths are sorted by
their components as bytes, depth first, a directory before what it holds: the order in which a tree is walked.

An exclude pattern without a slash is matched against each name on the way; one with a slash against the whole absolute
path. `*`, `?` and `[…]` as in a shell, a slash is matched by a slash only.
"""

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence

from sidecar.agent.faults import Damaged


def spell(raw: bytes) -> str:
    """Bytes of a path as text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "\0" + raw.decode("latin-1")


def unspell(text: str) -> bytes:
    """The inverse of `spell`."""
    return text[1:].encode("latin-1") if text.startswith("\0") else text.encode()


def order(path: str) -> list[bytes]:
    """The key to sort by."""
    return unspell(path).split(b"/")


def safe_join(directory: bytes, path: str) -> bytes:
    """Where `path` of an index stands below `directory`. Raises Damaged for one that would lead outside."""
    raw = unspell(path)
    parts = raw.split(b"/")
    if raw.startswith(b"/") or any(part in {b"", b".", b".."} for part in parts):
        raise Damaged(f"an index names {path!r}, which leads outside")
    return os.path.join(directory, raw)


def above(path: str) -> Iterator[str]:
    """The directories that lead to it, outermost first."""
    parts = path.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts)))


def chosen(path: str, only: Sequence[str] | None) -> bool:
    """Whether it is one of `only` or below one; None: everything is."""
    return only is None or any(path == one or path.startswith(one.rstrip("/") + "/") for one in only)


def excluder(patterns: Sequence[str]) -> Callable[[bytes, bytes], bool]:
    """Tells of a name and its absolute path whether a pattern leaves it out."""
    names = _compiled([pattern for pattern in patterns if "/" not in pattern])
    paths = _compiled([pattern.rstrip("/") for pattern in patterns if "/" in pattern])

    def excluded(name: bytes, path: bytes) -> bool:
        return bool((names and names.match(name)) or (paths and paths.match(path)))

    return excluded


def _compiled(patterns: Sequence[str]) -> re.Pattern[bytes] | None:
    if not patterns:
        return None
    return re.compile(b"|".join(_translated(pattern) for pattern in patterns), re.DOTALL)


@functools.cache
def _translated(pattern: str) -> bytes:
    """`fnmatch`'s translation, in which `*` and `?` do not cross a slash."""
    text = fnmatch.translate(pattern)
    text = re.sub(r"(?<!\\)\.\*", "[^/]*", text)
    text = re.sub(r"(?<![\\\])])\.(?![*+])", "[^/]", text)
    return text.encode()
