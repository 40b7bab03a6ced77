"""Durations, rates and sizes on the command line."""

from __future__ import annotations

from fleetfn.errors import FleetError, UsageError


def seconds_of(text: str, option: str) -> float:
    """`10m` -> 600.0. Raises UsageError."""
    from fleetfn_spec.durations import seconds

    try:
        return seconds(text)
    except FleetError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error


def bytes_of(text: str, option: str) -> int:
    """`2GB` -> 2_000_000_000. Raises UsageError."""
    from fleetfn_spec.sizes import size

    try:
        return size(text)
    except FleetError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error


def per_second(text: str, option: str) -> float:
    """`100/s` or `100` -> 100.0, `6/m` -> 0.1. Raises UsageError."""
    number, _, unit = text.partition("/")
    try:
        rate = float(number) / {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"{option} {text!r} is no rate", hint="For example 100/s, or 6/m.")
    return rate
