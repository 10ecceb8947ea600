"""A service's data on the disk, backed up by commands: what the tests of the agent start from."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.real.harness import run_cli


class Estate:
    """A database, some files, a repository and the configuration that names them."""

    def __init__(self, directory: Path, engine: str = "sealed") -> None:
        self.directory = directory
        self.engine = engine
        self.database = directory / "data" / "orders.db"
        self.uploads = directory / "data" / "uploads"
        self.repository = directory / "repository"
        self.key = directory / "key"
        self.file = directory / "sidecar.yaml"
        self.uploads.mkdir(parents=True)
        self.key.write_text("a long passphrase that nobody guesses\n")
        (self.uploads / "a.txt").write_text("first")
        (self.uploads / "deep").mkdir()
        (self.uploads / "deep" / "b.bin").write_bytes(os.urandom(300_000))
        (self.uploads / "link").symlink_to("a.txt")
        with closing(sqlite3.connect(self.database)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
        self.write()

    def write(self, **backup: Any) -> None:
        section = {
            "state_dir": str(self.directory / "state"),
            "repository": {"url": str(self.repository), "engine": self.engine, "password_file": str(self.key)},
            "sources": [
                {"name": "db", "sqlite": {"path": str(self.database)}},
                {"name": "uploads", "files": {"paths": [str(self.uploads)]}},
            ],
            **backup,
        }
        self.file.write_text(yaml.safe_dump({"version": 1, "service": {"name": "orders"}, "backup": section}))

    def order(self, item: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=10)) as db, db:
            db.execute("INSERT INTO orders (item) VALUES (?)", [item])

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_cli(*words, "-c", str(self.file))
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        assert "passphrase" not in done.stdout + done.stderr, "a secret was told"
        return done

    def run_any(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Whatever its exit code is."""
        return run_cli(*words, "-c", str(self.file))

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def backup(self) -> str:
        """Make a point; its id."""
        return str(self.json("backup", "run")["id"])

    def sealed_objects(self) -> list[Path]:
        return sorted(path for path in (self.repository / "objects").rglob("*") if path.is_file())


def flip(file: Path) -> None:
    """One bit rots."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def orders(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [item for (item,) in db.execute("SELECT item FROM orders ORDER BY id")]
