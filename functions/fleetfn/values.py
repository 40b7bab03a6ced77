"""Bytes to typed values and back: one Codec per type, everything about the type decided when it is made.

msgspec reads Structs, dataclasses, TypedDicts and builtins; pydantic's types go through their TypeAdapter, since
msgspec skips their validators. pydantic is imported only where the user's types already are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from fleetfn import filling
from fleetfn.errors import DataError, StateError

_AT = re.compile(r"^(?P<what>.*) - at `(?:key in )?(?P<path>[^`]*)`$", re.DOTALL)
_BYTE = re.compile(r"^JSON is malformed: (?P<what>.*) \(byte (?P<byte>\d+)\)$")
_STEP = re.compile(r"\[(\d+)\]|\.(\w+)")
_QUOTED = 64 * 1024
"""Bytes of a body that is decoded once more, untyped, to quote the value that did not fit."""

_SHOWN = 5
"""Problems of one pydantic value that a message lists."""


class Codec:
    """Encodes and decodes one type as JSON.

    `decoder` raises ValueError or RecursionError, `decode` DataError, `load` StateError.
    """

    def __init__(self, type_: Any) -> None:
        self.type = type_
        self._upgrade: Callable[[Any], Any] | None = getattr(type_, "__upgrade__", None)
        if is_pydantic(type_):
            self.decoder, self.encode = _pydantic(type_)
        else:
            self.decoder = _complete(msgspec.json.Decoder(type_).decode, type_)
            self.encode = encode

    def decode(self, data: bytes) -> Any:
        try:
            return self.decoder(data)
        except (ValueError, RecursionError) as error:
            raise DataError(explain(error, data)) from error

    def load(self, stored: bytes) -> Any:
        """A stored value as this type; one that no longer fits goes through `T.__upgrade__`, if there is one."""
        try:
            return self.decoder(stored)
        except (ValueError, RecursionError) as error:
            if self._upgrade is not None:
                return self._upgraded(stored, self._upgrade)
            name = getattr(self.type, "__name__", self.type)
            raise StateError(
                f"the stored state does not decode as {name}: {explain(error, stored)}",
                hint=f"give the changed field a default, or {name} a static __upgrade__(old)",
            ) from error

    def _upgraded(self, stored: bytes, upgrade: Callable[[Any], Any]) -> Any:
        name = getattr(self.type, "__name__", self.type)
        try:
            return upgrade(msgspec.json.decode(stored))
        except Exception as error:
            raise StateError(
                f"{name}.__upgrade__ failed on the stored state: {type(error).__name__}: {error}",
                hint="make it accept every shape that was ever saved",
            ) from error

    def check(self, data: bytes) -> None:
        """Raises TypeError if what was encoded cannot be read back (a field of the wrong type, NaN)."""
        try:
            self.decoder(data)
        except (ValueError, RecursionError) as error:
            name = getattr(self.type, "__name__", self.type)
            raise TypeError(f"the state's value does not fit {name}: {explain(error, data)}") from error


def _complete(decode: Callable[[bytes], Any], type_: Any) -> Callable[[bytes], Any]:
    fill = filling.filler(type_)
    if fill is None:
        return decode

    def decode_complete(data: bytes) -> Any:
        value = decode(data)
        fill(value)
        return value

    return decode_complete


def is_pydantic(type_: Any) -> bool:
    """A pydantic model or pydantic dataclass, or a union or container of them."""
    return hasattr(type_, "__pydantic_validator__") or any(is_pydantic(part) for part in get_args(type_))


def _pydantic(type_: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - only where the user's types are pydantic's

    adapter: TypeAdapter[Any] = TypeAdapter(type_)
    return adapter.validate_json, lambda value: adapter.dump_json(value, by_alias=True)


def _foreign(value: Any) -> Any:
    """A pydantic model inside a dict, list or Struct."""
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is None:
        raise TypeError(f"a value of type {type(value).__name__} cannot be encoded as JSON")
    return serializer.to_python(value, mode="json", by_alias=True)


_encode = msgspec.json.Encoder(enc_hook=_foreign).encode


def encode(value: Any) -> bytes:
    """Any value as JSON: Struct, dataclass, dict, builtins, pydantic's. Raises TypeError."""
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        return serializer.to_json(value, by_alias=True)  # type: ignore[no-any-return]  # pydantic-core's
    return _encode(value)


def explain(error: Exception, data: bytes = b"", *, quote: bool = True) -> str:
    """What a decoder complains of, in one form: `$.path: expected, got`, or why `data` is no JSON at all. `quote`: with
    the value that was got.
    """
    if isinstance(error, msgspec.ValidationError):
        return _misfit(error, data if quote else b"")
    if isinstance(error, msgspec.DecodeError):
        match = _BYTE.match(str(error))
        where = f"{match['what']} at byte {match['byte']}" if match else f"it ends too early, after byte {len(data)}"
        return f"not JSON: {where}"
    if isinstance(error, UnicodeDecodeError):
        return _broken_utf8(error, data)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if hasattr(error, "errors"):
        return "; ".join(
            _pydantic_problem(problem, quote=quote) for problem in error.errors(include_url=False)[:_SHOWN]
        )
    return str(error)


def _misfit(error: msgspec.ValidationError, data: bytes) -> str:
    match = _AT.match(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), "$")
    what = what.replace("`", "")
    if " got " in what and len(data) <= _QUOTED:
        # Where the path does not lead to one value (`$[...]`), the types say enough.
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            what = f"{what} {_at(msgspec.json.decode(data), path)!r:.80}"
    return f"{path}: {what}"


def _at(value: Any, path: str) -> Any:
    """The value that msgspec's path (`$.pack.cells[3]`) leads to; its type is said already, so containers are not."""
    for index, name in _STEP.findall(path):
        value = value[int(index)] if index else value[name]
    if isinstance(value, dict | list):
        raise TypeError(path)
    return value


def _broken_utf8(error: UnicodeDecodeError, data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as whole:  # counted from the start of the body, not of the string inside it
        error = whole
    return f"not UTF-8: {error.reason} at byte {error.start}"


def _pydantic_problem(problem: Mapping[str, Any], *, quote: bool) -> str:
    if problem["type"] == "json_invalid":
        return f"not JSON: {problem['ctx']['error']}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    got = f", got {problem['input']!r:.80}" if quote else ""
    return f"${path}: {problem['msg']}{got}"


def undecodable(type_: Any) -> str:
    """Why no JSON becomes a `type_`, '' if some does: classes that neither msgspec nor pydantic knows."""
    return "" if is_pydantic(type_) else _unknown(msgspec.inspect.type_info(type_), set())


def _unknown(info: Any, seen: set[Any]) -> str:
    """The first class inside of a type that msgspec would leave to hooks, or whose validators it would skip."""
    cls: Any = getattr(info, "cls", None)
    if hasattr(cls, "__pydantic_validator__"):
        return f"pydantic's {cls.__name__} is inside of a type that pydantic does not read"
    if isinstance(info, msgspec.inspect.CustomType):
        return f"{getattr(cls, '__name__', cls)} is no type that JSON decodes into"
    if cls is not None:
        if cls in seen:
            return ""
        seen.add(cls)
    parts = [field.type for field in getattr(info, "fields", ())]
    parts += [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    parts += getattr(info, "types", ()) or getattr(info, "item_types", ())
    return next(filter(None, (_unknown(part, seen) for part in parts if isinstance(part, msgspec.inspect.Type))), "")
