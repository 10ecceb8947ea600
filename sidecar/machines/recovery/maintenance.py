"""Maintenance windows: whether people are at work, so that nothing is done over their heads.

A window begins at a time of day, in UTC, on the days that it names, and lasts as long as it says, past midnight too.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sidecar.config.recovery import Maintenance

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def end_of_maintenance(windows: Iterable[Maintenance], now: datetime) -> datetime | None:
    """When the window that `now` (aware, UTC) lies in ends; None: it lies in none. Of several the latest end."""
    ends = [end for window in windows if (end := _end(window, now)) is not None]
    return max(ends, default=None)


def _end(window: Maintenance, now: datetime) -> datetime | None:
    hour, minute = (int(part) for part in window.start.split(":"))
    lasts = timedelta(seconds=window.lasts)
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    for back in range(int(window.lasts // 86_400) + 2):  # one that began on an earlier day may reach into now
        begin = today - timedelta(days=back)
        if (not window.days or _DAYS[begin.weekday()] in window.days) and begin <= now < begin + lasts:
            return begin + lasts
    return None
