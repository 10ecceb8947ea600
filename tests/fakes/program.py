"""A program that the admin interface can be put in front of: settable answers, recorded commands."""

import copy
from typing import Any

from sidecar.control.admin import ReloadResult
from sidecar.runtime.metrics import Registry, Snapshot
from sidecar.runtime.series import REQUESTS

STATUS: dict[str, Any] = {
    "service": "orders",
    "instance": "orders-7d9f",
    "version": "0.1.0",
    "pid": 4711,
    "uptime_seconds": 93784,
    "state": "ready",
    "workers": 2,
    "config": {
        "path": "/etc/sidecar/sidecar.yaml",
        "hash": "9f86d081884c7d659a2feaa0c55ad015",
        "loaded_at": "2026-01-02T03:04:05Z",
        "last_reload_ok": True,
        "last_reload_error": None,
        "restart_needed": [],
    },
    "listeners": [
        {
            "name": "inbound",
            "bind": "0.0.0.0:8080",
            "protocol": "http",
            "connections": 64,
            "routes": [{"name": "all", "match": "everything", "upstream": "app", "requests_total": 1234567}],
        },
        {
            "name": "outbound",
            "bind": "127.0.0.1:15001",
            "protocol": "http",
            "connections": 3,
            "routes": [
                {
                    "name": "pay",
                    "match": "host payments.internal, path /v1/…, GET POST, x-tier: gold",
                    "upstream": "payments",
                    "requests_total": 8123,
                },
                {"name": "rest", "match": "everything", "upstream": "egress", "requests_total": 12},
            ],
        },
    ],
    "upstreams": [
        {
            "name": "app",
            "endpoints": [
                {"address": "127.0.0.1:8000", "priority": 0, "weight": 1, "active": 5, "idle": 12, "healthy": True}
            ],
            "inflight": 5,
            "pending": 0,
            "requests_total": 1234567,
        },
        {
            "name": "payments",
            "endpoints": [
                {"address": "10.0.0.7:8080", "priority": 0, "weight": 2, "active": 1, "idle": 4, "healthy": True},
                {"address": "10.0.0.8:8080", "priority": 1, "weight": 1, "active": 0, "idle": 0, "healthy": False},
                {"address": "[fd00::8]:8080", "priority": 1, "weight": 1, "active": 0, "idle": 0, "healthy": None},
            ],
            "inflight": 1,
            "pending": 0,
            "requests_total": 8135,
        },
    ],
    "traffic": {
        "requests_total": 1242702,
        "rps": 1833.4,
        "errors_total": 17,
        "inflight": 6,
        "p50_ms": 1.234,
        "p99_ms": 17.8,
    },
}


class FakeProgram:
    """Answers what it was told to; `commands` says what it was asked to do."""

    def __init__(self) -> None:
        self.registry_of_metrics = Registry()
        self.registry_of_metrics.cell(REQUESTS, "inbound", "all", "app", "GET", "200", "ok").value = 3
        self.state = copy.deepcopy(STATUS)
        self.is_live = self.is_ready = self.is_started = self.is_service_live = True
        self.reloaded = ReloadResult(True, "reloaded", ["upstreams.app.connect_timeout: 1s -> 2s"])
        self.commands: list[str] = []

    async def metrics(self) -> Snapshot:
        return self.registry_of_metrics.snapshot()

    async def status(self) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    async def breakers(self) -> list[dict[str, Any]]:
        return [{"upstream": "app", "state": "closed"}]

    async def health(self) -> list[dict[str, Any]]:
        return []

    async def registry(self) -> list[dict[str, Any]]:
        return []

    def config(self) -> dict[str, Any]:
        return {"version": 1}

    def live(self) -> bool:
        return self.is_live

    def ready(self) -> bool:
        return self.is_ready

    def started(self) -> bool:
        return self.is_started

    def service_live(self) -> bool:
        return self.is_service_live

    async def drain(self) -> None:
        self.commands.append("drain")

    async def reload(self) -> ReloadResult:
        self.commands.append("reload")
        return self.reloaded

    async def stop(self) -> None:
        self.commands.append("stop")
