"""`ctx.states(T)`: a walk over what all keys of the function keep.

In ascending order of keys (code points); only what is committed. A key that is there all the while comes exactly once;
one that comes or goes meanwhile, once or not at all: values are read a page at a time, not at one moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fleetfn.errors import FleetError, StateError
from fleetfn.state import Invocation
from fleetfn.store import Store
from fleetfn.values import Codec

T = TypeVar("T")

PAGE = 250
"""Records read at once: a page of them is in memory, and the worker's loop reads it in about a millisecond."""

_WALK = "walk states"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Keys with their encoded values, ascending; `after` is the place to go on from, None at the end."""

    values: tuple[tuple[str, bytes], ...]
    after: str | None


class Reader(Protocol):
    """Reads one stretch of the function's records. Raises StoreError."""

    def read(self, after: str | None, deadline: float | None) -> Stretch:
        """Where the caller may wait, which the store's own loop may not. Raises SealedError at `deadline` (monotonic
        seconds), FleetError on that loop.
        """
        ...

    async def read_async(self, after: str | None) -> Stretch: ...


async def stretch(store: Store, after: str | None) -> Stretch:
    page = await store.keys(after=after, limit=PAGE)
    loaded = await store.load(page.keys)
    values = ((key, each.record.value) for key, each in zip(page.keys, loaded, strict=True))
    return Stretch(tuple((key, value) for key, value in values if value is not None), page.after)


class _Unknown:
    """The function's state type, where only one handler of it is known (in tests)."""


UNKNOWN: Any = _Unknown()


class Walks:
    """Of one function. `type_`: its state type, None: it keeps no state. Whoever has its store calls `open`."""

    def __init__(self, type_: Any = UNKNOWN) -> None:
        self._type = type_
        self._reader: Reader | None = None
        self._codecs: dict[Any, Codec] = {}

    def open(self, reader: Reader) -> None:
        self._reader = reader

    def begin(self, type_: Any, invocation: Invocation, deadline: float | None) -> States[Any]:
        """Raises FleetError for another type than the function's."""
        if self._type is None:
            raise FleetError(
                "ctx.states: this function keeps no state", hint="a handler of the function must take State[T]"
            )
        if self._type is not UNKNOWN and type_ != self._type:
            raise FleetError(
                f"ctx.states({_shown(type_)}): this function keeps {_shown(self._type)}",
                hint=f"ask for ctx.states({_shown(self._type)})",
            )
        if self._reader is None:
            raise FleetError("ctx.states: there is no store here", hint="walk states in a handler, once it runs")
        codec = self._codecs.get(type_)
        if codec is None:
            codec = self._codecs[type_] = Codec(type_)
        return States(_Terms(self._reader, codec, invocation, deadline))


class _Terms(NamedTuple):
    """What one walk goes by."""

    reader: Reader
    codec: Codec
    invocation: Invocation
    deadline: float | None


class States(Generic[T]):
    """Pairs of key and value: `for` in a plain `def`, `async for` in an `async def`. Each begins at the first key.

    Values are copies: to change one, take State[T] in a handler of its key. Raises StateError, which names the key,
    for a value that cannot be decoded, and StoreError.
    """

    __slots__ = ("_terms",)

    def __init__(self, terms: _Terms) -> None:
        self._terms = terms

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return _Walk(self._terms)

    def __aiter__(self) -> AsyncIterator[tuple[str, T]]:
        return _AsyncWalk(self._terms)


class _Pages:
    """Where a walk stands."""

    def __init__(self, terms: _Terms) -> None:
        self._terms = terms
        self._after: str | None = None
        self._more = True
        self._values: deque[tuple[str, bytes]] = deque()

    def _add(self, stretch: Stretch) -> None:
        self._values.extend(stretch.values)
        self._after = stretch.after
        self._more = stretch.after is not None

    def _next(self) -> tuple[str, Any] | None:
        self._terms.invocation.check(_WALK)
        if not self._values:
            return None
        key, value = self._values.popleft()
        try:
            return key, self._terms.codec.load(value)
        except StateError as error:
            raise StateError(f"key {key!r}: {error.message}", hint=error.hint) from error


class _Walk(_Pages):
    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self

    def __next__(self) -> tuple[str, Any]:
        while (found := self._next()) is None:
            if not self._more:
                raise StopIteration
            self._add(self._terms.reader.read(self._after, self._terms.deadline))
        return found


class _AsyncWalk(_Pages):
    def __aiter__(self) -> AsyncIterator[tuple[str, Any]]:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        while (found := self._next()) is None:
            if not self._more:
                raise StopAsyncIteration
            self._add(await self._terms.reader.read_async(self._after))
        return found


def _shown(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_)) if isinstance(type_, type) else str(type_)
