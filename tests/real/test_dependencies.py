"""What is not proxied but must be alive, through the running program: real databases stopped, paused, slowed."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import peers
from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.databases import PASSWORD, Postgres, Redis, SlowLink
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar

FIGURES = {"interval": "1s", "timeout": "1s", "degraded_above": "250ms"}
SECRET = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")


def config(*dependencies: dict[str, Any]) -> dict[str, Any]:
    """A proxy with nothing much to do: these tests look at what is beside its traffic."""
    unused = upstream("app", f"127.0.0.1:{free_port()}")
    return document([listener("in", [route("all", "app")])], [unused], dependencies=list(dependencies))


def dependency(name: str, check: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"name": name, "check": check, "interval": "200ms", "unhealthy_after": 2, **keys}


def status(proxy: Sidecar, name: str) -> str:
    """The state whose series is 1; all four are there and exactly one is."""
    found = proxy.metrics().named("sidecar_dependency_status", dependency=name)
    assert {labels["status"] for labels, _ in found} == {"healthy", "degraded", "unhealthy", "unknown"}
    (state,) = [labels["status"] for labels, value in found if value == 1]
    assert sum(value for _, value in found) == 1
    return state


def become(proxy: Sidecar, state: str, *names: str) -> None:
    proxy.wait_until(lambda: all(status(proxy, name) == state for name in names), f"{names} {state}", patience=20)


def seen(proxy: Sidecar, name: str) -> dict[str, Any]:
    (found,) = [one for one in proxy.admin("/api/v1/health").json() if one.get("dependency") == name]
    return dict(found)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text("hush")
    return tmp_path


def test_databases_that_are_slowed_paused_and_stopped(secrets: Path) -> None:
    """A database that answers in time is healthy, above the limit degraded, not at all unhealthy."""
    with (
        Postgres() as postgres,
        Redis("--requirepass", "hush") as redis,
        SlowLink(postgres.port) as to_postgres,
        SlowLink(redis.port) as to_redis,
    ):
        dsn = secrets / "dsn"
        dsn.write_text(f"host=127.0.0.1 port={to_postgres.port} user=scram dbname=postgres password='{SECRET}'")
        password = str(secrets / "password")
        both = config(
            {"name": "db", "check": {"postgres": {"dsn_file": str(dsn)}}, **FIGURES},
            {
                "name": "cache",
                "check": {"redis": {"url": f"redis://127.0.0.1:{to_redis.port}/0", "password_file": password}},
                **FIGURES,
            },
        )
        with Sidecar(both) as proxy:
            become(proxy, "healthy", "db", "cache")
            assert seen(proxy, "db")["detail"] == "answered the query"
            assert seen(proxy, "cache")["detail"] == "PONG"
            to_postgres.delay, to_redis.delay = 0.08, 0.2  # per answer: the login of one takes five, of the other two
            become(proxy, "degraded", "db", "cache")
            assert 0.25 <= seen(proxy, "db")["latency_seconds"] < 1.0
            to_postgres.delay = to_redis.delay = 0.0
            become(proxy, "healthy", "db", "cache")
            postgres.pause()
            redis.pause()
            become(proxy, "unhealthy", "db", "cache")
            assert seen(proxy, "db")["detail"] == seen(proxy, "cache")["detail"] == "no answer within 1s"
            postgres.resume()
            redis.resume()
            become(proxy, "healthy", "db", "cache")
            postgres.stop()
            redis.stop()
            become(proxy, "unhealthy", "db", "cache")
            postgres.start()
            redis.start()
            become(proxy, "healthy", "db", "cache")
            log = proxy.log
            assert "hush" not in log
            assert PASSWORD not in log
            assert '"dependency_health_changed", "dependency": "db", "before": "healthy", "now": "degraded"' in log


def test_those_that_hang_delay_no_other() -> None:
    asked: list[socket.socket] = []

    def hangs(sock: socket.socket) -> None:
        asked.append(sock)
        peers.hangs(sock)

    with peers.peer(hangs) as hanging, Redis() as redis:
        stuck = {"redis": {"url": f"redis://127.0.0.1:{hanging}"}}
        slow = [dependency(f"slow{number}", stuck, interval="5s", timeout="5s") for number in range(20)]
        quick = dependency("quick", {"redis": {"url": f"redis://127.0.0.1:{redis.port}"}})
        with Sidecar(config(*slow, quick)) as proxy:
            become(proxy, "healthy", "quick")
            proxy.wait_until(lambda: len(asked) == len(slow), "all are asked")
            redis.stop()
            become(proxy, "unhealthy", "quick")
            become(proxy, "unknown", *(one["name"] for one in slow))


def test_external_services_that_stand_for_each_other() -> None:
    with ScriptedUpstream() as one, ScriptedUpstream() as other:
        urls = [f"http://{server.address}/up?key=hush" for server in (one, other)]
        with Sidecar(config(dependency("tax", {"http": {"urls": urls, "contains": "target"}}))) as proxy:
            become(proxy, "healthy", "tax")
            one.on("/up", says(b"", "503 Gone Fishing"))
            become(proxy, "degraded", "tax")
            assert [part["detail"] for part in seen(proxy, "tax")["parts"]] == ["answered 503", "answered 200"]
            assert "hush" not in str(seen(proxy, "tax"))
            other.on("/up", says(b"another text"))
            become(proxy, "unhealthy", "tax")
            one.on("/up", says(b"on target"))
            other.on("/up", says(b"on target"))
            become(proxy, "healthy", "tax")
            assert "hush" not in proxy.log


def test_a_command(tmp_path: Path) -> None:
    """No shell; out of time it is killed with what it started: the harness insists that nothing is left behind."""
    flag = tmp_path / "flag"
    code = "import os, sys, time; sys.exit(3) if os.path.exists(sys.argv[1]) else None"
    hang = "import os, time; os.fork(); time.sleep(60)"
    python = [sys.executable, "-S", "-c"]
    checks = [
        dependency("disk", {"command": {"argv": [*python, code, str(flag)]}}, interval="1s"),
        dependency("stuck", {"command": {"argv": [*python, hang]}}, interval="500ms", timeout="300ms"),
    ]
    with Sidecar(config(*checks)) as proxy:
        become(proxy, "healthy", "disk")
        become(proxy, "unhealthy", "stuck")
        flag.touch()
        become(proxy, "unhealthy", "disk")
        assert seen(proxy, "disk")["detail"] == "exited with 3"
        assert seen(proxy, "stuck")["detail"] == "no answer within 300ms"


def test_a_reload_adds_keeps_and_forgets() -> None:
    with Redis() as redis:
        check = {"redis": {"url": f"redis://127.0.0.1:{redis.port}"}}
        with Sidecar(config(dependency("one", check), dependency("two", check)), ready=True) as proxy:
            become(proxy, "healthy", "one", "two")
            since = seen(proxy, "one")["since"]
            proxy.write(config(dependency("one", check, interval="300ms"), dependency("three", check)))
            proxy.command("reload")
            become(proxy, "healthy", "three")
            assert seen(proxy, "one")["since"] == since
            assert not proxy.metrics().named("sidecar_dependency_status", dependency="two")


def test_checks_run_once_however_many_workers_serve() -> None:
    with ScriptedUpstream() as server:
        check = dependency("api", {"http": {"url": f"http://{server.address}/up"}}, interval="20s")
        with Sidecar(config(check) | {"workers": 2}) as proxy:
            become(proxy, "healthy", "api")
            assert len(server.requests("/up")) == 1
