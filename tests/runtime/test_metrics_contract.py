"""The metrics that users' dashboards rely on are declared, and the reference tells of exactly those that are."""

import runpy
from pathlib import Path

from sidecar.runtime.series import TABLE

ROOT = Path(__file__).parents[2]

PROMISED = """
requests_total{listener,route,upstream,method,code,outcome} request_duration_seconds overhead_seconds inflight_requests
breaker_state{upstream,state} breaker_transitions_total{upstream,from,to,reason} breaker_rejected_total
breaker_decision_seconds upstream_healthy{upstream,endpoint} dependency_status{dependency,status}
outlier_ejections_total retries_total fallbacks_total{upstream,tier} shared_state_connected
shared_state_staleness_seconds recovery_attempts_total{strategy,result} recovery_duration_seconds incidents_open
incident_detect_seconds incident_ack_seconds incident_resolve_seconds availability_ratio
config_last_reload_successful config_hash event_loop_lag_seconds build_info
backup_recovery_point_timestamp_seconds backup_rpo_seconds backup_rpo_target_seconds
backup_runs_total{source,kind,result} backup_duration_seconds backup_bytes_added_total
backup_verify_total{level,result} backup_last_verified_timestamp_seconds backup_drill_rto_seconds
backup_drill_rpo_seconds backup_drill_last_success_timestamp_seconds backup_replication_lag_seconds
"""


def test_every_promised_metric_is_declared_with_its_labels():
    declared = {metric.name: metric.labels for metric in TABLE}
    for promise in PROMISED.split():
        name, _, labels = promise.removesuffix("}").partition("{")
        assert f"sidecar_{name}" in declared
        if labels:
            assert declared[f"sidecar_{name}"] == tuple(labels.split(","))


def test_the_reference_is_fresh():
    generate = runpy.run_path(str(ROOT / "scripts" / "generate.py"))
    assert (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8") == generate["metrics"]()
