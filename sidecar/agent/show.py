"""A point as plain data, for the commands, the API and the status page."""

from typing import Any

from sidecar.agent.ports import Manifest
from sidecar.agent.verdicts import Verification


def as_plain(point: Manifest, seen: Verification | None) -> dict[str, Any]:
    """`verified` is true, false or null (nobody looked yet); `level` says how thoroughly."""
    at = point.consistent_at
    return {
        "id": point.id,
        "consistent_at": None if at is None else at.isoformat(),
        "finished_at": point.finished_at.isoformat(),
        "complete": point.complete,
        "requested": point.requested,
        "verified": None if seen is None else seen.ok,
        "level": None if seen is None else seen.level,
        "bytes": sum(source.bytes for source in point.sources),
        "bytes_added": sum(source.bytes_added for source in point.sources),
        "sources": [
            {"name": source.name, "sort": source.sort, "kind": source.kind, "parent": source.parent,
             "files": source.files, "bytes": source.bytes, "bytes_added": source.bytes_added}
            for source in point.sources
        ],
        "failures": [{"name": failure.name, "reason": failure.reason} for failure in point.failures],
    }  # fmt: skip
