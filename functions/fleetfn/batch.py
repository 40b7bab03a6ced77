"""`Batch[T]`: several events' payloads at once, for handlers that do together what is cheaper together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

T_co = TypeVar("T_co", covariant=True)


class Batch(Sequence[T_co]):
    """Ask for it by type: `readings: Batch[Reading]`. One payload per event, in the order in which they came.

    The handler returns None (all are done), or a list with one entry per event: an output, None, Retry(...) or
    Reject(...).
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[T_co]) -> None:
        self._items = tuple(items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> T_co: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...

    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        return self._items[index]

    def __repr__(self) -> str:
        return f"Batch({list(self._items)!r})"
