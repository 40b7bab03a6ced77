"""Durations as YAML and options write them: 500ms, 30s, 5m, 1h30m, 90d."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fleetfn.errors import FleetError
from msgspec import Meta

PATTERN = (
    r"^(?=[0-9])([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?"
    r"([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?$"
)
FORM = "a duration: numbers with d, h, m, s or ms, the largest first, e.g. 500ms, 30s, 5m, 1h30m, 90d"

Duration = Annotated[str, Meta(pattern=PATTERN, extra={"form": FORM})]

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")


class DurationError(FleetError):
    """Text that is no duration."""


def seconds(text: str) -> float:
    """`1h30m` -> 5400.0. Raises DurationError."""
    if not re.fullmatch(PATTERN, text, re.ASCII):
        raise DurationError(f'"{text}" is not {FORM}')
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def shown(value: float) -> str:
    """5400.0 -> `1h30m`: the shortest text that `seconds` reads back, to the millisecond."""
    rest = round(value * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def between(least: str, most: str) -> Callable[[str], str | None]:
    """A check for a field's Meta: what is wrong with a duration out of this range."""
    low, high = seconds(least), seconds(most)

    def check(text: str) -> str | None:
        value = seconds(text)
        if value < low:
            return f'"{text}" is too short: at least {least}'
        return f'"{text}" is too long: at most {most}' if value > high else None

    return check
