"""What differs between two values, field by field: of a function and its environment, or of a cluster's object."""

from __future__ import annotations

from typing import Any

import msgspec

from fleetfn_spec.control import Change


def differences(field: str, old: Any, new: Any) -> list[Change]:
    """Paths of dictionaries' keys and lists' members (by their `name` where they have one) whose values differ."""
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list) and _named(old) and _named(new):
        old, new = ({each["name"]: each for each in side} for side in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            change
            for name in names
            for change in differences(f"{field}.{name}".lstrip("."), old.get(name), new.get(name))
        ]
    return [Change(field, old, new)]


def whole(value: Any) -> Any:
    """As plain values with defaults written out, so that a change from a default shows what it was."""
    if isinstance(value, msgspec.Struct):
        return {field: whole(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [whole(each) for each in value]
    return None if value is msgspec.UNSET else value


def _named(members: list[Any]) -> bool:
    return all(isinstance(each, dict) and "name" in each for each in members)
