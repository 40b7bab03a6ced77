"""`config:` of function.yaml -> the T of `Config[T]`, strictly, with every problem and its path."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from fleetfn import values


def convert(config: Mapping[str, Any], type_: Any, *, quote: bool = True) -> tuple[Any, list[str]]:
    """The converted value, and problems as `spec.config.hot: expected float, got str 'x'`; one of the two counts.
    `quote`: problems may quote values; not where some are secrets.
    """
    problems = [f"spec.config{path}: {what}" for path, what in unknown_keys(config, type_)]
    try:
        value = _convert(config, type_)
    except (ValueError, TypeError) as error:
        problems += _each(config, type_, quote=quote) or [_located(values.explain(error, _shown(config), quote=quote))]
        return None, problems
    return value, problems


def _convert(config: Any, type_: Any) -> Any:
    if values.is_pydantic(type_):
        from pydantic import TypeAdapter  # noqa: PLC0415 - only where the user's types are pydantic's

        # As JSON: pydantic's strict mode then still takes lists for tuples and text for times.
        return TypeAdapter(type_).validate_json(msgspec.json.encode(config), strict=True)
    return msgspec.convert(config, type_, strict=True)


def _shown(config: Any) -> bytes:
    try:
        return msgspec.json.encode(config)
    except TypeError:
        return b""


def _each(config: Mapping[str, Any], type_: Any, *, quote: bool) -> list[str]:
    """A decoder stops at the first problem; field by field names them all."""
    if values.is_pydantic(type_) or not isinstance(type_, type):
        return []
    try:
        info = msgspec.inspect.type_info(type_)
        hints = get_type_hints(type_, include_extras=True)
    except (TypeError, NameError):
        return []
    problems = []
    for field in getattr(info, "fields", ()):
        if field.encode_name not in config:
            if field.required:
                problems.append(f"spec.config.{field.encode_name}: is missing")
            continue
        value = config[field.encode_name]
        try:
            msgspec.convert(value, hints[field.name], strict=True)
        except (ValueError, TypeError) as error:
            problems.append(_located(values.explain(error, _shown(value), quote=quote), f".{field.encode_name}"))
    return problems


def _located(explained: str, below: str = "") -> str:
    path, _, what = explained.partition(": ")
    if not path.startswith("$"):
        path, what = "$", explained
    return f"spec.config{below}{path[1:]}: {what[:1].lower()}{what[1:]}"


def unknown_keys(config: Any, type_: Any) -> list[tuple[str, str]]:
    """Keys that the type has no field for, at any depth, as (path, what)."""
    if values.is_pydantic(type_):
        return _unknown_to_pydantic(config, type_)
    try:
        return _unknown(config, msgspec.inspect.type_info(type_), "")
    except TypeError:
        return []


def _unknown(value: Any, info: Any, path: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    fields = {field.encode_name: field.type for field in getattr(info, "fields", ())}
    if isinstance(value, Mapping):
        if isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType | msgspec.inspect.TypedDictType):
            found += [_unknown_key(path, key, fields) for key in value if key not in fields]
        for key, part in value.items():
            inner = fields.get(key) or getattr(info, "value_type", None)
            if inner is not None:
                found += _unknown(part, inner, f"{path}.{key}")
    elif isinstance(value, list) and getattr(info, "item_type", None) is not None:
        for index, part in enumerate(value):
            found += _unknown(part, info.item_type, f"{path}[{index}]")
    if isinstance(info, msgspec.inspect.UnionType):
        structs = [part for part in info.types if not isinstance(part, msgspec.inspect.NoneType)]
        if len(structs) == 1:
            found += _unknown(value, structs[0], path)
    return found


def _unknown_to_pydantic(config: Any, type_: Any) -> list[tuple[str, str]]:
    if get_origin(type_) in {Union, UnionType}:
        models = [part for part in get_args(type_) if values.is_pydantic(part)]
        type_ = models[0] if len(models) == 1 else type_
    fields = getattr(type_, "model_fields", None) or getattr(type_, "__pydantic_fields__", None)
    if fields is None or not isinstance(config, Mapping):
        return []
    if (getattr(type_, "model_config", None) or {}).get("extra") in {"allow", "forbid"}:
        return []  # it takes them all, or says so itself
    known = {alias: field for name, field in fields.items() for alias in (name, field.alias) if alias}
    found = [_unknown_key("", key, known) for key in config if key not in known]
    for key, part in config.items():
        if key in known:
            found += [(f".{key}{path}", what) for path, what in _unknown_to_pydantic(part, known[key].annotation)]
    return found


def _unknown_key(path: str, key: str, known: Mapping[str, Any]) -> tuple[str, str]:
    import difflib  # noqa: PLC0415 - only for a message

    near = difflib.get_close_matches(str(key), list(known), 1)
    return (
        f"{path}.{key}",
        f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known: {', '.join(known)}",
    )
