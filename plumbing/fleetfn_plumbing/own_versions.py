"""Versions of FleetFn's own dependencies as they are installed here: what it runs with, and was tried with."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection, Iterator

_FLEETFN = "fleetfn"


def pins(extras: Collection[str], without: Collection[str]) -> list[str]:
    """`name==version`, sorted: the closure of FleetFn's dependencies with these extras of it, as far as installed.
    What is reached only by way of the names in `without` is not among them.
    """
    found: dict[str, str] = {}
    waiting = [_FLEETFN]
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra or a platform that is not installed
        if name != _FLEETFN:
            found[name] = distribution.version
        asked = extras if name == _FLEETFN else ()
        waiting.extend(each for each in _needs(distribution, asked) if each not in found and each not in without)
    return sorted(f"{name}=={version}" for name, version in found.items())


def _needs(distribution: importlib.metadata.Distribution, extras: Collection[str]) -> Iterator[str]:
    """Names it requires, of itself or for these extras."""
    for requirement in distribution.requires or []:
        text, _, marker = requirement.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", marker)
        name = re.match(r"[A-Za-z0-9._-]+", text.strip())
        if name and (extra is None or extra[1] in extras):
            yield re.sub(r"[-_.]+", "-", name[0]).lower()
