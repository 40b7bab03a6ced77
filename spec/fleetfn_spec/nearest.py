"""The nearest known name to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """`did you mean "kafka"? known: http, kafka`."""
    names = sorted(set(known))
    near = nearest(name, names)
    listed = f"{what}: {', '.join(names)}" if names else f"{what}: none"
    return f'did you mean "{near}"? {listed}' if near else listed
