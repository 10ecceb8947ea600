"""A restored copy of a PostgreSQL cluster: its log put beside it, and a server of its own on it.

`replay` makes the copy one that any server of its version brings to the wanted moment when it starts: the WAL lies in
`pg_wal`, `recovery.signal` and the settings say up to where. A moment after which nothing was committed any more needs
no limit; PostgreSQL would take it for one that was not reached.

The scratch server listens on a socket in a directory of its own only, lets everybody in there, loads no library, and
does not care for the disk: what it runs on is thrown away.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from sidecar.agent.children import end, environment, run, spawn
from sidecar.agent.faults import AgentFault, Damaged, EngineFailure, OutOfReach, SourceFailure
from sidecar.agent.ports import SourcePoint
from sidecar.agent.sources.postgres_tablespaces import made
from sidecar.agent.sources.postgres_tools import as_somebody, find
from sidecar.agent.wal import WalArchive

_SETTINGS = "postgresql.auto.conf"
_OURS = re.compile(r"^(restore_command|recovery_target\w*)\b.*\n?", re.MULTILINE)
_COMMIT = re.compile(r"desc: (?:COMMIT|ABORT)\w*(?: PREPARED)? .*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")
_TABLESPACE = re.compile(r"rmgr: Tablespace .*lsn: ([0-9A-F]+/[0-9A-F]+),.*desc: CREATE ")
START_SECONDS = 3600.0
"""Replaying may take long."""
_LONGEST_SOCKET = 80
"""Characters of a directory, so that the socket in it is below the kernel's 107."""


def replay(
    data: str, point: SourcePoint, archive: WalArchive, until: datetime | None, end_lsn: int, programs: str | None
) -> None:
    """Give the copy in `data` the log up to `end_lsn`; it will stop at `until`; None: at its end. Again is no error."""
    details = point.details
    size = int(details["segment_bytes"])
    into = os.path.join(data, "pg_wal")
    os.makedirs(into, mode=0o700, exist_ok=True)
    names, there = [], set(archive.names())
    for name, kept in archive.needed(str(details["wal_from"]), end_lsn, size):
        names.append(name)
        here = os.path.join(into, name)
        if os.path.isfile(here) and (name < str(details["wal_to"]) or kept not in there):
            continue  # it came with the base backup
        _write(here, archive.get(kept))
    for name in there:
        if name.endswith(".history"):
            _write(os.path.join(into, name), archive.get(name))
    limit = _limit(into, names, until, programs, details)
    settings, before = os.path.join(data, _SETTINGS), ""
    with contextlib.suppress(FileNotFoundError), open(settings, encoding="utf-8", errors="surrogateescape") as file:
        before = _OURS.sub("", file.read())
    lines = [
        "restore_command = 'false'  # all of the log is in pg_wal",
        "recovery_target_timeline = 'current'  # later ones may have left where this one went on",
        "recovery_target_action = 'promote'",
        *limit,
    ]
    _write(settings, (before + "\n".join(lines) + "\n").encode(errors="surrogateescape"))
    _write(os.path.join(data, "recovery.signal"), b"")


def _limit(
    wal: str, names: list[str], until: datetime | None, programs: str | None, details: dict[str, Any]
) -> list[str]:
    """The settings that let the replay stop, where something was committed after `until`.

    Without the program that tells when, that is taken for granted. Where a tablespace is made it has to stop before:
    replaying that writes to where the server itself has it. Raises OutOfReach when that is too early.
    """
    outside = made(wal, names, int(details["segment_bytes"]))
    refusal = OutOfReach(
        f"the log makes a tablespace at {outside}: a copy that replays it would write into the server's own; "
        "bring back a moment before it with --to, or a point after it (sidecar backup list)"
    )
    at_time = [] if until is None else [f"recovery_target_time = '{until.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"]
    program = None
    with contextlib.suppress(EngineFailure):
        program = find("pg_waldump", programs, int(details["major"]), newer=False)
    if until is None or program is None:
        if outside:
            raise refusal
        return at_time
    later, before, lost = False, "", False

    def hear(line: bytes) -> None:
        nonlocal later, before, lost
        text = line.decode(errors="replace")
        if later:
            return
        if found := _COMMIT.search(text):
            later = datetime.fromisoformat(found[1]).replace(tzinfo=UTC) > until
            lost = lost or (not later and before != "")
        elif not before and (found := _TABLESPACE.search(text)):
            before = found[1]

    rules = ["-r", "Tablespace", "-r", "Transaction"]
    run([program, "-p", wal, *rules, names[0], names[-1]], environment(), hear=hear, patience=START_SECONDS)
    if lost or (outside and not later and not before):
        raise refusal
    if before:
        return [f"recovery_target_lsn = '{before}'", "recovery_target_inclusive = off"]
    return at_time if later else []


@contextlib.contextmanager
def served(
    data: str, point: SourcePoint, scratch: str, programs: str | None, patience: float = START_SECONDS
) -> Iterator[Callable[[str, float], Any]]:
    """A server on the copy, replayed and open, and how to ask it."""
    details = point.details
    major = int(details["major"])
    postgres, psql = find("postgres", programs, major, newer=False), find("psql", programs, major)
    log = os.path.join(scratch, "log")
    sockets = scratch if len(scratch) <= _LONGEST_SOCKET else tempfile.mkdtemp(prefix="sidecar-pg-")
    words = as_somebody([postgres, "-D", data, *_options(scratch, sockets)])
    child = spawn(words, environment(TZ="UTC"), scratch, log)

    def ask(sql: str, seconds: float) -> Any:
        said: list[bytes] = []
        given = ["-h", sockets, "-U", str(details["superuser"]), "-d", str(details["database"])]
        env = environment(PGOPTIONS=f"-c statement_timeout={int(seconds * 1000)}")
        ended = run([psql, "-XAtqw", *given, "-c", sql], env, hear=said.append, patience=seconds + 5)
        if ended.code or ended.stopped:
            raise SourceFailure(f"the copy does not answer: {'; '.join(ended.errors)[:300] or ended.stopped}")
        return said[0].partition(b"|")[0].decode(errors="replace") if said else None

    try:
        _wait(child, ask, log, time.monotonic() + patience)
        yield ask
    finally:
        end(child, signal.SIGINT, 30.0)
        if sockets != scratch:
            shutil.rmtree(sockets, ignore_errors=True)


def _wait(child: "subprocess.Popen[bytes]", ask: Callable[[str, float], Any], log: str, until: float) -> None:
    while True:
        if child.poll() is not None:
            raise Damaged(f"PostgreSQL does not start on the copy: {_last_word(log)}")
        with contextlib.suppress(AgentFault):
            if ask("SELECT pg_is_in_recovery()", 10.0) == "f":
                return
        if time.monotonic() >= until:
            raise SourceFailure(f"PostgreSQL was not up on the copy in time: {_last_word(log)}")
        time.sleep(0.1)


def _last_word(log: str) -> str:
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        lines = file.read()[-8000:].splitlines()
        bad = [line for line in lines if "FATAL" in line or "PANIC" in line or "rror" in line]
        return (bad or lines or ["it said nothing"])[-1].strip()[:400]
    return "it said nothing"


def _options(scratch: str, sockets: str) -> list[str]:
    """Everything that the copy's own configuration may say otherwise."""
    hba, ident, config = (os.path.join(scratch, name) for name in ("pg_hba.conf", "pg_ident.conf", "postgresql.conf"))
    _write(hba, b"local all all trust\n")
    _write(ident, b"")
    _write(config, b"")
    settings = {
        "config_file": config,
        "hba_file": hba,
        "ident_file": ident,
        "listen_addresses": "",
        "unix_socket_directories": sockets,
        "port": "5432",
        "ssl": "off",
        "hot_standby": "off",
        "archive_mode": "off",
        "primary_conninfo": "",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "logging_collector": "off",
        "log_destination": "stderr",
        "shared_buffers": "64MB",
        "max_wal_senders": "0",
        "fsync": "off",
        "synchronous_commit": "off",
        "synchronous_standby_names": "",
        "cluster_name": "sidecar-scratch",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
