"""Recovery through the real program: processes that are killed and stopped, endpoints that go, dependencies that die.

The services are `tests/fakes/service.py` under `sidecar run -- COMMAND`, or scripted upstreams; what is asked is asked
over ports, signals, metrics and the status. Nothing here measures how long it takes; `benchmarks/recovery.py` does.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.real.databases import Redis
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, run_cli
from tests.real.test_supervised import MARK, SERVICE, Stage, marked

ATTEMPTS = "sidecar_recovery_attempts_total"
QUICK = {"http": {"path": "/pid"}, "interval": "250ms", "timeout": "250ms", "unhealthy_after": 2, "healthy_after": 1}
PATIENCE = 40.0


def restart(**changes: Any) -> dict[str, Any]:
    """A rule that restarts the supervised process behind `app`."""
    return {
        "name": "restart-app",
        "when": {"upstream": "app", "unhealthy_for": "500ms"},
        "do": {"restart": "process"},
        "backoff": "100ms",
        "budget": {"runs": 20, "per": "10m"},
        **changes,
    }


class RecoveryStage(Stage):
    """The scripted service behind the proxy, with health checks, a breaker and rules."""

    def watch(
        self, *habits: str, rules: list[dict[str, Any]], app: dict[str, Any] | None = None, **root: Any
    ) -> Sidecar:
        port = free_port()
        checked = upstream(
            "app", f"127.0.0.1:{port}", **({"health_check": QUICK, "breaker": {"shared": False}} | (app or {}))
        )
        tree = document([listener("in", [route("all", "app")])], [checked], recovery=rules, **root)
        return self.start(tree, port, *habits)

    def start(self, tree: dict[str, Any], port: int, *habits: str) -> Sidecar:
        script = [sys.executable, "-S", str(SERVICE), str(port), str(self.directory), *habits]
        return self._stack.enter_context(Sidecar(tree, command=script))


@pytest.fixture
def stage(tmp_path: Path, server: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecoveryStage]:
    monkeypatch.setenv(MARK, str(tmp_path))
    with contextlib.ExitStack() as stack:
        yield RecoveryStage(tmp_path, server, stack)
    assert marked(tmp_path) == [], "left behind"


def rule(proxy: Sidecar, name: str = "restart-app") -> Any:
    return next(one for one in proxy.status()["recovery"]["rules"] if one["name"] == name)


def wait_stage(proxy: Sidecar, *stages: str, name: str = "restart-app") -> Any:
    proxy.wait_until(lambda: rule(proxy, name)["stage"] in stages, f"{name} {stages}", PATIENCE)
    return rule(proxy, name)


def attempts(proxy: Sidecar, result: str, strategy: str = "process") -> float:
    return proxy.metrics().sum(ATTEMPTS, strategy=strategy, result=result)


# ------------------------------------------------------------------------------------------ dead or wedged here
def test_a_wedged_service_is_restarted_and_proved_though_the_rule_changes_meanwhile(stage: RecoveryStage) -> None:
    proxy = stage.watch("deaf", rules=[restart()], workers=2)
    first = stage.serving(proxy)
    for result in ("verified", "failed", "relapsed", "dry_run", "escalated"):  # so that the first is an increase
        assert [value for _, value in proxy.metrics().named(ATTEMPTS, strategy="process", result=result)] == [0]
    os.kill(first, signal.SIGSTOP)
    wait_stage(proxy, "acting")  # two seconds until SIGKILL
    proxy.config["recovery"] = [restart(attempts=7)]
    proxy.write(proxy.config)
    proxy.wait_log("config_reloaded")
    second = stage.serving(proxy, but=first)
    seen = wait_stage(proxy, "healed")
    assert stage.serving(proxy) == second
    assert seen["attempts_allowed"] == 7
    assert [one["result"] for one in seen["record"]] == ["verified"]
    assert (attempts(proxy, "started"), attempts(proxy, "verified"), attempts(proxy, "failed")) == (1, 1, 0)
    assert proxy.metrics().sum("sidecar_recovery_duration_seconds_count", strategy="process") == 1
    assert next(one for one in proxy.status()["breakers"] if one["name"] == "app")["machine"] == "closed"
    assert proxy.status()["child"]["restarts"] == 1
    log = proxy.log
    assert log.index('"recovery_detected"') < log.index('"recovery_started"') < log.index('"recovery_verified"')
    proxy.config["recovery"] = []
    proxy.write(proxy.config)
    proxy.wait_until(lambda: proxy.status()["recovery"]["rules"] == [], "no rules")


def test_a_killed_service_is_proved_too_and_a_relapse_changes_the_record_only(stage: RecoveryStage) -> None:
    proxy = stage.watch(rules=[restart(budget={"runs": 1, "per": "10m"})])
    first = stage.serving(proxy)
    os.kill(first, signal.SIGKILL)
    second = stage.serving(proxy, but=first)
    wait_stage(proxy, "healed")
    assert attempts(proxy, "verified") == 1
    os.kill(second, signal.SIGKILL)  # after a proved life: at once, whatever the budget says
    stage.serving(proxy, but=second)
    seen = wait_stage(proxy, "proving", "healed")
    assert [one["result"] for one in seen["record"]][:1] == ["relapsed"]
    assert (attempts(proxy, "relapsed"), attempts(proxy, "started")) == (1, 2)


def test_a_service_that_dies_at_once_for_ever_stops_at_the_budget_with_one_escalation(stage: RecoveryStage) -> None:
    port = free_port()
    tree = document(
        [listener("in", [route("other", "other", "/other"), route("all", "app")])],
        [upstream("app", f"127.0.0.1:{port}", health_check=QUICK), upstream("other", stage._server.address)],
        recovery=[restart(budget={"runs": 2, "per": "10m"}, attempts=9)],
    )
    proxy = stage._stack.enter_context(Sidecar(tree, command=["sh", "-c", "exit 3"]))
    wait_stage(proxy, "escalated")
    assert attempts(proxy, "started") == 2
    proxy.wait_log("child_held")
    assert proxy.status()["child"]["state"] == "backing_off"
    assert proxy.log.count('"recovery_escalated"') == 1
    assert attempts(proxy, "escalated") == 1
    assert proxy.get("in", "/other").status == 200
    assert proxy.probe("/readyz") == 200
    found = proxy.command("status", check=False).stdout
    assert "restart-app gave up" in found
    # somebody mended it: an order is carried out whatever was used up
    proxy.command("recover", "run", "restart-app")
    proxy.wait_until(lambda: attempts(proxy, "started") == 3, "another start")
    proxy.stop()


# ----------------------------------------------------------------------------------------- what is not healed so
def test_a_dependency_that_is_down_causes_no_restart(stage: RecoveryStage) -> None:
    """The service answers 500 because its database is gone; the checks of the database are too slow to know it yet."""
    gone = free_port()
    dependencies = [{"name": "db", "check": {"tcp": {"address": f"127.0.0.1:{gone}"}}, "interval": "1h"}]
    sick = {**QUICK, "http": {"path": "/pid", "expect": [299]}}
    rules = [restart(), restart(name="by-dependency", when={"dependency": "db", "unhealthy_for": "100ms"})]
    proxy = stage.watch(rules=rules, app={"health_check": sick}, dependencies=dependencies, workers=2)
    seen = wait_stage(proxy, "held")
    assert seen["hold"] == "dependency_down"
    assert "dependency db" in proxy.wait_log(r'.*"recovery_held".*')[0]
    assert proxy.status()["child"]["restarts"] == 0
    assert attempts(proxy, "started") == 0


def test_a_service_that_is_slow_to_begin_is_left_alone_until_its_time_is_over(stage: RecoveryStage) -> None:
    script = "sleep 3; exec " + " ".join([sys.executable, "-S", str(SERVICE)])
    port = free_port()
    tree = document(
        [listener("in", [route("all", "app")])],
        [upstream("app", f"127.0.0.1:{port}", health_check=QUICK)],
        recovery=[restart(), restart(name="hasty", verify_within="300ms", dry_run=True)],
    )
    proxy = stage._stack.enter_context(Sidecar(tree, command=["sh", "-c", f"{script} {port} {stage.directory}"]))
    seen = wait_stage(proxy, "held")
    assert (seen["hold"], attempts(proxy, "started")) == ("starting", 0)
    assert "not well yet; it has 30s" in proxy.wait_log(r'.*"recovery_held".*starting.*')[0]
    proxy.wait_until(lambda: rule(proxy, "hasty")["hold"] == "dry_run", "whose time is over", PATIENCE)
    stage.serving(proxy)
    wait_stage(proxy, "well", "quiet")
    assert proxy.status()["child"]["restarts"] == 0


def test_paused_dry_run_and_maintenance_only_tell(stage: RecoveryStage) -> None:
    rules = [
        restart(),
        restart(name="dry", dry_run=True),
        restart(name="at-work", maintenance=[{"start": "00:00", "lasts": "24h"}]),
    ]
    proxy = stage.watch(rules=rules)
    first = stage.serving(proxy)
    assert "paused" in proxy.command("recover", "pause", "--why", "we move").stdout
    os.kill(first, signal.SIGSTOP)
    for name, hold in (("restart-app", "paused"), ("dry", "paused"), ("at-work", "paused")):
        assert wait_stage(proxy, "held", name=name)["hold"] == hold
    shown = proxy.command("recover", "status").stdout
    assert "paused" in shown and "we move" in shown
    assert "would act (process)" in proxy.command("recover", "run", "restart-app", "--dry-run").stdout
    assert proxy.status()["child"]["restarts"] == 0
    proxy.command("recover", "resume")
    stage.serving(proxy, but=first)
    assert attempts(proxy, "started") == 1
    assert proxy.status()["recovery"]["paused"] is None


# -------------------------------------------------------------------------------------------------------- fleet
def test_replicas_restart_one_after_the_other_and_without_redis_only_the_dead(stage: RecoveryStage) -> None:
    with Redis() as redis:
        shared = {"redis": {"url": f"redis://{redis.address}/0"}, "namespace": "shop"}
        rules = [restart(verify_within="6s")]
        first, second = (
            stage.watch(rules=rules, shared_state=shared, service={"name": "orders", "instance": name})
            for name in ("one", "two")
        )
        pids = {proxy: stage.serving(proxy) for proxy in (first, second)}
        first.wait_until(lambda: first.status()["recovery"]["fleet"], "a place in the fleet", PATIENCE)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)

        def held() -> list[Sidecar]:
            return [proxy for proxy in pids if rule(proxy)["hold"] == "no_token"]

        first.wait_until(held, "one waits for the other", PATIENCE)
        (waiting,) = held()
        other = second if waiting is first else first
        assert waiting.wait_log(r'.*"recovery_held".*1 of 2 replicas restart already.*')
        assert "1 of 2 replicas restarting, 1 allowed" in waiting.command("recover", "status").stdout
        assert stage.serving(other, but=pids[other])
        assert waiting.status()["child"]["restarts"] == 0
        redis.stop()
        waiting.wait_until(
            lambda: "only dead processes are restarted" in rule(waiting)["held_by"], "no leave without Redis", PATIENCE
        )
        assert waiting.status()["child"]["restarts"] == 0
        os.kill(pids[waiting], signal.SIGKILL)
        assert stage.serving(waiting, but=pids[waiting])


def test_without_rules_there_is_nothing_to_order() -> None:
    tree = document([listener("in", [route("all", "app")])], [upstream("app", "127.0.0.1:1")])
    with Sidecar(tree) as proxy:
        assert proxy.status()["recovery"] == {"paused": None, "rules": [], "fleet": None}
        done = run_cli("recover", "pause", "-c", str(proxy.file))
        assert done.returncode == 1 and "no recovery rules" in done.stderr
