"""Sizes as options write them: 500MB, 2GB, 1.5GiB."""

from __future__ import annotations

import re

from fleetfn.errors import FleetError

FORM = "a size: a number with kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024), e.g. 2GB"

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgt", 1)
    for ending, base in (("b", 1000), ("ib", 1024), ("", 1000))
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.ASCII)


class SizeError(FleetError):
    """Text that is no size."""


def size(text: str) -> int:
    """`2GB` -> 2_000_000_000 bytes. Raises SizeError."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise SizeError(f'"{text}" is not {FORM}')
    return int(float(match[1]) * _UNITS[match[2]])
