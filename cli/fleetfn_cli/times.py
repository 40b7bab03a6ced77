"""Times, durations and sizes as people read them."""

from __future__ import annotations

import time

_FAR = 3600.0
"""Seconds from which the date helps more than the distance."""

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """`43 ms`, `3.2 s`, `5 min`, `2 h`, `4 d`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 - tenths still matter
        return f"{seconds:.1f} s"
    size, unit = next(each for each in _UNITS if seconds >= each[0])
    return f"{seconds / size:.0f} {unit}"


def ago(then: float | None, now: float | None = None) -> str:
    if then is None:
        return "never"
    return f"{duration(max(0.0, (time.time() if now is None else now) - then))} ago"


def ahead(then: float, now: float) -> str:
    """`in 20 s`, and when that is where it is far off; `now` where it has passed."""
    left = then - now
    if left <= 0:
        return "now"
    return f"in {duration(left)}" + (f" ({clock(then)})" if left >= _FAR else "")


def clock(then: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))


def size(count: int) -> str:
    """`512 B`, `45 MB` (powers of 1000)."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - thousands, as the units go
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
