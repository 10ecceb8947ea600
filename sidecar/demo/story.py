"""What the proxy logs, told in sentences, with the address where to look for more.

Sentences are for the events that the demo is about; every other event is told as it is.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from sidecar.demo.teller import Teller

_SILENT = frozenset(
    {
        "listener_bound",
        "admin_bound",
        "started",
        "agent_started",
        "agent_event",
        "backups_forgotten",
        "drill_put_off",
        "child_restarting",
        "recovery_ended",
    }
)
"""The greeting, or another event, has said it."""


def sentence(event: dict[str, Any], admin: str) -> tuple[str, str]:
    """What to say and where more of it stands. `event`: a line of the log; `admin`: the admin interface's URL."""
    match event:
        case {"event": "breaker_changed", "upstream": upstream, "new": new, "detail": detail}:
            happens = {
                "open": f"opens: {detail}; the {upstream} are left alone for some seconds",
                "half_open": "is half open: a few trial calls",
                "closed": f"closes: {detail}",
            }.get(new, f"is {new} now: {detail}")
            return f"breaker   of {upstream} {happens}", f"{admin}/api/v1/breakers"
        case {"event": "breaker_ordered", "breaker": breaker, "action": action, "by": by}:
            return f"breaker   of {breaker}: {by} says {action}", f"{admin}/api/v1/breakers"
        case {"event": "endpoint_health_changed", "upstream": upstream, "endpoint": endpoint, "now": now}:
            return f"health    {endpoint} of {upstream} is {now}{_why(event)}", f"{admin}/api/v1/health"
        case {"event": "dependency_health_changed", "dependency": dependency, "now": now}:
            return f"health    the {dependency} is {now}{_why(event)}", f"{admin}/api/v1/health"
        case {"event": "endpoint_ejected", "upstream": upstream, "endpoint": endpoint, "detail": detail}:
            return f"outlier   {endpoint} of {upstream} is passed over for {event['seconds']:g} s: {detail}", ""
        case {"event": "endpoint_readmitted", "upstream": upstream, "endpoint": endpoint}:
            return f"outlier   {endpoint} of {upstream} gets calls again", ""
        case {"event": "incident_changed", "incident": incident, "status": status, "severity": severity}:
            why = _why(event).replace(f": {severity}: ", ": ", 1)
            return f"incident  {incident} ({severity}) is {status}{why}", f"{admin}/api/v1/incidents"
        case {"event": "recovery_detected", "rule": rule}:
            return f"recovery  {rule} has a reason to act{_why(event)}", ""
        case {"event": "recovery_started", "rule": rule, "attempt": attempt}:
            return f"recovery  {rule} acts, attempt {attempt}{_why(event)}", f"{admin}/api/v1/recovery"
        case {"event": "recovery_verified", "rule": rule, "seconds": seconds}:
            return f"recovery  {rule} helped: proved {seconds:.0f} s after the fault was seen", ""
        case {"event": "child_started", "pid": pid, "restarts": restarts}:
            return f"recovery  the warehouse is process {pid} now, start {restarts + 1}", ""
        case {"event": "backup_finished", "point": point, "seconds": seconds, "verified": verified}:
            kept = "and proved by restoring a sample" if verified else "but NOT verified"
            return f"backup    {point} made in {seconds:.1f} s {kept}", f"{admin}/api/v1/backups"
        case {"event": "drill_ended", "passed": True, "rto_seconds": rto, "rpo_seconds": rpo}:
            lost = "an older state" if rpo is None else f"{rpo:.0f} s of orders lost"
            return f"drill     a backup was restored and asked: back in {rto:.1f} s, {lost}", ""
        case {"event": "backup_failed", "source": source}:
            return f"backup    of {source} failed{_why(event)}", ""
        case {"event": "backup_promise_changed", "now": now}:
            return f"backup    the RPO is {now}{_why(event)}", ""
    rest = "   ".join(f"{k}: {v}" for k, v in event.items() if v and k not in ("event", "time", "level"))
    return f"proxy     {event['event']}   {rest}", ""


def _why(event: dict[str, Any]) -> str:
    return f": {event['detail']}" if event.get("detail") else ""


async def retell(log: Path, admin: str, tell: Teller) -> None:
    """Tells what the proxy logs from now on: each line is a JSON object with time, level, event and more."""
    with log.open(encoding="utf-8") as lines:
        lines.seek(0, os.SEEK_END)
        begun = ""
        while True:
            begun += lines.readline()
            if not begun.endswith("\n"):
                await asyncio.sleep(0.1)
                continue
            line, begun = begun, ""
            try:
                event = json.loads(line)
            except ValueError:
                tell(f"proxy     {line.rstrip()}")
                continue
            if event["event"] not in _SILENT:
                tell(*sentence(event, admin))
