"""Reading a few values out of a JSON payload by one decode that skips the rest.

The paths become nested msgspec Structs that know only these fields. Whatever such a decoder refuses (an object where
text is expected, a list where an object is) is read again the plain way, which decides.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from fleetfn.values import explain

Path = tuple[str, ...]
Read = Callable[[bytes], tuple[object, ...]]


MISSING = msgspec.UNSET
"""Stands where a payload has no such place."""


class NotJsonError(Exception):
    """The payload is no JSON: what it is (`not UTF-8: ...`)."""


def compile_paths(paths: Sequence[Path]) -> Read:
    """A function payload -> values, in the order of `paths`; MISSING where the payload has no such place."""
    if not paths:
        return lambda _data: ()
    if _needs_walk(paths):
        return lambda data: _walked(data, paths)
    shape, attributes = _shape(paths)
    decode = msgspec.json.Decoder(shape).decode
    get = operator.attrgetter(*attributes)
    single = len(paths) == 1

    def read(data: bytes) -> tuple[object, ...]:
        try:
            found = get(decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _walked(data, paths)
        return (found,) if single else found

    return read


def _needs_walk(paths: Sequence[Path]) -> bool:
    """Indexes of lists, and paths that run through another one's end, have no Struct."""
    indexed = any(_is_index(part) for path in paths for part in path)
    nested = any(a != b and b[: len(a)] == a for a in paths for b in paths)
    return indexed or nested


def _shape(paths: Sequence[Path]) -> tuple[type[msgspec.Struct], list[str]]:
    """The Struct that reads `paths`, and the attribute of each path in it (`f0.f1`)."""
    names = {part: f"f{i}" for i, part in enumerate(dict.fromkeys(part for path in paths for part in path))}
    return _struct(dict.fromkeys(paths), names), [".".join(names[part] for part in path) for path in paths]


def _struct(paths: dict[Path, None], names: dict[str, str]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = []
    for head in dict.fromkeys(path[0] for path in paths):
        tails = {path[1:]: None for path in paths if path[0] == head and len(path) > 1}
        if tails:
            inner = _struct(tails, names)
            fields.append((names[head], inner, msgspec.field(name=head, default_factory=inner)))
        else:
            fields.append(
                (names[head], str | int | float | None | msgspec.UnsetType, msgspec.field(name=head, default=MISSING))
            )
    return msgspec.defstruct("Fields", fields, gc=False)


def _walked(data: bytes, paths: Sequence[Path]) -> tuple[object, ...]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise NotJsonError(explain(exc, data)) from exc
    return tuple(_walk(value, path) for path in paths)


def _walk(value: object, path: Path) -> object:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _is_index(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) < 10  # noqa: PLR2004 - no list is longer
