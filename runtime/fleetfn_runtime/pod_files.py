"""What `fn deploy` has put beside a pod's image: its function and its environment, checked there, as JSON.

Reading them from YAML again, with the place of each word, would be a fifth of a start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
from fleetfn.errors import UsageError
from fleetfn_spec.anchoring import anchored
from fleetfn_spec.environments import Environment, Environments
from fleetfn_spec.function import Function

T = TypeVar("T")


class _Head(msgspec.Struct):
    """Of cluster.Head, what a worker needs."""

    function: Function


def function(head: Path) -> Function | None:
    """None: there is no such file, so the image's function.yaml says it. Raises UsageError."""
    found = _read(head, _Head)
    return None if found is None else found.function


def environment(file: Path, name: str) -> Environment | None:
    """None: nobody has put it there as JSON. Raises UsageError."""
    found = _read(file, Environments)
    for each in () if found is None else found.environments:
        if each.name == name:
            connections = [anchored(one, file.parent) for one in each.connections]
            return msgspec.structs.replace(each, connections=connections)
    return None


def _read(file: Path, kind: type[T]) -> T | None:
    try:
        text = file.read_bytes()
    except OSError:
        return None
    if not text.startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} cannot be read: {error}", hint="deploy it by the FleetFn that built the image, or build it anew"
        ) from error
