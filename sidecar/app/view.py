"""The view: what runs, as plain data for the status page, the API and `sidecar status`. Pure.

Numbers come from the same snapshot that `/metrics` renders, so page and metrics never disagree. What is known of an
endpoint in several places (who serves, its active check, discovery) is brought together here, and summed up in one
word: `state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.base.names import Outcome
from sidecar.runtime import series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.app.worker import Endpoints, EndpointView
    from sidecar.config.document import Config
    from sidecar.config.listeners import Match
    from sidecar.config.upstreams import Upstream
    from sidecar.runtime.metrics import Snapshot

Counted = tuple[str, ...]
"""What a rate is of: `()` all requests, `(upstream, tier)` the answers of a fallback."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What everybody said when they were asked, at about the same moment."""

    snapshot: Snapshot
    endpoints: Endpoints
    breakers: list[dict[str, Any]]
    health: list[dict[str, Any]]
    """Endpoints and dependencies that are asked: the shape of `HealthChecks.view`."""
    registry: list[dict[str, Any]]
    """Upstreams and where their endpoints come from: the shape of `Neighbours.view`."""
    rates: Mapping[Counted, float]
    """Growth per second of `totals`."""
    fleet: dict[str, Any] | None = None
    """The shape of `Sharing.look`; None without `shared_state`."""


def totals(snapshot: Snapshot) -> dict[Counted, float]:
    """What `Seen.rates` are to be taken of."""
    return {(): snapshot.total(series.REQUESTS)} | {one.labels: one.value for one in snapshot.select(series.FALLBACKS)}


def view(config: Config, seen: Seen) -> dict[str, Any]:
    """`listeners`, `upstreams`, `breakers`, `shared`, `dependencies`, `fallbacks` and `traffic` of the status."""
    snapshot = seen.snapshot
    return {
        "listeners": [
            {
                "name": listener.name,
                "bind": listener.bind,
                "protocol": listener.protocol,
                "connections": int(snapshot.total(series.CONNECTIONS, listener=listener.name)),
                "tunnels": int(snapshot.total(series.TUNNELS, listener=listener.name)),
                "routes": [
                    {
                        "name": route.name,
                        "match": describe(route.match),
                        "upstream": route.upstream,
                        "requests_total": int(
                            snapshot.total(series.REQUESTS, listener=listener.name, route=route.name)
                        ),
                    }
                    for route in listener.routes
                ],
            }
            for listener in config.listeners
        ],
        "upstreams": [_upstream(upstream, seen) for upstream in config.upstreams],
        "breakers": seen.breakers,
        "shared": _shared(seen),
        "dependencies": [one for one in seen.health if one["kind"] == "dependency"],
        "fallbacks": [
            {
                "upstream": one.labels[0],
                "tier": one.labels[1],
                "total": int(one.value),
                "per_second": round(seen.rates.get(one.labels, 0.0), 1),
            }
            for one in snapshot.select(series.FALLBACKS)
        ],
        "traffic": {**_traffic(snapshot), "rps": round(seen.rates.get((), 0.0), 1)},
    }


def _shared(seen: Seen) -> dict[str, Any] | None:
    """What replicas share, with whom, and whether it can be reached; None without `shared_state`."""
    if seen.fleet is None:
        return None
    known: dict[str, Any] = next((one["fleet"] for one in seen.breakers if one["fleet"]), {})
    return {
        **seen.fleet,
        **{key: known.get(key) for key in ("replicas", "carrying", "heard_seconds_ago")},
        "own": next((one for one in seen.registry if one["kind"] == "self"), None),
    }


def _upstream(upstream: Upstream, seen: Seen) -> dict[str, Any]:
    name, snapshot = upstream.name, seen.snapshot
    checks = {one["endpoint"]: one for one in seen.health if one["kind"] == "endpoint" and one["upstream"] == name}
    found = next((one for one in seen.registry if one["kind"] == "upstream" and one["upstream"] == name), None)
    origins = {one["address"]: one["origin"] for one in found["endpoints"]} if found else {}
    return {
        "name": name,
        "inflight": int(snapshot.total(series.INFLIGHT, upstream=name)),
        "pending": int(snapshot.total(series.PENDING_REQUESTS, upstream=name)),
        "connections": int(snapshot.total(series.UPSTREAM_CONNECTIONS, upstream=name)),
        "requests_total": int(snapshot.total(series.REQUESTS, upstream=name)),
        "discovery": _discovery(found),
        "endpoints": [
            _endpoint(one, checks.get(one.address)) | {"origin": origins.get(one.address)}
            for one in seen.endpoints.get(name, ())
        ],
    }


def _discovery(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Where an upstream's endpoints come from; None: from the configuration."""
    if found is None or found["source"] == "static":
        return None
    shown = ("source", "target", "last_success", "error", "error_at", "left_out", "refused")
    return {key: found[key] for key in shown}


def _endpoint(one: EndpointView, check: dict[str, Any] | None) -> dict[str, Any]:
    """With `state` (healthy, degraded, unhealthy, unknown, unchecked or ejected), `why`, and what its check says."""
    if one.ejected:
        reason, colon, detail = one.ejected.partition(":")
        state, why = "ejected", reason.replace("_", " ") + colon + detail
    elif check is not None:
        state, why = check["state"], check["detail"] if check["state"] in {"unhealthy", "degraded"} else ""
    else:
        state, why = "unchecked" if one.healthy else "unhealthy", ""
    told = ("check", "state", "since", "last_check", "next_check", "latency_seconds", "detail")
    return {
        **msgspec.to_builtins(one),
        "state": state,
        "why": why,
        "check": None if check is None else {key: check[key] for key in told},
    }


def _traffic(snapshot: Snapshot) -> dict[str, Any]:
    milliseconds = {
        f"p{share}_ms": None if seconds is None else round(1000 * seconds, 2)
        for share in (50, 99)
        for seconds in [snapshot.quantile(series.REQUEST_DURATION, share / 100)]
    }
    return {
        "requests_total": int(snapshot.total(series.REQUESTS)),
        "errors_total": int(errors_of(snapshot)),
        "inflight": int(snapshot.total(series.INFLIGHT)),
        **milliseconds,
    }


def errors_of(snapshot: Snapshot) -> float:
    """Requests that ended badly: by a 5xx, or by an answer of our own."""
    code, outcome = series.REQUESTS.labels.index("code"), series.REQUESTS.labels.index("outcome")
    return sum(
        one.value
        for one in snapshot.select(series.REQUESTS)
        if one.labels[code].startswith("5") or one.labels[outcome] not in {*Outcome}
    )


def describe(match: Match) -> str:
    """A match in one line, as a person would say it."""
    words = [" ".join(match.methods)] if match.methods else []
    words += [f"host {match.host}"] if match.host else []
    words += [match.path] if match.path else []
    words += [f"{match.path_prefix.rstrip('/')}/*"] if match.path_prefix else []
    words += [f"{name}: {value}" for name, value in match.headers.items()]
    return ", ".join(words) or "everything"
