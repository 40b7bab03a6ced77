"""What a key's state starts with: `T()`."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, is_typeddict

from fleetfn.values import Codec


def default_maker(type_: Any, codec: Codec) -> tuple[Callable[[], Any], str]:
    """How to make a new T, and why that fails ('' if it does not): T() must work, and its value be storable."""
    make = _maker(type_)
    if make is None:
        return _nothing, "it has no default to start from"
    try:
        codec.check(codec.encode(make()))
    except Exception as error:  # noqa: BLE001 - a user's constructor may raise anything
        return make, f"it has no default to start from: {error}"
    return make, ""


def _maker(type_: Any) -> Callable[[], Any] | None:
    origin = get_origin(type_)
    if type_ is Any or (origin in {Union, UnionType} and NoneType in get_args(type_)):
        return _nothing
    if is_typeddict(type_):
        return dict
    base = origin or type_
    return base if isinstance(base, type) else None


def _nothing() -> None:
    return None
