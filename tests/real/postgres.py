"""PostgreSQL servers whose data the agent backs up, and copies of them that were restored."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real.agent import Estate
from tests.real.databases import Postgres, Server, find
from tests.real.documents import free_port

SECRET = "hush 'tis=a secret"


class Primary(Postgres):
    """A server with a role that may replicate."""

    def __init__(self) -> None:
        super().__init__()
        with (self.directory / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all,replication backup 127.0.0.1/32 scram-sha-256\n")

    def start(self) -> None:
        first = not (self.directory / "made").exists()
        super().start()
        if first:
            secret = SECRET.replace("'", "''")
            self.sql(f"CREATE ROLE backup LOGIN REPLICATION PASSWORD '{secret}'")
            self.sql("CREATE TABLE orders (id serial PRIMARY KEY, item text)")

    def order(self, item: str) -> None:
        self.sql(f"INSERT INTO orders (item) VALUES ('{item}')")

    def answer(self, sql: str) -> str:
        return self._run(
            "psql", "-XAtq", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", "-c", sql
        ).stdout.strip()

    def outside(self) -> Path:
        """A new directory that is not part of the server's own."""
        place = Path(tempfile.mkdtemp(prefix="apart = ", dir=self.directory))
        shutil.chown(place, self.directory.owner())
        return place

    def dsn(self) -> str:
        secret = SECRET.replace("'", "\\'")
        return f"host=127.0.0.1 port={self.port} user=backup dbname=postgres password='{secret}'\n"


class Standby(Primary):
    """A server that follows another one."""

    def __init__(self, primary: Primary) -> None:
        Server.__init__(self, "standby")
        self._certificate = None
        self._user = primary._user
        if self._user is not None:
            shutil.chown(self.directory, self._user, pwd.getpwnam(self._user).pw_gid)
        made = self._run(
            "pg_basebackup", "-d", primary.dsn().strip(), "-D", str(self.directory / "data"), "-R", "-c", "fast"
        )
        assert made.returncode == 0, made.stderr
        (self.directory / "made").touch()


class Restored(Server):
    """A server on a directory that was restored; with a port it takes the place of the one that was backed up."""

    def __init__(self, data: Path, port: int = 0) -> None:
        super().__init__("restored")
        self.data = data
        self.port = port or free_port()
        self.listen = "127.0.0.1" if port else ""

    def command(self) -> list[str]:
        (self.directory / "hba").write_text("local all all trust\nhost all,replication backup 127.0.0.1/32 trust\n")
        settings = [f"port={self.port}", f"listen_addresses={self.listen}",
                    f"unix_socket_directories={self.directory}", "fsync=off",
                    f"hba_file={self.directory}/hba"]  # fmt: skip
        words = [find("postgres"), "-D", str(self.data), *(word for one in settings for word in ("-c", one))]
        if os.geteuid() == 0:
            words = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", *words]
        return words

    def answers(self) -> bool:
        return self.ask("SELECT pg_is_in_recovery()") == ["f"]

    def ask(self, sql: str) -> list[str]:
        words = [find("psql"), "-XAtq", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", "-c", sql]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def write(estate: Estate, rules: dict[str, Any] | None = None, **backup: Any) -> None:
    source = {"dsn_file": str(estate.directory / "dsn"), "slot": f"s{estate.port}", **(rules or {})}
    estate.write(**{"sources": [{"name": "pg", "postgres": source}], "rpo": "1h", **backup})


def items(data: Path) -> list[str]:
    with Restored(data) as server:
        return server.ask("SELECT item FROM orders ORDER BY id")


def restore(estate: Estate, target: Path, *words: str) -> list[str]:
    plan = estate.json("restore", "plan", "--target", str(target), *words)
    estate.run("restore", "apply", plan["hash"])
    return items(target / "pg")


def covered(lag: Callable[[], list[tuple[dict[str, str], float]]]) -> Callable[[], bool]:
    """Whether the gauge says that everything of before now is in the repository."""
    since = time.monotonic()
    return lambda: any(seconds < time.monotonic() - since for _, seconds in lag())
