"""Proxy and agent in one pod: each shows and hears of the other, and each goes on without it."""

import json
from pathlib import Path
from typing import Any

from tests.real.agent import Agent, Estate
from tests.real.documents import free_port
from tests.real.harness import Sidecar


def document(estate: Estate, **backup: Any) -> dict[str, Any]:
    routes = [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "app"}]
    return {
        "version": 1,
        "service": {"name": "orders"},
        "listeners": [{"name": "in", "bind": f"127.0.0.1:{free_port()}", "routes": routes}],
        "upstreams": [{"name": "app", "endpoints": [{"address": f"127.0.0.1:{free_port()}"}]}],
        "backup": estate.section(**backup),
    }


def status(proxy: Sidecar) -> Any:
    return json.loads(proxy.admin("/api/v1/status").body)


def test_the_proxy_shows_the_backups_and_keeps_the_agents_incidents(tmp_path: Path):
    estate = Estate(tmp_path)
    with Sidecar(document(estate), directory=tmp_path) as proxy:  # writes the file that the agent reads, too
        proxy.wait_until(lambda: status(proxy)["backups"] is not None, "a first look")
        assert status(proxy)["backups"]["reachable"] is False, "nobody is there yet"
        assert proxy.admin("/api/v1/backups").status == 503
        with Agent(estate) as agent:
            agent.wait_log('"backup_finished".*"verified": true')
            proxy.wait_until(lambda: status(proxy)["backups"]["reachable"], "the agent's answer")
            points = json.loads(proxy.admin("/api/v1/backups").body)
            assert [one["verified"] for one in points] == [True]
            proxy.wait_until(lambda: points[0]["id"] in proxy.admin("/").body.decode(), "the point on the page")
            estate.uploads.rename(tmp_path / "aside")
            assert agent.command("/api/v1/backups/run") == 200
            proxy.wait_until(lambda: "backup_failed" in proxy.admin("/api/v1/incidents").body.decode(), "an incident")
            (tmp_path / "aside").rename(estate.uploads)
            assert agent.command("/api/v1/backups/run") == 200
            agent.wait_log('"backup_finished".*"verified": true', count=2)
        proxy.wait_until(lambda: not status(proxy)["backups"]["reachable"], "the agent is gone")
        assert "does not answer" in proxy.admin("/").body.decode()


def test_without_a_backup_section_there_are_no_backups(tmp_path: Path):
    estate = Estate(tmp_path)
    whole = document(estate)
    del whole["backup"]
    with Sidecar(whole) as proxy:
        assert json.loads(proxy.admin("/api/v1/backups").body) == []
        assert status(proxy)["backups"] is None
