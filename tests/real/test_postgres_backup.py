"""PostgreSQL backed up, streamed and brought back to a moment, with a real server: by command and by the agent."""

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.real.agent import Agent, Estate
from tests.real.documents import free_port
from tests.real.estate import flip
from tests.real.postgres import SECRET, Primary, Restored, covered, restore, write
from tests.real.procfs import children_of, processes_naming
from tests.repo.test_doc_commands import left_to

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def primary() -> Iterator[Primary]:
    with Primary() as server:
        yield server


@pytest.fixture
def estate(tmp_path: Path, primary: Primary) -> Estate:
    estate = Estate(tmp_path)
    primary.sql("TRUNCATE orders")
    (tmp_path / "dsn").write_text(primary.dsn())
    write(estate)
    return estate


def reaches(estate: Estate, moment: datetime) -> bool:
    """Whether the moment can be restored."""
    target = str(estate.directory / "plan-only")
    return estate.run_any("restore", "plan", "--target", target, "--to", moment.isoformat()).returncode == 0


def drop(primary: Primary, estate: Estate) -> None:
    primary.sql(
        f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 's{estate.port}'"
    )


@pytest.fixture
def apart(primary: Primary) -> Iterator[Path]:
    """A tablespace with the orders in it; its directory."""
    place = primary.outside()
    primary.sql(f"CREATE TABLESPACE apart LOCATION '{place}'")
    primary.sql("ALTER TABLE orders SET TABLESPACE apart")
    yield place
    primary.sql("ALTER TABLE orders SET TABLESPACE pg_default")
    primary.sql("DROP TABLESPACE apart")


def seen(place: Path) -> dict[str, tuple[int, ...]]:
    """Every file below, and what changes when somebody touches it."""
    found = {str(path): path.stat() for path in place.rglob("*")}
    return {path: (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for path, one in found.items()}


@pytest.mark.parametrize("engine", ["sealed", pytest.param("restic", marks=pytest.mark.slow)])
def test_a_base_backup_by_command_is_a_cluster_that_starts(
    estate: Estate, primary: Primary, apart: Path, tmp_path: Path, engine: str
):
    check = {"source": "pg", "sql": "SELECT count(*) = 1 FROM orders WHERE item = 'tea'"}
    where = {"url": str(estate.repository), "engine": engine, "password_file": str(estate.key)}
    write(estate, repository=where, drill={"random": 0, "checks": [check]})
    primary.order("tea")
    made = estate.json("backup", "run")
    assert made["sources"][0]["sort"] == "postgres"
    assert made["verified"]
    primary.order("cake")
    primary.sql("CHECKPOINT")
    live = seen(apart)
    assert any(Path(path).is_file() for path in live)
    assert restore(estate, tmp_path / "t") == ["tea"]
    (link,) = (tmp_path / "t/pg/pg_tblspc").iterdir()
    assert link.readlink() == tmp_path / "t/pg/tablespaces" / link.name
    with Restored(tmp_path / "t/pg") as copy:
        assert copy.ask("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'apart'") == [
            str(link.readlink())
        ]
        copy.ask("INSERT INTO orders (item) VALUES ('salt')")
        copy.ask("CHECKPOINT")
        copy.ask("DROP TABLE orders")
        copy.ask("DROP TABLESPACE apart")
        assert list(link.parent.iterdir()) == [], "it was the copy's own"

    told = estate.json("drill", "run")
    assert told["passed"], told
    assert told["steps"]["starting"] > 0, "a server of its own was started on the copy"
    assert seen(apart) == live, "a copy has touched what the server itself has"
    assert processes_naming(str(estate.directory)) == []
    assert not list((tmp_path / "state").rglob(".service-*")), "the password was left behind"
    estate.write()
    unknown = estate.run("restore", "plan", "--target", str(tmp_path / "u"), code=1).stderr
    assert "pg needs its log" in unknown, "it would be older than the plan says"


def test_the_log_brings_any_moment_back(estate: Estate, primary: Primary, tmp_path: Path):
    primary.order("tea")
    try:
        with Agent(estate) as agent:
            assert agent.metrics().named("sidecar_backup_replication_lag_seconds") == [], "not known is not 0"
            agent.wait_log('"backup_finished".*"verified": true')
            lag = lambda: agent.metrics().named("sidecar_backup_replication_lag_seconds", source="pg")
            agent.wait_until(lag, "a lag that is known", 60.0)
            primary.order("cake")
            time.sleep(0.05)
            between = datetime.now(timezone(timedelta(hours=5, minutes=30)))
            time.sleep(0.05)
            primary.sql("SELECT pg_switch_wal()")
            primary.order("salt")
            agent.wait_until(covered(lag), "the last order in the repository", 60.0)
            # a point of now needs no new base: it is the old one, and the log
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_log('"backup_finished".*"asked": "operator".*"verified": true')
            streamed = agent.json("/api/v1/backups")[0]
            newest = streamed["sources"][0]
            assert (newest["kind"], newest["bytes_added"]) == ("unchanged", 0)
            old = (datetime.now(UTC) - datetime.fromisoformat(streamed["consistent_at"])).total_seconds()
            assert agent.metrics().named("sidecar_backup_rpo_seconds")[0][1] > old - 0.05, (
                "the log was behind when it was made"
            )
            assert not list((tmp_path / "state").rglob(".service-*")), "the password lies about"
            assert SECRET.encode() not in b"".join(
                Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below(agent.process.pid)
            )

        lost = give_up_the_slot(primary, estate)
        flip(next(estate.repository.glob("sidecar/wal/pg/*/state")))
        write(estate, {"max_lag": "2s", "resync": False})
        with Agent(estate) as agent:
            trouble = lambda word: [
                one["detail"] for one in agent.json("/api/v1/status")["conditions"] if one["reason"] == word
            ]
            agent.wait_until(lambda: trouble("replication_behind"), "the condition", 60.0)
            assert "gave up the slot" in trouble("replication_behind")[0]
            assert "resync is off" in trouble("replication_behind")[0]
            assert lag() == [], "how far it is behind is not known"
            write(estate)
            agent.process.send_signal(signal.SIGHUP)
            agent.wait_log('"log_has_gap".*gave up the slot')
            agent.wait_log('"log_state_damaged".*state is damaged')
            agent.wait_log('"backup_finished".*"bytes_added": [1-9].*"verified": true')
            agent.wait_until(lag, "a lag that is known again", 60.0)
            primary.order("milk")
            agent.wait_until(covered(lag), "the last order in the repository", 60.0)
            agent.wait_until(lambda: not trouble("replication_behind"), "the end of the condition", 60.0)

            # a tablespace that is made: a new base backup has it, and the log before it still is of use
            before = datetime.now(UTC)
            place = primary.outside()
            primary.sql(f"CREATE TABLESPACE apart LOCATION '{place}'")
            primary.sql("ALTER TABLE orders SET TABLESPACE apart")
            unsafe = datetime.now(UTC).isoformat()
            primary.order("jam")  # so the log goes beyond that moment
            agent.wait_until(covered(lag), "the tablespace in the repository", 60.0)
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_log('"backup_finished".*"asked": "operator".*"bytes_added": [1-9].*"verified": true')

        plan = estate.json("restore", "plan", "--target", str(tmp_path / "unsafe"), "--to", unsafe)
        assert f"makes a tablespace at {place}: " in estate.run("restore", "apply", plan["hash"], code=1).stderr
        assert restore(estate, tmp_path / "before", "--to", before.isoformat()) == [
            "tea", "cake", "salt", "pepper", "milk",
        ]  # fmt: skip
        page = left_to("docs/howto/postgres.md", __file__).replace("20260331T115500Z-1a2b3c", streamed["id"])
        page = page.replace("2026-03-31T12:00:00Z", between.isoformat()).replace("/data/", f"{tmp_path}/data/")
        for line in page.splitlines():
            words = line.partition("#")[0].split()
            assert words.pop(0) == "sidecar"
            estate.run(*words)
        assert restore(estate, tmp_path / "between", "--to", between.isoformat()) == ["tea", "cake"]
        assert restore(estate, tmp_path / "last") == ["tea", "cake", "salt", "pepper", "milk", "jam"]
        for moment, why in (
            (datetime.now(UTC) + timedelta(hours=1), "that is the latest --to"),
            (lost, "the log has a gap"),
        ):
            words = ("restore", "plan", "--target", str(tmp_path / "x"), "--to", moment.isoformat())
            assert why in estate.run(*words, code=1).stderr
        write(estate, drill={"random": 0, "checks": [{"source": "pg", "sql": "SELECT count(*) = 6 FROM orders"}]})
        told = estate.json("drill", "run")
        assert told["passed"], told
        assert processes_naming(str(estate.directory)) == []

        # a state that rots costs only what goes beyond the newest point
        flip(next(estate.repository.glob("sidecar/wal/pg/*/state")))
        assert estate.json("restore", "plan", "--target", str(tmp_path / "rotten"))["verified"]

        # what the log lacks is found
        for segment in (estate.repository / "sidecar" / "wal" / "pg").glob("*/0*"):
            segment.unlink()
        found = estate.json("backup", "verify", streamed["id"], "--level", "manifest", code=1)
        assert {one["what"] for one in found["troubles"]} == {"missing"}
    finally:
        drop(primary, estate)


def give_up_the_slot(primary: Primary, estate: Estate) -> datetime:
    """Nobody takes the log for so long that the server keeps it no longer; a moment of which it is lost."""
    primary.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    primary.sql("SELECT pg_reload_conf()")
    primary.order("pepper")
    time.sleep(0.1)
    lost = datetime.now(UTC)
    status = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = 's{estate.port}'"
    while primary.answer(status) != "lost":
        primary.sql("INSERT INTO orders VALUES (0, 'gone')")
        primary.sql("DELETE FROM orders WHERE id = 0")
        primary.sql("SELECT pg_switch_wal()")
        primary.sql("CHECKPOINT")
    primary.sql("ALTER SYSTEM RESET max_slot_wal_keep_size")
    primary.sql("SELECT pg_reload_conf()")
    return lost


def below(pid: int) -> list[int]:
    return [pid, *children_of(pid)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_server_that_is_away_is_told_and_the_stream_goes_on_when_it_is_back(estate: Estate, tmp_path: Path):
    with Primary() as primary:
        (tmp_path / "dsn").write_text(primary.dsn())
        primary.order("tea")
        with Agent(estate) as agent:
            agent.wait_log('"backup_finished".*"verified": true')
            agent.wait_until(lambda: agent.metrics().named("sidecar_backup_replication_lag_seconds"), "a lag", 60.0)
            primary.stop()
            agent.wait_log('"stream_failed".*pg')
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_log('"backup_failed".*the server does not answer')
            primary.start()
            primary.order("cake")
            at = datetime.now(UTC)
            agent.wait_until(lambda: reaches(estate, at), "the order in the repository", 90.0)
        assert restore(estate, tmp_path / "t") == ["tea", "cake"]


def test_what_cannot_work_is_told_and_repeats_no_secret(estate: Estate, primary: Primary, tmp_path: Path):
    dsn = primary.dsn()
    (tmp_path / "dsn").write_text(dsn.replace("secret", "guess"))
    failed = estate.run("backup", "run", code=1).stderr
    assert "look at the password in dsn_file" in failed
    assert "guess" not in failed
    (tmp_path / "dsn").write_text(dsn.replace(str(primary.port), str(free_port())))
    assert "the server does not answer" in estate.run("backup", "run", code=1).stderr
    (tmp_path / "dsn").unlink()
    assert "dsn: No such file" in estate.run("backup", "run", code=1).stderr
    (tmp_path / "dsn").write_text(dsn)
    assert estate.json("backup", "list") == []
    refused = estate.run("restore", "plan", "--target", str(tmp_path / "x"), code=1)
    assert "no complete backup" in refused.stderr
