"""What is known about ourselves and our fellows, in words, for the page and for `sidecar status`. Pure.

How available the service was (over 30 days, unknown time apart), and what is shared with the other replicas over Redis.
"""

from typing import Any

from sidecar.control.page.words import UNKNOWN, duration, figure

Pairs = list[tuple[str, str]]


def availability(figures: dict[str, Any] | None) -> Pairs:
    """Of the service; empty while nothing was observed."""
    if figures is None or not figures["observed_seconds"]:
        return []
    share = figures["availability"]
    told = [
        ("Availability", UNKNOWN if share is None else f"{100 * share:.3f} %"),
        ("Observed", _long(figures["observed_seconds"])),
        ("Unknown", _long(figures["unknown_seconds"])),
        ("Incidents", f"{figures['incidents']:,}, {figures['failures']:,} with failures"),
    ]
    known = (("MTTA", "mtta_seconds"), ("MTTR", "mttr_seconds"), ("MTBF", "mtbf_seconds"))
    return told + [(name, _long(figures[key])) for name, key in known if figures[key] is not None]


def _long(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else duration(int(seconds))


def shared(found: dict[str, Any] | None) -> Pairs:
    """What replicas share; empty without `shared_state`."""
    if found is None:
        return []
    told = [("Redis", "connected" if found["connected"] else f"away: {found['error'] or 'no answer yet'}")]
    if found["replicas"] is not None:
        told.append(("Replicas", f"{found['replicas']:,}, {found['carrying']:,} with traffic"))
    if found["heard_seconds_ago"] is not None:
        told.append(("Last heard of them", f"{figure(found['heard_seconds_ago'], 'seconds')} ago"))
    own = found["own"]
    if own is not None:
        told.append(("Registered", f"{own['address']} as {own['told'] or 'not told yet'}"))
    return told
