"""What happens in any process of the pod is heard by the program, whoever saw it."""

import os
import signal

from tests.fakes.upstream import ScriptedUpstream
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar


def heard(proxy: Sidecar, kind: str) -> float:
    return proxy.metrics().sum("sidecar_happenings_total", kind=kind)


def test_a_worker_s_breaker_and_its_death_reach_the_program(server: ScriptedUpstream) -> None:
    dead = upstream("dead", f"127.0.0.1:{free_port()}", breaker={"consecutive_failures": 1})
    config = document([listener("in", [route("all", "dead")])], [dead, upstream("app", server.address)], workers=2)
    with Sidecar(config) as proxy:
        assert proxy.get("in").decision == "connect_failure"
        proxy.wait_until(lambda: heard(proxy, "breaker_changed"), "the program hears of the breaker")
        assert proxy.log.count('"breaker_changed"') == proxy.metrics().sum("sidecar_breaker_transitions_total")
        os.kill(proxy.status()["worker_pids"][0], signal.SIGKILL)
        proxy.wait_until(lambda: heard(proxy, "worker_died"), "the program hears of the death")
        proxy.wait_until(lambda: heard(proxy, "worker_started") == 3, "another was started")


def test_a_bad_file_and_a_drain_are_heard(server: ScriptedUpstream) -> None:
    with Sidecar(document([listener("in", [route("all", "app")])], [upstream("app", server.address)])) as proxy:
        proxy.write_text("nonsense: [")
        proxy.wait_until(lambda: heard(proxy, "config_reload_failed"), "the bad file is heard of")
        proxy.write(proxy.config)
        proxy.command("reload")
        assert heard(proxy, "config_reloaded") >= 1
        proxy.command("drain")
        assert heard(proxy, "phase_changed") == 1
