"""Every series that this program exports, declared in one table.

Theory. A metric is data: name, kind, labels, help, buckets, and how the values of several worker processes become
one. Nobody writes a metric's name anywhere else; code holds the constant of this file and asks the registry
(`runtime/metrics.py`) for a cell. A metric that nothing has asked a cell of is declared but not exported.

Rules. Base units (seconds, bytes, ratios). No label takes its values from what a client sent: no path, no host, no
method beyond the known ones. Counters end in `_total`. `docs/reference/metrics.md` is generated from this table.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar


class Counter:
    """A number that only grows. Hot code adds to `value` in place."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self, _bounds: tuple[float, ...] = ()) -> None:
        self.value: float = 0


class Gauge:
    """A number that goes up and down. Hot code sets or adds to `value` in place."""

    __slots__ = ("value",)
    kind = "gauge"

    def __init__(self, _bounds: tuple[float, ...] = ()) -> None:
        self.value: float = 0


class Histogram:
    """Observations counted per bucket; `counts` is not cumulative and has one slot more than `bounds` (+Inf)."""

    __slots__ = ("bounds", "counts", "sum")
    kind = "histogram"

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation. A value equal to a bound belongs to that bound's bucket (`le`)."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


Cell = TypeVar("Cell", Counter, Gauge, Histogram)
MergeRule = Literal["sum", "max", "min", "last"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric(Generic[Cell]):
    """One metric: what it is called, what it means, and how to make a cell of it."""

    name: str
    cell: type[Cell]
    labels: tuple[str, ...]
    help: str
    unit: str = ""
    """Base unit of the values; empty for counts and flags."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, +Inf left out."""
    merge: MergeRule = "sum"
    """How the gauges of several workers become one. Counters and histograms always add up."""
    limit: int = 1000
    """So many series at most; what comes later lands together in one series whose labels all say `other`."""


REQUEST_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OVERHEAD_BOUNDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
)  # fmt: skip
DECISION_BOUNDS = (
    0.0000005, 0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.01, 0.1,
)  # fmt: skip
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
JOB_BOUNDS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)

AnyMetric = Metric[Counter] | Metric[Gauge] | Metric[Histogram]
TABLE: list[AnyMetric] = []
"""Every metric, in the order of this file."""


def _counter(name: str, labels: str, text: str, *, unit: str = "", limit: int = 1000) -> Metric[Counter]:
    metric = Metric(name, Counter, tuple(labels.split()), text, unit=unit, limit=limit)
    TABLE.append(metric)
    return metric


def _gauge(name: str, labels: str, text: str, *, unit: str = "", merge: MergeRule = "sum") -> Metric[Gauge]:
    metric = Metric(name, Gauge, tuple(labels.split()), text, unit=unit, merge=merge)
    TABLE.append(metric)
    return metric


def _histogram(name: str, labels: str, text: str, bounds: tuple[float, ...], *, limit: int = 200) -> Metric[Histogram]:
    metric = Metric(name, Histogram, tuple(labels.split()), text, unit="seconds", bounds=bounds, limit=limit)
    TABLE.append(metric)
    return metric


# Traffic
REQUESTS = _counter(
    "sidecar_requests_total",
    "listener route upstream method code outcome",
    "Requests that ended, by the status the client got and by how it came about: a word of X-Sidecar-Decision, "
    "or ok, or client_gone. An unknown method counts as OTHER; code 0: the client left before an answer.",
    limit=5000,
)
REQUEST_DURATION = _histogram(
    "sidecar_request_duration_seconds",
    "listener route upstream",
    "From the first byte of a request's head to the last byte of its answer, as the client's side of the proxy saw it.",
    REQUEST_BOUNDS,
)
OVERHEAD = _histogram(
    "sidecar_overhead_seconds",
    "listener",
    "What the proxy itself added to a request: time spent here and not in waiting for client or upstream.",
    OVERHEAD_BOUNDS,
)
INFLIGHT = _gauge("sidecar_inflight_requests", "listener upstream", "Requests that have begun and not ended.")
BYTES = _counter(
    "sidecar_bytes_total",
    "listener direction",
    "Bytes between clients and this listener; direction in: from clients, out: to clients.",
    unit="bytes",
)
CONNECTIONS = _gauge("sidecar_connections", "listener", "Open client connections.")
TUNNELS = _gauge("sidecar_tunnels", "listener", "Open tunnels: upgraded connections and those of tcp listeners.")
ACCEPT_PAUSED = _counter(
    "sidecar_accept_paused_total",
    "listener reason",
    "Times that accepting paused; reason: max_connections, descriptors or handshakes.",
)
TLS_HANDSHAKES = _counter(
    "sidecar_tls_handshakes_total",
    "listener result",
    "TLS handshakes that ended; result: ok, resumed, refused (allowed_clients, or a certificate that has ended), "
    "failed, timeout, gave_way (to others), plain (HTTP without TLS) or gone.",
)
TLS_HANDSHAKES_INFLIGHT = _gauge("sidecar_tls_handshakes_inflight", "listener", "TLS handshakes under way.")
TLS_CERTIFICATE_EXPIRY = _gauge(
    "sidecar_tls_certificate_expiry_timestamp_seconds",
    "owner file",
    "When a file's certificates end (Unix time): a chain with its first, authorities with their last. owner: "
    "listener/NAME or upstream/NAME.",
    unit="seconds",
    merge="max",
)
TLS_CERTIFICATE_WARNING = _gauge(
    "sidecar_tls_certificate_warning_timestamp_seconds",
    "owner file",
    "From when on the end of a file's certificates is warned of (Unix time), as expiry_warning says.",
    unit="seconds",
    merge="max",
)
TLS_CERTIFICATE_LOADS = _counter(
    "sidecar_tls_certificate_loads_total",
    "owner result",
    "Changed files of a tls section; result: ok, or refused (what was there before serves on).",
)

# Upstreams
UPSTREAM_CONNECTIONS = _gauge(
    "sidecar_upstream_connections", "upstream", "Open connections to an upstream, idle ones too."
)
UPSTREAM_CONNECTS = _counter(
    "sidecar_upstream_connects_total", "upstream result", "Connections tried; result: ok, refused, tls or error."
)
PENDING_REQUESTS = _gauge("sidecar_pending_requests", "upstream", "Requests that wait for a connection.")
UPSTREAM_HEALTHY = _gauge(
    "sidecar_upstream_healthy",
    "upstream endpoint",
    "1: the endpoint takes requests; 0: unhealthy or ejected.",
    merge="min",
)
RETRIES = _counter(
    "sidecar_retries_total", "upstream reason", "Tries beyond the first, by what made the one before fail."
)
RETRIES_REFUSED = _counter(
    "sidecar_retries_refused_total",
    "upstream reason",
    "Retries that a rule asked for and that were not made: budget, body, late.",
)
FALLBACKS = _counter(
    "sidecar_fallbacks_total", "upstream tier", "Answers from a fallback; tier: upstream, cache or respond."
)
OUTLIER_EJECTIONS = _counter("sidecar_outlier_ejections_total", "upstream reason", "Endpoints ejected as outliers.")

# Breakers
BREAKER_STATE = _gauge(
    "sidecar_breaker_state",
    "upstream state",
    "Exactly one of closed, open and half_open is 1. Open means refusing.",
    merge="max",
)
BREAKER_TRANSITIONS = _counter(
    "sidecar_breaker_transitions_total", "upstream from to reason", "Changes of a breaker's state, and why."
)
BREAKER_REJECTED = _counter(
    "sidecar_breaker_rejected_total",
    "upstream mode",
    "Requests a breaker refused, or in mode observe would have refused.",
)
BREAKER_DECISION = _histogram(
    "sidecar_breaker_decision_seconds", "", "Time that a breaker's verdict on one request took.", DECISION_BOUNDS
)
SHARED_STATE_CONNECTED = _gauge(
    "sidecar_shared_state_connected",
    "",
    "1: connected to the shared state; 0: this pod decides by itself.",
    merge="min",
)
SHARED_STATE_STALENESS = _gauge(
    "sidecar_shared_state_staleness_seconds", "", "Age of what is known of the fleet.", unit="seconds", merge="max"
)
SHARED_STATE_OPERATIONS = _counter(
    "sidecar_shared_state_operations_total",
    "operation result",
    "What was asked of the shared state; operation: fleet_sync, fleet, registry, tokens, connect or other; result: ok, "
    "refused or gone.",
)
FLEET_GARBLED = _counter(
    "sidecar_fleet_garbled_messages_total", "", "Messages on the fleet's channel that made no sense."
)

# Discovery and registry
DISCOVERY_UPDATES = _counter(
    "sidecar_discovery_updates_total",
    "upstream result",
    "Answers about an upstream's endpoints; result: changed, unchanged or error.",
)
DISCOVERY_ENDPOINTS = _gauge(
    "sidecar_discovery_endpoints",
    "upstream",
    "Endpoints of an upstream with discovery, those written down and those kept included.",
    merge="max",
)
DISCOVERY_LAST_SUCCESS = _gauge(
    "sidecar_discovery_last_success_timestamp_seconds", "upstream", "When discovery last got an answer (Unix time).",
    unit="seconds", merge="max",
)  # fmt: skip
REGISTRY_BEATS = _counter(
    "sidecar_registry_beats_total", "result", "Signs of life sent to the registry; result: ok, refused or unreachable."
)

# Health, recovery, incidents
DEPENDENCY_STATUS = _gauge(
    "sidecar_dependency_status",
    "dependency status",
    "Exactly one of healthy, degraded, unhealthy and unknown is 1.",
    merge="max",
)
RECOVERY_ATTEMPTS = _counter(
    "sidecar_recovery_attempts_total",
    "strategy result",
    "What recovery did; result is started, verified, failed, relapsed, dry_run or escalated (given up).",
)
RECOVERY_DURATION = _histogram(
    "sidecar_recovery_duration_seconds", "strategy", "From a fault's detection to the proof of recovery.", JOB_BOUNDS
)
INCIDENTS_OPEN = _gauge("sidecar_incidents_open", "", "Incidents that are not resolved.", merge="max")
INCIDENT_DETECT = _histogram(
    "sidecar_incident_detect_seconds", "", "From an incident's start to its detection.", JOB_BOUNDS
)
INCIDENT_ACK = _histogram(
    "sidecar_incident_ack_seconds", "", "From an incident's detection to the first response.", JOB_BOUNDS
)
INCIDENT_RESOLVE = _histogram(
    "sidecar_incident_resolve_seconds", "", "From an incident's start to its end.", JOB_BOUNDS
)
INCIDENT_NOTIFY = _histogram(
    "sidecar_incident_notify_seconds", "", "From an incident's detection until somebody was told.", JOB_BOUNDS
)
NOTIFICATIONS = _counter(
    "sidecar_notifications_total",
    "receiver result",
    "Notices about incidents; result: sent, failed (it is tried again) or dropped (it is not).",
)
NOTIFICATIONS_WAITING = _gauge("sidecar_notifications_waiting", "", "Notices that are still to be sent.", merge="max")
INCIDENT_STORE_OK = _gauge(
    "sidecar_incident_store_ok",
    "",
    "1: incidents are written down; 0: the file fails, they are in memory.",
    merge="min",
)
AVAILABILITY = _gauge(
    "sidecar_availability_ratio",
    "",
    "1 minus downtime over observed time; unknown time is in neither.",
    unit="ratio",
    merge="min",
)

OBSERVED = _gauge(
    "sidecar_observed_seconds",
    "",
    "Of the last 30 days, how long a sidecar ran and looked.",
    unit="seconds",
    merge="max",
)
UNKNOWN = _gauge(
    "sidecar_unknown_seconds",
    "",
    "Of the time since the first run within the last 30 days, how long none ran: whether it was up is not known.",
    unit="seconds",
    merge="max",
)
DOWN = _gauge(
    "sidecar_down_seconds",
    "",
    "Of the observed time, how long requests could not be served as usual because of an incident.",
    unit="seconds",
    merge="max",
)
MTTA = _gauge(
    "sidecar_mtta_seconds", "", "Mean time from detection to acknowledgement, 30 days.", unit="seconds", merge="max"
)
MTTR = _gauge(
    "sidecar_mttr_seconds", "", "Mean time from an incident's start to its end, 30 days.", unit="seconds", merge="max"
)
MTBF = _gauge(
    "sidecar_mtbf_seconds",
    "",
    "Uptime by failures, 30 days; a failure is an incident in which requests could not be served as usual.",
    unit="seconds",
    merge="min",
)
BURN_RATE = _gauge(
    "sidecar_error_budget_burn_rate",
    "window",
    "Share of failed requests by the share that incidents.objective allows; 1 uses the budget up exactly in its time.",
    merge="max",
)

# The program itself
BUILD_INFO = _gauge("sidecar_build_info", "version python", "Always 1; what runs is in the labels.", merge="max")
CONFIG_HASH = _gauge(
    "sidecar_config_hash", "", "The first 48 bits of the effective configuration's hash, as a number.", merge="last"
)
CONFIG_RELOAD_OK = _gauge(
    "sidecar_config_last_reload_successful",
    "",
    "0: the file on disk is not what runs, because it is invalid.",
    merge="min",
)
CONFIG_RELOAD_TIME = _gauge(
    "sidecar_config_last_reload_timestamp_seconds", "", "When the running configuration was loaded (Unix time).",
    unit="seconds", merge="max",
)  # fmt: skip
EVENT_LOOP_LAG = _histogram(
    "sidecar_event_loop_lag_seconds", "", "How late the event loop runs what is due, probed twice a second.", LAG_BOUNDS
)
RESIDENT_MEMORY = _gauge(
    "sidecar_process_resident_memory_bytes", "", "Resident memory of all processes of the proxy.", unit="bytes"
)
WORKER_RESTARTS = _counter("sidecar_worker_restarts_total", "", "Workers that ended unasked and were started again.")
ACCESS_LOG_DROPPED = _counter(
    "sidecar_access_log_dropped_total", "", "Access log lines given up because the disk or the pipe did not keep up."
)
HAPPENINGS = _counter(
    "sidecar_happenings_total",
    "kind",
    "What happened, in this pod's every process, by the log's event: breaker_changed, child_died and the like.",
)
OBSERVER_DROPPED = _counter(
    "sidecar_observer_dropped_total", "", "Happenings of a worker that the program did not hear: it did not keep up."
)
TASK_CRASHES = _counter("sidecar_task_crashes_total", "task", "Background tasks that failed and were started again.")
SPANS_EXPORTED = _counter("sidecar_spans_exported_total", "", "Spans that the collector took.")
SPANS_DROPPED = _counter(
    "sidecar_spans_dropped_total", "reason", "Spans given up; reason: queue_full, refused or unreachable."
)
SERIES_DROPPED = _counter(
    "sidecar_metrics_series_dropped_total",
    "metric",
    "Requests for a series beyond its metric's limit; they count as `other`.",
)

# The backup agent
BACKUP_RECOVERY_POINT = _gauge(
    "sidecar_backup_recovery_point_timestamp_seconds", "", "What the newest verified backup brings back (Unix time).",
    unit="seconds", merge="max",
)  # fmt: skip
BACKUP_RPO = _gauge(
    "sidecar_backup_rpo_seconds",
    "",
    "Age of the newest verified recovery point, at scrape.",
    unit="seconds",
    merge="min",
)
BACKUP_RPO_TARGET = _gauge("sidecar_backup_rpo_target_seconds", "", "The age allowed.", unit="seconds", merge="last")
BACKUP_RUNS = _counter("sidecar_backup_runs_total", "source kind result", "Backups made or failed.")
BACKUP_DURATION = _histogram("sidecar_backup_duration_seconds", "source kind", "How long a backup took.", JOB_BOUNDS)
BACKUP_BYTES_ADDED = _counter(
    "sidecar_backup_bytes_added_total", "source", "Bytes that backups added to the repository.", unit="bytes"
)
BACKUP_CONDITIONS = _gauge(
    "sidecar_backup_conditions", "reason", "Of how many sources or parts this is wrong now; 0: of none any more.",
    merge="last",
)  # fmt: skip
BACKUP_VERIFY = _counter("sidecar_backup_verify_total", "level result", "Verifications of backups.")
BACKUP_LAST_VERIFIED = _gauge(
    "sidecar_backup_last_verified_timestamp_seconds", "", "When a backup was last verified (Unix time).",
    unit="seconds", merge="max",
)  # fmt: skip
BACKUP_DRILL_RTO = _gauge(
    "sidecar_backup_drill_rto_seconds", "", "How long the last restore drill took.", unit="seconds", merge="last"
)
BACKUP_DRILL_RPO = _gauge(
    "sidecar_backup_drill_rpo_seconds",
    "",
    "How much time the last restore drill would have lost.",
    unit="seconds",
    merge="last",
)
BACKUP_DRILL_SUCCESS = _gauge(
    "sidecar_backup_drill_last_success_timestamp_seconds", "", "When a restore drill last succeeded (Unix time).",
    unit="seconds", merge="max",
)  # fmt: skip
BACKUP_REPLICATION_LAG = _gauge(
    "sidecar_backup_replication_lag_seconds",
    "source",
    "How old a source's continuous copy in the repository is.",
    unit="seconds",
    merge="max",
)
