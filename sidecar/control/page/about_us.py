"""How available the service was, over 30 days and unknown time apart, for the page and `sidecar status`. Pure."""

from typing import Any

from sidecar.control.page.words import UNKNOWN, duration

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
