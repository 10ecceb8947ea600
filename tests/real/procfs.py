"""What the kernel says about a process: its children, its memory, its CPU time, its open files."""

import contextlib
import os
import re
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Whichever thread started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def rss_of(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def thread_heaps_of(pid: int) -> int:
    """How many heaps glibc has made for single threads: they begin at a multiple of 64 MiB."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum(" rw-p 00000000 00:00 0" in line and int(line.split("-")[0], 16) % (64 << 20) == 0 for line in lines)


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def pipes_of(pid: int) -> int:
    """How many ends of pipes it holds."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("pipe:")
    return found


def session_members(session: int) -> list[int]:
    """The living members of a session."""
    members = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] != "Z":
            members.append(int(name))
    return members


def processes_naming(text: str) -> list[str]:
    """The command lines in which `text` stands."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in words:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found
