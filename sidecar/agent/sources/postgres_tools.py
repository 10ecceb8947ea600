"""The programs of PostgreSQL, and how they get to the server without a secret in an argument.

libpq reads all that the connection string says from a service file that only this user may read and that goes when the
program ends; the program is told its place by the environment. The programs are of the server's major version, or
newer where that is allowed: they are looked for in `programs`, where Debian keeps them, and on the PATH.
"""

import contextlib
import functools
import glob
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sidecar.agent.children import Ended, environment, run
from sidecar.agent.faults import EngineFailure, SourceFailure, StorageFailure
from sidecar.base.conninfo import parts

SERVICE = "service=sidecar"
MOMENT = "CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() ELSE now() END"
"""Up to when a server has everything: a standby knows of no later moment than that of the last commit it has."""
_DEFAULTS = {
    "application_name": "sidecar",
    "connect_timeout": "10",
    # a peer that is gone without a word is noticed within 15 s, not within hours
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}
_QUERY_SECONDS = 30.0
_HINTS = (
    (r"password authentication failed|no password supplied", "look at the password in dsn_file"),
    (r"no pg_hba\.conf entry", "pg_hba.conf lets this role in neither for its database nor for `replication`"),
    (r"must be superuser or replication role|permission denied to", "the role needs REPLICATION"),
    (r"requested standby connections exceeds|all replication slots are in use",
     "raise max_wal_senders and max_replication_slots"),
    (r"Connection refused|could not translate|timeout expired|No such file", "the server does not answer"),
)  # fmt: skip


def find(name: str, programs: str | None, major: int, *, newer: bool = True) -> str:
    """Where a program is. Raises EngineFailure, naming what to install."""
    places = [programs and os.path.join(programs, name), f"/usr/lib/postgresql/{major}/bin/{name}"]
    if newer:
        places += sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
    for place in (*places, shutil.which(name)):
        if place and os.access(place, os.X_OK):
            have = _major_of(place)
            if have == major or (newer and have > major):
                return place
    package = "postgresql-client" if newer else "postgresql"
    raise EngineFailure(f"there is no {name} of PostgreSQL {major} here: install {package}-{major}, or set programs")


@functools.cache
def _major_of(path: str) -> int:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else 0


class Server:
    """How to reach the server of one source."""

    def __init__(self, name: str, dsn_file: str, programs: str | None) -> None:
        self.name = name
        self.programs = programs
        self._dsn_file = dsn_file

    def database(self) -> str:
        """Which database the connection string names."""
        given = self._given()
        return given.get("dbname") or given.get("user", "")

    @contextlib.contextmanager
    def reached(self, scratch: str) -> Iterator[dict[str, str]]:
        """An environment in which `-d service=sidecar` reaches the server; `scratch`: for the service file."""
        given = {**_DEFAULTS, **self._given()}
        if any("\n" in value or value != value.strip() for value in given.values()):
            raise SourceFailure(f"{self.name}: dsn_file: a value begins or ends with a space, or holds a line's end")
        try:
            os.makedirs(scratch, mode=0o700, exist_ok=True)
            fd, path = tempfile.mkstemp(prefix=".service-", dir=scratch)
            with open(fd, "w", encoding="utf-8") as file:
                file.write("[sidecar]\n" + "".join(f"{key}={value}\n" for key, value in given.items()))
        except OSError as error:
            raise StorageFailure(f"{scratch}: {error.strerror}; backup.state_dir must be writable") from None
        try:
            yield environment(PGSERVICEFILE=path, HOME=scratch, PGTZ="UTC")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def query(self, scratch: str, *statements: str) -> list[list[str]]:
        """The fields of each statement's first row. Raises SourceFailure."""
        said: list[bytes] = []
        with self.reached(scratch) as env:
            words = [find("psql", self.programs, 10), "-XAtqw", "-F", "\t", "-d", SERVICE, "-v", "ON_ERROR_STOP=1"]
            asked = [word for one in statements for word in ("-c", one)]
            ended = run([*words, *asked], env, hear=said.append, patience=_QUERY_SECONDS)
        if ended.code or ended.stopped:
            raise self.failure("psql", ended)
        if len(said) != len(statements):
            raise SourceFailure(f"{self.name}: the server does not say what it was asked")
        return [os.fsdecode(line).split("\t") for line in said]

    def failure(self, program: str, ended: Ended) -> Exception:
        """What an end means."""
        text = "\n".join([*ended.errors, ended.stopped])
        last = next((line for line in reversed(text.splitlines()) if line.strip()), f"exit code {ended.code}")
        found = next((line for line in text.splitlines() if "FATAL" in line or "error:" in line), last)
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
        sort = StorageFailure if "No space left" in text else SourceFailure
        return sort(f"{self.name}: {program}: {found.strip()[:400]}{'; ' if hint else ''}{hint}")

    def _given(self) -> dict[str, str]:
        try:
            with open(self._dsn_file, encoding="utf-8") as file:
                return parts(file.read(65_536))
        except (OSError, UnicodeError) as error:
            raise SourceFailure(
                f"{self.name}: {self._dsn_file}: {getattr(error, 'strerror', None) or 'not text'}"
            ) from None
        except ValueError as error:
            raise SourceFailure(f"{self.name}: {self._dsn_file}: {error}") from None


def moment(name: str, said: str) -> datetime:
    """What `MOMENT AT TIME ZONE 'UTC'` said. Raises SourceFailure."""
    if not said:
        raise SourceFailure(f"{name}: the standby has replayed no commit since it started: how old it is is not known")
    return datetime.fromisoformat(said).replace(tzinfo=UTC)


def as_somebody(words: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs in a user name space in which we are nobody."""
    if os.geteuid() != 0:
        return list(words)
    if shutil.which("unshare") is None:
        raise EngineFailure("PostgreSQL does not run as root: run the agent as another user")
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", *words]
