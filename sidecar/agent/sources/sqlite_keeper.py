"""A program of its own, started by `sqlite.py`: keeps an SQLite database with a WAL still until it is told to end.

Theory. A checkpoint writes into the database's file no more than the oldest reader has seen of the log, and a reader
that needs nothing of the log forbids it altogether. So a reader whose moment is all in the file keeps the file as it
is, and the file alone is the state of that moment; others go on writing to the log. Whether all is in the file, a
checkpoint says: it never gets further than our reader's moment, so when it got to the log's end, that is our moment.

A process of its own, since POSIX lets go of all locks that a process holds on a file when it closes any descriptor of
it: whoever reads the file must not be who holds the locks. Standard library only; it starts in milliseconds.
"""

import signal
import sqlite3
import sys
import time
from contextlib import closing
from urllib.parse import quote

_BUSY_SECONDS = 5.0
_TRIES = 20
"""Others may write between our reader's begin and the look at the log: then both begin anew."""


def main(path: str) -> None:
    """Say `still`, and stay until SIGINT or SIGTERM; or say why not and end."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    where = f"file:{quote(path)}?mode="
    try:
        with closing(sqlite3.connect(f"{where}ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as reader:
            why = _still(reader, f"{where}rw")
            _say(why or "still")
            if not why:
                signal.sigwait(ends)
    except sqlite3.Error as error:
        _say(str(error))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _still(reader: sqlite3.Connection, writable: str) -> str:
    """Begin to read at a moment that is all in the file; else why that cannot be had."""
    if reader.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        return "without a WAL a reader keeps everybody from writing"
    with closing(sqlite3.connect(writable, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as keeper:
        for _ in range(_TRIES):
            keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_master").fetchone()  # now it has its moment
            busy, logged, written = keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not busy and logged == written:
                return ""
            reader.execute("ROLLBACK")
            time.sleep(0.01)
    return "others write, or read an older state, all the time"


if __name__ == "__main__":
    main(sys.argv[1])
