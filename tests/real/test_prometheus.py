"""A real Prometheus scrapes the running program: what it takes in, and what it answers to rules and dashboards."""

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
from tests.real.documents import both_codecs, free_port, route, upstream
from tests.real.harness import Sidecar
from tests.repo.test_monitoring import RULES, queries

SEEN = {
    "requests: Requests", "requests: p99", "requests: Requests by upstream", "requests: Why requests failed",
    "requests: Duration", "requests: What the proxy adds", "requests: In flight and waiting", "requests: Bytes",
    "requests: The program", "requests: Event loop lag, p99", "requests: Errors", "breakers: Open breakers",
    "breakers: Refused", "breakers: Changes", "breakers: Fallback answers", "breakers: Time of a verdict",
    "breakers: Dependencies", "sidecar:requests:rate5m", "sidecar:error_ratio:rate5m", "SidecarBreakerOpen",
}  # fmt: skip
"""Those that have an answer as soon as the program below has had its requests."""


class Prometheus:
    """The server, scraping `target` every second."""

    def __init__(self, directory: Path, target: int) -> None:
        self.port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "sidecar", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
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


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With good requests behind it, a breaker that opened, and a fallback that answered."""
    with ScriptedUpstream() as server:
        config = both_codecs(
            [
                route("dead", "dead", match={"path_prefix": "/dead"}, fallback=[{"respond": {"status": 200}}]),
                route("all", "app"),
            ],
            [upstream("app", server.address), upstream("dead", "127.0.0.1:9", breaker={})],
        )
        config["dependencies"] = [
            {
                "name": "nobody",
                "check": {"tcp": {"address": "127.0.0.1:9"}},
                "interval": "1s",
                "timeout": "1s",
                "unhealthy_after": 1,
            }
        ]
        with Sidecar(config) as proxy:
            prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), proxy.admin_port)
            try:
                prometheus.wait_for("sidecar_build_info")
                prometheus.wait_for('sidecar_breaker_state{upstream="dead"}')

                def ask() -> None:
                    assert proxy.get("fast").status == 200
                    assert proxy.get("fast", "/dead").status == 200

                for text in (
                    'rate(sidecar_breaker_rejected_total{upstream="dead"}[1m]) > 0',
                    "sidecar:error_ratio:rate5m",
                    "increase(sidecar_breaker_transitions_total[5m])",  # there since it opened: two scrapes
                ):
                    prometheus.wait_for(text, meanwhile=ask)
                yield prometheus
            finally:
                prometheus.stop()


def test_nothing_in_a_scrape_is_refused(prometheus: Prometheus):
    (target,) = prometheus.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.query("scrape_samples_scraped")[0]["value"][1] != "0"


@pytest.mark.parametrize(("where", "text"), queries(), ids=[f"{where}-{n}" for n, (where, _) in enumerate(queries())])
def test_every_query_is_answered(prometheus: Prometheus, where: str, text: str):
    found = prometheus.query(text.replace("$job", ".+"))
    if where in SEEN:
        assert found, f"{where} shows nothing: {text}"


def test_what_must_be_seen_is_asked_for():
    assert {where for where, _ in queries()} >= SEEN
