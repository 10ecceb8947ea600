"""The admin socket of the proxy that runs with a file, when the file does not tell it any more.

An emptied, overwritten or deleted file must not lock the operator out of the proxy that runs on with what it read. The
kernel knows: which process was started with this file, and on which Unix sockets it listens. Which of these is the
admin interface it says itself. Only one's own processes can be looked into; root sees all.
"""

import os
from collections.abc import Iterator

from sidecar.cli import DEFAULT_CONFIG

_ACCEPTS = 1 << 16
"""Of the flags in /proc/net/unix: __SO_ACCEPTCON."""


def candidates(file: str) -> Iterator[tuple[int, str]]:
    """Process id and path of every Unix socket on which a proxy that was started with `file` listens."""
    wanted = os.path.realpath(file)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if _file_of(name) == wanted:
                inodes = _sockets_of(name)
                yield from ((int(name), path) for inode, path in _listening(name) if inode in inodes)
        except OSError:  # it has ended, or is another user's
            continue


def _file_of(pid: str) -> str | None:
    """The configuration that this process was told to run with; None: it is no proxy."""
    words = _words(pid, "cmdline")
    words = words[: words.index("--")] if "--" in words else words
    if "run" not in words or "agent" in words or not any("sidecar" in word for word in words[:4]):
        return None
    environment = dict(word.partition("=")[::2] for word in _words(pid, "environ"))
    given = environment.get("SIDECAR_CONFIG") or DEFAULT_CONFIG
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-c", "--config"):
            given = following
        elif word.startswith("--config="):
            given = word.removeprefix("--config=")
    return os.path.realpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), given))


def _words(pid: str, what: str) -> list[str]:
    with open(f"/proc/{pid}/{what}", "rb") as file:
        return os.fsdecode(file.read()).rstrip("\0").split("\0")


def _sockets_of(pid: str) -> set[str]:
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{number}").removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _listening(pid: str) -> Iterator[tuple[str, str]]:
    """Inode and path of the listening Unix sockets that this process's network knows."""
    with open(f"/proc/{pid}/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split(maxsplit=7)
            if len(words) == 8 and words[7].startswith("/") and int(words[3], 16) & _ACCEPTS:
                yield words[6], words[7].rstrip("\n")
