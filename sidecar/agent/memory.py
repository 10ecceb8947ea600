"""The agent's memory: one heap for all its threads.

glibc gives each thread a heap of its own. Segments of some MiB that one thread makes and another lets go leave holes in
all of them, and the process grows by a quarter. Threads that hash, pack and seal hardly ever allocate at the same
moment: they can share.
"""

import contextlib
import ctypes

_M_ARENA_MAX = -8


def one_heap() -> None:
    """For threads that start from now on. Another C library has no such choice, and no need."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
