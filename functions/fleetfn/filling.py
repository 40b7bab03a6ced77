"""Defaults of dataclasses, put into decoded instances.

msgspec leaves a field that the JSON lacks to the class's attribute, and encodes only what the instance itself holds
(0.22): what was decoded would lose its defaults when it is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

Fill = Callable[[Any], None]


def filler(type_: Any) -> Fill | None:
    """What completes a decoded `type_` in place; None where nothing in it needs that."""
    return _of(inspect.type_info(type_), {})


def _of(info: inspect.Type, known: dict[type, _Fields]) -> Fill | None:  # noqa: PLR0911 - one per kind of type
    match info:
        case inspect.DataclassType(cls, fields):
            return _fields(cls, fields, known, own=not hasattr(cls, "__slots__"))
        case inspect.StructType(cls, fields):
            return _fields(cls, fields, known, own=False)
        case inspect.TypedDictType(fields=fields):
            return _entries({field.name: _of(field.type, known) for field in fields})
        case inspect.ListType(item) | inspect.VarTupleType(item) | inspect.SetType(item) | inspect.FrozenSetType(item):
            return _items(_of(item, known))
        case inspect.TupleType(items):
            return _places([_of(item, known) for item in items])
        case inspect.DictType(value_type=value):
            return _values(_of(value, known))
        case inspect.UnionType(types):
            return _either(types, known)
    return None


class _Fields:
    """Completes instances of one class, those inside of them included. A class may be inside of itself."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.inner: list[tuple[str, Fill]] = []

    def __call__(self, value: Any) -> None:
        for name, default in self.defaults.items():
            value.__dict__.setdefault(name, default)
        for name, fill in self.inner:
            fill(getattr(value, name))


def _fields(cls: type, fields: tuple[inspect.Field, ...], known: dict[type, _Fields], *, own: bool) -> Fill | None:
    if cls in known:
        return known[cls]
    plain = {field.name: field.default for field in fields if own and field.default is not msgspec.NODEFAULT}
    known[cls] = whole = _Fields(plain)
    whole.inner = [(field.name, fill) for field in fields if (fill := _of(field.type, known)) is not None]
    return whole if plain or any(fill is not whole for _, fill in whole.inner) else None


def _entries(fills: dict[str, Fill | None]) -> Fill | None:
    chosen = {name: fill for name, fill in fills.items() if fill is not None}

    def fill_entries(value: dict[str, Any]) -> None:
        for name, fill in chosen.items():
            if name in value:
                fill(value[name])

    return fill_entries if chosen else None


def _items(fill: Fill | None) -> Fill | None:
    if fill is None:
        return None

    def fill_items(values: Any) -> None:
        for value in values:
            fill(value)

    return fill_items


def _places(fills: list[Fill | None]) -> Fill | None:
    def fill_places(values: Any) -> None:
        for fill, value in zip(fills, values, strict=True):
            if fill is not None:
                fill(value)

    return fill_places if any(fills) else None


def _values(fill: Fill | None) -> Fill | None:
    inside = _items(fill)
    return None if inside is None else lambda mapping: inside(mapping.values())


def _either(types: tuple[inspect.Type, ...], known: dict[type, _Fields]) -> Fill | None:
    """By the value's class: JSON decodes into at most one object, one array and one class of a union."""
    chosen = {_class(info): fill for info in types if (fill := _of(info, known)) is not None}

    def fill_either(value: Any) -> None:
        fill = chosen.get(type(value))
        if fill is not None:
            fill(value)

    return fill_either if chosen else None


_CONTAINERS = {
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.VarTupleType: tuple,
    inspect.TupleType: tuple,
    inspect.DictType: dict,
    inspect.TypedDictType: dict,
}


def _class(info: inspect.Type) -> type:
    return _CONTAINERS.get(type(info)) or info.cls  # type: ignore[attr-defined]  # others that fill are classes
