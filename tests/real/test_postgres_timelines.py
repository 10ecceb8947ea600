"""New timelines of a PostgreSQL whose log is streamed: a standby that is promoted, a server that was brought back.

Slow: each starts two servers.
"""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.real.agent import Agent, Estate
from tests.real.databases import SlowLink
from tests.real.postgres import Primary, Restored, Standby, covered, restore, write
from tests.real.procfs import children_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def primary() -> Iterator[Primary]:
    with Primary() as server:
        yield server


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


def serve(estate: Estate, server: Primary) -> None:
    (estate.directory / "dsn").write_text(server.dsn())
    write(estate)


def lag_of(agent: Agent) -> Any:
    return lambda: agent.metrics().named("sidecar_backup_replication_lag_seconds", source="pg")


def conditions(agent: Agent, reason: str) -> list[str]:
    return [one["detail"] for one in agent.json("/api/v1/status")["conditions"] if one["reason"] == reason]


def points(agent: Agent) -> int:
    return len([line for line in agent.log.splitlines() if '"backup_finished"' in line])


def test_a_standby_is_backed_up_and_its_promotion_begins_a_new_base(estate: Estate, primary: Primary, tmp_path: Path):
    primary.order("tea")
    with Standby(primary) as standby:
        serve(estate, standby)
        primary.order("cake")
        with Agent(estate) as agent:
            agent.wait_log('"backup_finished".*"verified": true')
            lag = lag_of(agent)
            primary.order("salt")
            before, caught_up = datetime.now(UTC), covered(lag)

            def beat_and_look() -> bool:
                primary.sql("INSERT INTO beats VALUES (1)")  # a standby knows how old it is by what is committed
                return caught_up()

            primary.sql("CREATE TABLE beats (n integer)")
            agent.wait_until(beat_and_look, "the orders in the repository", 60.0)
            primary.order("lost with the primary, or not")
            primary.stop()
            made = points(agent)
            standby.sql("SELECT pg_promote()")
            standby.sql("DELETE FROM orders WHERE item LIKE 'lost%'")
            standby.order("milk")
            agent.wait_until(lambda: points(agent) > made, "a new base backup", 60.0)
            agent.wait_until(covered(lag), "the last order in the repository", 60.0)
            assert '"log_has_gap"' not in agent.log
        assert restore(estate, tmp_path / "last") == ["tea", "cake", "salt", "milk"]
        assert restore(estate, tmp_path / "before", "--to", before.isoformat()) == ["tea", "cake", "salt"]


def test_a_server_that_was_brought_back_goes_on_and_what_it_lost_can_still_be_had(
    estate: Estate, primary: Primary, tmp_path: Path
):
    serve(estate, primary)
    primary.order("tea")
    with Agent(estate) as agent:
        agent.wait_log('"backup_finished".*"verified": true')
        lag = lag_of(agent)
        agent.wait_until(covered(lag), "the stream", 60.0)
        primary.order("cake")
        earlier = datetime.now(UTC)
        primary.order("salt")
        agent.wait_until(covered(lag), "the last order in the repository", 60.0)
        later = datetime.now(UTC)
        primary.sql("SELECT pg_switch_wal()")
        primary.order("pepper")
        agent.wait_until(covered(lag), "the segment after", 60.0)
        primary.stop()
        assert restore(estate, tmp_path / "back", "--to", earlier.isoformat()) == ["tea", "cake"]
        made = points(agent)
        with Restored(tmp_path / "back" / "pg", primary.port) as server:
            server.ask("INSERT INTO orders (item) VALUES ('milk')")
            agent.wait_log('"log_has_gap".*(history|ahead of)')
            agent.wait_until(lambda: points(agent) > made, "a new base backup", 60.0)
            agent.wait_until(covered(lag), "the last order in the repository", 60.0)
    assert restore(estate, tmp_path / "last") == ["tea", "cake", "milk"]
    assert restore(estate, tmp_path / "later", "--to", later.isoformat()) == ["tea", "cake", "salt"]


def test_a_receiver_that_hangs_is_started_anew_and_a_silent_server_is_not_known(
    estate: Estate, primary: Primary, tmp_path: Path
):
    with SlowLink(primary.port) as link:
        (tmp_path / "dsn").write_text(primary.dsn().replace(str(primary.port), str(link.port)))
        write(estate, {"max_lag": "5s"})
        with Agent(estate) as agent:
            lag = lag_of(agent)
            agent.wait_until(lag, "a lag that is known", 60.0)
            primary.order("tea")
            for pid in children_of(agent.process.pid):
                if b"--synchronous" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGSTOP)
            primary.order("cake")
            agent.wait_until(lambda: conditions(agent, "replication_behind"), "the condition", 60.0)
            agent.wait_log('"stream_failed".*started anew')
            agent.wait_until(covered(lag), "the last order in the repository", 60.0)
            agent.wait_until(lambda: not conditions(agent, "replication_behind"), "its end", 60.0)
            before = datetime.now(UTC)
            primary.order("milk")
            primary.sql(f"CREATE TABLESPACE apart LOCATION '{primary.outside()}'")
            agent.wait_until(covered(lag), "the tablespace", 60.0)
            primary.stop()
            agent.wait_until(lambda: conditions(agent, "replication_unknown"), "the condition", 150.0)
            assert lag() == [], "not known is not 0"
        plan = estate.json("restore", "plan", "--target", str(tmp_path / "all"))
        assert "the log makes a tablespace" in estate.run("restore", "apply", plan["hash"], code=1).stderr
        assert estate.json("drill", "run")["passed"], "it goes as far as the point itself"
        assert restore(estate, tmp_path / "before", "--to", before.isoformat()) == ["tea", "cake"]
