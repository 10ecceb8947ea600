"""`python -m benchmarks.backup_stream`: what a disaster would cost a PostgreSQL whose log the agent streams.

A customer commits an order twenty times a second to a real PostgreSQL, and knows each one's LSN and when it was
acknowledged. A real `sidecar agent run` streams the log. Its receiver is killed, the agent itself (kill -9), all
connections are cut, the server is told to begin a new segment, a row of 40 MB comes at once.

Once a second two questions: what does `sidecar_backup_replication_lag_seconds` say; and, from outside, without asking
the agent, how old is the oldest acknowledged order that the *repository* lacks. Now and then the pod is lost with its
disk: a copy of the repository at that moment, without a catalog or any state, is restored by commands to the state of
ten seconds before, a PostgreSQL started on it, and every order acknowledged until then must be there.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.process import free_port
from benchmarks.rig.results import scratch, write
from sidecar.agent.repository.repository import Repository
from sidecar.agent.wal import WalState, lsn
from sidecar.config.load import load

PROMISED = 10.0
"""Seconds that a disaster may cost."""
_WRITES = 20
"""Commits per second."""


class Restored(msgspec.Struct, frozen=True):
    """A pod that was lost with its disk, and what came back."""

    after: str
    """The last fault before it."""
    expected: int
    """Orders acknowledged ten seconds before."""
    found: int
    """Of these."""
    later: int
    """That were acknowledged after the moment asked for, by more than a second: must not be there."""
    lost_seconds: float
    """The age, at the disaster, of the oldest order that `latest` did not bring back."""


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    minutes: float
    commits: int
    faults: dict[str, int]
    gauge_median: float
    gauge_worst: float
    """Seconds, of sidecar_backup_replication_lag_seconds."""
    gauge_absent: int
    """Looks at which it was not told, after the stream had begun."""
    outside_median: float
    outside_p99: float
    outside_worst: float
    """Seconds: the age of the oldest acknowledged order that the repository lacked."""
    worst_after: str
    """The last fault before that."""
    missed_looks: int
    """Looks at which that was more than ten seconds."""
    looks: int
    restored: list[Restored]


class Ack(NamedTuple):
    number: int
    end: int
    """The LSN after its commit."""
    at: float
    """Monotonic seconds, when the customer was told."""


def _program(name: str) -> str:
    places = [*sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True), shutil.which(name)]
    return next(place for place in places if place)


def _nobody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    mapped = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
    return mapped if os.geteuid() == 0 else []


class Postgres:
    """A server on a directory."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.port = data, port
        self.sockets = data.parent
        hba = self.sockets / "hba"
        hba.write_text("local all all trust\nhost all,replication all 127.0.0.1/32 trust\n")
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.sockets,
                    "hba_file": hba, "shared_buffers": "16MB"}  # fmt: skip
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.sockets / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_nobody(), _program("postgres"), "-D", str(data), *words], stdout=log, stderr=log, cwd=self.sockets
            )
        _until(lambda: self.ask("SELECT pg_is_in_recovery()") == ["f"], "PostgreSQL", 120.0)

    @classmethod
    def new(cls, directory: Path) -> "Postgres":
        data = directory / "data"
        words = [_program("initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*_nobody(), *words], check=True, capture_output=True)
        return cls(data, free_port())

    def words(self) -> list[str]:
        where = ["-h", str(self.sockets), "-p", str(self.port), "-U", "postgres"]
        return [_program("psql"), "-XAtq", "-F", "\t", *where]

    def ask(self, sql: str) -> list[str]:
        return subprocess.run([*self.words(), "-c", sql], capture_output=True, text=True, check=False).stdout.split()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


class Relay:
    """The way to the server, whose connections may be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        self._open.discard(source)


class Customer:
    """Commits, and remembers what was acknowledged."""

    def __init__(self, server: Postgres) -> None:
        self.acks: list[Ack] = []
        self._stop = threading.Event()
        self._psql = subprocess.Popen(
            server.words(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        number = 0
        while not self._stop.wait(1 / _WRITES):
            number += 1
            self._psql.stdin.write(f"INSERT INTO orders VALUES ({number});\nSELECT pg_current_wal_flush_lsn();\n")
            end = lsn(self._psql.stdout.readline().strip())
            self.acks.append(Ack(number, end, time.monotonic()))

    def oldest_beyond(self, end: int) -> Ack | None:
        """The oldest order that was acknowledged after all that ends at `end`."""
        return next((ack for ack in self.acks[-20_000:] if ack.end > end), None)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._psql.stdin is not None
        self._psql.stdin.close()
        self._psql.wait(10)


class Run:
    """One run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.server = Postgres.new(directory)
        self.server.ask("CREATE TABLE orders (id integer)")
        self.server.ask("CREATE TABLE heap (content text)")
        self.relay = Relay(self.server.port)
        (directory / "key").write_text("a passphrase\n")
        (directory / "dsn").write_text(f"host=127.0.0.1 port={self.relay.port} user=postgres dbname=postgres\n")
        self.port = free_port()
        self.file = self.configured("sidecar.yaml", directory / "state", directory / "repo")
        self.rng = random.Random(seed)
        self.process = self.start()
        self.faults: dict[str, int] = {}
        self.last_fault = "none"
        self.base: dict[str, Any] = {}

    def configured(self, name: str, state: Path, repository: Path) -> Path:
        file = self.directory / name
        where = {"url": str(repository), "engine": "sealed", "password_file": str(self.directory / "key")}
        backup = {
            "state_dir": str(state),
            "admin": {"bind": f"127.0.0.1:{self.port}", "socket": str(self.directory / "agent.sock")},
            "repository": where,
            "sources": [{"name": "pg", "postgres": {"dsn_file": str(self.directory / "dsn")}}],
        }
        document = {
            "version": 1,
            "service": {"name": "stream"},
            "admin": {"socket": str(self.directory / "proxy.sock")},
        }
        file.write_text(yaml.safe_dump({**document, "backup": backup}))
        return file

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.directory / "agent.log").open("ab") as log:
            words = [sys.executable, "-m", "sidecar", "agent", "run", "-c", str(self.file)]
            return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)

    def sidecar(self, file: Path, *words: str) -> Any:
        command = [sys.executable, "-m", "sidecar", *words, "-c", str(file), "--json"]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def gauge(self) -> float | None:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("sidecar_backup_replication_lag_seconds{"):
                        return float(line.split()[-1])
        return None

    # Faults -------------------------------------------------------------------------------------------------------

    def receiver_killed(self) -> None:
        for pid in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in pid.read_text().split():
                with contextlib.suppress(OSError):
                    if b"--synchronous" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)

    def agent_killed(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self.start()

    def connections_cut(self) -> None:
        self.relay.cut()

    def sender_ended(self) -> None:
        self.server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

    def segment_switched(self) -> None:
        self.server.ask("SELECT pg_switch_wal()")

    def burst(self) -> None:
        self.server.ask("INSERT INTO heap SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1250000) n")

    # A disaster ---------------------------------------------------------------------------------------------------

    def disaster(self, customer: Customer, number: int) -> Restored:
        """The pod and its disk are gone now: what comes back?"""
        now, wall = time.monotonic(), datetime.now(UTC)
        lost = self.directory / f"lost-{number}"
        _copy(self.directory / "repo", lost / "repo")
        acks = list(customer.acks)
        file = self.configured(f"lost-{number}.yaml", lost / "state", lost / "repo")
        moment = wall - timedelta(seconds=PROMISED)
        there = self._restore(file, lost / "moment", "--to", moment.isoformat())
        latest = self._restore(file, lost / "latest")
        shutil.rmtree(lost)
        before = {ack.number for ack in acks if ack.at <= now - PROMISED}
        after = {ack.number for ack in acks if ack.at > now - PROMISED + 1.0}
        missing = next((ack for ack in acks if ack.number not in latest), None)
        return Restored(
            self.last_fault, len(before), len(before & there), len(after & there),
            round(max(0.0, now - missing.at), 2) if missing else 0.0,
        )  # fmt: skip

    def _restore(self, file: Path, target: Path, *words: str) -> set[int]:
        plan = self.sidecar(file, "restore", "plan", "--target", str(target), *words)
        self.sidecar(file, "restore", "apply", plan["hash"])
        server = Postgres(target / "pg", free_port())
        try:
            return {int(one) for one in server.ask("SELECT id FROM orders")}
        finally:
            server.stop()

    # The run ------------------------------------------------------------------------------------------------------

    def live(self, seconds: float, disasters: int) -> Report:
        """Live through it."""
        faults: list[Callable[[], None]] = [
            self.receiver_killed, self.agent_killed, self.connections_cut, self.sender_ended, self.segment_switched,
            self.burst,
        ]  # fmt: skip
        customer = Customer(self.server)
        told: list[float] = []
        true: list[tuple[float, str]] = []
        restored: list[Restored] = []
        absent = 0
        try:
            _until(lambda: self.process.poll() is None and self.gauge() is not None, "the stream", 120.0)
            repository = Repository.open(_backup(self.file))
            _until(lambda: _reach(repository) is not None, "a base backup that the log joins", 120.0)
            began = time.monotonic()
            next_fault, next_disaster = began + 5.0, began + seconds / (disasters + 1)
            while (now := time.monotonic()) < began + seconds:
                said, end = self.gauge(), _reach(repository)
                age = _age(customer, end, time.monotonic())
                true.append((age, self.last_fault))
                if said is None:
                    absent += 1
                else:
                    told.append(said)
                if now >= next_disaster:
                    restored.append(self.disaster(customer, len(restored)))
                    next_disaster = time.monotonic() + seconds / (disasters + 1)
                    next_fault = max(next_fault, time.monotonic() + 3.0)
                elif now >= next_fault:
                    fault = faults[sum(self.faults.values()) % len(faults)]
                    self.last_fault = fault.__name__.replace("_", " ")
                    self.faults[self.last_fault] = self.faults.get(self.last_fault, 0) + 1
                    fault()
                    next_fault = now + self.rng.uniform(8.0, 16.0)
                time.sleep(max(0.0, now + 1.0 - time.monotonic()))
        finally:
            customer.stop()
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.server.stop()
        worst, after = max(true)
        ages = sorted(age for age, _ in true)
        return Report(
            facts(), round(seconds / 60, 2), len(customer.acks), self.faults,
            round(statistics.median(told), 2), round(max(told), 2), absent,
            round(statistics.median(ages), 2), round(ages[int(len(ages) * 0.99)], 2), round(worst, 2), after,
            sum(age > PROMISED for age in ages), len(ages), restored,
        )  # fmt: skip


def _backup(file: Path) -> Any:
    found = load(str(file)).backup
    assert found is not None
    return found


def _reach(repository: Repository) -> int | None:
    """The LSN to which the repository brings its newest base backup, with everything that this needs there."""
    points = [point for point in repository.readable()[0] if point.complete]
    if not points:
        return None
    source = points[0].sources[0]
    archive = repository.log_of(source)
    state: WalState | None = archive.state()
    span = state.span_of(source.details) if state is not None else None
    if span is None:
        return None
    needed = {**source.details, "end_lsn": span.end}
    lacking = next(archive.troubles(needed, source.snapshot, lambda _number: False), None)
    return None if lacking else span.end


def _age(customer: Customer, end: int | None, now: float) -> float:
    """Seconds since the oldest order was acknowledged that is beyond the LSN `end`."""
    beyond = customer.oldest_beyond(end if end is not None else 0)
    return max(0.0, now - beyond.at) if beyond else 0.0


def _copy(repository: Path, into: Path) -> None:
    """As it is now: what tells how far the log goes first, so that what it tells of is there. Objects are replaced,
    never changed."""

    def link(files: Iterator[Path]) -> None:
        for file in files:
            to = into / file.relative_to(repository)
            to.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(file, to)

    link(repository.glob("sidecar/wal/*/*/state"))
    link(file for file in repository.rglob("*") if file.is_file() and file.parent.name != "tmp")


def _until(true: Callable[[], bool], what: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


def table(report: Report) -> str:
    """For docs/performance.md."""
    faults = ", ".join(f"{name} ({count})" for name, count in report.faults.items())
    outside = " | ".join(f"{one:.1f} s" for one in (report.outside_median, report.outside_p99, report.outside_worst))
    missed = f"{report.missed_looks} of {report.looks}"
    lines = [
        f"{report.minutes:g} minutes, {report.commits:,} commits, {sum(report.faults.values())} faults: {faults}.",
        "",
        "| looked every second | median | 99 % | worst | more than 10 s |",
        "|---|---|---|---|---|",
        f"| oldest acknowledged commit that the repository lacks | {outside} | {missed} |",
        f"| `sidecar_backup_replication_lag_seconds` | {report.gauge_median:.1f} s | | {report.gauge_worst:.1f} s | |",
        "",
        "| pod and disk lost after | acknowledged 10 s before | of these restored by `--to` | `latest` lost |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one.after} | {one.expected:,} | {one.found:,} | {one.lost_seconds:.1f} s |" for one in report.restored
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup_stream")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--disasters", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/backup-stream.json")
    args = parser.parse_args()
    with scratch() as place:
        place.chmod(0o755)
        try:
            done = Run(place, args.seed).live(args.minutes * 60, args.disasters)
        except BaseException:
            with contextlib.suppress(OSError):
                print((place / "agent.log").read_text()[-4000:], file=sys.stderr)
            raise
    write(done, args.json)
    print(table(done))
    sound = all(one.found == one.expected and not one.later for one in done.restored)
    return 0 if sound and done.missed_looks == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
