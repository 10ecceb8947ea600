"""The view: what runs, as plain data for the status page, the API and `sidecar status`. Pure.

Numbers come from the same snapshot that `/metrics` renders, so page and metrics never disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.base.names import Outcome
from sidecar.runtime import series

if TYPE_CHECKING:
    from sidecar.app.worker import Endpoints
    from sidecar.config.document import Config
    from sidecar.config.listeners import Match
    from sidecar.runtime.metrics import Snapshot


def view(config: Config, snapshot: Snapshot, endpoints: Endpoints) -> dict[str, Any]:
    """`listeners`, `upstreams` and `traffic` of the status."""
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
        "upstreams": [
            {
                "name": upstream.name,
                "inflight": int(snapshot.total(series.INFLIGHT, upstream=upstream.name)),
                "pending": int(snapshot.total(series.PENDING_REQUESTS, upstream=upstream.name)),
                "connections": int(snapshot.total(series.UPSTREAM_CONNECTIONS, upstream=upstream.name)),
                "requests_total": int(snapshot.total(series.REQUESTS, upstream=upstream.name)),
                "endpoints": [msgspec.to_builtins(one) for one in endpoints.get(upstream.name, ())],
            }
            for upstream in config.upstreams
        ],
        "traffic": _traffic(snapshot),
    }


def _traffic(snapshot: Snapshot) -> dict[str, Any]:
    ended = snapshot.select(series.REQUESTS)
    code, outcome = series.REQUESTS.labels.index("code"), series.REQUESTS.labels.index("outcome")
    total = sum(one.value for one in ended)
    errors = sum(
        one.value for one in ended if one.labels[code].startswith("5") or one.labels[outcome] not in {*Outcome}
    )
    milliseconds = {
        f"p{share}_ms": round(1000 * (snapshot.quantile(series.REQUEST_DURATION, share / 100) or 0.0), 2)
        for share in (50, 99)
    }
    return {
        "requests_total": int(total),
        "errors_total": int(errors),
        "inflight": int(snapshot.total(series.INFLIGHT)),
        **milliseconds,
    }


def describe(match: Match) -> str:
    """A match in one line, as a person would say it."""
    words = [" ".join(match.methods)] if match.methods else []
    words += [f"host {match.host}"] if match.host else []
    words += [match.path] if match.path else []
    words += [f"{match.path_prefix.rstrip('/')}/*"] if match.path_prefix else []
    words += [f"{name}: {value}" for name, value in match.headers.items()]
    return ", ".join(words) or "everything"
