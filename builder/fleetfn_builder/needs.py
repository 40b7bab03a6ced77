"""What of FleetFn a function needs in its image: extras of its wheel, and in which versions."""

from __future__ import annotations

from collections.abc import Collection

from fleetfn_plumbing import own_versions
from fleetfn_spec.function import Function

from fleetfn_builder.assembly import runtime
from fleetfn_builder.assembly.target import of_this_machine


def extras(function: Function, more: Collection[str] = ()) -> list[str]:
    """Sorted; each stands for a library that others can do without."""
    found = {"worker", "gateway", *more}
    if any(trigger.kafka is not None for trigger in function.spec.triggers):
        found.add("kafka")
    for output in function.spec.outputs:
        found |= {name for name in ("kafka", "http") if getattr(output, name) is not None}
    return sorted(found)


def constraints(python: str, extras: Collection[str]) -> list[str]:
    """Lines as in a constraints file: for this minor version of Python the versions that run here, as on a node. None
    for another one, for which these may not even exist.
    """
    return own_versions.pins(extras, runtime.WITHOUT) if python == of_this_machine().python else []
