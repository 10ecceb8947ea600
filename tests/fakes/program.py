"""A program that the admin interface can be put in front of: settable answers, recorded commands."""

import asyncio
import copy
from typing import Any

from sidecar.control.admin import ReloadResult
from sidecar.runtime.metrics import Registry, Snapshot
from sidecar.runtime.series import REQUESTS


def _check(state: str, detail: str = "", *, check: str = "http") -> dict[str, Any]:
    return {
        "check": check,
        "state": state,
        "since": "2026-01-02T04:50:00.000Z",
        "last_check": "2026-01-02T04:59:45.000Z",
        "next_check": "2026-01-02T05:00:15.000Z",
        "latency_seconds": 0.0123,
        "detail": detail,
    }


def _endpoint(
    address: str,
    state: str,
    *,
    why: str = "",
    active: int = 0,
    idle: int = 0,
    check: dict[str, Any] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "address": address,
        "priority": 0,
        "weight": 1,
        "active": active,
        "idle": idle,
        "healthy": state != "unhealthy",
        "ejected": why if state == "ejected" else "",
        "ejected_for_seconds": seconds,
        "state": state,
        "why": why,
        "check": check,
        "origin": "written",
    }


def _breaker(name: str, machine: str = "closed", *, left: float | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "mode": "enforce",
        "state": "closed",
        "machine": machine,
        "reason": "",
        "detail": "",
        "for_seconds": 11.8,
        "remaining_seconds": left,
        "reopened": 0,
        "consecutive_failures": 0,
        "window": {"total": 7, "failures": 0 if machine == "closed" else 5, "slow": 0, "seconds": 10.0},
        "trials": 0,
        "trial_successes": 0,
        "refused": 0 if machine == "closed" else 1204,
        "ordered_by": "",
        "ordered_why": "",
        **more,
    }


STATUS: dict[str, Any] = {
    "service": "orders",
    "instance": "orders-7d9f",
    "version": "0.1.0",
    "pid": 4711,
    "at": "2026-01-02T05:00:00.000+00:00",
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
            "discovery": None,
            "endpoints": [_endpoint("127.0.0.1:8000", "unchecked", active=5, idle=12)],
            "inflight": 5,
            "pending": 0,
            "requests_total": 1234567,
        },
        {
            "name": "payments",
            "discovery": {
                "source": "dns",
                "target": "payments.shop.svc:8080",
                "last_success": "2026-01-02T04:59:57.000+00:00",
                "error": None,
                "error_at": None,
                "left_out": 0,
                "refused": [],
            },
            "endpoints": [
                _endpoint("10.0.0.7:8080", "healthy", active=1, idle=4, check=_check("healthy")),
                _endpoint("10.0.0.8:8080", "unhealthy", why="answered 500", check=_check("unhealthy", "answered 500")),
                _endpoint("[fd00::8]:8080", "ejected", why="failure_rate: 9 of 10 calls failed", seconds=28.5),
            ],
            "inflight": 1,
            "pending": 0,
            "requests_total": 8135,
        },
    ],
    "breakers": [
        _breaker("app"),
        _breaker(
            "payments", "open", state="open", reason="consecutive_failures", detail="5 failures in a row", left=48.2
        ),
        _breaker("payments/pay", "forced_open", state="open", ordered_by="alice", ordered_why="deploy"),
        _breaker("egress", "open", mode="observe", reason="failure_rate", detail="20 of 30 calls failed", left=3.0),
    ],
    "dependencies": [
        {"kind": "dependency", "dependency": "orders-db", "parts": None} | _check("healthy", check="postgres"),
        {
            "kind": "dependency",
            "dependency": "taxes",
            "parts": [
                {"target": "https://a.example/", **_check("healthy")},
                {"target": "https://b.example/", **_check("unhealthy", "answered 503")},
            ],
        }
        | _check("degraded", "1 of 2 healthy"),
    ],
    "incidents": [
        {
            "id": "20260102-045900-a1b2",
            "title": "The breaker of payments is open: 5 failures in a row",
            "severity": "critical",
            "status": "detected",
            "acknowledged_by": "",
            "started": "2026-01-02T04:59:00.000Z",
            "impact": {"requests": 1200.0, "failed_requests": 59.0},
            "relapses": 1,
            "timeline": [
                {"at": "2026-01-02T04:59:00.000Z", "kind": "x", "subject": "y", "level": "z", "text": "closed → open"}
            ],
        },
        {
            "id": "20260102-045800-c3d4",
            "title": "Dependency taxes is degraded",
            "severity": "warning",
            "status": "acknowledged",
            "acknowledged_by": "alice",
            "started": "2026-01-02T04:58:00.000Z",
        },
    ],
    "shared": {
        "connected": False,
        "error": "Connection refused",
        "me": "orders-7d9f/1a2b3c",
        "peers": [
            {"replica": "orders-7d9f/1a2b3c", "carrying": True, "heard_seconds_ago": 12.3},
            {"replica": "orders-8c0e/4d5e6f", "carrying": False, "heard_seconds_ago": 14.0},
        ],
        "looked_seconds_ago": 12.3,
        "replicas": 5,
        "carrying": 4,
        "heard_seconds_ago": 12.3,
        "own": {"address": "10.0.0.7:8080", "told": "available"},
    },
    "certificates": [
        {
            "owner": "listener inbound",
            "file": "/run/tls/tls.crt",
            "names": ["orders.test"],
            "until": "2026-01-05",
            "state": "expires_soon",
            "refused": "",
        },
    ],
    "figures": {
        "availability": 0.99951,
        "observed_seconds": 86400.0,
        "unknown_seconds": 60.0,
        "down_seconds": 42.0,
        "incidents": 3,
        "failures": 1,
        "mtta_seconds": 95.0,
        "mttr_seconds": 600.0,
        "mtbf_seconds": None,
    },
    "fallbacks": [
        {"upstream": "payments", "tier": "cache", "total": 1213, "per_second": 12.4},
        {"upstream": "payments", "tier": "respond", "total": 0, "per_second": 0.0},
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
        self.happened = 0
        self.points: list[tuple[float | None, ...]] = []

    async def metrics(self) -> Snapshot:
        return self.registry_of_metrics.snapshot()

    async def status(self) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    async def breakers(self) -> list[dict[str, Any]]:
        return copy.deepcopy(self.state["breakers"])

    async def health(self) -> list[dict[str, Any]]:
        return []

    async def recovery(self) -> dict[str, Any]:
        return {"paused": None, "rules": []}

    async def recover(self, order: Any) -> str:
        self.commands.append(f"recover {order.action} {order.rule}".strip())
        return "done"

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

    def history(self, after: int) -> list[tuple[float | None, ...]]:
        return [point for point in self.points if (point[0] or 0) > after]

    async def news(self, seen: int) -> int:
        while self.happened <= seen:
            await asyncio.sleep(0.005)  # a test counts up in another thread
        return self.happened
