"""`python -m benchmarks.backup_hour`: a real hour of `sidecar agent run` at accelerated settings, with faults.

A customer writes to an SQLite database all the time. The agent keeps an RPO of `--rpo` seconds instead of fifteen
minutes; now and then it is killed and started again at once, or one of its sources is away for a moment. Once a second
its RPO gauge is read; and from outside, without asking it, what a disaster would have lost at that moment: the age of
the newest verified point in `backup list`. At the end the newest point is restored and looked into.
"""

import argparse
import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.process import free_port

_CHECK = "SELECT count(*) >= 0 FROM orders"
LIST_EVERY = 5.0
"""Seconds between two looks from outside."""


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    engine: str
    minutes: float
    rpo_seconds: float
    period_seconds: float
    points: int
    kills: int
    absences: int
    worst_gauge: float
    """Seconds: the largest value of sidecar_backup_rpo_seconds after the first point."""
    worst_outside: float
    missed_seconds: float
    """For how long the gauge, or nobody, said more than the RPO, the first RPO's time left out."""
    rss_mib: float
    drills_passed: int
    drill_rto_seconds: float | None
    restored_rows: int


class Hour:
    """One run."""

    def __init__(self, directory: Path, rpo: float, engine: str) -> None:
        self.directory, self.rpo, self.engine = directory, rpo, engine
        self.database, self.uploads = directory / "orders.db", directory / "uploads"
        self.uploads.mkdir()
        (self.uploads / "a").write_text("a")
        (directory / "key").write_text("a passphrase\n")
        self.port = free_port()
        self.file = directory / "sidecar.yaml"
        backup = {
            "rpo": f"{rpo:g}s",
            "state_dir": str(directory / "state"),
            "admin": {"bind": f"127.0.0.1:{self.port}", "socket": str(directory / "agent.sock")},
            "repository": {"url": str(directory / "repo"), "engine": engine, "password_file": str(directory / "key")},
            "sources": [
                {"name": "db", "sqlite": {"path": str(self.database)}},
                {"name": "uploads", "files": {"paths": [str(self.uploads)]}},
            ],
            "retention": {"keep_within": f"{10 * rpo:g}s", "daily": 1, "weekly": 0, "monthly": 0},
            "drill": {
                "every": f"{4 * rpo:g}s",
                "checks": [{"source": "db", "sql": "SELECT count(*) >= 0 FROM orders"}],
            },
        }
        document = {
            "version": 1, "service": {"name": "hour"}, "admin": {"socket": str(directory / "proxy.sock")},
            "backup": backup,
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(document))
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, at REAL)")
        self.stop = threading.Event()
        self.process = self.start()
        self.rss = 0.0

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.directory / "agent.log").open("ab") as log:
            words = [sys.executable, "-m", "sidecar", "agent", "run", "-c", str(self.file)]
            return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)

    def sidecar(self, *words: str) -> Any:
        command = [sys.executable, "-m", "sidecar", *words, "-c", str(self.file), "--json"]
        return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)

    def customer(self) -> None:
        with contextlib.closing(sqlite3.connect(self.database, timeout=60, isolation_level=None)) as db:
            while not self.stop.wait(0.05):
                db.execute("INSERT INTO orders (at) VALUES (?)", [time.time()])

    def gauges(self) -> dict[str, float]:
        """The agent's gauges; empty: it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.rss = max(
                self.rss, int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1]) / 1024
            )
        return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("sidecar_backup_")}

    def outside(self) -> float | None:
        """Seconds since the state that the newest verified point brings back."""
        for point in self.sidecar("backup", "list"):
            if point["verified"] and point["complete"]:
                return (datetime.now(UTC) - datetime.fromisoformat(point["consistent_at"])).total_seconds()
        return None

    def live(self, seconds: float, rng: random.Random) -> Report:
        """Live through it."""
        customer = threading.Thread(target=self.customer)
        customer.start()
        began = time.monotonic()
        kills = absences = 0
        worst = outside = missed = 0.0
        next_fault, next_look, back = began + 3 * self.rpo, began + 2 * self.rpo, 0.0
        drills, rto = 0, None
        last_success = 0.0
        aside = self.uploads.with_name("aside")
        try:
            while (now := time.monotonic()) < began + seconds:
                found = self.gauges()
                age = found.get("sidecar_backup_rpo_seconds")
                if age is not None:
                    worst = max(worst, age)
                if now > began + self.rpo and age is not None and age > self.rpo:
                    missed += 1.0
                success = found.get("sidecar_backup_drill_last_success_timestamp_seconds", 0.0)
                if success > last_success:
                    drills, last_success = drills + 1, success
                    rto = max(rto or 0.0, found.get("sidecar_backup_drill_rto_seconds", 0.0))
                if now >= next_look:
                    outside, next_look = max(outside, self.outside() or 0.0), now + LIST_EVERY
                if back and now >= back:
                    aside.rename(self.uploads)
                    back = 0.0
                if now >= next_fault and not back:
                    next_fault = now + rng.uniform(1.5, 3.0) * self.rpo
                    if rng.random() < 0.5:
                        self.process.send_signal(signal.SIGKILL)
                        self.process.wait()
                        self.process = self.start()
                        kills += 1
                    else:
                        self.uploads.rename(aside)
                        back = now + self.rpo / 12
                        absences += 1
                time.sleep(max(0.0, now + 1.0 - time.monotonic()))
        finally:
            self.stop.set()
            customer.join()
            if back:
                aside.rename(self.uploads)
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        points = self.sidecar("backup", "list")
        plan = self.sidecar("restore", "plan", "--target", str(self.directory / "restored"))
        self.sidecar("restore", "apply", plan["hash"])
        with contextlib.closing(sqlite3.connect(self.directory / "restored" / "db" / "orders.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            (rows,) = db.execute("SELECT count(*) FROM orders").fetchone()
        period = min(300.0, self.rpo / 3)
        return Report(
            facts(), self.engine, round(seconds / 60, 2), self.rpo, period, len(points), kills, absences,
            round(worst, 1), round(outside, 1), missed, round(self.rss, 1), drills, rto, rows,
        )  # fmt: skip


def table(report: Report) -> str:
    """For docs/performance.md."""
    rto = "none" if report.drill_rto_seconds is None else f"{report.drill_rto_seconds:.1f} s at most"
    rows = {
        "points made": f"{report.points}",
        "age of the newest verified point, by the gauge": f"{report.worst_gauge:.1f} s at worst",
        "the same, seen from outside": f"{report.worst_outside:.1f} s at worst",
        "time in which the RPO was missed": f"{report.missed_seconds:.0f} s",
        "drills passed, and their RTO": f"{report.drills_passed}, {rto}",
        "agent's memory": f"{report.rss_mib:.1f} MiB at most",
        "rows in the database that was restored at the end": f"{report.restored_rows:,}",
    }
    told = (
        f"{report.minutes:.0f} minutes, engine {report.engine}, RPO {report.rpo_seconds:g} s, a backup every "
        f"{report.period_seconds:g} s; killed {report.kills} times, a source away {report.absences} times."
    )
    return f"{told}\n\n{results.pairs(rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup_hour")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rpo", type=float, default=60.0, help="seconds (60)")
    parser.add_argument("--engine", choices=("restic", "sealed"), default="restic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/backup-hour.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-hour-") as place:
        done = Hour(Path(place), args.rpo, args.engine).live(args.minutes * 60, random.Random(args.seed))
    results.write(done, args.json)
    print(table(done))
    return 0 if done.missed_seconds == 0 and done.worst_outside <= args.rpo else 1


if __name__ == "__main__":
    sys.exit(main())
