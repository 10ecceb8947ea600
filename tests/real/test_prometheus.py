"""A real Prometheus scrapes the running program: what it takes in, and what it answers to rules and dashboards."""

import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.upstream import ScriptedUpstream
from tests.real.agent import Agent, Estate
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar
from tests.repo.test_monitoring import RULES, queries

UNSEEN = {"breakers: Shared state", "backups: Continuous copy behind"}
"""Panels of what the programs below are without: Redis, PostgreSQL. Every other panel shows something."""
SEEN = {"sidecar:requests:rate5m", "sidecar:error_ratio:rate5m", "SidecarBreakerOpen", "SidecarEndpointUnhealthy",
        "SidecarDependencyUnhealthy"}  # fmt: skip
"""Of the rules, those that have an answer there."""


class Prometheus:
    """The server, scraping these ports every second."""

    def __init__(self, directory: Path, *targets: int) -> None:
        self.port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "sidecar", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in targets]}]}
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.log = (directory / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def api(self, path: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("query", query=text)["result"]
        return found

    def wait_for(self, text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until the query has an answer; a rate has one when things go on `meanwhile`."""
        deadline = time.monotonic() + 40
        while True:
            try:
                if self.query(text):
                    return
            except OSError:
                pass  # it starts
            assert time.monotonic() < deadline, f"{text} has no answer"
            meanwhile()
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def tree(server: ScriptedUpstream, estate: Estate) -> dict[str, Any]:
    """One upstream that serves and one that is dead, which has a fallback and a rule of recovery."""
    never = {"interval": "1s", "timeout": "1s", "unhealthy_after": 1}
    dead = route("dead", "dead", "/dead", retry={"attempts": 2}, fallback=[{"respond": {"status": 200}}])
    upstreams = [
        upstream("app", server.address),
        upstream("dead", "127.0.0.1:9", breaker={}, health_check={"tcp": {}, **never}),
    ]
    help_wanted = {"webhook": {"url": f"http://{server.address}/hook"}}
    rule = {"name": "call", "when": {"upstream": "dead", "unhealthy_for": "1s"}, "do": help_wanted}
    return {
        **both_codecs([dead, route("all", "app")], upstreams),
        "dependencies": [{"name": "nobody", "check": {"tcp": {"address": "127.0.0.1:9"}}, **never}],
        "incidents": {"store": str(estate.directory / "incidents.db"), "notify": [{"name": "ops", **help_wanted}]},
        "recovery": [rule],
        "backup": estate.section(drill={"every": "1h"}),
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With good requests behind it, a breaker that opened, a fallback that answered, an incident that was resolved, and
    backups, one of which was drilled.
    """
    estate = Estate(tmp_path_factory.mktemp("prometheus"))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ScriptedUpstream())
        proxy = stack.enter_context(Sidecar(tree(server, estate), directory=estate.directory))
        proxy.command("backup", "run")  # so that the agent begins with a drill
        agent = stack.enter_context(Agent(estate))
        prometheus = Prometheus(estate.directory, proxy.admin_port, estate.port)
        stack.callback(prometheus.stop)
        agent.wait_log('"drill_ended"')
        proxy.wait_until(lambda: proxy.admin("/api/v1/incidents").json(), "an incident")
        one = proxy.admin("/api/v1/incidents").json()[0]["id"]
        for word in ("ack", "resolve"):
            assert proxy.admin(f"/api/v1/incidents/{one}/{word}", "POST", unix=True).status == 200

        def go_on() -> None:
            assert proxy.get("fast").status == 200
            assert proxy.get("fast", "/dead").status == 200
            assert agent.command("/api/v1/backups/run") == 200

        for text in (
            'rate(sidecar_breaker_rejected_total{upstream="dead"}[1m]) > 0',
            "sidecar:error_ratio:rate5m",
            "increase(sidecar_breaker_transitions_total[5m])",
            "increase(sidecar_backup_runs_total[5m]) > 0",
            "increase(sidecar_notifications_total[5m])",
        ):
            prometheus.wait_for(text, meanwhile=go_on)
        yield prometheus


def test_nothing_in_a_scrape_is_refused(prometheus: Prometheus):
    targets = prometheus.api("targets")["activeTargets"]
    assert [(one["health"], one["lastError"]) for one in targets] == [("up", "")] * 2
    assert prometheus.query("scrape_samples_scraped")[0]["value"][1] != "0"


@pytest.mark.parametrize(("where", "text"), queries(), ids=[f"{where}-{n}" for n, (where, _) in enumerate(queries())])
def test_every_query_is_answered(prometheus: Prometheus, where: str, text: str):
    found = prometheus.query(text.replace("$job", ".+"))
    if where in SEEN or (": " in where and where not in UNSEEN):
        assert found, f"{where} shows nothing: {text}"


def test_what_must_be_seen_is_asked_for():
    assert {where for where, _ in queries()} >= SEEN | UNSEEN
