"""The Grafana dashboards, from the few lines in which they are told apart: a title, a unit, some queries.

`make generate` writes them to config/grafana. A panel's queries use `$job`, the variable at the top of each dashboard.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """One plot, figure or table. `queries`: PromQL -> legend. `kind`: Grafana's word."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    width: int = 12
    about: str = ""


_JOB = 'job=~"$job"'
_TOTAL = f"sum(rate(sidecar_requests_total{{{_JOB}}}[5m]))"


def _quantile(q: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{{{_JOB}}}[5m])))"


DASHBOARDS: dict[str, list[Panel]] = {
    "Requests": [
        Panel("Requests", "reqps", {_TOTAL: "requests"}, "stat", 6),
        Panel(
            "Errors", "percentunit",
            {f'(sum(rate(sidecar_requests_total{{{_JOB},code=~"5.."}}[5m])) or vector(0)) / {_TOTAL}': "5xx"}, "stat", 6,
            "Answers with a status of 500 and above, whoever made them.",
        ),
        Panel("p99", "s", {_quantile(0.99, "sidecar_request_duration_seconds"): "p99"}, "stat", 6),
        Panel("Availability", "percentunit", {f"min(sidecar_availability_ratio{{{_JOB}}})": "availability"}, "stat", 6),
        Panel(
            "Requests by upstream", "reqps",
            {f"sum by (upstream) (rate(sidecar_requests_total{{{_JOB}}}[5m]))": "{{upstream}}"},
        ),
        Panel(
            "Why requests failed", "reqps",
            {f'sum by (outcome) (rate(sidecar_requests_total{{{_JOB},outcome!="ok"}}[5m]))': "{{outcome}}"},
            about="The word of X-Sidecar-Decision: docs/operations.md explains each.",
        ),
        Panel(
            "Duration", "s",
            {_quantile(q, "sidecar_request_duration_seconds"): f"p{q * 100:g}" for q in (0.5, 0.9, 0.99)},
        ),
        Panel("What the proxy adds", "s", {_quantile(q, "sidecar_overhead_seconds"): f"p{q * 100:g}" for q in (0.5, 0.99)}),
        Panel(
            "In flight and waiting", "short",
            {
                f"sum by (upstream) (sidecar_inflight_requests{{{_JOB}}})": "{{upstream}} in flight",
                f"sum by (upstream) (sidecar_pending_requests{{{_JOB}}})": "{{upstream}} waiting",
            },
        ),
        Panel(
            "Retries", "reqps",
            {
                f"sum by (upstream, reason) (rate(sidecar_retries_total{{{_JOB}}}[5m]))": "{{upstream}} after {{reason}}",
                f"sum by (upstream, reason) (rate(sidecar_retries_refused_total{{{_JOB}}}[5m]))": "{{upstream}} refused: {{reason}}",
            },
        ),
        Panel("Bytes", "Bps", {f"sum by (listener, direction) (rate(sidecar_bytes_total{{{_JOB}}}[5m]))": "{{listener}} {{direction}}"}),
        Panel(
            "The program", "short",
            {
                f"sum by (instance) (sidecar_process_resident_memory_bytes{{{_JOB}}}) / 1048576": "{{instance}} MiB",
                f"sum by (instance) (sidecar_connections{{{_JOB}}})": "{{instance}} connections",
            },
        ),
        Panel("Event loop lag, p99", "s", {_quantile(0.99, "sidecar_event_loop_lag_seconds", ", instance"): "{{instance}}"}),
    ],
    "Breakers": [
        Panel(
            "Open breakers", "short",
            {f'sum by (upstream) (sidecar_breaker_state{{{_JOB},state="open"}})': "{{upstream}}"},
            about="How many replicas have it open. Open means refusing.",
        ),
        Panel("Refused", "reqps", {f"sum by (upstream, mode) (rate(sidecar_breaker_rejected_total{{{_JOB}}}[5m]))": "{{upstream}} ({{mode}})"}),
        Panel(
            "Changes", "short",
            {f"sum by (upstream, to, reason) (increase(sidecar_breaker_transitions_total{{{_JOB}}}[5m]))": "{{upstream}} → {{to}}: {{reason}}"},
        ),
        Panel("Fallback answers", "reqps", {f"sum by (upstream, tier) (rate(sidecar_fallbacks_total{{{_JOB}}}[5m]))": "{{upstream}} {{tier}}"}),
        Panel(
            "Endpoints out", "short",
            {f"count by (upstream, endpoint) (sidecar_upstream_healthy{{{_JOB}}} == 0)": "{{upstream}} {{endpoint}}"},
            about="Replicas that see the endpoint unhealthy or ejected.",
        ),
        Panel("Ejections", "short", {f"sum by (upstream, reason) (increase(sidecar_outlier_ejections_total{{{_JOB}}}[5m]))": "{{upstream}}: {{reason}}"}),
        Panel(
            "Dependencies", "short",
            {f'sum by (dependency, status) (sidecar_dependency_status{{{_JOB},status!="healthy"}})': "{{dependency}} {{status}}"},
        ),
        Panel("Time of a verdict", "s", {_quantile(q, "sidecar_breaker_decision_seconds"): f"p{q * 100:g}" for q in (0.5, 0.99, 0.999)}),
        Panel(
            "Shared state", "s",
            {
                f"max by (instance) (sidecar_shared_state_staleness_seconds{{{_JOB}}})": "{{instance}} age",
                f"1 - min by (instance) (sidecar_shared_state_connected{{{_JOB}}})": "{{instance}} cut off",
            },
        ),
    ],
    "Incidents": [
        Panel("Open incidents", "short", {f"max(sidecar_incidents_open{{{_JOB}}})": "open"}, "stat", 6),
        Panel("Availability", "percentunit", {f"min(sidecar_availability_ratio{{{_JOB}}})": "availability"}, "stat", 6),
        Panel(
            "Recoveries that were proved", "percentunit",
            {
                f'sum(increase(sidecar_recovery_attempts_total{{{_JOB},result="verified"}}[30d]))'
                f' / sum(increase(sidecar_recovery_attempts_total{{{_JOB},result=~"verified|failed"}}[30d]))': "share"
            },
            "stat", 6,
        ),
        Panel(
            "Mean time to resolve, to acknowledge", "s",
            {
                f"max(sidecar_mttr_seconds{{{_JOB}}})": "MTTR",
                f"max(sidecar_mtta_seconds{{{_JOB}}})": "MTTA",
            },
            "stat", 6,
        ),
        Panel(
            "From start to detection, to a notice, to response, to end", "s",
            {
                _quantile(0.9, f"sidecar_incident_{step}_seconds"): f"{step}, p90"
                for step in ("detect", "notify", "ack", "resolve")
            },
        ),
        Panel(
            "Notices", "short",
            {
                f"sum by (receiver, result) (increase(sidecar_notifications_total{{{_JOB}}}[5m]))": "{{receiver}}: {{result}}",
                f"sum(sidecar_notifications_waiting{{{_JOB}}})": "waiting",
            },
        ),
        Panel(
            "Error budget burn (objective 99.9 %)", "short",
            {f"sidecar:error_budget_burn:{window}{{{_JOB}}}": window for window in ("5m", "1h", "6h")},
        ),
        Panel(
            "Recovery attempts", "short",
            {f"sum by (strategy, result) (increase(sidecar_recovery_attempts_total{{{_JOB}}}[5m]))": "{{strategy}}: {{result}}"},
        ),
        Panel("Recovery time", "s", {_quantile(0.95, "sidecar_recovery_duration_seconds", ", strategy"): "{{strategy}} p95"}),
    ],
    "Backups": [
        Panel("Lost by a restore now", "s", {f"max(sidecar_backup_rpo_seconds{{{_JOB}}})": "age"}, "stat", 6),
        Panel("Allowed", "s", {f"max(sidecar_backup_rpo_target_seconds{{{_JOB}}})": "target"}, "stat", 6),
        Panel("Last drill took", "s", {f"max(sidecar_backup_drill_rto_seconds{{{_JOB}}})": "RTO"}, "stat", 6),
        Panel(
            "Since the last proved restore", "s",
            {f"time() - max(sidecar_backup_drill_last_success_timestamp_seconds{{{_JOB}}})": "age"}, "stat", 6,
        ),
        Panel(
            "Age of the newest verified point", "s",
            {
                f"max by (instance) (sidecar_backup_rpo_seconds{{{_JOB}}})": "{{instance}}",
                f"max(sidecar_backup_rpo_target_seconds{{{_JOB}}})": "target",
            },
        ),
        Panel("Runs", "short", {f"sum by (source, kind, result) (increase(sidecar_backup_runs_total{{{_JOB}}}[1h]))": "{{source}} {{kind}}: {{result}}"}),
        Panel("Duration, p95", "s", {_quantile(0.95, "sidecar_backup_duration_seconds", ", source"): "{{source}}"}),
        Panel("Added", "Bps", {f"sum by (source) (rate(sidecar_backup_bytes_added_total{{{_JOB}}}[1h]))": "{{source}}"}),
        Panel("Verified", "short", {f"sum by (level, result) (increase(sidecar_backup_verify_total{{{_JOB}}}[1h]))": "{{level}}: {{result}}"}),
        Panel("Continuous copy behind", "s", {f"max by (source) (sidecar_backup_replication_lag_seconds{{{_JOB}}})": "{{source}}"}),
    ],
}  # fmt: skip


def render(name: str) -> str:
    """The dashboard `name` as Grafana imports it (schema of Grafana 9 and later)."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(DASHBOARDS[name], 1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > 24:
            x, y = 0, y + height
        panels.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x += panel.width
        if x >= 24:
            x, y = 0, y + height
    whole = {
        "uid": f"sidecar-{name.lower()}",
        "title": f"Sidecar: {name.lower()}",
        "tags": ["sidecar"],
        "schemaVersion": 37,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_datasource(), _jobs()]},
        "links": [{"type": "dashboards", "tags": ["sidecar"], "title": "More", "asDropdown": True}],
        "panels": panels,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _jobs() -> dict[str, Any]:
    return {
        "name": "job",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(sidecar_build_info, job)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        **({"description": panel.about} if panel.about else {}),
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries.items())
        ],
    }


def generated() -> dict[str, Callable[[], str]]:
    """Path from the repository's root -> what makes its text."""
    return {f"config/grafana/{name.lower()}.json": lambda name=name: render(name) for name in DASHBOARDS}
