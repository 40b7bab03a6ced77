"""`Config[T]`: the function's `config:` as a T, converted and checked once, when the handler is bound."""

from __future__ import annotations

from typing import Annotated, TypeVar

T = TypeVar("T")


class ConfigMark:
    """How the binder tells `Config[Limits]` from a payload `Limits`."""

    __slots__ = ()


# An alias, so that type checkers and the handler see a plain T: `limits.hot`, not `limits.value.hot`.
Config = Annotated[T, ConfigMark()]
