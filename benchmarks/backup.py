"""`python -m benchmarks.backup`: backup and restore beside bare restic, on the same data, interleaved in one run.

Data: `--mib` of mixed files (small, middle, large; half of it compresses), and an SQLite database of the same size to
which somebody writes meanwhile. Each round makes new repositories and takes turns who is first. Times are those of
whole processes, from start to end; but of a backup the agent's start and key are told apart, since a running agent has
paid that once, and bare restic pays it each time. Bare restic reads the live database file, which is no backup of a
database but the fastest that could be; the agent keeps the file still meanwhile.

What bare restic does not do is measured apart: verification, and of a restore that every file is compared with its
hash. With that it stands beside `restic restore --verify`. A restore ends on the disk: restic's is followed by `sync`,
which the agent does by itself. The agent's memory is the high-water mark of its own process (VmHWM), without restic's.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import yaml

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts

WALL, UNCHANGED, RESTORE, RSS = 1.2, 2.0, 1.2, 80.0
"""What is asked for: × bare restic, seconds more than it, × its restore, MiB."""
ENGINES = ("restic", "sealed")


class Row(msgspec.Struct, frozen=True):
    """One piece of work; seconds are medians over the rounds."""

    work: str
    bare: float
    restic: float
    """The agent with the engine restic."""
    sealed: float
    ratio: float
    """Median of the rounds' ratios, agent with restic to bare restic."""
    more: float
    """Seconds that the agent with restic took more, median."""
    limit: str
    within: bool
    cpu_ratio: float
    """Median of the rounds' ratios of CPU time: steadier than seconds on a machine that others use."""
    command: float
    """Median of the rounds' ratios with the agent's start counted, as a command pays it."""


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    restic: str
    mib: int
    rounds: int
    rows: list[Row]
    verify_seconds: dict[str, float]
    start_seconds: dict[str, float]
    """Of each piece of work: from the program's start until the repository is open."""
    rss_mib: dict[str, float]
    rss_within: bool


class Took(NamedTuple):
    """What a process and its children took, in seconds."""

    wall: float
    cpu: float


# The data -------------------------------------------------------------------------------------------------------------


def mixed(directory: Path, size: int, seed: int = 7) -> None:
    """Files of many sizes, `size` bytes in all; every other one compresses well."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    written, number = 0, 0
    while written < size:
        kind = rng.random()
        wanted = rng.randrange(1 << 10, 64 << 10) if kind < 0.9 else rng.randrange(256 << 10, 4 << 20)
        if kind > 0.995:
            wanted = 48 << 20
        wanted = min(wanted, size - written)
        place = directory / f"{number % 97:02d}"
        place.mkdir(exist_ok=True)
        content = (
            rng.randbytes(wanted)
            if number % 2
            else (b"%d a line of a log that says little\n" % number) * (wanted // 36 + 1)
        )
        (place / f"{number:06d}").write_bytes(content[:wanted])
        written += wanted
        number += 1


def database(path: Path, size: int) -> None:
    """Rows of which half compresses, until the file is as large."""
    rng = random.Random(11)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item BLOB, note TEXT)")
        while not path.exists() or path.stat().st_size < size:
            with db:
                db.executemany(
                    "INSERT INTO orders (item, note) VALUES (?, ?)",
                    [(rng.randbytes(2000), "tea and biscuits, as always, " * 70) for _ in range(2000)],
                )
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
while True:
    db.execute("INSERT INTO orders (item, note) VALUES (randomblob(2000), 'more')")
    time.sleep(0.02)
"""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Somebody inserts fifty rows a second."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, path]) as writer:
        try:
            yield
        finally:
            writer.kill()


# Who is measured ------------------------------------------------------------------------------------------------------


class Bench:
    """One directory with the data, and repositories that come and go."""

    def __init__(self, directory: Path, mib: int) -> None:
        self.directory = directory
        self.files, self.database = directory / "files", directory / "orders.db"
        self.key = directory / "key"
        self.key.write_text("a passphrase\n")
        mixed(self.files, mib << 20)
        database(self.database, mib << 20)
        self.rss: dict[str, float] = {}
        self.verify: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        self.start: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        self.commands: dict[str, float] = {}
        """Of each engine's last deed: the seconds of the whole process."""

    def bare(self, what: Path, *words: str) -> Took:
        """One restic command on a repository of its own for `what`."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "RESTIC_PASSWORD_FILE": str(self.key),
            "RESTIC_REPOSITORY": str(self.place("bare", what)), "RESTIC_CACHE_DIR": str(self.directory / "cache"),
        }  # fmt: skip
        return _run(["restic", "--quiet", *words], env=environment)[1]

    def bare_restore(self, what: Path, name: str, *words: str) -> Took:
        """Until it is on the disk, as the agent's is."""
        target = self.directory / f"bare-{name}"
        took = self.bare(what, "restore", "latest", "--target", str(target), *words)
        flushed = _run(["sync", "--file-system", str(target)])[1]
        return Took(took.wall + flushed.wall, took.cpu + flushed.cpu)

    def place(self, who: str, what: Path) -> Path:
        return self.directory / f"{who}-{what.name}"

    def agent(self, engine: str, what: Path, deed: str) -> Took:
        """One deed by the agent's own code, in a process like a command's: `init`, `backup`, `verify`, `restore`, or
        `compared`, which is a restore of which the comparing counts, too.
        """
        place = self.place(engine, what)
        source = {"files": {"paths": [str(what)]}} if what.is_dir() else {"sqlite": {"path": str(what)}}
        document = {
            "version": 1,
            "service": {"name": "bench"},
            "backup": {
                "state_dir": f"{place}-state",
                "repository": {"url": str(place), "engine": engine, "password_file": str(self.key)},
                "sources": [{"name": "data", **source}],
            },
        }
        file = self.directory / f"{engine}-{what.name}.yaml"
        file.write_text(yaml.safe_dump(document))
        began = time.monotonic()
        words = [sys.executable, "-m", "benchmarks.backup", "--child", deed, str(file), f"{place}-{deed}"]
        said, took = _run(words, cwd=ROOT)
        told = msgspec.json.decode(said, type=Told)
        self.rss[engine] = max(self.rss.get(engine, 0.0), told.rss_mib)
        start = Took(told.opened.wall - began, told.opened.cpu)
        self.start[engine].append(start.wall)
        apart = {"restore": told.compared, "backup": start}.get(deed, Took(0.0, 0.0))
        self.commands[engine] = took.wall - (told.compared.wall if deed == "restore" else 0.0)
        return Took(took.wall - apart.wall, took.cpu - apart.cpu)

    def clean(self) -> None:
        for path in self.directory.iterdir():
            if path.name.startswith(("bare-", "restic-", "sealed-", "cache")):
                shutil.rmtree(path, ignore_errors=True)


class Told(msgspec.Struct, frozen=True):
    """What a child says at its end."""

    rss_mib: float
    opened: Took
    """When the repository was open, on the monotonic clock and on the process's own."""
    compared: Took
    """What of a restore was comparing."""


def child(deed: str, file: str, target: str) -> None:
    """In a process of its own: do it, say what it took."""
    from sidecar.agent.catalog import Catalog
    from sidecar.agent.ports import Kind, Level
    from sidecar.agent.repository.repository import Repository
    from sidecar.agent.restore.beside import Beside
    from sidecar.agent.restore.plan import choose, keep, make
    from sidecar.agent.restore.restoring import Restoring
    from sidecar.agent.run import run_backup
    from sidecar.agent.sources.build import build
    from sidecar.agent.verify import verify_point
    from sidecar.config.load import load

    config = load(file).backup
    assert config is not None, "the parent wrote it"
    repository, catalog = Repository.open(config, create=True), Catalog(config.state_dir)
    opened = Took(time.monotonic(), time.process_time())
    sources = {one.name: build(one, config) for one in config.sources}
    marks: dict[str, Took] = {}
    match deed:
        case "init":
            with repository.lease("benchmark", create=True):
                pass
        case "backup":
            run_backup(
                config, ("bench", "here"), repository, catalog, list(sources.values()), Kind.INCREMENTAL, lambda _: None
            )  # fmt: skip
        case "verify":
            point = catalog.points()[0]
            found = verify_point(
                repository, point, Level.SAMPLE, sources, f"{config.state_dir}/scratch", lambda _: None
            )
            assert found.ok, found
        case _:
            point, verified = choose(catalog, None, None)
            plan = make(config, point, target, verified=verified)
            keep(config, plan)
            hands = Beside(config, repository, sources, plan, lambda _: None)
            Restoring(
                config, repository, catalog, plan, hands,
                lambda step, mark: marks.update({f"{step} {mark}": Took(time.monotonic(), time.process_time())}),
            ).run()  # fmt: skip
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    nothing = Took(0.0, 0.0)
    begun, done = (marks.get(f"validate data {mark}", nothing) for mark in ("begun", "done"))
    compared = Took(done.wall - begun.wall, done.cpu - begun.cpu)
    print(msgspec.json.encode(Told(int(peak.split()[1]) / 1024, opened, compared)).decode())


def _run(words: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> tuple[str, Took]:
    """Run a process to its end: what it printed, what it took."""
    cpu, began = _cpu(), time.monotonic()
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=env, cwd=cwd).stdout
    return said, Took(time.monotonic() - began, _cpu() - cpu)


def _cpu() -> float:
    """Seconds of CPU that children which ended took, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_round(bench: Bench, number: int) -> dict[str, dict[str, Took]]:
    """Every piece of work by everybody, once; who is first changes with the round."""
    bench.clean()
    order = ["bare", *ENGINES]
    order = order[number % 3 :] + order[: number % 3]
    taken: dict[str, dict[str, Took]] = {}

    def work(name: str, deeds: dict[str, Callable[[], Took]]) -> None:
        taken[name] = {}
        for who in order:
            os.sync()
            taken[name][who] = deeds[who]()
            if who == "restic":
                taken[name]["command"] = Took(bench.commands[who], 0.0)
        said = (f"{who} {taken[name][who].wall:.2f} s (CPU {taken[name][who].cpu:.2f})" for who in order)
        print(f"  {name}: {', '.join(said)}", flush=True)

    def everybody(bare: Callable[[], Took], deed: str, what: Path) -> dict[str, Callable[[], Took]]:
        return {"bare": bare, **{one: (lambda one=one: bench.agent(one, what, deed)) for one in ENGINES}}  # type: ignore[misc]

    for what in (bench.files, bench.database):  # both once and for all, as in life
        bench.bare(what, "init")
        for engine in ENGINES:
            bench.agent(engine, what, "init")
    files, db = bench.files, bench.database
    work("files, first", everybody(lambda: bench.bare(files, "backup", str(files)), "backup", files))
    work("files, unchanged", everybody(lambda: bench.bare(files, "backup", str(files)), "backup", files))
    with writing(db):
        work("database under writes", everybody(lambda: bench.bare(db, "backup", str(db)), "backup", db))
    for name, deed, more in (("restore files", "restore", ()), ("restore files, compared", "compared", ("--verify",))):
        work(name, everybody(lambda deed=deed, more=more: bench.bare_restore(files, deed, *more), deed, files))  # type: ignore[misc]
    for engine in ENGINES:
        bench.verify[engine].append(bench.agent(engine, files, "verify").wall)
    return taken


def report(rounds: list[dict[str, dict[str, Took]]], bench: Bench, mib: int, restic: str) -> Report:
    """The medians and whether they are what is asked for."""
    rows = []
    for work in rounds[0]:
        ratio = median(one[work]["restic"].wall / one[work]["bare"].wall for one in rounds)
        more = median(one[work]["restic"].wall - one[work]["bare"].wall for one in rounds)
        unchanged = work == "files, unchanged"
        limit = f"+ {UNCHANGED:g} s" if unchanged else f"× {RESTORE if work.startswith('restore') else WALL:g}"
        within = more <= UNCHANGED if unchanged else ratio <= (RESTORE if work.startswith("restore") else WALL)
        times = {who: round(median(one[work][who].wall for one in rounds), 3) for who in ("bare", *ENGINES)}
        cpu = median(one[work]["restic"].cpu / one[work]["bare"].cpu for one in rounds)
        command = median(one[work]["command"].wall / one[work]["bare"].wall for one in rounds)
        figures = (times["bare"], times["restic"], times["sealed"], round(ratio, 3), round(more, 3))
        rows.append(Row(work, *figures, limit, within, round(cpu, 3), round(command, 3)))
    rss = {engine: round(peak, 1) for engine, peak in bench.rss.items()}
    seconds = {engine: round(median(each), 3) for engine, each in bench.verify.items()}
    start = {engine: round(median(each), 3) for engine, each in bench.start.items()}
    return Report(facts(), restic, mib, len(rounds), rows, seconds, start, rss, max(rss.values()) <= RSS)


def table(done: Report) -> str:
    """For people."""
    lines = [
        f"{done.rounds} rounds, {done.mib} MiB of files and as much of SQLite; {done.restic}",
        "",
        "| work | bare restic | agent, restic | agent, sealed | ratio | more | asked | within | CPU ratio | command |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.work} | {row.bare:.2f} s | {row.restic:.2f} s | {row.sealed:.2f} s | {row.ratio:.2f} "
        f"| {row.more:+.2f} s | {row.limit} | {'yes' if row.within else 'no'} | {row.cpu_ratio:.2f} "
        f"| {row.command:.2f} |"
        for row in done.rows
    ]
    said = {
        "start and key (a running agent pays that once)": (done.start_seconds, "s"),
        "verification of the files by sample": (done.verify_seconds, "s"),
        f"memory without restic's (asked: ≤ {RSS:g} MiB)": (done.rss_mib, "MiB"),
    }
    lines += ["", "| agent | restic | sealed |", "|---|---|---|"]
    for what, (values, unit) in said.items():
        lines.append(f"| {what} | {values['restic']:.2f} {unit} | {values['sealed']:.2f} {unit} |")
    whole = next(row for row in done.rows if row.work == "restore files, compared")
    hundred = (f"{seconds * 102_400 / done.mib / 60:.0f} min" for seconds in (whole.restic, whole.sealed))
    rates = " and ".join(hundred)
    lines += ["", f"100 GiB come back, compared, in {rates} (restic and sealed) at these rates; the RTO is 4 h."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup")
    parser.add_argument("--mib", type=int, default=1024, help="of files, and of SQLite (1024)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where data and repositories go (default: a temporary one)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/backup.json")
    parser.add_argument("--child", nargs=3, metavar=("DEED", "FILE", "TARGET"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    restic = subprocess.run(["restic", "version"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="bench-backup-", dir=args.directory) as place:
        bench = Bench(Path(place).resolve(), args.mib)
        rounds: list[dict[str, dict[str, Took]]] = []
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", flush=True)
            rounds.append(one_round(bench, number))
        done = report(rounds, bench, args.mib, restic)
    results.write(done, args.json)
    print(table(done))


if __name__ == "__main__":
    main()
